//! The connection pool, and what a failed statement means: try again, or never.

use std::time::Duration;

use service::{ConfigError, Secret};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

pub(crate) use service::database::{problem, watch};

/// Connections: one writes what is reported, one makes the runs of schedules, one listens for notifications, the others
/// answer requests. The relay has one of its own beside them.
const CONNECTIONS: u32 = 8;
/// Time a request waits for a connection before it is answered 503.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(2);

/// Reads the address. The error does not repeat it, for it holds the password.
pub(crate) fn options(url: &Secret) -> Result<PgConnectOptions, ConfigError> {
    service::database::options(url, "homelab-settings-api")
}

/// A pool that connects when it is first used: a database that is down delays no start.
pub(crate) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_LIMIT)
        .connect_lazy_with(options)
}

/// Whether the values are at fault (22 data exception, 23 constraint): no retry can help. Anything else, a missing
/// right or table included, is tried again: an operator can mend it, and no record may be lost meanwhile.
pub(crate) fn is_the_data(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(error) => error
            .code()
            .is_some_and(|code| code.starts_with("22") || code.starts_with("23")),
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}
