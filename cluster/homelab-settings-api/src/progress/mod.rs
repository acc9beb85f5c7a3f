//! What becomes of commands: from what agents answer and what devices report.
//!
//! A command is confirmed by the device alone: a record of the row's agent that has every wanted value and is later than the
//! agent's own `published` event. Answers and records come over different topics, so each is noted as it comes and the two
//! are compared afterwards; their order does not matter, and neither does seeing one again.
//!
//! A further attempt is made only once the device has reported something since the last one came to nothing: one that is away
//! is waited for, within the command's time.

mod answer;

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgConnection;
use sqlx::types::Json;
use telemetry::{Clock, CommandOutcome, Event, EventBody, Reading, Record};

use self::answer::Row;
use crate::outbox::{Kind, MAX_ATTEMPTS};
use crate::reported::is_possible;

/// An answer that is older than its command by more than this belongs to another life of the database.
const CLOCKS_APART: TimeDelta = TimeDelta::minutes(1);

/// What a record says about a device's settings or state.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Sighting {
    kind: Kind,
    device_id: String,
    agent: String,
    time: DateTime<Utc>,
    reported: Value,
}

impl Sighting {
    /// None where the record holds nothing that can confirm a command, or its time is not known well enough.
    pub(crate) fn of(record: &Record) -> Option<Self> {
        if record.clock == Clock::Unsynced {
            return None;
        }
        let (kind, reported) = match &record.reading {
            Reading::Heatpump(reading) => (
                Kind::HeatpumpSettings,
                serde_json::to_value(reading.settings.as_ref()?).ok()?,
            ),
            Reading::Plug(reading) => (Kind::PlugPower, json!({"on": reading.on?})),
            Reading::Temperature(_) | Reading::Energy(_) => return None,
        };
        Some(Self {
            kind,
            device_id: record.device_id.to_string(),
            agent: record.agent.clone(),
            time: record.time,
            reported,
        })
    }
}

/// What an agent said.
#[derive(Clone, Debug)]
pub(crate) enum Said {
    /// What it did with an attempt.
    Outcome {
        agent: String,
        command: i64,
        attempt: u32,
        outcome: CommandOutcome,
        time: DateTime<Utc>,
    },
    /// A device connected to this agent: what waits for it there need not wait for its next reading.
    Online {
        agent: String,
        device_id: String,
        time: DateTime<Utc>,
    },
}

impl Said {
    /// None where the event does not concern commands.
    pub(crate) fn of(event: Event) -> Option<Self> {
        match event.body {
            EventBody::CommandOutcome {
                command_id,
                attempt,
                outcome,
            } => Some(Self::Outcome {
                agent: event.agent?,
                command: command_id,
                attempt,
                outcome,
                time: event.time,
            }),
            EventBody::DeviceOnline { online: true } => Some(Self::Online {
                agent: event.agent?,
                device_id: event.device_id?.into(),
                time: event.time,
            }),
            _ => None,
        }
    }

    /// Whether a statement can hold it: no agent's name has a control character, and a database refuses the zero; and no
    /// agent can have said it at a time that is none.
    pub(crate) fn is_storable(&self, now: DateTime<Utc>) -> bool {
        let (Self::Outcome { agent, time, .. } | Self::Online { agent, time, .. }) = self;
        !agent.chars().any(char::is_control) && is_possible(*time, now)
    }
}

/// Notes what was seen and said, and draws the conclusions. The caller owns the transaction.
pub(crate) async fn note(
    connection: &mut PgConnection,
    sightings: &[Sighting],
    said: &[Said],
    wait: Duration,
) -> Result<(), sqlx::Error> {
    let open: bool =
        sqlx::query_scalar("select exists (select from outbox where status in ('pending', 'published'))")
            .fetch_one(&mut *connection)
            .await?;
    if !open {
        return Ok(());
    }
    see(connection, sightings).await?;
    for said in said {
        match said {
            Said::Outcome {
                agent,
                command,
                attempt,
                outcome,
                time,
            } => answer(connection, agent, *command, *attempt, *outcome, *time, wait).await?,
            Said::Online {
                agent,
                device_id,
                time,
            } => online(connection, agent, device_id, *time).await?,
        }
    }
    confirm(connection).await?;
    wake(connection).await
}

/// Only records that have every wanted value count; the latest is kept.
async fn see(connection: &mut PgConnection, sightings: &[Sighting]) -> Result<(), sqlx::Error> {
    if sightings.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "update outbox set matched_at = seen.time, updated_at = now()
         from (
             select row.id, max(record.time) as time
             from jsonb_to_recordset($1) as record (kind text, device_id text, agent text, time timestamptz, reported jsonb)
             join outbox as row on row.kind = record.kind and row.device_id = record.device_id and row.agent = record.agent
                 and record.reported @> row.wanted
             where row.status in ('pending', 'published')
             group by row.id
         ) as seen
         where outbox.id = seen.id and (outbox.matched_at is null or outbox.matched_at < seen.time)",
    )
    .bind(Json(sightings))
    .execute(connection)
    .await?;
    Ok(())
}

async fn answer(
    connection: &mut PgConnection,
    agent: &str,
    command: i64,
    attempt: u32,
    outcome: CommandOutcome,
    time: DateTime<Utc>,
    wait: Duration,
) -> Result<(), sqlx::Error> {
    let Ok(attempt) = i16::try_from(attempt) else {
        return Ok(());
    };
    let row: Option<Row> = sqlx::query_as(
        "select status, attempts, next_attempt, answered, sent_at, due_at, expires_at, waiting_since, published_at, reason
         from outbox where id = $1 and agent = $2 and created_at < $3 and status in ('pending', 'published') for update",
    )
    .bind(command)
    .bind(agent)
    .bind(time + CLOCKS_APART)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(mut row) = row else { return Ok(()) };
    if !row.hear(attempt, outcome, time, Utc::now(), wait) {
        return Ok(());
    }
    sqlx::query(
        "update outbox set status = $2, attempts = $3, next_attempt = $4, answered = $5, sent_at = $6, due_at = $7,
             waiting_since = $8, published_at = $9, reason = $10, updated_at = now(),
             finished_at = case when $2 = 'expired' then now() end
         where id = $1",
    )
    .bind(command)
    .bind(&row.status)
    .bind(row.attempts)
    .bind(row.next_attempt)
    .bind(row.answered)
    .bind(row.sent_at)
    .bind(row.due_at)
    .bind(row.waiting_since)
    .bind(row.published_at)
    .bind(&row.reason)
    .execute(connection)
    .await?;
    Ok(())
}

/// A device that connected to another agent than the command's has moved: its next attempt waits for the report that says so,
/// for one more at the old agent would come to nothing.
async fn online(
    connection: &mut PgConnection,
    agent: &str,
    device: &str,
    time: DateTime<Utc>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update outbox set next_attempt = attempts + 1, waiting_since = null, due_at = now(), updated_at = now()
         where device_id = $1 and agent = $2 and waiting_since < $3 and attempts < $4
             and status in ('pending', 'published')",
    )
    .bind(device)
    .bind(agent)
    .bind(time)
    .bind(MAX_ATTEMPTS)
    .execute(connection)
    .await?;
    Ok(())
}

async fn confirm(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update outbox set status = 'confirmed', finished_at = now(), next_attempt = null, waiting_since = null,
             reason = null, updated_at = now()
         where status in ('pending', 'published') and published_at < matched_at",
    )
    .execute(connection)
    .await?;
    Ok(())
}

/// Makes the next attempt due where the device has reported since the last one came to nothing, and fixes the agent it is for:
/// the one that report came through. Evidence of another agent is forgotten.
pub(crate) async fn wake(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update outbox set
             next_attempt = attempts + 1, waiting_since = null, due_at = now(), updated_at = now(),
             agent = device.agent,
             published_at = case when outbox.agent = device.agent then published_at end,
             matched_at = case when outbox.agent = device.agent then matched_at end
         from (
             select 'heatpump_settings' as kind, device_id, agent, reported_at from settings
             union all
             select 'plug_power', plug_id, agent, reported_at from power_plugs where agent is not null
         ) as device
         where device.kind = outbox.kind and device.device_id = outbox.device_id
             and outbox.status in ('pending', 'published') and outbox.waiting_since < device.reported_at
             and outbox.attempts < $1",
    )
    .bind(MAX_ATTEMPTS)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + second, 0).unwrap()
    }

    const WAIT: Duration = Duration::from_secs(90);

    fn saw(agent: &str, second: i64, value: i64) -> Sighting {
        Sighting {
            kind: Kind::HeatpumpSettings,
            device_id: "pump".to_owned(),
            agent: agent.to_owned(),
            time: at(second),
            reported: json!({"indoor_target_c": value, "mode": 1}),
        }
    }

    fn published(agent: &str, second: i64) -> Said {
        Said::Outcome {
            agent: agent.to_owned(),
            command: 1,
            attempt: 1,
            outcome: CommandOutcome::Published,
            time: at(second),
        }
    }

    /// What is noted in one transaction.
    type Step = (Vec<Sighting>, Vec<Said>);

    #[tokio::test(flavor = "multi_thread")]
    async fn only_a_later_record_of_the_same_agent_confirms_in_whatever_order_things_come() {
        let folder = stack::guardian::run().unwrap().data("progress").unwrap();
        let postgres = stack::postgres::Postgres::start(&folder).await.unwrap();
        let url = postgres.url("settings", "homelab_settings");
        let mut connection = <PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
        let mut check = async |what: &str, steps: Vec<Step>, want: &str| {
            for order in 0..2 {
                sqlx::query("delete from outbox")
                    .execute(&mut connection)
                    .await
                    .unwrap();
                sqlx::query(
                    "insert into outbox (id, device_id, agent, kind, wanted, asked, requested_by, created_at, expires_at)
                     overriding system value
                     values (1, 'pump', 'p0', 'heatpump_settings', '{\"indoor_target_c\": 22}', '{}', 'x', $1, $2)",
                )
                .bind(at(0))
                .bind(at(600))
                .execute(&mut connection)
                .await
                .unwrap();
                let mut steps = steps.clone();
                if order == 1 {
                    steps.reverse();
                }
                // Each comes twice: topics are read again after a crash.
                for (sightings, said) in steps.iter().chain(&steps) {
                    note(&mut connection, sightings, said, WAIT).await.unwrap();
                }
                let status: String = sqlx::query_scalar("select status from outbox")
                    .fetch_one(&mut connection)
                    .await
                    .unwrap();
                assert_eq!(status, want, "{what}, order {order}");
            }
        };
        let seen = |sighting| (vec![sighting], vec![]);
        let said = |said| (vec![], vec![said]);
        check("nothing", vec![], "pending").await;
        check("published", vec![said(published("p0", 10))], "published").await;
        check("a record alone", vec![seen(saw("p0", 11, 22))], "pending").await;
        check(
            "both",
            vec![said(published("p0", 10)), seen(saw("p0", 11, 22))],
            "confirmed",
        )
        .await;
        check(
            "at once",
            vec![(vec![saw("p0", 11, 22)], vec![published("p0", 10)])],
            "confirmed",
        )
        .await;
        check(
            "the same moment",
            vec![said(published("p0", 10)), seen(saw("p0", 10, 22))],
            "published",
        )
        .await;
        check(
            "from before",
            vec![said(published("p0", 10)), seen(saw("p0", 9, 22))],
            "published",
        )
        .await;
        check(
            "another value",
            vec![said(published("p0", 10)), seen(saw("p0", 11, 21))],
            "published",
        )
        .await;
        check(
            "another agent's record",
            vec![said(published("p0", 10)), seen(saw("p1", 11, 22))],
            "published",
        )
        .await;
        check(
            "another agent's answer",
            vec![said(published("p1", 10)), seen(saw("p0", 11, 22))],
            "pending",
        )
        .await;
        let back = vec![
            said(published("p0", 10)),
            seen(saw("p0", 11, 22)),
            seen(saw("p0", 12, 21)),
        ];
        check("the panel changes it back", back, "confirmed").await;
        let old = vec![said(published("p0", -100)), seen(saw("p0", 11, 22))];
        check("an answer from another life of the database", old, "pending").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_device_that_connects_wakes_what_waits_for_it_at_that_agent() {
        let folder = stack::guardian::run().unwrap().data("progress-online").unwrap();
        let postgres = stack::postgres::Postgres::start(&folder).await.unwrap();
        let url = postgres.url("settings", "homelab_settings");
        let mut connection = <PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
        sqlx::query(
            "insert into outbox (id, device_id, agent, kind, wanted, requested_by, status, attempts, next_attempt, answered,
                 waiting_since, created_at, expires_at)
             overriding system value
             values (1, 'plug', 'p0', 'plug_power', '{\"on\": true}', 'x', 'published', 1, null, 1, $1, $2, $3)",
        )
        .bind(at(10))
        .bind(at(0))
        .bind(at(600))
        .execute(&mut connection)
        .await
        .unwrap();
        let mut check = async |agent: &str, second: i64, want: Option<i16>| {
            let connected = Said::Online {
                agent: agent.to_owned(),
                device_id: "plug".to_owned(),
                time: at(second),
            };
            note(&mut connection, &[], &[connected], WAIT).await.unwrap();
            let next: Option<i16> = sqlx::query_scalar("select next_attempt from outbox")
                .fetch_one(&mut connection)
                .await
                .unwrap();
            assert_eq!(next, want, "{agent} {second}");
        };
        check("p0", 9, None).await;
        check("p1", 11, None).await;
        check("p0", 11, Some(2)).await;
    }
}
