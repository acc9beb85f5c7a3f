//! Databases of every older version, with data in them, brought forward to the newest: on plain PostgreSQL one database a
//! version, on TimescaleDB one server on which every version gets its own data before the next file is applied.
//!
//! On the way each file is also met half done: it fails at its last statement, must be named, and must be complete after the
//! next run. What was stored at an old version then has the sums that were computed by hand, keeps them when the raw
//! readings are dropped, and new readings go on from it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use stack::guardian;
use stack::postgres::{Database, Postgres};
use stack::timescale::Timescale;

use crate::shape::shape;
use crate::{Server, column, file_names, folder_of};

/// UTC, so that hours and days can be read off the times.
const UTC: &[(&str, &str)] = &[("HOUSEHOLD_TIME_ZONE", "UTC")];

/// What stands in `telemetry` since version 1; `{v}` is the version it was written at.
///
/// The meter is reset once and slips back once, the plug is reset, and all lie further back than the refresh policies reach.
const OLD_READINGS: &str = "
    insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, export_energy_wh, power_w) values
        ('meter{v}', '2026-01-10 00:00:00Z', '1', 'p0', 'synced', 1000, 2000, 100),
        ('meter{v}', '2026-01-10 00:10:00Z', '2', 'p0', 'synced', 1010, 2020, 100),
        ('meter{v}', '2026-01-10 00:20:00Z', '3', 'p0', 'synced', 5, 10, 100),
        ('meter{v}', '2026-01-10 00:30:00Z', '4', 'p0', 'corrected', 25, 50, 100),
        ('meter{v}', '2026-01-10 00:35:00Z', '5', 'p0', 'unsynced', 9999, 9999, 100),
        ('meter{v}', '2026-01-10 01:00:00Z', '6', 'p0', 'synced', 24, 48, 100),
        ('meter{v}', '2026-01-10 01:10:00Z', '7', 'p0', 'synced', 28, 56, 100);
    insert into plug_status (device_id, time, id, agent, clock, \"on\", energy_wh, power_w) values
        ('plug{v}', '2026-01-10 00:00:00Z', '1', 'p0', 'synced', true, 100, 10),
        ('plug{v}', '2026-01-10 00:03:00Z', '2', 'p0', 'synced', false, 3, 0);
    insert into heatpump_status (device_id, time, id, agent, clock, compressor_on, outdoor_c) values
        ('pump{v}', '2026-01-10 00:00:00Z', '1', 'p0', 'synced', true, -4),
        ('pump{v}', '2026-01-10 00:03:00Z', '2', 'p0', 'synced', false, -6);
    insert into temperature_sensors (device_id, time, id, agent, clock, location, temperature_c) values
        ('room{v}', '2026-01-10 00:00:00Z', '1', 'p0', 'synced', 'attic', 19),
        ('room{v}', '2026-01-10 00:30:00Z', '2', 'p0', 'synced', 'attic', 21);
    insert into events (time, id, type, device_id, details) values
        ('2026-01-10 00:00:00Z', 'event{v}', 'device_online', 'meter{v}', '{\"online\": true}');
    insert into energy_meters (device_id, role) values ('meter{v}', 'sub');
    -- Within the reach of the policies: their first run tells TimescaleDB that all before it is summed up.
    insert into energy_consumption (device_id, time, id, agent, clock, energy_wh) values
        ('later{v}', '2026-06-01 00:00:00Z', '1', 'p0', 'synced', 1);
    insert into plug_status (device_id, time, id, agent, clock, \"on\") values
        ('later{v}', '2026-06-01 00:00:00Z', '1', 'p0', 'synced', true);
    insert into heatpump_status (device_id, time, id, agent, clock, outdoor_c) values
        ('later{v}', '2026-06-01 00:00:00Z', '1', 'p0', 'synced', 10);
    insert into temperature_sensors (device_id, time, id, agent, clock, temperature_c) values
        ('later{v}', '2026-06-01 00:00:00Z', '1', 'p0', 'synced', 10)";

/// Each statement and what it answers, once everything is migrated. Wh: 10 before the reset, 5 with it, 20 after it; then 1
/// back and 3 beyond the old maximum, across half an hour without a reading.
const OLD_SUMS: &[(&str, &str)] = &[
    (
        "select string_agg(concat_ws(' ', extract(hour from hour_start at time zone 'UTC'), energy_wh, export_wh, count, estimated), ', '
            order by hour_start)
        from energy_hourly where device_id = 'meter{v}' and hour_start < '2026-02-01'",
        "0 35 70 4 f, 1 3 6 2 t",
    ),
    (
        "select concat_ws(' ', energy_wh, export_wh, count) from energy_daily_summary
        where device_id = 'meter{v}' and day_start = '2026-01-10 00:00:00Z'",
        "38 76 6",
    ),
    (
        "select concat_ws(' ', energy_wh, round((on_hours * 60)::numeric)) from plug_hourly
        where device_id = 'plug{v}' and hour_start < '2026-02-01'",
        "3 3",
    ),
    (
        "select concat_ws(' ', mean_outdoor_c, round((compressor_hours * 60)::numeric)) from heatpump_hourly
        where device_id = 'pump{v}' and hour_start < '2026-02-01'",
        "-5 3",
    ),
    (
        "select concat_ws(' ', mean_temperature_c, count) from temperature_hourly
        where device_id = 'room{v}' and hour_start < '2026-02-01'",
        "20 2",
    ),
    ("select details ->> 'online' from events where id = 'event{v}'", "true"),
    ("select role from energy_meters where device_id = 'meter{v}'", "sub"),
];

/// Half a year later: a reset that is one only to who remembers 28, then 4 Wh more.
const NEW_READINGS: &str = "
    insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, export_energy_wh, power_w) values
        ('meter{v}', '2026-07-01 00:00:00Z', '8', 'p0', 'synced', 1, 2, 100);
    insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, export_energy_wh, power_w) values
        ('meter{v}', '2026-07-01 00:10:00Z', '9', 'p0', 'synced', 5, 10, 100)";
const NEW_SUMS: &[(&str, &str)] = &[(
    "select concat_ws(' ', energy_wh, export_wh) from energy_yearly_summary
    where device_id = 'meter{v}' and year_start = '2026-01-01 00:00:00Z'",
    "43 86",
)];

/// What stands in `homelab_settings` since version 2.
const OLD_SETTINGS: &str = "
    insert into settings (device_id, agent, reported_at, mode) values ('pump{v}', 'p0', now(), 1);
    insert into power_plugs (plug_id, name, is_on) values ('plug{v}', 'Lamp', true);
    insert into power_plug_schedules (plug_id, weekdays, local_time, turn_on, created_by)
        values ('plug{v}', '{1,7}', '06:30', true, 'me');
    -- From version 3 on the service writes what was asked for as well; 3 insists on it.
    do $$
    begin
        if exists (select from information_schema.columns where table_name = 'outbox' and column_name = 'asked') then
            insert into outbox (device_id, agent, kind, wanted, asked, requested_by)
            values ('pump{v}', 'p0', 'heatpump_settings', '{\"mode\": 2}', '{\"mode\": 2}', 'me');
        else
            insert into outbox (device_id, agent, kind, wanted, requested_by)
            values ('pump{v}', 'p0', 'heatpump_settings', '{\"mode\": 2}', 'me');
        end if;
    end
    $$;
    update outbox set status = 'published', attempts = 1 where device_id = 'pump{v}'";
const OLD_SETTINGS_ANSWERS: &[(&str, &str)] = &[
    ("select mode::text from settings where device_id = 'pump{v}'", "1"),
    ("select name from power_plugs where plug_id = 'plug{v}' and is_on", "Lamp"),
    (
        "select local_time::text from power_plug_schedules where plug_id = 'plug{v}' and effective_from is not null",
        "06:30:00",
    ),
    (
        "select concat_ws(' ', coalesce(asked, wanted), status, attempts, answered) from outbox where device_id = 'pump{v}'",
        "{\"mode\": 2} published 1 0",
    ),
    (
        "select string_agg(h.status, ' ' order by h.id) from outbox_history as h join outbox as o on o.id = h.outbox_id
        where o.device_id = 'pump{v}'",
        "pending published",
    ),
];
const NEW_SETTINGS: &str = "
    update outbox set status = 'confirmed', finished_at = now(), next_attempt = null where device_id = 'pump{v}'";
const NEW_SETTINGS_ANSWERS: &[(&str, &str)] = &[(
    "select status from outbox where device_id = 'pump{v}'",
    "confirmed",
)];

type Answers = &'static [(&'static str, &'static str)];

/// What one of the databases is given and must answer.
struct Data {
    /// The first version at which the tables of `old` are there.
    since: usize,
    old: &'static str,
    old_answers: Answers,
    new: &'static str,
    new_answers: Answers,
}

fn data(which: Database) -> Data {
    match which {
        Database::Telemetry => Data {
            since: 1,
            old: OLD_READINGS,
            old_answers: OLD_SUMS,
            new: NEW_READINGS,
            new_answers: NEW_SUMS,
        },
        Database::Settings => Data {
            since: 2,
            old: OLD_SETTINGS,
            old_answers: OLD_SETTINGS_ANSWERS,
            new: NEW_SETTINGS,
            new_answers: NEW_SETTINGS_ANSWERS,
        },
    }
}

/// The first `versions` files of a database. A folder of its own each time, for two tests run at once.
fn up_to(which: Database, versions: usize) -> Result<PathBuf> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let folder = folder_of(&format!("{}-up-to-{versions}-{number}", which.name()), &[])?;
    for file in file_names(&which.migrations())?.into_iter().take(versions) {
        std::fs::copy(which.migrations().join(&file), folder.join(&file))?;
    }
    Ok(folder)
}

async fn run(server: &Server<'_>, statements: &str, version: usize) -> Result<()> {
    let mut database = server.connect().await?;
    let statements = statements.replace("{v}", &version.to_string());
    sqlx::raw_sql(AssertSqlSafe(statements.clone()))
        .execute(&mut database)
        .await
        .with_context(|| format!("version {version}: {statements}"))?;
    database.close().await?;
    Ok(())
}

async fn answers(database: &mut PgConnection, moment: &str, version: usize, wanted: Answers) -> Result<()> {
    for (statement, want) in wanted {
        let got = column(database, statement.replace("{v}", &version.to_string()))
            .await
            .with_context(|| format!("{moment}: data of version {version}: {statement}"))?;
        ensure!(
            got == [*want],
            "{moment}: data of version {version}: {statement}\n got {got:?}\nwant {want:?}"
        );
    }
    Ok(())
}

/// Brings a server forward by way of the versions `stops`, each of which leaves its data, and looks at what became of it.
async fn forward(server: &Server<'_>, which: Database, stops: &[usize]) -> Result<()> {
    let data = data(which);
    let newest = file_names(&which.migrations())?.len();
    let summed_up = which == Database::Telemetry && matches!(server, Server::Timescale(_));
    let mut version = 0;
    for &stop in stops {
        migrate(server, &up_to(which, stop)?, stop, stop - version).await?;
        version = stop;
        run(server, data.old, stop).await?;
        if summed_up && stop >= ALL_SUMMED_UP {
            let mut database = server.connect().await?;
            refresh_from("2026-01-01", &mut database).await?;
            database.close().await?;
        }
        if version < newest {
            half_done(server, which, version + 1).await?;
        }
    }
    migrate(server, &which.migrations(), newest, newest - version).await?;

    let mut database = server.connect().await?;
    for &stop in stops {
        answers(&mut database, "migrated", stop, data.old_answers).await?;
    }
    if summed_up {
        refresh_from(POLICIES_FROM, &mut database).await?;
        for &stop in stops {
            answers(&mut database, "refreshed", stop, data.old_answers).await?;
        }
        drop_old_readings(&mut database).await?;
        for &stop in stops {
            answers(&mut database, "raw readings dropped", stop, data.old_answers).await?;
        }
    }
    database.close().await?;
    for &stop in stops {
        run(server, data.new, stop).await?;
    }
    let mut database = server.connect().await?;
    if summed_up {
        refresh_from(POLICIES_FROM, &mut database).await?;
    }
    for &stop in stops {
        answers(&mut database, "gone on from", stop, data.new_answers).await?;
    }
    database.close().await?;
    Ok(())
}

/// A file that fails when all of it but its own record is done is named, and nothing of it is left where it runs in a
/// transaction.
async fn half_done(server: &Server<'_>, which: Database, version: usize) -> Result<()> {
    let folder = up_to(which, version)?;
    let file = file_names(&folder)?.pop().context("there is a file")?;
    let text = std::fs::read_to_string(folder.join(&file))?;
    let (work, record) = text
        .rsplit_once("\ninsert into schema_migrations")
        .context("a file records itself")?;
    std::fs::write(
        folder.join(&file),
        format!("{work}\nselect 1 / 0;\ninsert into schema_migrations{record}"),
    )?;
    let shape_now = async || -> Result<_> {
        let mut database = server.connect().await?;
        let there = shape(&mut database).await?;
        database.close().await?;
        Ok(there)
    };
    let before = shape_now().await?;
    let failed = server.migrate(&folder, UTC).await?;
    failed.expect(1, &["division by zero", &format!("failed   {file}")])?;
    let in_a_transaction = !text.starts_with("-- transaction: none");
    ensure!(
        !in_a_transaction || shape_now().await? == before,
        "something of {file} was left behind"
    );
    Ok(())
}

async fn migrate(server: &Server<'_>, folder: &Path, version: usize, applied: usize) -> Result<()> {
    let present = version - applied;
    let summary = format!("is at version {version}: {applied} applied, {present} already present");
    server.migrate(folder, UTC).await?.expect(0, &[&summary])
}

/// From this version on everything there is was summed up at least once (0008), and what comes is summed up in time.
const ALL_SUMMED_UP: usize = 8;
/// How far back the policies reach: as if today were in the summer.
const POLICIES_FROM: &str = "2026-05-01";

async fn refresh_from(day: &str, database: &mut PgConnection) -> Result<()> {
    for view in [
        "energy_quarters",
        "temperature_quarters",
        "heatpump_quarters",
        "plug_quarters",
    ] {
        let refresh = format!("call refresh_continuous_aggregate('{view}', '{day} 00:00:00Z', null)");
        sqlx::raw_sql(AssertSqlSafe(refresh))
            .execute(&mut *database)
            .await?;
    }
    Ok(())
}

/// What retention does after 90 days.
async fn drop_old_readings(database: &mut PgConnection) -> Result<()> {
    for table in [
        "energy_consumption",
        "temperature_sensors",
        "heatpump_status",
        "plug_status",
    ] {
        let dropped = column(
            database,
            format!("select drop_chunks('{table}', '2026-05-01 00:00:00Z'::timestamptz)"),
        )
        .await?;
        ensure!(!dropped.is_empty(), "{table} had no chunk to drop");
    }
    Ok(())
}

#[tokio::test]
async fn every_older_version_with_data_on_postgresql() -> Result<()> {
    let postgres = Postgres::start_empty(&guardian::run()?.data("migrations-forward")?).await?;
    for which in Database::ALL {
        let newest = file_names(&which.migrations())?.len();
        for version in data(which).since..=newest {
            let name = format!("{}_{version}", which.name());
            postgres.create_database(&name).await?;
            forward(&Server::Plain(&postgres, &name), which, &[version])
                .await
                .with_context(|| format!("{} from version {version}", which.name()))?;
        }
    }
    postgres.stop().await;
    Ok(())
}

#[tokio::test]
async fn every_older_version_with_data_on_timescaledb() -> Result<()> {
    for which in Database::ALL {
        let timescale = Timescale::start(&format!("migrations-forward-{}", which.name())).await?;
        let stops: Vec<usize> = (data(which).since..=file_names(&which.migrations())?.len()).collect();
        forward(&Server::Timescale(&timescale), which, &stops)
            .await
            .with_context(|| format!("{} on TimescaleDB", which.name()))?;
        timescale.stop().await;
    }
    Ok(())
}
