//! `run_migrations.sh` and the migrations of both databases, on PostgreSQL and on TimescaleDB: applied once, harmless when
//! run again, an older database with data brought forward from every version, the same tables and views on both, and roles
//! that can do what they should and no more.

mod forward;
mod roles;
mod script;
mod shape;

use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use stack::guardian;
use stack::postgres::Postgres;
use stack::timescale::Timescale;

/// A server of either kind, with one database of it.
enum Server<'a> {
    Plain(&'a Postgres, &'a str),
    Timescale(&'a Timescale),
}

impl Server<'_> {
    async fn migrate(&self, folder: &Path, variables: &[(&str, &str)]) -> Result<Run> {
        let output = match self {
            Server::Plain(postgres, database) => postgres.run_migrations(database, folder, variables).await?,
            Server::Timescale(timescale) => timescale.run_migrations(folder, variables).await?,
        };
        Ok(Run::from(output))
    }

    async fn connect(&self) -> Result<PgConnection> {
        let url = match self {
            Server::Plain(postgres, database) => postgres.url("postgres", database),
            Server::Timescale(timescale) => timescale.url(),
        };
        Ok(PgConnection::connect(&url).await?)
    }
}

/// What a run of the script printed, and its exit code.
#[derive(Debug)]
struct Run {
    code: Option<i32>,
    text: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        let text = [&output.stdout[..], &output.stderr[..]].concat();
        Run {
            code: output.status.code(),
            text: String::from_utf8_lossy(&text).into_owned(),
        }
    }
}

impl Run {
    fn expect(&self, code: i32, words: &[&str]) -> Result<()> {
        ensure!(
            self.code == Some(code),
            "exit code {code} was expected of {self:?}"
        );
        for word in words {
            ensure!(self.text.contains(word), "{word:?} was expected in {self:?}");
        }
        Ok(())
    }
}

/// One column of the answer, as text.
async fn column(database: &mut PgConnection, statement: impl Into<String>) -> Result<Vec<String>> {
    let statement = statement.into();
    let rows = sqlx::query(AssertSqlSafe(statement.clone()))
        .fetch_all(database)
        .await
        .with_context(|| statement)?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

fn file_names(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// A folder of files made for a test.
fn folder_of(name: &str, files: &[(&str, &str)]) -> Result<PathBuf> {
    let folder = guardian::run()?.data("migrations-files")?.join(name);
    std::fs::create_dir_all(&folder)?;
    for (file, text) in files {
        std::fs::write(folder.join(file), text)?;
    }
    Ok(folder)
}

fn copy_of(name: &str, folder: &Path) -> Result<PathBuf> {
    let copy = folder_of(name, &[])?;
    for file in file_names(folder)? {
        std::fs::copy(folder.join(&file), copy.join(&file))?;
    }
    Ok(copy)
}
