//! The connection pool, and what a failed query is to the caller. Every session is read-only and every statement
//! has a time limit; that nothing is written is guarded by the role's missing rights, this is the second lock.

use std::str::FromStr;
use std::time::Duration;

use service::http::RETRY_AFTER;
use service::{ConfigError, Health, Problem, Secret};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

/// Connections to the database. The database's machine has four small cores: more would only queue there.
const CONNECTIONS: u32 = 8;
/// Time a request waits for a connection before it is answered 503: the client's retry is better than a pile.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(2);
/// Time one statement may take, below the request's own limit so that the database stops working too.
const STATEMENT_LIMIT: Duration = Duration::from_secs(8);
/// A connection that was not used for so long is closed: an idle one costs the database some megabytes.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// The database, for reading.
#[derive(Clone, Debug)]
pub struct Database(PgPool);

/// Reads the address. The error does not repeat it, for it holds the password.
pub fn options(url: &Secret) -> Result<PgConnectOptions, ConfigError> {
    let invalid = || ConfigError::invalid("DATABASE_URL", "not a postgres address");
    if !url.expose().starts_with("postgres://") && !url.expose().starts_with("postgresql://") {
        return Err(invalid());
    }
    let statement_limit = format!("{}ms", STATEMENT_LIMIT.as_millis());
    Ok(PgConnectOptions::from_str(url.expose())
        .map_err(|_| invalid())?
        .application_name("homelab-api")
        .options([
            ("statement_timeout", statement_limit.as_str()),
            ("default_transaction_read_only", "on"),
            ("timezone", "UTC"),
        ]))
}

impl Database {
    /// A pool that connects when it is first used: a database that is down delays no start.
    pub fn new(options: PgConnectOptions) -> Self {
        Self(
            PgPoolOptions::new()
                .max_connections(CONNECTIONS)
                .acquire_timeout(ACQUIRE_LIMIT)
                .idle_timeout(IDLE_LIMIT)
                .connect_lazy_with(options),
        )
    }

    /// Adds the readiness check `database`.
    pub fn watch(&self, health: &Health) {
        let pool = self.0.clone();
        health.probe("database", move || {
            let pool = pool.clone();
            async move { sqlx::query("select 1").execute(&pool).await.is_ok() }
        });
    }

    /// The pool, for a query.
    pub fn pool(&self) -> &PgPool {
        &self.0
    }
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
        // 08 a connection that broke; 40 a conflict; 25006 is a bug of ours and is not listed.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            code == "57014"
                || ["57P", "53", "08", "40"]
                    .iter()
                    .any(|class| code.starts_with(class))
        }),
        _ => false,
    }
}
