//! What the views say of each case, and that every length of bucket adds up to the same.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::arrival::{ARRIVALS, device_name};
use crate::cases::CASES;
use crate::{execute, rows};

pub async fn check(database: &mut PgConnection, moment: &str) -> Result<()> {
    for (number, case) in CASES.iter().enumerate() {
        execute(
            database,
            format!("update household set time_zone = '{}'", case.zone),
        )
        .await?;
        for arrival in ARRIVALS {
            let devices: BTreeSet<&str> = case.expect.iter().map(|(device, _, _)| *device).collect();
            for device in devices {
                adds_up(database, &device_name(number, arrival, device), case.name, moment).await?;
            }
            for (device, bucket, expected) in case.expect {
                let device = device_name(number, arrival, device);
                let (view, start) = bucket.view();
                let found = rows(
                    database,
                    format!(
                        "select to_char({start} at time zone 'UTC', 'YYYY-MM-DD HH24:MI:SSZ') as start,
                            energy_wh, export_wh, estimated
                        from {view} where device_id = '{device}' order by {start}"
                    ),
                )
                .await?;
                let mut got = Vec::new();
                for row in &found {
                    let energy: Option<f64> = row.try_get("energy_wh")?;
                    let export: Option<f64> = row.try_get("export_wh")?;
                    ensure!(
                        export == energy.map(|wh| wh * 2.0),
                        "{moment}: {}: {view} of {device}: export {export:?} with energy {energy:?}",
                        case.name
                    );
                    got.push((
                        row.try_get::<String, _>("start")?,
                        energy,
                        row.try_get::<bool, _>("estimated")?,
                    ));
                }
                let want: Vec<_> = expected
                    .iter()
                    .map(|(start, wh, estimated)| ((*start).to_owned(), *wh, *estimated))
                    .collect();
                ensure!(
                    got == want,
                    "{moment}: {}: {view} of {device}:\n got {got:?}\nwant {want:?}",
                    case.name
                );
            }
        }
    }
    Ok(())
}

/// Quarters, hours, days, months and years of a device have the same sum.
async fn adds_up(database: &mut PgConnection, device: &str, case: &str, moment: &str) -> Result<()> {
    let sums = rows(
        database,
        format!(
            "select
                (
                    select sum(p.energy_wh)
                    from (select distinct quarter_start as start from energy_quarters where device_id = '{device}') q
                    cross join lateral energy_period('{device}', q.start, q.start + interval '15 minutes') p
                ) as quarters,
                (select sum(energy_wh) from energy_hourly where device_id = '{device}') as hours,
                (select sum(energy_wh) from energy_daily_summary where device_id = '{device}') as days,
                (select sum(energy_wh) from energy_monthly_summary where device_id = '{device}') as months,
                (select sum(energy_wh) from energy_yearly_summary where device_id = '{device}') as years"
        ),
    )
    .await?;
    let sum = |name: &str| sums[0].try_get::<f64, _>(name);
    let quarters = sum("quarters")?;
    for name in ["hours", "days", "months", "years"] {
        ensure!(
            (sum(name)? - quarters).abs() < 1e-6,
            "{moment}: {case}: {device}: {name} sum up to {}, quarters to {quarters}",
            sum(name)?
        );
    }
    Ok(())
}

/// A month of readings every 5 minutes in one statement, 10 Wh each, which spans several chunks.
pub async fn insert_bulk(database: &mut PgConnection) -> Result<()> {
    execute(
        database,
        "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, power_w)
        select 'bulk', '2026-05-01 00:00:00Z'::timestamptz + n * interval '5 minutes', n::text, 'p0', 'synced', n * 10.0, 120
        from generate_series(0, 30 * 288 - 1) as n",
    )
    .await
}

pub async fn check_bulk(database: &mut PgConnection, moment: &str) -> Result<()> {
    execute(database, "update household set time_zone = 'UTC'").await?;
    let days = rows(
        database,
        "select energy_wh, average_power_w, count, estimated from energy_daily_summary
        where device_id = 'bulk' and day_start >= '2026-05-02 00:00:00Z' and day_start < '2026-05-31 00:00:00Z'
        order by day_start",
    )
    .await?;
    ensure!(days.len() == 29, "{moment}: {} days of 29", days.len());
    for day in days {
        let wh: f64 = day.try_get("energy_wh")?;
        let watts: f64 = day.try_get("average_power_w")?;
        let count: i64 = day.try_get("count")?;
        ensure!(
            wh == 2880.0 && watts == 120.0 && count == 288,
            "{moment}: {wh} Wh, {watts} W, {count} readings"
        );
    }
    Ok(())
}
