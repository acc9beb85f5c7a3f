//! What each role may do, statement by statement, on both kinds of server.

use anyhow::{Result, ensure};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use stack::postgres::{Database, Postgres};
use stack::timescale::Timescale;

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

pub async fn roles_on_timescale(timescale: &Timescale) -> Result<()> {
    let mut database = PgConnection::connect(&timescale.url()).await?;
    check_permissions(&mut database, TELEMETRY_PERMISSIONS, true).await?;
    database.close().await?;
    Ok(())
}

pub async fn roles_on_plain(postgres: &Postgres) -> Result<()> {
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
