//! What the two HTTP services have in common towards PostgreSQL: how an address is read, the readiness check, and what a
//! failed statement is to the caller. It holds no pool and, but for the check, no statement.

use std::str::FromStr;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;

use crate::http::RETRY_AFTER;
use crate::{Check, ConfigError, Health, Problem, Secret};

/// Time one statement may take, below the request's own limit so that the database stops working too.
const STATEMENT_LIMIT: Duration = Duration::from_secs(8);

/// Reads `DATABASE_URL`. The error does not repeat it, for it holds the password. Sessions have a limit for each statement
/// and times in UTC.
pub fn options(url: &Secret, application: &str) -> Result<PgConnectOptions, ConfigError> {
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
    Ok(options.application_name(application).options(session))
}

/// Adds the readiness check `database`.
pub fn watch(pool: &PgPool, health: &Health) -> Check {
    let pool = pool.clone();
    health.probe("database", move || {
        let pool = pool.clone();
        async move { sqlx::query("select 1").execute(&pool).await.is_ok() }
    })
}

/// A failed query as the caller sees it; the cause is logged here, once.
pub fn problem(error: sqlx::Error) -> Problem {
    if is_transient(&error) {
        tracing::warn!("the database cannot answer just now: {error}");
        Problem::unavailable(RETRY_AFTER)
    } else {
        tracing::error!("a query failed: {error}");
        Problem::internal()
    }
}

/// Whether the same query may succeed a moment later.
fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::WorkerCrashed => true,
        // 57014 is the statement's time limit; 57P0x a server that stops or starts; 53 a server without resources;
        // 08 a connection that broke; 40 a conflict. 25006, a write in a read-only session, is a bug and is not listed.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code == "57014"
                || ["57P", "53", "08", "40"]
                    .iter()
                    .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}
