//! Settings of the service itself, from the environment.

use std::net::SocketAddr;

use service::config::{listen_address, metrics_address};
use service::{AuthSettings, ConfigError, Env};
use sqlx::postgres::PgConnectOptions;

use crate::database;

/// Everything the service needs to know, checked. Not `Debug`: the driver's options would print the password.
#[derive(Clone)]
pub struct Settings {
    /// `LISTEN_ADDRESS`.
    pub listen_address: SocketAddr,
    /// `METRICS_ADDRESS`.
    pub metrics_address: SocketAddr,
    /// `DATABASE_URL` or `DATABASE_URL_FILE`.
    pub database: PgConnectOptions,
    /// `KAFKA_BOOTSTRAP`: brokers, `host:port`, with commas.
    pub kafka_bootstrap: String,
    /// `KAFKA_GROUP`, default `homelab-settings-api`.
    pub kafka_group: String,
    /// `OIDC_ISSUERS`, `OIDC_AUDIENCES`, `OIDC_JWKS_URL`.
    pub auth: AuthSettings,
}

impl Settings {
    /// Reads the environment. Errors name the variable and never show the database's address.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            listen_address: listen_address(env)?,
            metrics_address: metrics_address(env)?,
            database: database::options(&env.secret("DATABASE_URL")?)?,
            kafka_bootstrap: env.required_list("KAFKA_BOOTSTRAP")?.join(","),
            kafka_group: env
                .optional("KAFKA_GROUP")?
                .unwrap_or_else(|| "homelab-settings-api".to_owned()),
            auth: AuthSettings::from_env(env)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_and_errors_hide_the_password() {
        let base = [
            (
                "DATABASE_URL",
                "postgres://settings:hush@127.0.0.1:5432/homelab_settings",
            ),
            ("KAFKA_BOOTSTRAP", "a:1, b:2"),
            ("OIDC_ISSUERS", "https://issuer.example"),
            ("OIDC_AUDIENCES", "homelab"),
        ];
        let settings = Settings::from_env(&Env::of(&base)).unwrap();
        assert_eq!(settings.kafka_bootstrap, "a:1,b:2");
        assert_eq!(settings.kafka_group, "homelab-settings-api");
        for (name, _) in base {
            let pairs: Vec<_> = base.into_iter().filter(|(n, _)| *n != name).collect();
            assert_eq!(
                Settings::from_env(&Env::of(&pairs)).err().unwrap().to_string(),
                format!("{name} is not set")
            );
        }
        let pairs = [("DATABASE_URL", "mysql://x:hush@h/d"), base[1], base[2], base[3]];
        let error = Settings::from_env(&Env::of(&pairs)).err().unwrap().to_string();
        assert_eq!(error, "DATABASE_URL is invalid: not a postgres address");
    }
}
