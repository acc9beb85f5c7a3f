//! The script itself: files that fail, that were half done, that are missing or misnamed, two runs at once, its environment.

use std::path::Path;

use anyhow::{Result, ensure};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use stack::postgres::{Database, Postgres};
use stack::{guardian, port};

use crate::{Run, Server, folder_of};

#[tokio::test]
async fn the_script() -> Result<()> {
    let postgres = Postgres::start_empty(&guardian::run()?.data("migrations-script")?).await?;
    a_failed_file_is_named_undone_and_done_again(&postgres).await?;
    without_a_transaction_what_was_done_stays(&postgres).await?;
    two_runs_at_once(&postgres).await?;
    a_gap_is_refused(&postgres).await?;
    a_file_that_does_not_record_itself_fails(&postgres).await?;
    zone_and_passwords_follow_the_environment(&postgres).await?;
    wrong_use(&postgres).await?;
    postgres.stop().await;
    Ok(())
}

const ONE: (&str, &str) = (
    "0001_one.sql",
    "create table one (a int);\ninsert into schema_migrations (version, name) values (1, 'one');\n",
);

async fn a_failed_file_is_named_undone_and_done_again(postgres: &Postgres) -> Result<()> {
    postgres.create_database("failing").await?;
    let server = Server::Plain(postgres, "failing");
    let broken = "create table two (a int);\nselect 1 / 0;\ninsert into schema_migrations (version, name) values (2, 'two');\n";
    let folder = folder_of("failing", &[ONE, ("0002_two.sql", broken)])?;
    let failed = server.migrate(&folder, &[]).await?;
    failed.expect(
        1,
        &[
            "applied  0001_one.sql",
            "0002_two.sql:2: ERROR",
            "failed   0002_two.sql",
        ],
    )?;
    let there = postgres
        .psql(
            "failing",
            "select to_regclass('one'), to_regclass('two'), count(*) from schema_migrations",
        )
        .await?;
    ensure!(there == "one||1", "{there}");

    folder_of(
        "failing",
        &[("0002_two.sql", &broken.replace("select 1 / 0;\n", ""))],
    )?;
    let repaired = server.migrate(&folder, &[]).await?;
    repaired.expect(0, &["present  0001_one.sql", "applied  0002_two.sql"])
}

async fn without_a_transaction_what_was_done_stays(postgres: &Postgres) -> Result<()> {
    postgres.create_database("bare").await?;
    let server = Server::Plain(postgres, "bare");
    let text = "-- transaction: none\ncreate table if not exists bare (a int);\n\
        create index concurrently if not exists bare_a on bare (a);\n\
        insert into schema_migrations (version, name) values (2, 'bare');\n";
    let broken = text.replace("insert into", "select 1 / 0;\ninsert into");
    let folder = folder_of("bare", &[ONE, ("0002_bare.sql", &broken)])?;
    server
        .migrate(&folder, &[])
        .await?
        .expect(1, &["failed   0002_bare.sql"])?;
    let there = postgres
        .psql(
            "bare",
            "select to_regclass('bare_a'), max(version) from schema_migrations",
        )
        .await?;
    ensure!(there == "bare_a|1", "{there}");
    folder_of("bare", &[("0002_bare.sql", text)])?;
    server
        .migrate(&folder, &[])
        .await?
        .expect(0, &["applied  0002_bare.sql"])?;
    let checksums = postgres
        .psql("bare", "select count(checksum) from schema_migrations")
        .await?;
    ensure!(checksums == "2", "{checksums} checksums");
    Ok(())
}

async fn two_runs_at_once(postgres: &Postgres) -> Result<()> {
    postgres.create_database("twice").await?;
    let slow = "create table slow (a int);\nselect pg_sleep(1);\ninsert into schema_migrations (version, name) values (2, 'slow');\n";
    let folder = folder_of("twice", &[ONE, ("0002_slow.sql", slow)])?;
    let runs = futures_util::future::try_join_all((0..3).map(|_| async {
        postgres
            .run_migrations("twice", &folder, &[])
            .await
            .map(Run::from)
    }))
    .await?;
    let applied: usize = runs
        .iter()
        .map(|run| run.text.matches("applied  0002_slow.sql").count())
        .sum();
    ensure!(
        runs.iter().all(|run| run.code == Some(0)) && applied == 1,
        "{runs:?}"
    );

    // One that cannot have the lock in time says so.
    let mut holder = PgConnection::connect(&postgres.url("postgres", "twice")).await?;
    sqlx::raw_sql("select pg_advisory_lock(hashtext('run_migrations.sh'))")
        .execute(&mut holder)
        .await?;
    let late = Server::Plain(postgres, "twice")
        .migrate(&folder, &[("MIGRATION_WAIT_SECONDS", "1")])
        .await?;
    late.expect(75, &["another run has held the lock"])?;
    holder.close().await?;
    Ok(())
}

async fn a_gap_is_refused(postgres: &Postgres) -> Result<()> {
    postgres.create_database("gap").await?;
    let server = Server::Plain(postgres, "gap");
    let three = (
        "0003_three.sql",
        "insert into schema_migrations (version, name) values (3, 'three');\n",
    );
    let folder = folder_of("gap", &[ONE, three])?;
    server.migrate(&folder, &[]).await?.expect(0, &[])?;
    folder_of(
        "gap",
        &[(
            "0002_two.sql",
            "insert into schema_migrations (version, name) values (2, 'two');\n",
        )],
    )?;
    server
        .migrate(&folder, &[])
        .await?
        .expect(65, &["0002_two.sql was never applied, but version 3 was"])?;
    std::fs::remove_file(folder.join("0002_two.sql"))?;
    std::fs::rename(folder.join("0003_three.sql"), folder.join("0003_drei.sql"))?;
    server
        .migrate(&folder, &[])
        .await?
        .expect(65, &["0003_drei.sql", "was applied as three"])
}

async fn a_file_that_does_not_record_itself_fails(postgres: &Postgres) -> Result<()> {
    postgres.create_database("unrecorded").await?;
    let server = Server::Plain(postgres, "unrecorded");
    let folder = folder_of("unrecorded", &[("0001_one.sql", "create table one (a int);\n")])?;
    server
        .migrate(&folder, &[])
        .await?
        .expect(1, &["0001_one.sql does not insert itself"])?;
    let there = postgres.psql("unrecorded", "select to_regclass('one')").await?;
    ensure!(there.is_empty(), "{there} was kept");
    Ok(())
}

async fn zone_and_passwords_follow_the_environment(postgres: &Postgres) -> Result<()> {
    postgres.create_database("telemetry").await?;
    let server = Server::Plain(postgres, "telemetry");
    let folder = Database::Telemetry.migrations();
    let zone = "select time_zone from household";
    server.migrate(&folder, &[]).await?.expect(0, &[])?;
    ensure!(postgres.psql("telemetry", zone).await? == "Europe/Stockholm");

    let secret = folder_of("secret", &[("password", "it's \"quoted\" $1 \\ and long\n")])?.join("password");
    let secret = secret.to_string_lossy().into_owned();
    let variables = [
        ("HOUSEHOLD_TIME_ZONE", "Asia/Kolkata"),
        ("SINK_PASSWORD", "first"),
        ("API_PASSWORD_FILE", secret.as_str()),
        ("SETTINGS_PASSWORD", "unused"),
    ];
    let run = server.migrate(&folder, &variables).await?;
    run.expect(0, &["role settings does not exist here"])?;
    ensure!(
        !run.text.contains("quoted") && !run.text.contains("first"),
        "{run:?}"
    );
    ensure!(postgres.psql("telemetry", zone).await? == "Asia/Kolkata");
    let stored = "select rolname || ' ' || left(rolpassword, 13) from pg_authid where rolname in ('sink', 'api') order by 1";
    let stored_first = postgres.psql("telemetry", stored).await?;
    ensure!(
        stored_first == "api SCRAM-SHA-256\nsink SCRAM-SHA-256",
        "{stored_first}"
    );

    let unknown = server
        .migrate(&folder, &[("HOUSEHOLD_TIME_ZONE", "Mars/Olympus")])
        .await?;
    unknown.expect(1, &["Mars/Olympus"])?;
    ensure!(postgres.psql("telemetry", zone).await? == "Asia/Kolkata");

    let both = server
        .migrate(
            &folder,
            &[("SINK_PASSWORD", "x"), ("SINK_PASSWORD_FILE", &secret)],
        )
        .await?;
    both.expect(64, &["SINK_PASSWORD and SINK_PASSWORD_FILE are both set"])?;
    let missing = server
        .migrate(&folder, &[("SINK_PASSWORD_FILE", "/nowhere/x")])
        .await?;
    missing.expect(64, &["SINK_PASSWORD_FILE", "/nowhere/x"])?;

    // A connection string says the same as the variables of psql.
    let url = postgres.url("postgres", "telemetry");
    let by_url = server
        .migrate(
            &folder,
            &[("DATABASE_URL", &url), ("PGPORT", "1"), ("PGDATABASE", "nowhere")],
        )
        .await?;
    by_url.expect(0, &["database telemetry is at version"])
}

async fn wrong_use(postgres: &Postgres) -> Result<()> {
    let server = Server::Plain(postgres, "telemetry");
    for (name, file) in [
        ("words", "0001_One.sql"),
        ("number", "1_one.sql"),
        ("zero", "0000_one.sql"),
        ("bare-name", "0001_.sql"),
    ] {
        let folder = folder_of(name, &[(file, ONE.1)])?;
        server.migrate(&folder, &[]).await?.expect(64, &[file])?;
    }
    let twins = folder_of("twins", &[ONE, ("0001_other.sql", ONE.1)])?;
    server
        .migrate(&twins, &[])
        .await?
        .expect(64, &["another file of version 1"])?;
    server
        .migrate(&folder_of("empty", &[])?, &[])
        .await?
        .expect(64, &["no .sql file"])?;
    server
        .migrate(Path::new("/nowhere"), &[])
        .await?
        .expect(64, &["/nowhere is not a directory"])?;
    let seconds = server
        .migrate(
            &Database::Telemetry.migrations(),
            &[("MIGRATION_WAIT_SECONDS", "soon")],
        )
        .await?;
    seconds.expect(64, &["MIGRATION_WAIT_SECONDS"])?;

    let nobody = port::free()?.port().to_string();
    let begin = std::time::Instant::now();
    let variables = [("PGPORT", nobody.as_str()), ("MIGRATION_WAIT_SECONDS", "2")];
    let alone = server
        .migrate(&Database::Telemetry.migrations(), &variables)
        .await?;
    alone.expect(75, &["no database after 2 s"])?;
    ensure!(begin.elapsed() < e2e::WITHIN, "it waited {:?}", begin.elapsed());
    Ok(())
}
