//! A PostgreSQL server of the distribution: a cluster of its own in a scratch folder, with this project's databases.
//!
//! It listens on 127.0.0.1 only, believes every local user (`trust`), and writes without fsync, because its folder is gone
//! with the run. It never touches a server or a cluster that it did not start.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use tokio::process::Command;

use crate::part::Part;
use crate::{binaries, port};

/// A new cluster starts in a second; one that recovers from SIGKILL on a busy two-core machine in several.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The server refuses to run as root; distributions bring this user for it.
const SYSTEM_USER: &str = "postgres";
/// Who owns the cluster and runs the migrations.
const SUPERUSER: &str = "postgres";

/// The databases of this project.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Database {
    /// Readings, events and their summaries; roles `sink` and `api`.
    Telemetry,
    /// Settings, plugs, schedules and commands; role `settings`.
    Settings,
}

impl Database {
    /// Both.
    pub const ALL: [Database; 2] = [Database::Telemetry, Database::Settings];

    /// Its name on the server.
    pub const fn name(self) -> &'static str {
        match self {
            Database::Telemetry => "telemetry",
            Database::Settings => "homelab_settings",
        }
    }

    /// The folder of its kustomization.
    pub fn folder(self) -> PathBuf {
        let name = match self {
            Database::Telemetry => "timescaledb",
            Database::Settings => "homelab-settings",
        };
        binaries::root().join("gitops/apps/base").join(name)
    }

    /// The folder of its migrations.
    pub fn migrations(self) -> PathBuf {
        self.folder().join("migrations")
    }
}

/// A running server.
#[derive(Debug)]
pub struct Postgres {
    part: Part,
    address: SocketAddr,
    programs: PathBuf,
}

impl Postgres {
    /// Starts a server with both databases, migrated, its cluster in `folder`.
    ///
    /// # Errors
    /// When PostgreSQL is not installed, does not start, or a migration fails.
    pub async fn start(folder: &Path) -> Result<Postgres> {
        let postgres = Postgres::start_empty(folder).await?;
        for database in Database::ALL {
            postgres.create_database(database.name()).await?;
            postgres.migrate(database).await?;
        }
        Ok(postgres)
    }

    /// Starts a server without any database of ours.
    ///
    /// # Errors
    /// When PostgreSQL is not installed or does not start.
    pub async fn start_empty(folder: &Path) -> Result<Postgres> {
        let programs = programs()?;
        let user = system_user().await?;
        let data = folder.join("cluster");
        std::fs::create_dir_all(folder)?;
        if let Some((uid, gid)) = user {
            std::os::unix::fs::chown(folder, Some(uid), Some(gid))
                .with_context(|| format!("cannot give {} to {SYSTEM_USER}", folder.display()))?;
        }
        let server_command = |program: &str| {
            let mut command = Command::new(programs.join(program));
            // The caller's folder need not be readable for the server's user.
            command.current_dir(folder).arg("-D").arg(&data);
            if let Some((uid, gid)) = user {
                command.uid(uid).gid(gid);
            }
            command
        };
        if !data.join("PG_VERSION").exists() {
            let made = server_command("initdb")
                .args(["--username", SUPERUSER, "--auth", "trust", "--no-sync"])
                .args(["--encoding", "UTF8", "--locale", "C"])
                .stdin(Stdio::null())
                .kill_on_drop(true)
                .output()
                .await
                .context("cannot run initdb")?;
            succeeded(&made, "initdb")?;
        }
        let address = port::free()?;
        let mut server = server_command("postgres");
        server.args(["-p", &address.port().to_string()]);
        for setting in [
            "listen_addresses=127.0.0.1",
            // A socket file would need a short path and serves nobody here.
            "unix_socket_directories=",
            "fsync=off",
            "log_min_messages=warning",
        ] {
            server.args(["-c", setting]);
        }
        // The log of a folder is told from another's by the folder's name.
        let name = folder.file_name().unwrap_or(OsStr::new("postgres"));
        let part = Part::start(name.to_string_lossy(), server)
            .await?
            // SIGTERM would wait until every client has gone.
            .stopped_by(Signal::INT);
        let postgres = Postgres {
            part,
            address,
            programs,
        };
        postgres.ready().await?;
        Ok(postgres)
    }

    /// Its process: to be stopped, killed, restarted.
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A connection string for a role of a database.
    pub fn url(&self, role: &str, database: &str) -> String {
        format!("postgres://{role}@{}/{database}", self.address)
    }

    /// Waits until it takes connections, after a restart for instance.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ready(&self) -> Result<()> {
        self.part
            .ready(READY_WITHIN, async || {
                self.psql("postgres", "select 1").await.is_ok()
            })
            .await
    }

    /// Creates a database unless it is there.
    ///
    /// # Errors
    /// When the server refuses.
    pub async fn create_database(&self, name: &str) -> Result<()> {
        let known = format!("select 1 from pg_database where datname = '{name}'");
        if self.psql("postgres", &known).await?.is_empty() {
            self.psql("postgres", &format!("create database {name}")).await?;
        }
        Ok(())
    }

    /// Brings a database up to date with its migrations.
    ///
    /// # Errors
    /// With what the script printed, when it fails.
    pub async fn migrate(&self, database: Database) -> Result<()> {
        let run = self
            .run_migrations(database.name(), &database.migrations(), &[])
            .await?;
        succeeded(&run, "run_migrations.sh")
    }

    /// Runs `run_migrations.sh` with the files of `folder` and more variables, and gives what came of it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub async fn run_migrations(
        &self,
        database: &str,
        folder: &Path,
        variables: &[(&str, &str)],
    ) -> Result<Output> {
        run_migrations(self.address, database, folder, variables).await
    }

    /// Runs one statement as the superuser and gives its rows, columns separated by `|`.
    ///
    /// # Errors
    /// With the server's message, when it refuses.
    pub async fn psql(&self, database: &str, statement: &str) -> Result<String> {
        let ran = Command::new(self.programs.join("psql"))
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url(SUPERUSER, database))
            .args(["-c", statement])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("cannot run psql")?;
        succeeded(&ran, "psql")?;
        Ok(String::from_utf8_lossy(&ran.stdout).trim_end().to_owned())
    }

    /// Stops it.
    pub async fn stop(&self) {
        self.part.stop().await;
    }
}

/// Runs the script of the migrations against any server, as the superuser.
pub(crate) async fn run_migrations(
    server: SocketAddr,
    database: &str,
    folder: &Path,
    variables: &[(&str, &str)],
) -> Result<Output> {
    let mut script = Command::new(Database::Telemetry.folder().join("run_migrations.sh"));
    script.arg(folder);
    // What the caller's shell has set is meant for another server.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("PG") || text.starts_with("DATABASE_URL") || text.contains("_PASSWORD") {
            script.env_remove(&name);
        }
    }
    script
        .env_remove("HOUSEHOLD_TIME_ZONE")
        .env("PATH", path_to_psql()?)
        .env("PGHOST", server.ip().to_string())
        .env("PGPORT", server.port().to_string())
        .env("PGUSER", SUPERUSER)
        .env("PGDATABASE", database)
        .env("MIGRATION_WAIT_SECONDS", "30")
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true);
    script.output().await.context("cannot run run_migrations.sh")
}

/// The path, with the folder of a server's psql in front: it need not be in the path, nor need there be a server.
fn path_to_psql() -> Result<OsString> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = programs().into_iter().chain(std::env::split_paths(&path));
    std::env::join_paths(folders).context("a folder in PATH has a colon in its name")
}

/// The newest folder that holds a whole server; a distribution's is often not in the path.
fn programs() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    for (parent, prefix) in [("/usr/lib/postgresql", ""), ("/usr", "pgsql-")] {
        let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(parent)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name();
                let version = name.to_str()?.strip_prefix(prefix)?.parse().ok()?;
                Some((version, entry.path().join("bin")))
            })
            .collect();
        versions.sort();
        folders.extend(versions.into_iter().rev().map(|(_, folder)| folder));
    }
    folders
        .into_iter()
        .find(|folder| {
            ["initdb", "postgres", "psql"]
                .iter()
                .all(|name| folder.join(name).is_file())
        })
        .context(
            "PostgreSQL's server is missing (15 or newer): apt-get install postgresql, or run make setup",
        )
}

/// Who the server runs as: nobody else, unless we are root.
async fn system_user() -> Result<Option<(u32, u32)>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let id = async |flag: &str| -> Result<u32> {
        let answer = Command::new("id").args([flag, SYSTEM_USER]).output().await?;
        if !answer.status.success() {
            bail!("PostgreSQL does not run as root, and there is no user {SYSTEM_USER}: run make setup");
        }
        Ok(String::from_utf8_lossy(&answer.stdout).trim().parse()?)
    };
    Ok(Some((id("-u").await?, id("-g").await?)))
}

fn succeeded(output: &Output, what: &str) -> Result<()> {
    if !output.status.success() {
        let printed = [&output.stdout[..], &output.stderr[..]].concat();
        bail!(
            "{what} failed ({}):\n{}",
            output.status,
            String::from_utf8_lossy(&printed).trim_end()
        );
    }
    Ok(())
}
