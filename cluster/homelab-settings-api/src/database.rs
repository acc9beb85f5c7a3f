//! The connection pool, and what a failed statement means: try again, or never.

use std::str::FromStr;
use std::time::Duration;

use service::http::RETRY_AFTER;
use service::{Check, ConfigError, Health, Problem, Secret};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// Connections: one writes what is reported, one makes the runs of schedules, one listens for notifications, the others
/// answer requests. The relay has one of its own beside them.
const CONNECTIONS: u32 = 8;
/// Time a request waits for a connection before it is answered 503.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(2);
/// Time one statement may take, below the request's own limit.
const STATEMENT_LIMIT: Duration = Duration::from_secs(8);

/// Reads the address. The error does not repeat it, for it holds the password.
pub(crate) fn options(url: &Secret) -> Result<PgConnectOptions, ConfigError> {
    let invalid = || ConfigError::invalid("DATABASE_URL", "not a postgres address");
    if !url.expose().starts_with("postgres://") && !url.expose().starts_with("postgresql://") {
        return Err(invalid());
    }
    let statement_limit = format!("{}ms", STATEMENT_LIMIT.as_millis());
    let options = PgConnectOptions::from_str(url.expose()).map_err(|_| invalid())?;
    let session = [
        ("statement_timeout", statement_limit.as_str()),
        ("timezone", "UTC"),
    ];
    Ok(options.application_name("homelab-settings-api").options(session))
}

/// A pool that connects when it is first used: a database that is down delays no start.
pub(crate) fn pool(options: PgConnectOptions) -> PgPool {
    PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(ACQUIRE_LIMIT)
        .connect_lazy_with(options)
}

/// Adds the readiness check `database`.
pub(crate) fn watch(pool: &PgPool, health: &Health) -> Check {
    let pool = pool.clone();
    health.probe("database", move || {
        let pool = pool.clone();
        async move { sqlx::query("select 1").execute(&pool).await.is_ok() }
    })
}

/// A failed query as the caller sees it; the cause is logged here, once.
pub(crate) fn problem(error: sqlx::Error) -> Problem {
    if is_down(&error) {
        tracing::warn!("the database cannot answer just now: {error}");
        Problem::unavailable(RETRY_AFTER)
    } else {
        tracing::error!("a query failed: {error}");
        Problem::internal()
    }
}

fn is_down(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        // 57014 is the statement's time limit; 57P0x a server that stops or starts; 53 a server without resources;
        // 08 a connection that broke; 40 a conflict.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code == "57014"
                || ["57P", "53", "08", "40"]
                    .iter()
                    .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
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
