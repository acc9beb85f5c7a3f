//! The configuration: one TOML file, overridden by `EDGE_AGENT_*` variables, checked once at start.
//!
//! Nothing is read again later and nothing is bound before everything is checked. Errors name the key or variable.

use std::{
    collections::HashMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::Deserialize;
use toml::{Table, Value};

use crate::{
    broker::{Anonymous, Tls, Users, UsersError},
    buffer::WhenFull,
    clock::Source,
    decode::{Decoders, GenericRoute, Route},
    kafka::{Kafka, RawKafka, UNSEEN_CREDENTIALS},
    mqtt::{Mqtt, RawMqtt},
};

/// Checked settings.
#[derive(Debug)]
pub struct Config {
    /// The file they came from, to be read again at SIGHUP.
    pub file: PathBuf,
    /// Name of this agent, part of every id.
    pub agent: String,
    /// Where the buffer lives.
    pub data_dir: PathBuf,
    /// Where MQTT clients connect.
    pub mqtt: Mqtt,
    /// Who may connect without a user.
    pub anonymous: Anonymous,
    /// Users and access lists.
    pub users: Users,
    /// Where `/status` and `/metrics` are served.
    pub admin_listen: SocketAddr,
    /// How Redpanda is reached.
    pub kafka: Kafka,
    /// Limits of the buffer.
    pub buffer: crate::buffer::Limits,
    /// Buffered messages older than this are dropped.
    pub max_age: Option<Duration>,
    /// Whose word is taken for the time.
    pub clock_source: Source,
    /// How long messages wait for the time.
    pub clock_wait: Duration,
    /// Which topics are captured and how they are decoded.
    pub decoders: Decoders,
    /// Where a device is.
    pub locations: HashMap<String, String>,
}

/// What is wrong with the configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file is not TOML, or a key is unknown or of the wrong type.
    #[error("{path}: {message}")]
    Toml {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        message: String,
    },
    /// The file of users cannot be used.
    #[error("mqtt.users_file: {0}")]
    Users(#[from] UsersError),
    /// A value is not usable.
    #[error("{key}: {message}")]
    Value {
        /// The key, or the variable that set it.
        key: String,
        /// What is wrong and what would do.
        message: String,
    },
}

/// Variables that override a key of the file. A number or a boolean is taken as such where the key wants one.
const OVERRIDES: [(&str, &[&str]); 23] = [
    ("EDGE_AGENT_AGENT", &["agent"]),
    ("EDGE_AGENT_DATA_DIR", &["data_dir"]),
    ("EDGE_AGENT_MQTT_LISTEN", &["mqtt", "listen"]),
    ("EDGE_AGENT_MQTT_ANONYMOUS", &["mqtt", "anonymous"]),
    ("EDGE_AGENT_MQTT_USERS_FILE", &["mqtt", "users_file"]),
    ("EDGE_AGENT_MQTT_MAX_CONNECTIONS", &["mqtt", "max_connections"]),
    ("EDGE_AGENT_MQTT_TLS_LISTEN", &["mqtt", "tls", "listen"]),
    (
        "EDGE_AGENT_MQTT_WEBSOCKET_LISTEN",
        &["mqtt", "websocket", "listen"],
    ),
    ("EDGE_AGENT_ADMIN_LISTEN", &["admin", "listen"]),
    ("EDGE_AGENT_KAFKA_BOOTSTRAP", &["kafka", "bootstrap"]),
    ("EDGE_AGENT_KAFKA_SECURITY", &["kafka", "security"]),
    ("EDGE_AGENT_KAFKA_CA_FILE", &["kafka", "ca_file"]),
    ("EDGE_AGENT_KAFKA_USERNAME", &["kafka", "username"]),
    ("EDGE_AGENT_KAFKA_PASSWORD_FILE", &["kafka", "password_file"]),
    ("EDGE_AGENT_KAFKA_MECHANISM", &["kafka", "mechanism"]),
    ("EDGE_AGENT_KAFKA_ALLOW_PLAINTEXT", &["kafka", "allow_plaintext"]),
    ("EDGE_AGENT_BUFFER_MAX_BYTES", &["buffer", "max_bytes"]),
    (
        "EDGE_AGENT_BUFFER_COMMIT_INTERVAL_MS",
        &["buffer", "commit_interval_ms"],
    ),
    ("EDGE_AGENT_BUFFER_COMMIT_BYTES", &["buffer", "commit_bytes"]),
    ("EDGE_AGENT_BUFFER_WHEN_FULL", &["buffer", "when_full"]),
    ("EDGE_AGENT_BUFFER_MAX_AGE_HOURS", &["buffer", "max_age_hours"]),
    ("EDGE_AGENT_CLOCK_SOURCE", &["clock", "source"]),
    ("EDGE_AGENT_CLOCK_WAIT_SECONDS", &["clock", "wait_seconds"]),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    agent: String,
    data_dir: PathBuf,
    #[serde(default)]
    mqtt: RawMqtt,
    #[serde(default)]
    admin: RawAdmin,
    kafka: RawKafka,
    #[serde(default)]
    buffer: RawBuffer,
    #[serde(default)]
    clock: RawClock,
    /// Added to the built-in routes.
    #[serde(default)]
    routes: Vec<Route>,
    #[serde(default)]
    generic: Vec<GenericRoute>,
    #[serde(default)]
    locations: HashMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawAdmin {
    listen: SocketAddr,
}

impl Default for RawAdmin {
    fn default() -> Self {
        Self {
            listen: ([127, 0, 0, 1], 9180).into(),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawBuffer {
    max_bytes: u64,
    commit_interval_ms: u64,
    commit_bytes: usize,
    when_full: WhenFull,
    max_age_hours: Option<u32>,
}

impl Default for RawBuffer {
    fn default() -> Self {
        // 4 GiB hold some ten million readings: weeks of a house, on a card that has room for it.
        Self {
            max_bytes: 4 << 30,
            commit_interval_ms: 3,
            commit_bytes: 32 * 1024,
            when_full: WhenFull::default(),
            max_age_hours: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawClock {
    source: Source,
    wait_seconds: u64,
}

impl Default for RawClock {
    fn default() -> Self {
        Self {
            source: Source::default(),
            wait_seconds: 120,
        }
    }
}

/// A handful of segments of 2 MiB, and sled's own file.
const MIN_BUFFER_BYTES: u64 = 16 << 20;
/// A group must fit the reader's guard with one captured payload on top.
const MAX_COMMIT_BYTES: usize = 256 * 1024;
/// An agent's name stands in every id.
const MAX_AGENT_BYTES: usize = 32;

impl Config {
    /// Reads `file`, applies the variables `env` gives, and checks everything.
    pub fn load(file: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let raw = read(file, &env)?;
        let credentials = env("CREDENTIALS_DIRECTORY").map(PathBuf::from);
        Self::check(file, raw, credentials.as_deref())
    }

    /// The check of a configuration that is the service's, made outside of it: passwords and keys that `file` does not name are
    /// taken to be the credentials that systemd gives the service alone. The second value tells whether there are such.
    pub fn check_outside(
        file: &Path,
        env: impl Fn(&str) -> Option<String>,
    ) -> Result<(Self, bool), ConfigError> {
        let inside = env("CREDENTIALS_DIRECTORY");
        let raw = read(file, &env)?;
        let strict = Self::check(file, raw, inside.as_deref().map(Path::new));
        let unseen = strict.is_err() && inside.is_none();
        let config = if unseen {
            Self::check(file, read(file, &env)?, Some(Path::new(UNSEEN_CREDENTIALS)))?
        } else {
            strict?
        };
        if !unseen {
            config.check_keys()?;
        }
        Ok((config, unseen))
    }

    /// Whether certificate and key of `[mqtt.tls]` can be used.
    pub fn check_keys(&self) -> Result<(), ConfigError> {
        let Some((_, settings)) = &self.mqtt.tls else {
            return Ok(());
        };
        match Tls::load(settings.clone()) {
            Ok(_) => Ok(()),
            Err(error) => Err(ConfigError::Value {
                key: "mqtt.tls".into(),
                message: error.to_string(),
            }),
        }
    }

    /// `credentials` is systemd's folder of credentials.
    fn check(file: &Path, raw: Raw, credentials: Option<&Path>) -> Result<Self, ConfigError> {
        let bad = |key: &str, message: String| {
            Err(ConfigError::Value {
                key: key.into(),
                message,
            })
        };
        let word = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if raw.agent.is_empty() || raw.agent.len() > MAX_AGENT_BYTES || !raw.agent.chars().all(word) {
            return bad("agent", format!("1 to {MAX_AGENT_BYTES} letters, digits, - or _"));
        }
        let kafka = match Kafka::check(raw.kafka, credentials) {
            Ok(kafka) => kafka,
            Err(error) => return bad(error.key, error.message),
        };
        if raw.buffer.max_bytes < MIN_BUFFER_BYTES {
            return bad("buffer.max_bytes", format!("at least {MIN_BUFFER_BYTES}"));
        }
        if !(512..=MAX_COMMIT_BYTES).contains(&raw.buffer.commit_bytes) {
            return bad("buffer.commit_bytes", format!("512 to {MAX_COMMIT_BYTES}"));
        }
        if raw.buffer.commit_interval_ms > 1_000 {
            return bad(
                "buffer.commit_interval_ms",
                "at most 1000: devices wait for it".into(),
            );
        }
        if raw.buffer.max_age_hours.is_some() && raw.buffer.when_full == WhenFull::Reject {
            return bad(
                "buffer.max_age_hours",
                "needs buffer.when_full = \"drop-oldest\": only with it is anything acknowledged dropped"
                    .into(),
            );
        }
        if raw.buffer.max_age_hours == Some(0) {
            return bad("buffer.max_age_hours", "at least 1".into());
        }
        let (anonymous, users_file) = (raw.mqtt.anonymous, raw.mqtt.users_file.clone());
        let mqtt = match Mqtt::check(raw.mqtt, credentials) {
            Ok(mqtt) => mqtt,
            Err(error) => return bad(error.key, error.message),
        };
        let mut routes = raw.routes;
        routes.extend(Route::defaults());
        let decoders = Decoders::new(&routes, &raw.generic).map_err(|error| ConfigError::Value {
            key: "routes".into(),
            message: error.to_string(),
        })?;
        Ok(Self {
            file: file.to_owned(),
            agent: raw.agent,
            data_dir: raw.data_dir,
            mqtt,
            anonymous,
            users: users_file
                .as_deref()
                .map(Users::load)
                .transpose()?
                .unwrap_or_default(),
            admin_listen: raw.admin.listen,
            kafka,
            buffer: crate::buffer::Limits {
                max_bytes: raw.buffer.max_bytes,
                commit_interval: Duration::from_millis(raw.buffer.commit_interval_ms),
                commit_bytes: raw.buffer.commit_bytes,
                when_full: raw.buffer.when_full,
            },
            max_age: raw
                .buffer
                .max_age_hours
                .map(|hours| Duration::from_secs(3600 * u64::from(hours))),
            clock_source: raw.clock.source,
            clock_wait: Duration::from_secs(raw.clock.wait_seconds),
            decoders,
            locations: raw.locations,
        })
    }
}

/// Where a running agent is asked. Read without a look at passwords, keys and users: who asks may not read those, and
/// systemd's credentials are there for the service alone.
#[derive(Debug, Deserialize)]
pub struct Whereabouts {
    /// Where the buffer lives.
    pub data_dir: PathBuf,
    #[serde(default)]
    admin: RawAdmin,
}

impl Whereabouts {
    /// Reads `file` and applies the variables `env` gives.
    pub fn load(file: &Path, env: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        read(file, &env)
    }

    /// Where `/status` is served.
    pub fn admin_listen(&self) -> SocketAddr {
        self.admin.listen
    }
}

fn read<T: serde::de::DeserializeOwned>(
    file: &Path,
    env: &impl Fn(&str) -> Option<String>,
) -> Result<T, ConfigError> {
    let text = std::fs::read_to_string(file).map_err(|source| ConfigError::Read {
        path: file.to_owned(),
        source,
    })?;
    let toml_error = |error: toml::de::Error| ConfigError::Toml {
        path: file.to_owned(),
        message: error.to_string(),
    };
    let mut table: Table = text.parse().map_err(toml_error)?;
    for (variable, path) in OVERRIDES {
        if let Some(value) = env(variable) {
            set(&mut table, path, &value, variable)?;
        }
    }
    table.try_into().map_err(toml_error)
}

fn set(table: &mut Table, path: &[&str], value: &str, variable: &str) -> Result<(), ConfigError> {
    let (last, sections) = path.split_last().expect("every override has a key");
    let mut table = table;
    for section in sections {
        let entry = table
            .entry((*section).to_owned())
            .or_insert_with(|| Value::Table(Table::new()));
        table = entry.as_table_mut().ok_or_else(|| ConfigError::Value {
            key: variable.into(),
            message: format!("{section} is not a section in the file"),
        })?;
    }
    let numeric = [
        "max_connections",
        "max_bytes",
        "commit_interval_ms",
        "commit_bytes",
        "max_age_hours",
        "wait_seconds",
    ];
    let value = if numeric.contains(last) {
        let number = value.parse::<i64>().ok().filter(|n| *n >= 0);
        Value::Integer(number.ok_or_else(|| ConfigError::Value {
            key: variable.into(),
            message: "a whole number that is not negative".into(),
        })?)
    } else if *last == "allow_plaintext" {
        let flag = value.parse().map_err(|_| ConfigError::Value {
            key: variable.into(),
            message: "true or false".into(),
        })?;
        Value::Boolean(flag)
    } else {
        Value::String(value.to_owned())
    };
    table.insert((*last).to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: &str = "agent = \"p0\"\ndata_dir = \"data\"\n[kafka]\nbootstrap = \"127.0.0.1:9092\"\n";

    fn load(text: &str, env: &[(&str, &str)]) -> Result<Config, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let env: HashMap<_, _> = env.iter().copied().collect();
        Config::load(file.path(), |name| env.get(name).map(|v| (*v).to_owned())).map_err(|e| e.to_string())
    }

    #[test]
    fn a_small_file_is_enough_and_closed_by_default() {
        let config = load(SMALL, &[]).unwrap();
        assert_eq!(config.anonymous, Anonymous::Loopback);
        assert!(config.mqtt.listen.ip().is_loopback() && config.admin_listen.ip().is_loopback());
        assert!(config.decoders.captures("shellyhtg3-e4b32322a0f4/events/rpc"));
        assert!(!config.decoders.captures("shellyhtg3-e4b32322a0f4/online"));
    }

    #[test]
    fn variables_win_over_the_file() {
        let env = [
            ("EDGE_AGENT_AGENT", "p1"),
            ("EDGE_AGENT_MQTT_LISTEN", "0.0.0.0:2883"),
            ("EDGE_AGENT_BUFFER_MAX_BYTES", "33554432"),
            ("EDGE_AGENT_CLOCK_SOURCE", "trusted"),
            ("EDGE_AGENT_MQTT_ANONYMOUS", "never"),
        ];
        let config = load(SMALL, &env).unwrap();
        assert_eq!(config.agent, "p1");
        assert_eq!(config.mqtt.listen.port(), 2883);
        assert_eq!(config.buffer.max_bytes, 32 << 20);
        assert_eq!(config.clock_source, Source::Trusted);
        assert_eq!(config.anonymous, Anonymous::Never);
    }

    #[test]
    fn a_file_of_users_that_is_missing_is_named() {
        let error = load(SMALL, &[("EDGE_AGENT_MQTT_USERS_FILE", "/does/not/exist.toml")]).unwrap_err();
        assert!(
            error.contains("mqtt.users_file") && error.contains("exist.toml"),
            "{error}"
        );
    }

    #[test]
    fn whoever_asks_needs_no_password_no_key_and_no_file_of_users() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "agent = \"p0\"\ndata_dir = \"/var/lib/edge-agent\"\n[kafka]\nbootstrap = \"192.0.2.1:1\"\nsecurity = \"tls\"\n\
                    username = \"p0\"\n[mqtt]\nusers_file = \"/etc/nobody/reads/this\"\n[mqtt.tls]\nlisten = \"0.0.0.0:8883\"\n";
        std::fs::write(file.path(), text).unwrap();
        assert!(Config::load(file.path(), |_| None).is_err());
        let found = Whereabouts::load(file.path(), |_| None).unwrap();
        assert_eq!(found.admin_listen(), RawAdmin::default().listen);
        let moved = |name: &str| (name == "EDGE_AGENT_ADMIN_LISTEN").then(|| "127.0.0.1:7".to_owned());
        let found = Whereabouts::load(file.path(), moved).unwrap();
        assert_eq!(found.admin_listen().port(), 7);
        assert_eq!(found.data_dir, Path::new("/var/lib/edge-agent"));
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, env: &[(&str, &str)], want: &str| {
            let error = load(text, env).unwrap_err();
            assert!(error.contains(want), "{error:?} should name {want:?}");
        };
        check("", &[], "agent");
        check(&format!("{SMALL}[mqt]\n"), &[], "mqt");
        check(&format!("{SMALL}[mqtt]\nlistn = 1\n"), &[], "listn");
        check(SMALL, &[("EDGE_AGENT_AGENT", "p 0")], "agent");
        check(
            SMALL,
            &[("EDGE_AGENT_BUFFER_MAX_BYTES", "lots")],
            "EDGE_AGENT_BUFFER_MAX_BYTES",
        );
        check(SMALL, &[("EDGE_AGENT_BUFFER_MAX_BYTES", "1")], "buffer.max_bytes");
        let tls = format!("{SMALL}[mqtt.tls]\nlisten = \"127.0.0.1:8883\"\n");
        check(&tls, &[], "mqtt.tls.certificate_file");
        check(
            &format!("{tls}client_certificate = \"required\"\n"),
            &[("CREDENTIALS_DIRECTORY", "/run/credentials")],
            "mqtt.tls.client_ca_file",
        );
        check(
            &format!("{SMALL}[mqtt.websocket]\nlisten = \"127.0.0.1:9001\"\ntls = true\n"),
            &[],
            "mqtt.websocket.tls",
        );
        check(
            &format!("{SMALL}[mqtt.limits]\nmessages_per_second = 0\n"),
            &[],
            "mqtt.limits.messages_per_second",
        );
        check(SMALL, &[("EDGE_AGENT_BUFFER_WHEN_FULL", "explode")], "when_full");
        check(SMALL, &[("EDGE_AGENT_BUFFER_MAX_AGE_HOURS", "48")], "drop-oldest");
        check(
            SMALL,
            &[("EDGE_AGENT_KAFKA_BOOTSTRAP", "nowhere")],
            "kafka.bootstrap",
        );
        check(
            SMALL,
            &[("EDGE_AGENT_KAFKA_BOOTSTRAP", "192.0.2.20:9092")],
            "kafka.security",
        );
        check(
            SMALL,
            &[("EDGE_AGENT_KAFKA_ALLOW_PLAINTEXT", "yes")],
            "EDGE_AGENT_KAFKA_ALLOW_PLAINTEXT: true or false",
        );
        check(
            &format!("{SMALL}[[routes]]\nfilter = \"a/#/b\"\ndecoder = \"shelly\"\n"),
            &[],
            "a/#/b",
        );
        assert!(
            Config::load(Path::new("/does/not/exist.toml"), |_| None)
                .unwrap_err()
                .to_string()
                .contains("exist.toml")
        );
    }
}
