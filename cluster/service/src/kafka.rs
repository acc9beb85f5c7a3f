//! How a service reaches Redpanda: brokers, TLS and login, from the environment. It makes settings and never a client, so that
//! a service without Kafka links none.

use std::path::PathBuf;

use crate::config::{ConfigError, Env, Secret};

/// Checked settings; `Debug` never prints the password.
#[derive(Clone, Debug)]
pub struct KafkaSettings {
    bootstrap: String,
    tls: Option<Tls>,
    login: Option<Login>,
}

#[derive(Clone, Debug)]
struct Tls {
    /// PEM of who signed the brokers' certificate. Without it: those this system trusts.
    ca_file: Option<PathBuf>,
}

#[derive(Clone, Debug)]
struct Login {
    username: String,
    password: Secret,
    mechanism: &'static str,
}

const MECHANISMS: [&str; 2] = ["SCRAM-SHA-256", "SCRAM-SHA-512"];

impl KafkaSettings {
    /// Reads `KAFKA_BOOTSTRAP`, `KAFKA_SECURITY` (`plaintext` or `tls`), `KAFKA_CA_FILE`, `KAFKA_USERNAME`, `KAFKA_PASSWORD` or
    /// `KAFKA_PASSWORD_FILE`, and `KAFKA_MECHANISM`. Half a login is an error: it would be refused by the broker for ever.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let bootstrap = env.required_list("KAFKA_BOOTSTRAP")?.join(",");
        let ca_file = env.optional("KAFKA_CA_FILE")?.map(PathBuf::from);
        let tls = match env.optional("KAFKA_SECURITY")?.as_deref() {
            None | Some("plaintext") if ca_file.is_some() => {
                return Err(ConfigError::invalid(
                    "KAFKA_CA_FILE",
                    "only with KAFKA_SECURITY=tls",
                ));
            }
            None | Some("plaintext") => None,
            Some("tls") => Some(Tls { ca_file }),
            Some(_) => return Err(ConfigError::invalid("KAFKA_SECURITY", "not plaintext or tls")),
        };
        if let Some(file) = tls.as_ref().and_then(|tls| tls.ca_file.as_ref()) {
            // librdkafka's own words for a missing file do not name the variable.
            std::fs::File::open(file).map_err(|error| {
                ConfigError::invalid("KAFKA_CA_FILE", format!("{}: {error}", file.display()))
            })?;
        }
        let wanted = env.optional("KAFKA_MECHANISM")?;
        let username = env.optional("KAFKA_USERNAME")?;
        let login = match (username, env.optional_secret("KAFKA_PASSWORD")?) {
            (Some(username), Some(password)) => {
                let wanted = wanted.as_deref().unwrap_or(MECHANISMS[0]);
                let mechanism = MECHANISMS.into_iter().find(|known| *known == wanted);
                let mechanism = mechanism.ok_or_else(|| {
                    ConfigError::invalid("KAFKA_MECHANISM", format!("not {}", MECHANISMS.join(" or ")))
                })?;
                Some(Login {
                    username,
                    password,
                    mechanism,
                })
            }
            (None, None) if wanted.is_none() => None,
            (None, _) => {
                return Err(ConfigError::Missing {
                    name: "KAFKA_USERNAME".to_owned(),
                });
            }
            (Some(_), None) => {
                return Err(ConfigError::Missing {
                    name: "KAFKA_PASSWORD".to_owned(),
                });
            }
        };
        Ok(Self {
            bootstrap,
            tls,
            login,
        })
    }

    /// Settings of librdkafka for any client, by name.
    pub fn properties(&self) -> Vec<(String, String)> {
        let protocol = match (&self.tls, &self.login) {
            (Some(_), Some(_)) => "sasl_ssl",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (None, None) => "plaintext",
        };
        let mut properties = vec![
            ("bootstrap.servers", self.bootstrap.clone()),
            ("security.protocol", protocol.to_owned()),
        ];
        if let Some(tls) = &self.tls {
            // Without a file: wherever this system keeps the authorities it trusts.
            let authorities = tls.ca_file.as_ref().map(|file| file.display().to_string());
            properties.push((
                "ssl.ca.location",
                authorities.unwrap_or_else(|| "probe".to_owned()),
            ));
        }
        if let Some(login) = &self.login {
            properties.extend([
                ("sasl.username", login.username.clone()),
                ("sasl.password", login.password.expose().to_owned()),
                ("sasl.mechanism", login.mechanism.to_owned()),
            ]);
        }
        properties
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, String> {
        let settings = KafkaSettings::from_env(&Env::of(pairs)).map_err(|error| error.to_string())?;
        let printed = format!("{settings:?}");
        assert!(!printed.contains("hidden"), "{printed}");
        Ok(settings.properties())
    }

    fn value<'a>(properties: &'a [(String, String)], name: &str) -> Option<&'a str> {
        let found = properties.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    #[test]
    fn a_broker_without_a_login_is_reached_in_plain_text() {
        let found = properties(&[("KAFKA_BOOTSTRAP", "a:1, b:2")]).unwrap();
        assert_eq!(value(&found, "bootstrap.servers"), Some("a:1,b:2"));
        assert_eq!(value(&found, "security.protocol"), Some("plaintext"));
        assert_eq!(found.len(), 2);
    }

    #[test]
    fn a_login_goes_with_and_without_tls() {
        let folder = tempfile::tempdir().unwrap();
        let (ca, password) = (folder.path().join("ca.pem"), folder.path().join("password"));
        std::fs::write(&ca, "").unwrap();
        std::fs::write(&password, "hidden\n").unwrap();
        let (ca, password) = (ca.to_str().unwrap(), password.to_str().unwrap());
        let login = [
            ("KAFKA_BOOTSTRAP", "a:1"),
            ("KAFKA_USERNAME", "redpanda-sink"),
            ("KAFKA_PASSWORD_FILE", password),
        ];
        let plain = properties(&login).unwrap();
        assert_eq!(value(&plain, "security.protocol"), Some("sasl_plaintext"));
        assert_eq!(value(&plain, "sasl.password"), Some("hidden"));
        assert_eq!(value(&plain, "sasl.mechanism"), Some("SCRAM-SHA-256"));
        let more = [
            ("KAFKA_SECURITY", "tls"),
            ("KAFKA_CA_FILE", ca),
            ("KAFKA_MECHANISM", "SCRAM-SHA-512"),
        ];
        let tls = properties(&[&login[..], &more].concat()).unwrap();
        assert_eq!(value(&tls, "security.protocol"), Some("sasl_ssl"));
        assert_eq!(value(&tls, "ssl.ca.location"), Some(ca));
        assert_eq!(value(&tls, "sasl.mechanism"), Some("SCRAM-SHA-512"));
        let trusted = properties(&[("KAFKA_BOOTSTRAP", "a:1"), ("KAFKA_SECURITY", "tls")]).unwrap();
        assert_eq!(value(&trusted, "security.protocol"), Some("ssl"));
        assert_eq!(value(&trusted, "ssl.ca.location"), Some("probe"));
    }

    #[test]
    fn half_a_login_and_wrong_words_are_errors_that_name_the_variable() {
        let error = |pairs: &[(&str, &str)]| {
            properties(&[&[("KAFKA_BOOTSTRAP", "a:1")], pairs].concat()).unwrap_err()
        };
        assert_eq!(properties(&[]).unwrap_err(), "KAFKA_BOOTSTRAP is not set");
        assert_eq!(error(&[("KAFKA_USERNAME", "x")]), "KAFKA_PASSWORD is not set");
        assert_eq!(
            error(&[("KAFKA_PASSWORD", "hidden")]),
            "KAFKA_USERNAME is not set"
        );
        assert_eq!(
            error(&[("KAFKA_MECHANISM", "SCRAM-SHA-256")]),
            "KAFKA_USERNAME is not set"
        );
        let login = [("KAFKA_USERNAME", "x"), ("KAFKA_PASSWORD", "hidden")];
        let plain = error(&[&login[..], &[("KAFKA_MECHANISM", "PLAIN")]].concat());
        assert!(plain.starts_with("KAFKA_MECHANISM is invalid"), "{plain}");
        assert!(error(&[("KAFKA_SECURITY", "ssl")]).starts_with("KAFKA_SECURITY is invalid"));
        assert!(error(&[("KAFKA_CA_FILE", "/x")]).starts_with("KAFKA_CA_FILE is invalid"));
        let missing = error(&[("KAFKA_SECURITY", "tls"), ("KAFKA_CA_FILE", "/nowhere/ca.pem")]);
        assert!(
            missing.starts_with("KAFKA_CA_FILE is invalid: /nowhere/ca.pem"),
            "{missing}"
        );
    }
}
