//! TimescaleDB's own code as WebAssembly (`timescale/server.mjs`), for the tests of the migrations and of the sums.
//!
//! PostgreSQL 17 with TimescaleDB 2.23 under its full licence, in memory. It serves one connection at a time, so a second one
//! waits until the first is closed; it has one database, `postgres`; no background worker runs, so policies are stored
//! and never executed. It never keeps anything.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use std::time::Duration;

use crate::binaries::node_command;
use crate::part::Part;
use crate::{port, postgres};
use anyhow::{Context, Result, bail};
use tokio::net::TcpStream;

/// The only database it has.
pub const DATABASE: &str = "postgres";
/// Who everybody is; the build asks for a password and has this one.
const USER: &str = "postgres";
const PASSWORD: &str = "postgres";

/// Compiling 20 MB of WebAssembly takes two seconds; on a busy two-core machine many more.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A running server.
#[derive(Debug)]
pub struct Timescale {
    part: Part,
    address: SocketAddr,
}

impl Timescale {
    /// Starts an empty one; `name` is that of its log.
    ///
    /// # Errors
    /// When node or the package is missing, or it does not start.
    pub async fn start(name: &str) -> Result<Timescale> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("timescale");
        if !folder.join("node_modules").is_dir() {
            bail!(
                "TimescaleDB's package is missing: npm ci --prefix tests/stack/timescale, or run make setup"
            );
        }
        let address = port::free()?;
        let mut node = node_command("node")?;
        node.arg(folder.join("server.mjs"))
            .arg(address.port().to_string());
        let part = Part::start(name, node)
            .await
            .context("node is missing: run make setup")?;
        // It listens when the database is up.
        part.ready(READY_WITHIN, async || TcpStream::connect(address).await.is_ok())
            .await?;
        Ok(Timescale { part, address })
    }

    /// A connection string. Everybody is the superuser; `set role` makes one of the others.
    pub fn url(&self) -> String {
        format!("postgres://{USER}:{PASSWORD}@{}/{DATABASE}", self.address)
    }

    /// Runs `run_migrations.sh` with the files of `folder` and more variables, and gives what came of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run_migrations(&self, folder: &Path, variables: &[(&str, &str)]) -> Result<Output> {
        let password = ("PGPASSWORD", PASSWORD);
        let variables: Vec<_> = std::iter::once(password)
            .chain(variables.iter().copied())
            .collect();
        postgres::run_migrations(self.address, DATABASE, folder, &variables).await
    }

    /// Stops it.
    pub async fn stop(&self) {
        self.part.stop().await;
    }
}
