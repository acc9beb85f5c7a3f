//! What the migrations leave behind: the same tables and views on both kinds of server, listed, recorded, repeatable.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use stack::guardian;
use stack::postgres::{Database, Postgres};
use stack::timescale::Timescale;

use crate::roles::{roles_on_plain, roles_on_timescale};
use crate::{Server, column, copy_of, file_names};

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
            include_str!("../../../../cluster/telemetry/samples/energy.json"),
        ),
        (
            "temperature_sensors",
            include_str!("../../../../cluster/telemetry/samples/temperature.json"),
        ),
        (
            "heatpump_status",
            include_str!("../../../../cluster/telemetry/samples/heatpump.json"),
        ),
        (
            "plug_status",
            include_str!("../../../../cluster/telemetry/samples/plug.json"),
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
pub async fn shape(database: &mut PgConnection) -> Result<BTreeSet<String>> {
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
