//! TimescaleDB's own jobs as they run in the house: a year whose raw rows were pruned, and a week that arrives late.

use super::*;

/// Readings of a meter at work for a year, every ten minutes, 10 Wh each.
const READINGS: i64 = 365 * 144;

/// Runs every job of a kind once, as the scheduler does.
async fn run(database: &mut PgConnection, policy: &str) -> Result<()> {
    let jobs = rows(
        database,
        format!(
            "select job_id from timescaledb_information.jobs where proc_name = '{policy}' order by job_id"
        ),
    )
    .await?;
    ensure!(!jobs.is_empty(), "there is no {policy}");
    for job in jobs {
        execute(
            database,
            format!("call run_job({})", job.try_get::<i32, _>("job_id")?),
        )
        .await?;
    }
    Ok(())
}

/// What every summary of a meter adds up to, in Wh.
async fn sums(database: &mut PgConnection, device: &str) -> Result<Vec<f64>> {
    let mut sums = Vec::new();
    for view in [
        "energy_hourly",
        "energy_daily_summary",
        "energy_monthly_summary",
        "energy_yearly_summary",
    ] {
        let sum = format!(
            "select coalesce(sum(energy_wh), 0)::float8 as wh from {view} where device_id = '{device}'"
        );
        sums.push(rows(database, sum).await?[0].try_get("wh")?);
    }
    Ok(sums)
}

/// One reading more than `readings`, which are over two hours ago: a row of another case is ahead of now, so that nothing that
/// the jobs leave out is summed up on the fly. The last is on an hour's own instant, where policies that refresh in batches of
/// buckets end one bucket too early (0009).
async fn insert(database: &mut PgConnection, device: &str, days_ago: i64, readings: i64) -> Result<()> {
    execute(
        database,
        format!(
            "insert into energy_consumption (device_id, time, id, agent, clock, energy_wh)
            select '{device}', date_trunc('hour', now()) - interval '{days_ago} days 2 hours' + n * interval '10 minutes', n::text, 'p0',
                'synced', n * 10.0
            from generate_series(0, {readings}::bigint) as n"
        ),
    )
    .await
}

async fn raw_rows(database: &mut PgConnection, device: &str) -> Result<i64> {
    let count = format!("select count(*) as rows from energy_consumption where device_id = '{device}'");
    Ok(rows(database, count).await?[0].try_get("rows")?)
}

pub async fn check_policies(database: &mut PgConnection) -> Result<()> {
    insert(database, "pruned", 365, READINGS).await?;
    // What the jobs did while the year went by; today they go no further back than 60 days.
    execute(
        database,
        "call refresh_continuous_aggregate('energy_quarters', null, now() - interval '59 days')",
    )
    .await?;
    let whole = vec![READINGS as f64 * 10.0; 4];
    for _ in 0..2 {
        run(database, "policy_refresh_continuous_aggregate").await?;
        run(database, "policy_compression").await?;
        run(database, "policy_retention").await?;
        let left = raw_rows(database, "pruned").await?;
        ensure!(
            (80 * 144..110 * 144).contains(&left),
            "{left} raw rows are left of 90 days"
        );
        let got = sums(database, "pruned").await?;
        ensure!(got == whole, "a year whose raw rows were pruned: {got:?}");
    }

    // A week without Redpanda: its readings come when its quarters are summed up and its chunks compressed.
    insert(database, "late-week", 9, 8 * 144).await?;
    run(database, "policy_refresh_continuous_aggregate").await?;
    let got = sums(database, "late-week").await?;
    ensure!(
        got == vec![8.0 * 144.0 * 10.0; 4],
        "a week that came late: {got:?}"
    );
    Ok(())
}
