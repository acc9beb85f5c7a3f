//! The energy rule and the on-hours of DESIGN 5.3, by cases computed by hand, on PostgreSQL and on TimescaleDB.
//!
//! Every case arrives in several ways (one by one in order, one by one backwards, all in one statement, by COPY, and all
//! cases together in one statement that spans chunks) and must give the same rows. On TimescaleDB the rows are looked at
//! three times: aggregated on the fly, after the summaries were refreshed, and after the raw rows were dropped as after 90
//! days.

mod arrival;
mod cases;
mod policies;
mod states;
mod sums;

use anyhow::{Context, Result, ensure};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection, Row};
use stack::guardian;
use stack::postgres::{Database, Postgres};
use stack::timescale::Timescale;

use arrival::insert_cases;
use policies::check_policies;
use states::{check_states, insert_states};
use sums::{check, check_bulk, insert_bulk};

async fn execute(database: &mut PgConnection, statement: impl Into<String>) -> Result<()> {
    let statement = statement.into();
    sqlx::raw_sql(AssertSqlSafe(statement.clone()))
        .execute(database)
        .await
        .with_context(|| statement)?;
    Ok(())
}

async fn rows(database: &mut PgConnection, statement: impl Into<String>) -> Result<Vec<PgRow>> {
    let statement = statement.into();
    sqlx::query(AssertSqlSafe(statement.clone()))
        .fetch_all(database)
        .await
        .with_context(|| statement)
}

/// Numbers are compared by value: 10 and 10.0 are the same.
fn equal(got: &serde_json::Value, want: &serde_json::Value) -> bool {
    match (got, want) {
        (serde_json::Value::Array(got), serde_json::Value::Array(want)) => {
            got.len() == want.len() && got.iter().zip(want).all(|(got, want)| equal(got, want))
        }
        _ => got == want || got.as_f64().is_some() && got.as_f64() == want.as_f64(),
    }
}

async fn insert_all(database: &mut PgConnection) -> Result<()> {
    insert_cases(database).await?;
    insert_bulk(database).await?;
    insert_states(database).await
}

async fn check_all(database: &mut PgConnection, moment: &str) -> Result<()> {
    check(database, moment).await?;
    check_bulk(database, moment).await?;
    check_states(database, moment).await
}

#[tokio::test]
async fn on_plain_postgresql() -> Result<()> {
    let postgres = Postgres::start(&guardian::run()?.data("energy-rule")?).await?;
    let mut database = PgConnection::connect(&postgres.url("postgres", Database::Telemetry.name())).await?;
    insert_all(&mut database).await?;
    check_all(&mut database, "at once").await?;
    a_deleted_reading_is_forgotten(&mut database, Summaries::Views).await?;
    the_house_is_the_sum_of_its_main_meters(&mut database).await?;
    a_month_of_days_reads_a_month_by_the_index(&mut database).await?;
    database.close().await?;
    neighbours_written_at_once(&postgres).await?;
    postgres.stop().await;
    Ok(())
}

#[tokio::test]
async fn on_timescaledb() -> Result<()> {
    let timescale = Timescale::start("energy-rule-timescale").await?;
    let run = timescale
        .run_migrations(&Database::Telemetry.migrations(), &[])
        .await?;
    ensure!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let mut database = PgConnection::connect(&timescale.url()).await?;
    insert_all(&mut database).await?;
    check_all(&mut database, "aggregated on the fly").await?;
    refresh(&mut database).await?;
    check_all(&mut database, "refreshed").await?;

    // Late: into quarters that have been summed up already. The meter slips back between two known readings.
    execute(
        &mut database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh) values
            ('late', '2026-01-10 00:00:00Z', '1', 'p0', 'synced', 100),
            ('late', '2026-01-10 02:00:00Z', '3', 'p0', 'synced', 120)",
    )
    .await?;
    refresh(&mut database).await?;
    execute(
        &mut database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh) values
            ('late', '2026-01-10 01:00:00Z', '2', 'p0', 'synced', 90)",
    )
    .await?;
    refresh(&mut database).await?;
    let late =
        "select jsonb_agg(energy_wh order by hour_start) as got from energy_hourly where device_id = 'late'";
    let got: serde_json::Value = rows(&mut database, late).await?[0].try_get("got")?;
    ensure!(equal(&got, &serde_json::json!([0, 0, 20])), "late reading: {got}");

    a_deleted_reading_is_forgotten(&mut database, Summaries::Stored).await?;

    for table in [
        "energy_consumption",
        "plug_status",
        "heatpump_status",
        "temperature_sensors",
    ] {
        execute(
            &mut database,
            format!("select drop_chunks('{table}', '2027-01-01 00:00:00Z'::timestamptz)"),
        )
        .await?;
        let left = rows(&mut database, format!("select 1 from {table}")).await?;
        ensure!(left.is_empty(), "{} rows of {table} are left", left.len());
    }
    check_all(&mut database, "raw rows dropped").await?;

    // A meter that comes back after its raw rows are gone still has its past: this is a reset, not a beginning.
    execute(
        &mut database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh) values
            ('late', '2026-12-01 00:00:00Z', '4', 'p0', 'synced', 7)",
    )
    .await?;
    // As the policies do: no further back than there are raw rows. All time would wipe what the dropped rows left.
    execute(
        &mut database,
        "call refresh_continuous_aggregate('energy_quarters', '2026-11-01 00:00:00Z'::timestamptz, null)",
    )
    .await?;
    let got: serde_json::Value = rows(&mut database, late).await?[0].try_get("got")?;
    ensure!(
        equal(&got, &serde_json::json!([0, 0, 20, 7])),
        "after a long silence: {got}"
    );

    the_house_is_the_sum_of_its_main_meters(&mut database).await?;
    check_policies(&mut database).await?;
    database.close().await?;
    timescale.stop().await;
    Ok(())
}

/// Where summaries come from.
#[derive(Clone, Copy, PartialEq)]
enum Summaries {
    Views,
    Stored,
}

impl Summaries {
    async fn refresh(self, database: &mut PgConnection) -> Result<()> {
        if self == Summaries::Stored {
            refresh(database).await?;
        }
        Ok(())
    }
}

/// What the policies do from the last 60 days on, here over all time.
async fn refresh(database: &mut PgConnection) -> Result<()> {
    for view in [
        "energy_quarters",
        "temperature_quarters",
        "heatpump_quarters",
        "plug_quarters",
    ] {
        execute(
            database,
            format!("call refresh_continuous_aggregate('{view}', null, null)"),
        )
        .await?;
    }
    Ok(())
}

/// Removing a spurious reading by hand removes what it did to the sums.
async fn a_deleted_reading_is_forgotten(database: &mut PgConnection, summaries: Summaries) -> Result<()> {
    let sum = "select sum(energy_wh)::float8 as wh from energy_hourly where device_id = 'spike'";
    execute(
        database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh) values
            ('spike', '2026-01-10 00:00:00Z', '1', 'p0', 'synced', 100),
            ('spike', '2026-01-10 00:01:00Z', '2', 'p0', 'synced', 99999),
            ('spike', '2026-01-10 00:02:00Z', '3', 'p0', 'synced', 101)",
    )
    .await?;
    summaries.refresh(database).await?;
    let wh: f64 = rows(database, sum).await?[0].try_get("wh")?;
    ensure!(wh == 99899.0 + 101.0, "a spike up, then a reset: {wh}");
    execute(
        database,
        "delete from energy_consumption where device_id = 'spike' and id = '2'",
    )
    .await?;
    summaries.refresh(database).await?;
    let wh: f64 = rows(database, sum).await?[0].try_get("wh")?;
    ensure!(wh == 1.0, "without the spike: {wh}");
    execute(
        database,
        "update energy_consumption set energy_wh = 150 where device_id = 'spike' and id = '1'",
    )
    .await?;
    summaries.refresh(database).await?;
    let wh: f64 = rows(database, sum).await?[0].try_get("wh")?;
    ensure!(wh == 0.0, "corrected to a slip back: {wh}");
    Ok(())
}

async fn the_house_is_the_sum_of_its_main_meters(database: &mut PgConnection) -> Result<()> {
    let meters = async |database: &mut PgConnection| -> Result<Vec<String>> {
        let found = rows(database, "select device_id from house_meters order by device_id").await?;
        Ok(found
            .iter()
            .map(|row| row.try_get("device_id"))
            .collect::<Result<_, _>>()?)
    };
    execute(database, "begin").await?;
    ensure!(
        meters(database).await?.is_empty(),
        "many devices, none of them named"
    );
    execute(database, "delete from device_spans where device_id <> 'bulk'").await?;
    ensure!(
        meters(database).await? == ["bulk"],
        "the only one is the main one"
    );
    execute(database, "insert into energy_meters values ('bulk', 'sub')").await?;
    ensure!(
        meters(database).await?.is_empty(),
        "unless it is known to be something else"
    );
    execute(
        database,
        "insert into energy_meters values ('a', 'main'), ('b', 'main'), ('c', 'production')",
    )
    .await?;
    ensure!(
        meters(database).await? == ["a", "b"],
        "what is named main is main"
    );
    execute(database, "rollback").await
}

/// Readings of an hour in [`a_month_of_days_reads_a_month_by_the_index`].
const READINGS_AN_HOUR: i64 = 6;

/// 30 days of daily sums of one meter out of a year: what the server itself counts is that nothing is read but by the index,
/// and of the readings only those days' and a handful a day around their edges.
async fn a_month_of_days_reads_a_month_by_the_index(database: &mut PgConnection) -> Result<()> {
    execute(
        database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, power_w)
        select 'year', '2025-01-01 00:00:00Z'::timestamptz + n * interval '10 minutes', n::text, 'p0', 'synced', n * 10.0, 60
        from generate_series(0, 365 * 144 - 1) as n",
    )
    .await?;
    execute(database, "update household set time_zone = 'Europe/Stockholm'").await?;
    execute(database, "vacuum analyze energy_consumption").await?;
    // The server counts a transaction's reads together with those of earlier ones that it has not handed in yet.
    execute(database, "select pg_stat_force_next_flush()").await?;
    execute(database, "begin").await?;
    let days = rows(
        database,
        "select energy_wh, count from energy_daily_summary where device_id = 'year'
            and day_start >= '2025-06-30 22:00:00Z' and day_start < '2025-07-30 22:00:00Z'",
    )
    .await?;
    let read = rows(
        database,
        "select seq_scan, seq_tup_read, idx_tup_fetch from pg_stat_xact_user_tables where relname = 'energy_consumption'",
    )
    .await?;
    execute(database, "commit").await?;
    ensure!(days.len() == 30, "{} days", days.len());
    for day in &days {
        let (wh, count): (f64, i64) = (day.try_get("energy_wh")?, day.try_get("count")?);
        ensure!(
            wh == 1440.0 && count == 24 * READINGS_AN_HOUR,
            "{wh} Wh of {count}"
        );
    }
    let (scans, fetched): (i64, i64) = (read[0].try_get("seq_scan")?, read[0].try_get("idx_tup_fetch")?);
    ensure!(
        scans == 0,
        "{scans} scans of the whole table, {} rows read by them",
        read[0].try_get::<i64, _>("seq_tup_read")?
    );
    // Each reading at most twice, and some forty a day for the values at its edges.
    let most = 30 * (2 * 24 * READINGS_AN_HOUR + 40);
    ensure!(
        fetched <= most,
        "{fetched} readings fetched for 30 days, at most {most} expected"
    );
    Ok(())
}

/// Two transactions that write readings of one counter at the same time: each sees the other's, whoever commits first.
async fn neighbours_written_at_once(postgres: &Postgres) -> Result<()> {
    let url = postgres.url("sink", Database::Telemetry.name());
    let mut first = PgConnection::connect(&url).await?;
    let mut second = PgConnection::connect(&url).await?;
    let values = |time: &str, wh: f64| {
        format!(
            "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh)
            values ('both', '{time}', '{time}', 'p0', 'synced', {wh})"
        )
    };
    // The day is known beforehand: two transactions that both bring a new one wait for each other already there.
    execute(&mut first, values("2026-01-10 23:00:00Z", 101.0)).await?;
    execute(&mut first, "begin").await?;
    execute(&mut first, values("2026-01-10 00:00:00Z", 100.0)).await?;
    let later = tokio::spawn(async move {
        execute(&mut second, values("2026-01-10 00:05:00Z", 99.0)).await?;
        execute(&mut second, values("2026-01-10 00:10:00Z", 101.0)).await
    });
    // It waits for the first transaction; that it does is what makes the difference.
    let waiting = "select count(*) from pg_locks where locktype = 'advisory' and not granted";
    stack::part::eventually("the second transaction waits", e2e::WITHIN, async || {
        Ok((postgres.psql(Database::Telemetry.name(), waiting).await? == "1").then_some(()))
    })
    .await?;
    execute(&mut first, "commit").await?;
    later.await??;
    let sum = "select sum(energy_wh) from energy_hourly where device_id = 'both'";
    let wh = postgres.psql(Database::Telemetry.name(), sum).await?;
    ensure!(wh == "1", "100, 99, 101 gain 1, not {wh}");
    Ok(())
}
