//! Settings of the read API.

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
    /// `DATABASE_URL` or `DATABASE_URL_FILE`; the role must be one that can only select.
    pub database: PgConnectOptions,
    /// `OIDC_ISSUERS`, `OIDC_AUDIENCES`, `OIDC_JWKS_URL`.
    pub auth: AuthSettings,
}

impl Settings {
    /// Reads the environment. The household's time zone is not among it: it stands in the database, where the
    /// summaries are made by it.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            listen_address: listen_address(env)?,
            metrics_address: metrics_address(env)?,
            database: database::options(&env.secret("DATABASE_URL")?)?,
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
            ("DATABASE_URL", "postgres://api:hush@127.0.0.1:5432/telemetry"),
            ("OIDC_ISSUERS", "https://issuer.example"),
            ("OIDC_AUDIENCES", "homelab"),
        ];
        assert!(Settings::from_env(&Env::of(&base)).is_ok());
        for (name, value, want) in [
            ("DATABASE_URL", "", "DATABASE_URL is not set"),
            (
                "DATABASE_URL",
                "mysql://api:hush@h/d",
                "DATABASE_URL is invalid: not a postgres address",
            ),
            ("OIDC_ISSUERS", "", "OIDC_ISSUERS is not set"),
            ("LISTEN_ADDRESS", "localhost", "LISTEN_ADDRESS is invalid"),
        ] {
            let pairs: Vec<_> = base
                .into_iter()
                .filter(|(n, _)| *n != name)
                .chain([(name, value)])
                .collect();
            let error = Settings::from_env(&Env::of(&pairs)).err().unwrap().to_string();
            assert!(error.starts_with(want) && !error.contains("hush"), "{error}");
        }
    }
}
