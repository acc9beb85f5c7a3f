//! `run_migrations.sh` and the migrations of both databases, on PostgreSQL and on TimescaleDB: applied once, harmless when
//! run again, the same tables and views on both, and roles that can do what they should and no more.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};
use stack::postgres::{Database, Postgres};
use stack::timescale::Timescale;
use stack::{guardian, port};

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

#[test]
fn every_migration_is_listed_in_its_kustomization_and_records_itself() -> Result<()> {
    for database in Database::ALL {
        let kustomization = std::fs::read_to_string(database.folder().join("kustomization.yaml"))?;
        let listed: Vec<String> = kustomization
            .lines()
            .filter_map(|line| line.trim().strip_prefix("- migrations/"))
            .map(str::to_owned)
            .collect();
        let files = file_names(&database.migrations())?;
        ensure!(
            listed == files,
            "{}: {listed:?} are listed, {files:?} are there",
            database.name()
        );

        for (index, file) in files.iter().enumerate() {
            let (number, words) = file
                .strip_suffix(".sql")
                .and_then(|stem| stem.split_once('_'))
                .with_context(|| format!("{file} is not NNNN_words.sql"))?;
            let version: usize = number.parse()?;
            ensure!(version == index + 1, "{file}: the version before it is {index}");
            let text = std::fs::read_to_string(database.migrations().join(file))?;
            let last =
                format!("insert into schema_migrations (version, name) values ({version}, '{words}');\n");
            ensure!(text.ends_with(&last), "{file} does not end with {last}");
        }
    }
    Ok(())
}

/// The column of a field of a record: settings of a pump stand beside its other fields.
fn columns_of(reading: &serde_json::Value) -> Vec<String> {
    let mut columns = Vec::new();
    for (field, value) in reading.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(inner) => columns.extend(inner.keys().map(|name| format!("{field}_{name}"))),
            None => columns.push(field.clone()),
        }
    }
    columns
}

/// Every field of the contract's samples has a column of its name.
async fn samples_fit(database: &mut PgConnection) -> Result<()> {
    for (table, sample) in [
        (
            "energy_consumption",
            include_str!("../../../cluster/telemetry/samples/energy.json"),
        ),
        (
            "temperature_sensors",
            include_str!("../../../cluster/telemetry/samples/temperature.json"),
        ),
        (
            "heatpump_status",
            include_str!("../../../cluster/telemetry/samples/heatpump.json"),
        ),
        (
            "plug_status",
            include_str!("../../../cluster/telemetry/samples/plug.json"),
        ),
    ] {
        let sample: serde_json::Value = serde_json::from_str(sample)?;
        let there = column(
            database,
            format!("select column_name::text from information_schema.columns where table_name = '{table}'"),
        )
        .await?;
        for wanted in columns_of(&sample["reading"]) {
            ensure!(there.contains(&wanted), "{table} has no column {wanted}");
        }
    }
    Ok(())
}

/// Every table and view with its columns and their types.
async fn shape(database: &mut PgConnection) -> Result<BTreeSet<String>> {
    let columns = column(
        database,
        "select table_name || '.' || column_name || ' ' || data_type || ' ' || is_nullable
        from information_schema.columns where table_schema = 'public'",
    )
    .await?;
    Ok(columns.into_iter().collect())
}

/// What the views have to have: the contract with homelab-api.
const VIEWS: &[(&str, &str)] = &[
    ("energy_hourly", ENERGY_HOURLY),
    (
        "energy_daily_summary",
        "device_id day_start day_end energy_wh export_wh average_power_w average_power_l1_w average_power_l2_w
        average_power_l3_w average_export_power_w count estimated",
    ),
    (
        "energy_monthly_summary",
        "device_id month_start month_end energy_wh export_wh average_power_w average_power_l1_w average_power_l2_w
        average_power_l3_w average_export_power_w count estimated",
    ),
    (
        "energy_yearly_summary",
        "device_id year_start year_end energy_wh export_wh average_power_w average_power_l1_w average_power_l2_w
        average_power_l3_w average_export_power_w count estimated",
    ),
    (
        "heatpump_hourly",
        "device_id hour_start hour_end mean_outdoor_c mean_indoor_c mean_supply_c mean_return_c mean_hot_water_c mean_integral
        compressor_hours hot_water_hours aux_3kw_hours aux_6kw_hours compressor_starts count",
    ),
    (
        "heatpump_daily_summary",
        "device_id day_start day_end mean_outdoor_c mean_indoor_c mean_supply_c mean_return_c mean_hot_water_c mean_integral
        compressor_hours hot_water_hours aux_3kw_hours aux_6kw_hours compressor_starts count",
    ),
    (
        "temperature_hourly",
        "device_id location hour_start hour_end mean_temperature_c min_temperature_c max_temperature_c mean_humidity_percent count",
    ),
    ("plug_hourly", "device_id hour_start hour_end energy_wh average_power_w on_hours count estimated"),
    ("house_meters", "device_id"),
];
const ENERGY_HOURLY: &str =
    "device_id hour_start hour_end energy_wh export_wh average_power_w average_power_l1_w
    average_power_l2_w average_power_l3_w average_export_power_w count estimated";

/// Migrates one database twice and looks at what is there.
async fn check(server: Server<'_>, which: Database) -> Result<BTreeSet<String>> {
    let files = file_names(&which.migrations())?;
    let run = server.migrate(&which.migrations(), &[]).await?;
    let applied: Vec<String> = files.iter().map(|file| format!("applied  {file}")).collect();
    let mut words: Vec<&str> = applied.iter().map(String::as_str).collect();
    let summary = format!("is at version {0}: {0} applied, 0 already present", files.len());
    words.push(&summary);
    run.expect(0, &words)?;

    let recorded = "select version || ' ' || name || ' ' || applied_at || ' ' || checksum from schema_migrations order by version";
    let mut database = server.connect().await?;
    let before = column(&mut database, recorded).await?;
    ensure!(before.len() == files.len(), "{before:?}");
    let shape_before = shape(&mut database).await?;
    // TimescaleDB here serves one connection at a time.
    database.close().await?;

    let again = server.migrate(&which.migrations(), &[]).await?;
    again.expect(
        0,
        &[&format!(
            "is at version {0}: 0 applied, {0} already present",
            files.len()
        )],
    )?;

    let edited = copy_of(&format!("edited-{}", which.name()), &which.migrations())?;
    let first = edited.join(&files[0]);
    let text = std::fs::read_to_string(&first)?;
    std::fs::write(&first, format!("-- Changed.\n{text}"))?;
    let refused = server.migrate(&edited, &[]).await?;
    refused.expect(65, &[&format!("{} was edited after it was applied", files[0])])?;

    let older = copy_of(&format!("older-{}", which.name()), &which.migrations())?;
    let last = files.last().context("there are migrations")?;
    std::fs::remove_file(older.join(last))?;
    let behind = server.migrate(&older, &[]).await?;
    let unknown = format!("migrations these files do not know: {} ", files.len());
    behind.expect(0, &["note", &unknown])?;

    let mut database = server.connect().await?;
    ensure!(
        column(&mut database, recorded).await? == before,
        "a second run changed what is recorded"
    );
    ensure!(
        shape(&mut database).await? == shape_before,
        "a second run changed the tables"
    );
    if which == Database::Telemetry {
        samples_fit(&mut database).await?;
        for (view, columns) in VIEWS {
            let there = column(
                &mut database,
                format!(
                    "select column_name::text from information_schema.columns
                    where table_schema = 'public' and table_name = '{view}' order by ordinal_position"
                ),
            )
            .await?;
            let wanted: Vec<&str> = columns.split_whitespace().collect();
            ensure!(there == wanted, "{view} has {there:?}, not {wanted:?}");
        }
    }
    database.close().await?;
    Ok(shape_before)
}

#[tokio::test]
async fn both_databases_on_both_kinds_of_server() -> Result<()> {
    let postgres = Postgres::start_empty(&guardian::run()?.data("migrations-both")?).await?;
    for which in Database::ALL {
        postgres.create_database(which.name()).await?;
        let plain = check(Server::Plain(&postgres, which.name()), which).await?;
        let timescale = Timescale::start(&format!("migrations-{}", which.name())).await?;
        let stored = check(Server::Timescale(&timescale), which).await?;
        if which == Database::Telemetry {
            timescale_is_used(&timescale).await?;
            roles_on_timescale(&timescale).await?;
        }
        timescale.stop().await;
        let differences: Vec<_> = plain.symmetric_difference(&stored).collect();
        ensure!(
            differences.is_empty(),
            "{}: plain and TimescaleDB differ in {differences:?}",
            which.name()
        );
    }
    roles_on_plain(&postgres).await?;
    postgres.stop().await;
    Ok(())
}

/// Hypertables, continuous aggregates and policies are there, and the policies keep clear of each other.
async fn timescale_is_used(timescale: &Timescale) -> Result<()> {
    let mut database = PgConnection::connect(&timescale.url()).await?;
    let compressed = column(
        &mut database,
        "select hypertable_name::text from timescaledb_information.hypertables where compression_enabled order by 1",
    )
    .await?;
    ensure!(
        compressed
            == [
                "energy_consumption",
                "heatpump_status",
                "plug_status",
                "temperature_sensors"
            ],
        "{compressed:?}"
    );
    let live = column(
        &mut database,
        "select view_name::text from timescaledb_information.continuous_aggregates where not materialized_only order by 1",
    )
    .await?;
    ensure!(
        live == [
            "energy_quarters",
            "heatpump_quarters",
            "plug_quarters",
            "temperature_quarters"
        ],
        "{live:?}"
    );
    let policies = column(
        &mut database,
        "select count(*) || ' ' || proc_name || ' ' ||
            coalesce(config ->> 'drop_after', config ->> 'compress_after', config ->> 'start_offset')
        from timescaledb_information.jobs where proc_name ~ '^policy_' and hypertable_name <> 'events'
        group by proc_name, config ->> 'drop_after', config ->> 'compress_after', config ->> 'start_offset' order by 1",
    )
    .await?;
    ensure!(
        policies
            == [
                "4 policy_compression 7 days",
                "4 policy_refresh_continuous_aggregate 60 days",
                "4 policy_retention 90 days"
            ],
        "{policies:?}"
    );
    database.close().await?;
    Ok(())
}

/// A role, a statement, and whether it may.
type Permission = (&'static str, &'static str, bool);

const TELEMETRY_PERMISSIONS: &[Permission] = &[
    ("sink", INSERT_ENERGY, true),
    // The same again: nothing happens, and nothing is refused.
    ("sink", INSERT_ENERGY, true),
    (
        "sink",
        "insert into temperature_sensors (device_id, time, id, agent, clock) values ('d', now(), 'i', 'p0', 'synced') on conflict do nothing",
        true,
    ),
    (
        "sink",
        "insert into heatpump_status (device_id, time, id, agent, clock) values ('d', now(), 'i', 'p0', 'synced') on conflict do nothing",
        true,
    ),
    (
        "sink",
        "insert into plug_status (device_id, time, id, agent, clock, energy_wh) values ('d', now(), 'i', 'p0', 'synced', 1) on conflict do nothing",
        true,
    ),
    (
        "sink",
        "insert into events (time, id, type) values (now(), 'e', 'clock_step') on conflict (id, time) do nothing",
        true,
    ),
    ("sink", "create temporary table staging (device_id text)", true),
    ("sink", "select device_id, time, id from energy_consumption", true),
    ("sink", "select energy_wh from energy_consumption", false),
    ("sink", "select * from energy_hourly", false),
    ("sink", "select * from counter_steps", false),
    (
        "sink",
        "insert into counter_steps (counter, device_id, meter_id, time, id, previous_wh, value_wh) values ('energy', 'd', '', now(), 'i', 1, 1)",
        false,
    ),
    (
        "sink",
        "insert into energy_prices values (now(), null, 1, 'SEK')",
        false,
    ),
    ("sink", "insert into schema_migrations values (99, 'mine')", false),
    ("sink", "update energy_consumption set agent = 'x'", false),
    ("sink", "delete from energy_consumption", false),
    ("sink", "truncate energy_consumption", false),
    ("sink", "create table mine (a int)", false),
    ("api", "select count(*) from energy_consumption", true),
    ("api", "select count(*) from energy_hourly", true),
    ("api", "select count(*) from energy_yearly_summary", true),
    ("api", "select count(*) from heatpump_daily_summary", true),
    ("api", "select count(*) from temperature_hourly", true),
    ("api", "select count(*) from plug_hourly", true),
    ("api", "select count(*) from house_meters", true),
    ("api", "select count(*) from events", true),
    ("api", "select count(*) from energy_prices", true),
    ("api", "select time_zone from household", true),
    ("api", INSERT_ENERGY, false),
    ("api", "update energy_meters set role = 'sub'", false),
    ("api", "update household set time_zone = 'UTC'", false),
    ("api", "delete from events", false),
    ("api", "truncate events", false),
    ("api", "drop view energy_hourly", false),
    ("api", "create table mine (a int)", false),
    (
        "api",
        "select counter_steps_refresh('energy', 'd', '', '-infinity', 'infinity')",
        false,
    ),
    ("api", "select pg_read_file('/etc/passwd')", false),
    ("api", "copy energy_consumption to program 'cat'", false),
];
const INSERT_ENERGY: &str = "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, export_energy_wh)
    values ('d', '2026-01-10 00:00:00Z', 'i', 'p0', 'synced', 1, 1) on conflict (device_id, time, id) do nothing";

/// Rights on the database itself, on plain PostgreSQL only: the WebAssembly build cannot change those of its own.
const DATABASE_PERMISSIONS: &[Permission] = &[
    ("api", "create temporary table mine (a int)", false),
    ("api", "create schema mine", false),
    ("sink", "create schema mine", false),
];

const SETTINGS_PERMISSIONS: &[Permission] = &[
    (
        "settings",
        "insert into settings (device_id, agent, reported_at, mode) values ('pump', 'p0', now(), 1)",
        true,
    ),
    (
        "settings",
        "insert into power_plugs (plug_id) values ('plug')",
        true,
    ),
    (
        "settings",
        "insert into power_plug_schedules (plug_id, weekdays, local_time, turn_on, created_by) values ('plug', '{1,7}', '06:30', true, 'me')",
        true,
    ),
    (
        "settings",
        "insert into power_plug_schedules (plug_id, weekdays, local_time, turn_on, created_by) values ('plug', '{8}', '06:30', true, 'me')",
        false,
    ),
    (
        "settings",
        "insert into outbox (device_id, agent, kind, wanted, requested_by) values ('pump', 'p0', 'heatpump_settings', '{\"mode\": 1}', 'me')",
        true,
    ),
    (
        "settings",
        "update outbox set status = 'published', attempts = 1",
        true,
    ),
    ("settings", "update outbox set status = 'confirmed'", false),
    (
        "settings",
        "update outbox set status = 'confirmed', finished_at = now()",
        true,
    ),
    ("settings", "update outbox set attempts = 4", false),
    ("settings", "delete from power_plugs", true),
    (
        "settings",
        "insert into schema_migrations values (99, 'mine')",
        false,
    ),
    ("settings", "create role mine", false),
];

/// Whether `role` may run each statement; with a fresh transaction each, kept when it may.
async fn check_permissions(
    database: &mut PgConnection,
    permissions: &[Permission],
    set_role: bool,
) -> Result<()> {
    for (role, statement, allowed) in permissions {
        let run = async |database: &mut PgConnection, statement: &str| {
            sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
                .execute(database)
                .await
        };
        run(database, "begin").await?;
        if set_role {
            run(database, &format!("set local role {role}")).await?;
        }
        let outcome = run(database, statement).await;
        run(database, if outcome.is_ok() { "commit" } else { "rollback" }).await?;
        ensure!(
            outcome.is_ok() == *allowed,
            "{role}: {statement}: {outcome:?}, allowed is {allowed}"
        );
    }
    Ok(())
}

async fn roles_on_timescale(timescale: &Timescale) -> Result<()> {
    let mut database = PgConnection::connect(&timescale.url()).await?;
    check_permissions(&mut database, TELEMETRY_PERMISSIONS, true).await?;
    database.close().await?;
    Ok(())
}

async fn roles_on_plain(postgres: &Postgres) -> Result<()> {
    for (which, permissions) in [
        (
            Database::Telemetry,
            [TELEMETRY_PERMISSIONS, DATABASE_PERMISSIONS].concat(),
        ),
        (Database::Settings, SETTINGS_PERMISSIONS.to_vec()),
    ] {
        for role in ["sink", "api", "settings"] {
            let url = postgres.url(role, which.name());
            let own: Vec<Permission> = permissions
                .iter()
                .copied()
                .filter(|permission| permission.0 == role)
                .collect();
            if own.is_empty() {
                // The roles of one database cannot even enter the other.
                ensure!(
                    PgConnection::connect(&url).await.is_err(),
                    "{role} enters {}",
                    which.name()
                );
                continue;
            }
            let mut database = PgConnection::connect(&url).await?;
            if role == "api" {
                // The missing grants have to do without the read-only default, which the role could lift itself.
                sqlx::raw_sql("set default_transaction_read_only = off")
                    .execute(&mut database)
                    .await?;
            }
            check_permissions(&mut database, &own, false).await?;
            database.close().await?;
        }
    }
    let superusers = "select count(*) from pg_roles where rolname in ('sink', 'api', 'settings')
        and (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls)";
    ensure!(
        postgres.psql("postgres", superusers).await? == "0",
        "a service's role has rights of the server"
    );
    Ok(())
}

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
