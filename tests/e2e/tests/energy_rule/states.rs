//! On-time, starts and means: what is summed up beside energy.

use anyhow::{Result, ensure};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::{equal, execute, rows};

/// On-time: a state holds until the next reading, at most 5 minutes, and is cut at the edge of an hour.
pub async fn insert_states(database: &mut PgConnection) -> Result<()> {
    execute(
        database,
        "insert into plug_status (device_id, time, id, agent, clock, \"on\", energy_wh, power_w) values
            ('plug', '2026-01-10 00:00:00Z', '1', 'p0', 'synced', true, 100, 10),
            ('plug', '2026-01-10 00:03:00Z', '2', 'p0', 'synced', false, 101, 0),
            -- Power without a state does not end a state.
            ('plug', '2026-01-10 00:30:00Z', '3', 'p0', 'synced', true, null, 20),
            ('plug', '2026-01-10 00:31:00Z', '4', 'p0', 'synced', null, null, 30),
            -- On since 00:58: two minutes of it in this hour, three in the next, which has no reading then.
            ('plug', '2026-01-10 00:58:00Z', '5', 'p0', 'synced', true, 111, 40),
            ('plug', '2026-01-10 00:59:00Z', '6', 'p0', 'unsynced', false, 5, 0),
            -- The counter began again.
            ('plug', '2026-01-10 02:00:00Z', '7', 'p0', 'synced', false, 3, 0);
        insert into heatpump_status (device_id, time, id, agent, clock, compressor_on, outdoor_c, integral)
        select 'pump', '2026-01-10 00:00:00Z'::timestamptz + n * interval '30 seconds', n::text, 'p0', 'synced',
            -- Ten minutes off, ten minutes on.
            (n / 20) % 2 = 1, n % 2, -n
        from generate_series(0, 239) as n;
        insert into heatpump_status (device_id, time, id, agent, clock, compressor_on) values
            -- Off is last reported at 02:20, on hours later: one start.
            ('pump', '2026-01-10 02:20:00Z', 'x', 'p0', 'synced', false),
            ('pump', '2026-01-10 05:00:00Z', 'y', 'p0', 'synced', true);
        insert into temperature_sensors (device_id, time, id, agent, clock, location, temperature_c, humidity_percent) values
            ('t', '2026-01-10 00:10:00Z', '1', 'p0', 'synced', 'bedroom', 20, 40),
            ('t', '2026-01-10 00:40:00Z', '2', 'p0', 'corrected', 'bedroom', 23, null),
            ('t', '2026-01-10 00:50:00Z', '3', 'p0', 'unsynced', 'bedroom', 99, null),
            ('t', '2026-01-10 00:55:00Z', '4', 'p0', 'synced', 'attic', 5, null)",
    )
    .await
}

pub async fn check_states(database: &mut PgConnection, moment: &str) -> Result<()> {
    execute(database, "update household set time_zone = 'UTC'").await?;
    let table = [
        (
            "select to_jsonb(array_agg(array[extract(hour from hour_start), energy_wh, round((on_hours * 60)::numeric, 6),
                average_power_w, count, estimated::int] order by hour_start)) as got from plug_hourly where device_id = 'plug'",
            // 3 + 5 + 2 minutes; the hold of 00:58; nothing.
            "[[0, 11, 10, 20, 5, 1], [1, null, 3, null, 0, 0], [2, 3, 0, 0, 1, 1]]",
        ),
        (
            "select to_jsonb(array_agg(array[extract(hour from hour_start), mean_outdoor_c, mean_integral,
                round((compressor_hours * 60)::numeric, 6), round((hot_water_hours * 60)::numeric, 6), compressor_starts, count]
                order by hour_start)) as got from heatpump_hourly where device_id = 'pump'",
            // The last reading of hour 1, 01:59:30, is on and holds for 5 minutes, 4.5 of them in hour 2.
            "[[0, 0.5, -59.5, 30, null, 3, 120], [1, 0.5, -179.5, 30, null, 3, 120], [2, null, null, 4.5, null, 0, 1],
            [5, null, null, 5, null, 1, 1]]",
        ),
        (
            "select to_jsonb(array_agg(array[round((compressor_hours * 60)::numeric, 6), compressor_starts, count]
                order by day_start)) as got from heatpump_daily_summary where device_id = 'pump'",
            "[[69.5, 7, 242]]",
        ),
        (
            "select jsonb_agg(jsonb_build_array(location, mean_temperature_c, min_temperature_c, max_temperature_c,
                mean_humidity_percent, count) order by location) as got from temperature_hourly where device_id = 't'",
            r#"[["attic", 5, 5, 5, null, 1], ["bedroom", 21.5, 20, 23, 40, 2]]"#,
        ),
    ];
    for (statement, want) in table {
        let got: serde_json::Value = rows(database, statement).await?[0].try_get("got")?;
        let want: serde_json::Value = serde_json::from_str(want)?;
        ensure!(
            equal(&got, &want),
            "{moment}: {statement}:\n got {got}\nwant {want}"
        );
    }
    Ok(())
}
