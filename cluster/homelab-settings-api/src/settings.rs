//! Settings of the service itself, from the environment.

use std::net::SocketAddr;
use std::time::Duration;

use service::config::{listen_address, metrics_address};
use service::{AuthSettings, ConfigError, Env, KafkaSettings};
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
    /// `KAFKA_BOOTSTRAP` and what belongs to it: brokers and login.
    pub kafka: KafkaSettings,
    /// `KAFKA_GROUP`, default `homelab-settings-api`.
    pub kafka_group: String,
    /// `OIDC_ISSUERS`, `OIDC_AUDIENCES`, `OIDC_JWKS_URL`.
    pub auth: AuthSettings,
    /// How patient commands and schedules are.
    pub pace: Pace,
}

/// Times of commands and schedules.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// `COMMAND_EXPIRY_SECONDS`, default 600: a command that is not confirmed by then is no longer wanted.
    pub expiry: Duration,
    /// `COMMAND_WAIT_SECONDS`, default 90: how long an attempt has to be confirmed. A heat pump reports every 30 s.
    pub wait: Duration,
    /// `OUTBOX_POLL_SECONDS`, default 5: how often the relay looks without having been woken.
    pub poll: Duration,
    /// `SCHEDULE_GRACE_SECONDS`, default 900: how late a run may still be made after an outage.
    pub grace: Duration,
    /// `OUTBOX_RETENTION_DAYS`, default 400: how long finished commands and their history are kept.
    pub retention: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            expiry: Duration::from_secs(600),
            wait: Duration::from_secs(90),
            poll: Duration::from_secs(5),
            grace: Duration::from_secs(900),
            retention: Duration::from_secs(400 * DAY_SECONDS),
        }
    }
}

/// Longest time taken: a year, and ten for the retention. Sums with it stay far inside the database's range.
const MOST_SECONDS: u64 = 366 * DAY_SECONDS;
const MOST_RETENTION_DAYS: u64 = 3_660;
const DAY_SECONDS: u64 = 86_400;

impl Pace {
    /// How long after its start, or after the database was away, a relay lets nothing run out: the reader comes back
    /// within its own pauses of at most 5 s and reads what it missed.
    pub(crate) fn settle(&self) -> Duration {
        self.wait / 3
    }

    fn from_env(env: &Env) -> Result<Self, ConfigError> {
        let default = Self::default();
        let within = |name: &str, default: u64, most: u64| match env.parsed(name, default)? {
            value if (1..=most).contains(&value) => Ok(value),
            _ => Err(ConfigError::invalid(name, format!("not from 1 to {most}"))),
        };
        let seconds = |name: &str, default: Duration| {
            within(name, default.as_secs(), MOST_SECONDS).map(Duration::from_secs)
        };
        let days = within(
            "OUTBOX_RETENTION_DAYS",
            default.retention.as_secs() / DAY_SECONDS,
            MOST_RETENTION_DAYS,
        )?;
        Ok(Self {
            expiry: seconds("COMMAND_EXPIRY_SECONDS", default.expiry)?,
            wait: seconds("COMMAND_WAIT_SECONDS", default.wait)?,
            poll: seconds("OUTBOX_POLL_SECONDS", default.poll)?,
            grace: seconds("SCHEDULE_GRACE_SECONDS", default.grace)?,
            retention: Duration::from_secs(days * DAY_SECONDS),
        })
    }
}

impl Settings {
    /// Reads the environment. Errors name the variable and never show the database's address.
    pub fn from_env(env: &Env) -> Result<Self, ConfigError> {
        Ok(Self {
            listen_address: listen_address(env)?,
            metrics_address: metrics_address(env)?,
            database: database::options(&env.secret("DATABASE_URL")?)?,
            kafka: KafkaSettings::from_env(env)?,
            kafka_group: env
                .optional("KAFKA_GROUP")?
                .unwrap_or_else(|| "homelab-settings-api".to_owned()),
            auth: AuthSettings::from_env(env)?,
            pace: Pace::from_env(env)?,
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
        assert_eq!(settings.kafka_group, "homelab-settings-api");
        for (name, _) in base {
            let pairs: Vec<_> = base.into_iter().filter(|(n, _)| *n != name).collect();
            assert_eq!(
                Settings::from_env(&Env::of(&pairs)).err().unwrap().to_string(),
                format!("{name} is not set")
            );
        }
        assert_eq!(settings.pace, Pace::default());
        for (name, value) in [
            ("COMMAND_WAIT_SECONDS", "0"),
            ("COMMAND_EXPIRY_SECONDS", "-1"),
            ("OUTBOX_POLL_SECONDS", "often"),
            ("OUTBOX_RETENTION_DAYS", "4000"),
        ] {
            let pairs = [&base[..], &[(name, value)]].concat();
            let error = Settings::from_env(&Env::of(&pairs)).err().unwrap().to_string();
            assert!(error.starts_with(&format!("{name} is invalid")), "{error}");
        }
        let pairs = [("DATABASE_URL", "mysql://x:hush@h/d"), base[1], base[2], base[3]];
        let error = Settings::from_env(&Env::of(&pairs)).err().unwrap().to_string();
        assert_eq!(error, "DATABASE_URL is invalid: not a postgres address");
    }
}
