//! Makes the runs of schedules: each becomes a command in the outbox, in the transaction that notes that it was made.
//!
//! Never twice: a run is named by schedule, local date and local time, and the database takes a name once, whichever replica
//! comes first and however often one restarts. A run that was missed is made within the grace and noted as missed beyond it.

use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, TimeDelta, Utc};
use service::backoff::Backoff;
use sqlx::{FromRow, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;

use super::when::Daily;
use super::zone;
use crate::outbox::{self, Kind, Wish};
use crate::plugs::{lock, power};
use crate::settings::Pace;

/// How often schedules are looked at; a run is this late at most while everything works.
const LOOK: Duration = Duration::from_secs(1);
/// Pauses while the database is away.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_CAP: Duration = Duration::from_secs(10);
/// Local dates looked back on: an outage longer than this notes nothing for the days before.
const DAYS_BACK: u64 = 1;

/// Makes runs until `stop`.
pub(crate) async fn keep(pool: PgPool, pace: Pace, stop: CancellationToken) -> anyhow::Result<()> {
    let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
    let mut failing = false;
    loop {
        let pause = match look(&pool, pace, Utc::now()).await {
            Ok(()) => {
                if std::mem::take(&mut failing) {
                    tracing::info!("schedules are looked at again");
                }
                backoff.reset();
                LOOK
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(
                        "schedules cannot be looked at, it is tried again until it works: {error}"
                    );
                }
                backoff.next_pause()
            }
        };
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[derive(FromRow)]
struct Row {
    id: i64,
    plug_id: String,
    weekdays: Vec<i16>,
    local_time: NaiveTime,
    effective_from: DateTime<Utc>,
}

/// A run that is due.
struct Due {
    schedule: i64,
    plug: String,
    date: NaiveDate,
    time: NaiveTime,
    at: DateTime<Utc>,
}

async fn look(pool: &PgPool, pace: Pace, now: DateTime<Utc>) -> Result<(), sqlx::Error> {
    let mut connection = pool.acquire().await?;
    let rows: Vec<Row> = sqlx::query_as(
        "select id, plug_id, weekdays, local_time, effective_from from power_plug_schedules where enabled order by id",
    )
    .fetch_all(&mut *connection)
    .await?;
    if rows.is_empty() {
        return Ok(());
    }
    let zone = zone(&mut connection).await?;
    let today = now.with_timezone(&zone).date_naive();
    let made: Vec<(i64, NaiveDate, NaiveTime)> = sqlx::query_as(
        "select schedule_id, local_date, local_time from power_plug_schedule_runs where local_date >= $1",
    )
    .bind(today - Days::new(DAYS_BACK))
    .fetch_all(&mut *connection)
    .await?;
    let mut due: Vec<Due> = Vec::new();
    for row in rows {
        let daily = Daily {
            weekdays: row.weekdays,
            time: row.local_time,
        };
        for date in (0..=DAYS_BACK).map(|days| today - Days::new(days)) {
            if let Some(at) = daily.on(zone, date)
                && at <= now
                && at >= row.effective_from
                && !made.contains(&(row.id, date, row.local_time))
            {
                due.push(Due {
                    schedule: row.id,
                    plug: row.plug_id.clone(),
                    date,
                    time: row.local_time,
                    at,
                });
            }
        }
    }
    drop(connection);
    // After an outage the latest run of a plug is the one that holds. In the night that lacks an hour two local times are one
    // instant: the later on the clock comes last, as in every other night.
    due.sort_by_key(|run| (run.at, run.date, run.time, run.schedule));
    for run in due {
        let mut transaction = pool.begin().await?;
        make(&mut transaction, &run, pace, now).await?;
        transaction.commit().await?;
    }
    Ok(())
}

async fn make(
    connection: &mut PgConnection,
    run: &Due,
    pace: Pace,
    now: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    lock(connection, &run.plug).await?;
    let missed = now - run.at > TimeDelta::from_std(pace.grace).unwrap_or(TimeDelta::MAX);
    // What the schedule says now: it may have been changed or removed since it was read.
    let found: Option<(bool, Option<String>)> = sqlx::query_as(
        "select turn_on, agent from power_plug_schedules join power_plugs using (plug_id)
         where id = $1 and enabled and local_time = $2 and effective_from <= $3
         for key share of power_plug_schedules",
    )
    .bind(run.schedule)
    .bind(run.time)
    .bind(run.at)
    .fetch_optional(&mut *connection)
    .await?;
    let Some((on, agent)) = found else { return Ok(()) };
    let agent = agent.filter(|_| !missed);
    let noted = sqlx::query(
        "insert into power_plug_schedule_runs (schedule_id, local_date, local_time, outcome)
         values ($1, $2, $3, $4) on conflict do nothing",
    )
    .bind(run.schedule)
    .bind(run.date)
    .bind(run.time)
    .bind(if agent.is_some() { "queued" } else { "missed" })
    .execute(&mut *connection)
    .await?;
    if noted.rows_affected() == 0 {
        return Ok(());
    }
    let Some(agent) = agent else {
        tracing::warn!(
            schedule = run.schedule,
            plug = run.plug,
            "a run of a schedule was missed, it was due at {}",
            run.at
        );
        return Ok(());
    };
    let wish = Wish {
        kind: Kind::PlugPower,
        device: &run.plug,
        agent: &agent,
        wanted: &power(on),
        requested_by: &format!("schedule:{}", run.schedule),
        schedule: Some(run.schedule),
        idempotency_key: None,
        expiry: pace.expiry,
    };
    let accepted = outbox::add(connection, &wish).await?;
    sqlx::query(
        "update power_plug_schedule_runs set outbox_id = $4
         where schedule_id = $1 and local_date = $2 and local_time = $3",
    )
    .bind(run.schedule)
    .bind(run.date)
    .bind(run.time)
    .bind(accepted.outbox_id)
    .execute(connection)
    .await?;
    tracing::info!(
        schedule = run.schedule,
        plug = run.plug,
        outbox_id = accepted.outbox_id,
        on,
        "a schedule runs"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    async fn runs(pool: &PgPool, date: &str) -> Vec<(String, bool)> {
        sqlx::query_as(
            "select outcome, outbox_id is not null from power_plug_schedule_runs where local_date = $1",
        )
        .bind(date.parse::<NaiveDate>().unwrap())
        .fetch_all(pool)
        .await
        .unwrap()
    }

    /// Looks every five minutes and answers when the run of `date` was made; whatever is made twice fails.
    async fn made_at(pool: &PgPool, date: &str, from: &str, to: &str) -> Vec<DateTime<Utc>> {
        let (mut now, mut made) = (at(from), Vec::new());
        while now < at(to) {
            look(pool, Pace::default(), now).await.unwrap();
            let runs = runs(pool, date).await;
            assert!(runs.len() <= 1, "{date}: {runs:?}");
            if made.is_empty() && !runs.is_empty() {
                made.push(now);
            }
            now += TimeDelta::minutes(5);
        }
        made
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_night_of_each_sort_makes_one_run() {
        let folder = stack::guardian::run().unwrap().data("schedule-nights").unwrap();
        let postgres = stack::postgres::Postgres::start(&folder).await.unwrap();
        let pool = PgPool::connect(&postgres.url("settings", "homelab_settings"))
            .await
            .unwrap();
        for statement in [
            "insert into power_plugs (plug_id, agent, is_on, reported_at) values ('plug', 'p0', false, now())",
            "insert into power_plug_schedules (plug_id, weekdays, local_time, turn_on, created_by, effective_from)
             values ('plug', '{1,2,3,4,5,6,7}', '02:30', true, 'x', '2026-01-01')",
        ] {
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
        let check = async |date: &str, from: &str, to: &str, want: &str| {
            assert_eq!(made_at(&pool, date, from, to).await, [at(want)], "{date}");
            assert_eq!(runs(&pool, date).await, [("queued".to_owned(), true)], "{date}");
        };
        // An ordinary night, the one without 02:30, the one that has it twice.
        check(
            "2026-02-10",
            "2026-02-10T00:00:00Z",
            "2026-02-10T03:00:00Z",
            "2026-02-10T01:30:00Z",
        )
        .await;
        check(
            "2026-03-29",
            "2026-03-28T23:00:00Z",
            "2026-03-29T04:00:00Z",
            "2026-03-29T01:00:00Z",
        )
        .await;
        check(
            "2026-10-25",
            "2026-10-24T22:00:00Z",
            "2026-10-25T04:00:00Z",
            "2026-10-25T00:30:00Z",
        )
        .await;

        // In the night without 02:30 it is one instant with 03:00, which comes last whichever was made first.
        sqlx::query(
            "insert into power_plugs (plug_id, agent, is_on, reported_at) values ('late', 'p0', false, now())",
        )
        .execute(&pool)
        .await
        .unwrap();
        sqlx::query(
            "insert into power_plug_schedules (plug_id, weekdays, local_time, turn_on, created_by, effective_from)
             values ('late', '{7}', '03:00', true, 'x', '2026-03-28'), ('late', '{7}', '02:30', false, 'x', '2026-03-28')",
        )
        .execute(&pool)
        .await
        .unwrap();
        look(&pool, Pace::default(), at("2026-03-29T01:05:00Z"))
            .await
            .unwrap();
        let wanted: Vec<bool> = sqlx::query_scalar(
            "select (wanted->>'on')::boolean from outbox where device_id = 'late' order by id",
        )
        .fetch_all(&pool)
        .await
        .unwrap();
        assert_eq!(wanted.last(), Some(&true), "{wanted:?}");
        sqlx::query("delete from power_plug_schedules where plug_id = 'late'")
            .execute(&pool)
            .await
            .unwrap();

        // After an outage: within the grace of 15 minutes it is made, beyond it is noted and not made.
        look(&pool, Pace::default(), at("2026-11-03T01:44:00Z"))
            .await
            .unwrap();
        assert_eq!(runs(&pool, "2026-11-03").await, [("queued".to_owned(), true)]);
        look(&pool, Pace::default(), at("2026-11-04T01:46:00Z"))
            .await
            .unwrap();
        assert_eq!(runs(&pool, "2026-11-04").await, [("missed".to_owned(), false)]);
        // A clock that goes back makes nothing again.
        look(&pool, Pace::default(), at("2026-11-03T01:31:00Z"))
            .await
            .unwrap();
        assert_eq!(runs(&pool, "2026-11-03").await, [("queued".to_owned(), true)]);

        // One that is moved to later the same day runs again; one that is switched off does not.
        let change = async |set: &str| {
            let statement = format!("update power_plug_schedules set {set}");
            sqlx::query(sqlx::AssertSqlSafe(statement))
                .execute(&pool)
                .await
                .unwrap();
        };
        change("local_time = '20:00', effective_from = '2026-11-04T10:00:00Z'").await;
        look(&pool, Pace::default(), at("2026-11-04T19:00:00Z"))
            .await
            .unwrap();
        assert_eq!(runs(&pool, "2026-11-04").await.len(), 2);
        change("enabled = false").await;
        look(&pool, Pace::default(), at("2026-11-05T19:00:00Z"))
            .await
            .unwrap();
        assert!(runs(&pool, "2026-11-05").await.is_empty());
    }
}
