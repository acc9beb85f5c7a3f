//! How the agent reaches Redpanda: where it is, by which protocol, and as whom.
//!
//! One description serves the producer of readings and the consumer of commands. Nothing is connected here. Plain text
//! goes to this machine only, unless the configuration says otherwise. The password is read again for every client that
//! is made, so a corrected file is taken without a restart; it is never shown.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use rdkafka::ClientConfig;
use serde::Deserialize;

/// Stands for systemd's folder of credentials where a configuration is checked outside of the service, which alone sees it.
pub const UNSEEN_CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY";
/// Name of the systemd credential that holds the password.
pub const CREDENTIAL: &str = "kafka-password";

/// How the way to Redpanda is kept from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Security {
    /// TLS; the broker's certificate must be for the name or address it is reached by.
    Tls,
    /// Nothing.
    Plaintext,
}

/// How the password is shown to be known. SCRAM alone: it never sends it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Mechanism {
    /// What `rpk security user create` makes unless told otherwise.
    #[default]
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// The same with a longer hash.
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
}

/// The section `[kafka]` of the configuration, not checked.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawKafka {
    bootstrap: String,
    security: Option<Security>,
    ca_file: Option<PathBuf>,
    username: Option<String>,
    password_file: Option<PathBuf>,
    mechanism: Option<Mechanism>,
    #[serde(default)]
    allow_plaintext: bool,
}

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Kafka {
    bootstrap: String,
    security: Security,
    ca_file: Option<PathBuf>,
    login: Option<Login>,
}

#[derive(Clone, Debug)]
struct Login {
    username: String,
    password_file: PathBuf,
    mechanism: Mechanism,
}

/// What is wrong with a setting.
#[derive(Debug, thiserror::Error)]
#[error("{key}: {message}")]
pub struct WrongSetting {
    /// The key.
    pub key: &'static str,
    /// What is wrong and what would do.
    pub message: String,
}

fn wrong(key: &'static str, message: impl Into<String>) -> WrongSetting {
    WrongSetting {
        key,
        message: message.into(),
    }
}

impl Kafka {
    /// Checks the section; `credentials` is systemd's folder of credentials.
    pub fn check(raw: RawKafka, credentials: Option<&Path>) -> Result<Self, WrongSetting> {
        let servers: Vec<_> = raw.bootstrap.split(',').map(str::trim).collect();
        let host = |server: &str| {
            let (host, port) = server.rsplit_once(':')?;
            port.parse::<u16>().ok().filter(|port| *port > 0)?;
            (!host.is_empty()).then(|| host.trim_matches(['[', ']']).to_owned())
        };
        let Some(hosts) = servers
            .iter()
            .map(|server| host(server))
            .collect::<Option<Vec<_>>>()
        else {
            return Err(wrong("kafka.bootstrap", "host:port, several separated by commas"));
        };
        let outside = hosts.iter().find(|host| !is_this_machine(host));
        let security = match (raw.security, outside) {
            (Some(Security::Tls), _) => Security::Tls,
            (_, Some(host)) if !raw.allow_plaintext => {
                let message = format!(
                    "{host} is another machine and is reached in plain text only with allow_plaintext = true; \
                     security = \"tls\" is what Redpanda's listener for agents speaks"
                );
                return Err(wrong("kafka.security", message));
            }
            (Some(Security::Plaintext) | None, _) => Security::Plaintext,
        };
        if let Some(file) = &raw.ca_file {
            if security != Security::Tls {
                return Err(wrong("kafka.ca_file", "only with security = \"tls\""));
            }
            // librdkafka's own words for a missing file do not name the setting.
            std::fs::File::open(file)
                .map_err(|error| wrong("kafka.ca_file", format!("{}: {error}", file.display())))?;
        }
        let login = match raw.username {
            Some(username) if username.is_empty() => return Err(wrong("kafka.username", "is empty")),
            Some(username) => {
                let from_systemd = || Some(credentials?.join(CREDENTIAL));
                let password_file = raw.password_file.or_else(from_systemd).ok_or_else(|| {
                    let message = format!("needed with kafka.username, or a systemd credential {CREDENTIAL}");
                    wrong("kafka.password_file", message)
                })?;
                let mechanism = raw.mechanism.unwrap_or_default();
                Some(Login {
                    username,
                    password_file,
                    mechanism,
                })
            }
            None if raw.password_file.is_some() || raw.mechanism.is_some() => {
                return Err(wrong("kafka.username", "missing, though how to log in is set"));
            }
            None => None,
        };
        let kafka = Self {
            bootstrap: servers.join(","),
            security,
            ca_file: raw.ca_file,
            login,
        };
        let login = kafka.login.as_ref();
        if login.is_some_and(|login| login.password_file.starts_with(UNSEEN_CREDENTIALS)) {
            return Ok(kafka);
        }
        kafka.client("").map(|_| kafka)
    }

    /// Settings of a client that names itself after `agent`. Reads the password.
    pub fn client(&self, agent: &str) -> Result<ClientConfig, WrongSetting> {
        let mut client = ClientConfig::new();
        client
            .set("bootstrap.servers", &self.bootstrap)
            .set("client.id", format!("edge-agent/{agent}"))
            .set("reconnect.backoff.max.ms", "5000")
            .set("log.connection.close", "false")
            .set(
                "security.protocol",
                match (self.security, self.login.is_some()) {
                    (Security::Tls, true) => "sasl_ssl",
                    (Security::Tls, false) => "ssl",
                    (Security::Plaintext, true) => "sasl_plaintext",
                    (Security::Plaintext, false) => "plaintext",
                },
            );
        if self.security == Security::Tls {
            // Without a file: wherever this system keeps the authorities it trusts. A static binary has no path of its own.
            let authorities = self.ca_file.as_deref().map(Path::to_string_lossy);
            client.set("ssl.ca.location", authorities.as_deref().unwrap_or("probe"));
        }
        if let Some(login) = &self.login {
            client
                .set("sasl.username", &login.username)
                .set("sasl.password", password(&login.password_file)?)
                .set(
                    "sasl.mechanism",
                    match login.mechanism {
                        Mechanism::ScramSha256 => "SCRAM-SHA-256",
                        Mechanism::ScramSha512 => "SCRAM-SHA-512",
                    },
                );
        }
        Ok(client)
    }

    /// In words for `/status`: where, and how it is reached.
    pub fn description(&self) -> String {
        let security = match self.security {
            Security::Tls => "TLS",
            Security::Plaintext => "plain text",
        };
        match &self.login {
            Some(login) => format!("{} over {security} as {}", self.bootstrap, login.username),
            None => format!("{} over {security}", self.bootstrap),
        }
    }
}

fn is_this_machine(host: &str) -> bool {
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The first line of a file.
fn password(file: &Path) -> Result<String, WrongSetting> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| wrong("kafka.password_file", format!("{}: {error}", file.display())))?;
    match text.lines().next() {
        Some(password) if !password.is_empty() => Ok(password.to_owned()),
        _ => Err(wrong(
            "kafka.password_file",
            format!("{} is empty", file.display()),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, credentials: Option<&Path>) -> Result<Kafka, String> {
        let raw: RawKafka = toml::from_str(text).map_err(|error| error.to_string())?;
        Kafka::check(raw, credentials).map_err(|error| error.to_string())
    }

    fn refused(text: &str, want: &str) {
        let error = check(text, None).expect_err(text);
        assert!(error.contains(want), "{text}: {error:?} should name {want:?}");
    }

    #[test]
    fn plain_text_goes_to_this_machine_only_unless_switched_on() {
        let security = |text: &str| {
            let kafka = check(text, None).unwrap();
            kafka
                .client("p0")
                .unwrap()
                .get("security.protocol")
                .map(str::to_owned)
        };
        for here in [
            "127.0.0.1:9092",
            "localhost:9092",
            "[::1]:9092",
            "127.0.0.1:1, 127.0.0.2:2",
        ] {
            assert_eq!(
                security(&format!("bootstrap = {here:?}")).as_deref(),
                Some("plaintext")
            );
        }
        refused("bootstrap = \"192.0.2.20:9092\"", "kafka.security: 192.0.2.20");
        refused(
            "bootstrap = \"127.0.0.1:9092,p1.example:9092\"",
            "kafka.security: p1.example",
        );
        refused(
            "bootstrap = \"192.0.2.20:9092\"\nsecurity = \"plaintext\"",
            "allow_plaintext",
        );
        let on = "bootstrap = \"192.0.2.20:9092\"\nallow_plaintext = true";
        assert_eq!(security(on).as_deref(), Some("plaintext"));
        let tls = "bootstrap = \"192.0.2.20:9092\"\nsecurity = \"tls\"";
        assert_eq!(security(tls).as_deref(), Some("ssl"));
    }

    #[test]
    fn a_login_takes_its_password_from_a_file_or_from_systemd() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join(CREDENTIAL);
        std::fs::write(&file, "first\n").unwrap();
        let login = "bootstrap = \"192.0.2.20:9094\"\nsecurity = \"tls\"\nusername = \"p0\"";
        let named = format!("{login}\npassword_file = {file:?}\nmechanism = \"SCRAM-SHA-512\"");
        for (text, credentials, mechanism) in [
            (named.as_str(), None, "SCRAM-SHA-512"),
            (login, Some(folder.path()), "SCRAM-SHA-256"),
        ] {
            let kafka = check(text, credentials).unwrap();
            let client = kafka.client("p0").unwrap();
            let setting = |key| client.get(key);
            assert_eq!(setting("security.protocol"), Some("sasl_ssl"));
            assert_eq!(setting("sasl.username"), Some("p0"));
            assert_eq!(setting("sasl.password"), Some("first"));
            assert_eq!(setting("sasl.mechanism"), Some(mechanism));
            assert!(!format!("{kafka:?} {}", kafka.description()).contains("first"));
        }
        // A corrected password is taken by the next client.
        let kafka = check(&named, None).unwrap();
        std::fs::write(&file, "second").unwrap();
        assert_eq!(kafka.client("p0").unwrap().get("sasl.password"), Some("second"));
        std::fs::write(&file, "\n").unwrap();
        refused(&named, "is empty");
        refused(login, "kafka.password_file");
    }

    #[test]
    fn mistakes_are_named() {
        refused("bootstrap = \"nowhere\"", "kafka.bootstrap");
        refused("bootstrap = \":9092\"", "kafka.bootstrap");
        refused("bootstrap = \"127.0.0.1:0\"", "kafka.bootstrap");
        refused("bootstrap = \"127.0.0.1:kafka\"", "kafka.bootstrap");
        let here = "bootstrap = \"127.0.0.1:9092\"\n";
        refused(&format!("{here}security = \"ssl\""), "security");
        refused(&format!("{here}mechanism = \"PLAIN\""), "PLAIN");
        refused(&format!("{here}mechanism = \"SCRAM-SHA-256\""), "kafka.username");
        refused(&format!("{here}username = \"\""), "kafka.username");
        refused(
            &format!("{here}username = \"p0\"\npassword_file = \"/does/not/exist\""),
            "/does/not/exist",
        );
        refused(&format!("{here}ca_file = \"/does/not/exist\""), "kafka.ca_file");
        refused(
            &format!("{here}security = \"tls\"\nca_file = \"/does/not/exist\""),
            "/does/not/exist",
        );
    }
}
