//! Settings of the service, from environment variables.

use std::net::SocketAddr;
use std::time::Duration;

use service::{AuthSettings, ConfigError, Env, KafkaSettings, config};

use crate::protocol::PING_AFTER;

/// Connections one user may have by default: half of all, so that one user's runaway pages leave room for others.
const DEFAULT_USER_CONNECTIONS: usize = crate::seats::CONNECTIONS / 2;

/// Longest silence before a ping that is taken: a connection that is dead must be found within minutes.
const MAX_PING_SECONDS: u64 = 300;

/// Checked settings.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the public port is bound.
    pub listen_address: SocketAddr,
    /// Where the admin port is bound.
    pub metrics_address: SocketAddr,
    /// Brokers and login.
    pub kafka: KafkaSettings,
    /// Whose tokens are believed.
    pub auth: AuthSettings,
    /// Origins of pages that may connect; empty means pages of the same host only.
    pub allowed_origins: Vec<String>,
    /// Connections one user may have.
    pub user_connections: usize,
    /// Silence after which a client is pinged; after three times that it is gone.
    pub ping_after: Duration,
}

impl Settings {
    /// Reads the environment. Errors name the variable.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let allowed_origins = env.list("ALLOWED_ORIGINS")?;
        if let Some(wrong) = allowed_origins.iter().find(|origin| !is_origin(origin)) {
            let reason = format!("{wrong} is not an origin such as https://house.example");
            return Err(ConfigError::invalid("ALLOWED_ORIGINS", reason));
        }
        let user_connections = env.parsed("USER_CONNECTIONS", DEFAULT_USER_CONNECTIONS)?;
        if user_connections == 0 {
            return Err(ConfigError::invalid("USER_CONNECTIONS", "must be at least 1"));
        }
        let ping_seconds = env.parsed("PING_SECONDS", PING_AFTER.as_secs())?;
        if !(1..=MAX_PING_SECONDS).contains(&ping_seconds) {
            let reason = format!("must be 1 to {MAX_PING_SECONDS}");
            return Err(ConfigError::invalid("PING_SECONDS", reason));
        }
        Ok(Self {
            listen_address: config::listen_address(env)?,
            metrics_address: config::metrics_address(env)?,
            kafka: KafkaSettings::from_env(env)?,
            auth: AuthSettings::from_env(env)?,
            allowed_origins,
            user_connections,
            ping_after: Duration::from_secs(ping_seconds),
        })
    }
}

/// Scheme and authority, nothing behind: a path would never match what a browser sends.
fn is_origin(text: &str) -> bool {
    let authority = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    authority.is_some_and(|rest| {
        let authority = rest.strip_suffix('/').unwrap_or(rest);
        !authority.is_empty() && !authority.contains(['/', '?', '#', '@'])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_and_errors_name_the_variable() {
        let good = [
            ("KAFKA_BOOTSTRAP", "127.0.0.1:9092"),
            ("OIDC_ISSUERS", "https://issuer.example"),
            ("OIDC_AUDIENCES", "homelab"),
            ("ALLOWED_ORIGINS", "https://house.example, http://127.0.0.1:5173/"),
            ("USER_CONNECTIONS", "7"),
            ("PING_SECONDS", "30"),
        ];
        let settings = Settings::from_env(&Env::of(&good)).unwrap();
        assert_eq!(settings.allowed_origins.len(), 2);
        assert_eq!(settings.user_connections, 7);
        assert_eq!(settings.ping_after, Duration::from_secs(30));
        let error = |name: &str, value: &str| {
            let pairs: Vec<_> = good
                .iter()
                .map(|pair| if pair.0 == name { (name, value) } else { *pair })
                .collect();
            Settings::from_env(&Env::of(&pairs)).unwrap_err().to_string()
        };
        assert_eq!(error("KAFKA_BOOTSTRAP", ""), "KAFKA_BOOTSTRAP is not set");
        assert_eq!(error("OIDC_ISSUERS", ""), "OIDC_ISSUERS is not set");
        for wrong in [
            "house.example",
            "*",
            "https://house.example/path",
            "https://",
            "ws://house.example",
        ] {
            assert!(
                error("ALLOWED_ORIGINS", wrong).starts_with("ALLOWED_ORIGINS is invalid"),
                "{wrong}"
            );
        }
        assert!(error("USER_CONNECTIONS", "0").starts_with("USER_CONNECTIONS is invalid"));
        assert!(error("PING_SECONDS", "0").starts_with("PING_SECONDS is invalid"));
        assert!(error("PING_SECONDS", "301").starts_with("PING_SECONDS is invalid"));
        assert!(error("USER_CONNECTIONS", "many").starts_with("USER_CONNECTIONS is invalid"));
    }
}
