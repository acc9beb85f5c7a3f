//! What becomes of commands: from what agents answer and what devices report.
//!
//! A command is confirmed by the device alone: a record of the row's agent that has every wanted value and is later than the
//! agent's own `published` event. Answers and records come over different topics, so each is noted as it comes and the two
//! are compared afterwards; their order does not matter, and neither does seeing one again.
//!
//! A further attempt is made only once the device has reported something since the last one came to nothing: one that is away
//! is waited for, within the command's time.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection};
use telemetry::{Clock, CommandOutcome, Event, EventBody, Reading, Record};

use crate::outbox::{Kind, MAX_ATTEMPTS};

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
    /// A device connected: what waits for it need not wait for its next reading.
    Online { device_id: String, time: DateTime<Utc> },
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
                device_id: event.device_id?.into(),
                time: event.time,
            }),
            _ => None,
        }
    }

    /// Whether a statement can hold it: no agent's name has a control character, and a database refuses the zero.
    pub(crate) fn is_storable(&self) -> bool {
        match self {
            Self::Outcome { agent, .. } => !agent.chars().any(char::is_control),
            Self::Online { .. } => true,
        }
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
            Said::Online { device_id, time } => online(connection, device_id, *time).await?,
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

/// An open row as far as answers change it.
#[derive(Clone, Debug, PartialEq, FromRow)]
struct Row {
    status: String,
    attempts: i16,
    next_attempt: Option<i16>,
    answered: i16,
    sent_at: Option<DateTime<Utc>>,
    due_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    waiting_since: Option<DateTime<Utc>>,
    published_at: Option<DateTime<Utc>>,
    reason: Option<String>,
}

impl Row {
    /// Takes an answer; false where it says nothing new.
    fn hear(
        &mut self,
        attempt: i16,
        outcome: CommandOutcome,
        time: DateTime<Utc>,
        now: DateTime<Utc>,
        wait: Duration,
    ) -> bool {
        if attempt < 1 || (attempt > self.attempts && self.next_attempt != Some(attempt)) {
            return false;
        }
        let before = self.clone();
        if self.next_attempt == Some(attempt) {
            // It was sent by a relay that died before it could say so.
            self.attempts = attempt;
            self.next_attempt = None;
            self.status = "published".to_owned();
            self.sent_at = Some(now);
            self.due_at = (now + wait).min(self.expires_at);
        }
        let news = attempt > self.answered;
        self.answered = self.answered.max(attempt);
        let underway = news && attempt == self.attempts && self.next_attempt.is_none();
        match outcome {
            CommandOutcome::Published => {
                self.published_at = self.published_at.or(Some(time));
                if underway {
                    // The device has its time from here on, however long the agent was away.
                    self.reason = None;
                    self.waiting_since = None;
                    self.due_at = (now + wait).min(self.expires_at);
                }
            }
            CommandOutcome::NoSubscriber | CommandOutcome::Refused | CommandOutcome::Expired if !underway => {
            }
            CommandOutcome::Expired => {
                self.status = "expired".to_owned();
                self.next_attempt = None;
                self.reason = Some("its time had passed when it reached the agent".to_owned());
            }
            CommandOutcome::NoSubscriber | CommandOutcome::Refused => {
                self.reason = Some(
                    match outcome {
                        CommandOutcome::Refused => {
                            "the agent refused: it does not know the device or the time"
                        }
                        _ => "the device was not connected",
                    }
                    .to_owned(),
                );
                if attempt < MAX_ATTEMPTS {
                    self.waiting_since = Some(time);
                    self.due_at = self.expires_at;
                }
            }
        }
        *self != before
    }
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

async fn online(connection: &mut PgConnection, device: &str, time: DateTime<Utc>) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update outbox set next_attempt = attempts + 1, waiting_since = null, due_at = now(), updated_at = now()
         where device_id = $1 and waiting_since < $2 and attempts < $3 and status in ('pending', 'published')",
    )
    .bind(device)
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

    fn row(attempts: i16, next_attempt: Option<i16>) -> Row {
        Row {
            status: if attempts == 0 { "pending" } else { "published" }.to_owned(),
            attempts,
            next_attempt,
            answered: 0,
            sent_at: None,
            due_at: at(90),
            expires_at: at(600),
            waiting_since: None,
            published_at: None,
            reason: None,
        }
    }

    const WAIT: Duration = Duration::from_secs(90);

    #[test]
    fn answers_change_a_row_once() {
        let mut one = row(1, None);
        assert!(one.hear(1, CommandOutcome::Published, at(2), at(3), WAIT));
        assert_eq!((one.published_at, one.answered), (Some(at(2)), 1));
        assert!(
            !one.hear(1, CommandOutcome::Published, at(2), at(9), WAIT),
            "again"
        );
        assert!(
            !one.hear(2, CommandOutcome::Published, at(2), at(9), WAIT),
            "never sent"
        );
        assert!(
            !one.hear(0, CommandOutcome::NoSubscriber, at(2), at(9), WAIT),
            "no attempt"
        );
    }

    #[test]
    fn an_answer_proves_that_the_attempt_was_sent() {
        let mut one = row(0, Some(1));
        assert!(one.hear(1, CommandOutcome::Published, at(2), at(3), WAIT));
        assert_eq!(
            (one.status.as_str(), one.attempts, one.next_attempt),
            ("published", 1, None)
        );
        assert_eq!((one.sent_at, one.due_at), (Some(at(3)), at(93)));
    }

    #[test]
    fn a_device_that_is_away_is_waited_for_unless_it_was_the_last_attempt() {
        for outcome in [CommandOutcome::NoSubscriber, CommandOutcome::Refused] {
            let mut one = row(1, None);
            assert!(one.hear(1, outcome, at(2), at(3), WAIT));
            assert_eq!((one.waiting_since, one.due_at), (Some(at(2)), at(600)));
            let mut last = row(3, None);
            assert!(last.hear(3, outcome, at(2), at(3), WAIT));
            assert_eq!(
                (last.waiting_since, last.due_at),
                (None, at(90)),
                "the wait decides"
            );
        }
    }

    #[test]
    fn a_late_answer_to_an_earlier_attempt_changes_no_later_one() {
        let mut one = row(2, None);
        one.answered = 2;
        assert!(!one.hear(1, CommandOutcome::NoSubscriber, at(2), at(3), WAIT));
        assert!(!one.hear(1, CommandOutcome::Expired, at(2), at(3), WAIT));
        let mut woken = row(1, Some(2));
        assert!(woken.hear(1, CommandOutcome::NoSubscriber, at(2), at(3), WAIT));
        assert_eq!(
            (woken.next_attempt, woken.waiting_since, woken.answered),
            (Some(2), None, 1)
        );
    }

    #[test]
    fn an_attempt_that_came_too_late_ends_the_command() {
        let mut one = row(1, None);
        assert!(one.hear(1, CommandOutcome::Expired, at(601), at(602), WAIT));
        assert_eq!(one.status, "expired");
    }

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
}
