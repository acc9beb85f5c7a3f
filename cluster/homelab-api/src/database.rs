//! The connection pool. Every session is read-only and every statement has a time limit; that nothing is written is guarded
//! by the role's missing rights, this is the second lock.

use std::time::Duration;

use service::{ConfigError, Health, Secret};
use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

pub use service::database::problem;

/// Connections to the database. The database's machine has four small cores: more would only queue there.
const CONNECTIONS: u32 = 8;
/// Time a request waits for a connection before it is answered 503: the client's retry is better than a pile.
const ACQUIRE_LIMIT: Duration = Duration::from_secs(2);
/// A connection that was not used for so long is closed: an idle one costs the database some megabytes.
const IDLE_LIMIT: Duration = Duration::from_secs(300);

/// The database, for reading.
#[derive(Clone, Debug)]
pub struct Database(PgPool);

/// Reads the address. The error does not repeat it, for it holds the password.
pub fn options(url: &Secret) -> Result<PgConnectOptions, ConfigError> {
    let options = service::database::options(url, "homelab-api")?;
    Ok(options.options([("default_transaction_read_only", "on")]))
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
        service::database::watch(&self.0, health);
    }

    /// The pool, for a query.
    pub fn pool(&self) -> &PgPool {
        &self.0
    }
}
