//! Settings of the sink, from environment variables.

use std::net::SocketAddr;

use service::{ConfigError, Env, KafkaSettings, config};
use sqlx::postgres::PgConnectOptions;

/// Checked settings.
#[derive(Clone)]
pub struct Settings {
    /// Where the admin port is bound.
    pub metrics_address: SocketAddr,
    /// Brokers and login.
    pub kafka: KafkaSettings,
    /// Consumer group.
    pub kafka_group: String,
    /// The database.
    pub database: PgConnectOptions,
}

impl Settings {
    /// Reads the environment. Errors name the variable and never show the database's URL.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let url = env.secret("DATABASE_URL")?;
        // The driver would take any scheme; the text of its errors may quote the URL.
        let scheme_fits = ["postgres://", "postgresql://"]
            .iter()
            .any(|scheme| url.expose().starts_with(scheme));
        let database = url
            .expose()
            .parse::<PgConnectOptions>()
            .ok()
            .filter(|_| scheme_fits)
            .ok_or_else(|| ConfigError::invalid("DATABASE_URL", "not a PostgreSQL connection URL"))?;
        Ok(Self {
            metrics_address: config::metrics_address(env)?,
            kafka: KafkaSettings::from_env(env)?,
            kafka_group: env
                .optional("KAFKA_GROUP")?
                .unwrap_or_else(|| "redpanda-sink".to_owned()),
            database,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked_and_errors_name_the_variable() {
        let good = [
            ("KAFKA_BOOTSTRAP", "a:1, b:2"),
            ("DATABASE_URL", "postgres://sink:hidden@127.0.0.1:1/telemetry"),
        ];
        let settings = Settings::from_env(&Env::of(&good)).unwrap();
        assert_eq!(settings.kafka_group, "redpanda-sink");
        assert_eq!(settings.database.get_database(), Some("telemetry"));

        let error = |change: (&str, &str)| {
            let pairs: Vec<_> = good
                .iter()
                .map(|&pair| if pair.0 == change.0 { change } else { pair })
                .collect();
            Settings::from_env(&Env::of(&pairs))
                .err()
                .map(|error| error.to_string())
        };
        assert_eq!(
            error(("KAFKA_BOOTSTRAP", "")).as_deref(),
            Some("KAFKA_BOOTSTRAP is not set")
        );
        assert_eq!(
            error(("DATABASE_URL", "")).as_deref(),
            Some("DATABASE_URL is not set")
        );
        let invalid = error(("DATABASE_URL", "mysql:/hidden")).unwrap();
        assert!(
            invalid.starts_with("DATABASE_URL is invalid") && !invalid.contains("hidden"),
            "{invalid}"
        );
    }
}
