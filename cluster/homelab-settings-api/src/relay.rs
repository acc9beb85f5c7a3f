//! The relay: sends what is due from the outbox to `homelab.commands`, ends what has run out, announces changes of state on
//! `homelab.events`, and clears away what is old.
//!
//! One relay is active at a time, whoever holds an advisory lock of the database; the others wait for it. It sends one command
//! after the other in the order they were accepted, so the commands of a device never overtake each other. An attempt is marked
//! as sent after the broker has it: a kill in between sends it again under the same (id, attempt), which its agent does once.
//! It is woken by notifications of the database and looks by itself as well. It never confirms anything: that is for what
//! devices report.

use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use prometheus::{IntCounter, IntCounterVec, IntGauge};
use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::util::Timeout;
use serde_json::Value;
use service::backoff::Backoff;
use service::{KafkaSettings, Metrics};
use sqlx::postgres::{PgConnectOptions, PgListener};
use sqlx::types::Json;
use sqlx::{Connection as _, FromRow, PgConnection, PgPool};
use telemetry::{Command, CommandAction, DeviceId, Event, EventBody, topic};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::outbox::MAX_ATTEMPTS;
use crate::progress;
use crate::settings::Pace;

/// The lock only one relay holds: a number nobody else in this database uses.
const LOCK: i64 = 0x6b31_326e_6f75_7462;
/// How often a relay that waits for the lock tries again: a relay that died is replaced within this time.
const LOCK_POLL: Duration = Duration::from_secs(1);
/// Commands sent in one round, and changes announced.
const COMMANDS_A_ROUND: i64 = 100;
const CHANGES_A_ROUND: i64 = 500;
/// How long the broker may take for one message before the round is given up and begun again.
const DELIVERY: Duration = Duration::from_secs(5);
/// How long one round may take: a database whose host vanished answers nothing, not even an error.
const ROUND: Duration = Duration::from_secs(60);
/// Pauses while database or broker are away.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(5);
/// How often old rows are cleared away, and how many in one statement.
const CLEAR_EVERY: Duration = Duration::from_secs(3_600);
const CLEARED_AT_ONCE: i64 = 1_000;

pub(crate) struct RelayMetrics {
    active: IntGauge,
    sent: IntCounter,
    errors: IntCounter,
    changes: IntCounterVec,
}

impl RelayMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let changes = metrics.counters(
            "outbox_changes_total",
            "Changes of commands that were announced, by the new state.",
            &["status"],
        );
        for status in [
            "pending",
            "published",
            "confirmed",
            "failed",
            "expired",
            "superseded",
        ] {
            changes.with_label_values(&[status]);
        }
        Self {
            active: metrics.gauge("relay_active", "1 while this process holds the relay's lock."),
            sent: metrics.counter("commands_sent_total", "Attempts at commands given to the broker."),
            errors: metrics.counter(
                "relay_errors_total",
                "Rounds given up because of database or broker.",
            ),
            changes,
        }
    }
}

/// Sends commands until it is stopped.
pub(crate) struct Relay {
    pool: PgPool,
    options: PgConnectOptions,
    producer: FutureProducer<Quiet>,
    pace: Pace,
    metrics: RelayMetrics,
}

/// librdkafka repeats itself at every attempt; what matters comes with the failed delivery.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka: {error}: {reason}");
    }
}

#[derive(FromRow)]
struct Row {
    id: i64,
    device_id: String,
    agent: String,
    kind: String,
    wanted: Json<Value>,
    next_attempt: i16,
    created_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
}

#[derive(FromRow)]
struct Change {
    id: i64,
    outbox_id: i64,
    device_id: String,
    at: DateTime<Utc>,
    status: String,
}

/// Why a round was given up.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    /// The database still answers, so what runs out by time can go on.
    #[error("the broker did not take a message for {topic}: {error}")]
    Broker { topic: &'static str, error: KafkaError },
    #[error(transparent)]
    Database(#[from] sqlx::Error),
}

impl Relay {
    /// Creates the producer; broker and database may be away.
    pub(crate) fn new(
        kafka: &KafkaSettings,
        pool: PgPool,
        options: PgConnectOptions,
        pace: Pace,
        metrics: RelayMetrics,
    ) -> anyhow::Result<Self> {
        let producer = ClientConfig::from_iter(kafka.properties())
            .set("client.id", "homelab-settings-api")
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("partitioner", "murmur2_random")
            .set("message.timeout.ms", DELIVERY.as_millis().to_string())
            .set("queue.buffering.max.kbytes", "4096")
            .create_with_context(Quiet)
            .context("cannot create the producer")?;
        // A relay whose machine vanished must lose the lock: the server notices within half a minute.
        let options = options.options([
            ("tcp_keepalives_idle", "10"),
            ("tcp_keepalives_interval", "5"),
            ("tcp_keepalives_count", "3"),
        ]);
        Ok(Self {
            pool,
            options,
            producer,
            pace,
            metrics,
        })
    }

    /// Runs until the stop.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        let mut failing = false;
        loop {
            let outcome = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                outcome = self.lead(&mut backoff, &mut failing) => outcome,
            };
            self.metrics.active.set(0);
            let Err(error) = outcome;
            if let Some((_, why)) = self.producer.client().fatal_error() {
                anyhow::bail!("the producer of commands cannot go on, a new process can: {why}");
            }
            self.failed(&mut failing, &error);
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(backoff.next_pause()) => {}
            }
        }
    }

    fn failed(&self, failing: &mut bool, error: &anyhow::Error) {
        self.metrics.errors.inc();
        if !std::mem::replace(failing, true) {
            tracing::warn!("commands cannot be sent, it is tried again until it works: {error:#}");
        }
    }

    /// Waits for the lock, then makes rounds until the database fails. The lock goes with the connection.
    async fn lead(
        &self,
        backoff: &mut Backoff,
        failing: &mut bool,
    ) -> anyhow::Result<std::convert::Infallible> {
        let mut connection = PgConnection::connect_with(&self.options).await?;
        while !sqlx::query_scalar::<_, bool>("select pg_try_advisory_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut connection)
            .await?
        {
            tokio::time::sleep(LOCK_POLL).await;
        }
        let mut listener = PgListener::connect_with(&self.pool).await?;
        listener.listen("outbox").await?;
        // A database from a backup would give numbers again that agents remember as done.
        sqlx::query(
            "select setval('outbox_id_seq', extract(epoch from clock_timestamp())::bigint)
             from outbox_id_seq where last_value < extract(epoch from clock_timestamp())::bigint",
        )
        .execute(&mut connection)
        .await?;
        self.metrics.active.set(1);
        tracing::info!("this process sends the commands");
        let mut clear_at = Instant::now();
        let settled_at = Instant::now() + self.pace.settle();
        loop {
            let round = tokio::time::timeout(ROUND, self.round(&mut connection, settled_at)).await;
            let pause = match round.context("the database or the broker does not answer")? {
                Ok(pause) => pause,
                Err(error @ RoundError::Broker { .. }) if self.producer.client().fatal_error().is_none() => {
                    self.failed(failing, &error.into());
                    tokio::time::sleep(backoff.next_pause()).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            if std::mem::take(failing) {
                tracing::info!("commands are sent again");
            }
            backoff.reset();
            if Instant::now() >= clear_at {
                self.clear(&mut connection).await?;
                clear_at = Instant::now() + CLEAR_EVERY;
            }
            // A notification says only that there is something; one round takes all of it.
            if let Ok(notification) = tokio::time::timeout(pause, listener.recv()).await {
                notification?;
                while listener.next_buffered().is_some() {}
            }
        }
    }

    /// Does what is due, and says how long there is nothing to do. Nothing runs out before `settled_at`: what devices
    /// reported while the database was away may confirm a command whose time is over by now, and is being read.
    async fn round(
        &self,
        connection: &mut PgConnection,
        settled_at: Instant,
    ) -> Result<Duration, RoundError> {
        let unsettled = settled_at.saturating_duration_since(Instant::now());
        if unsettled.is_zero() {
            end_what_ran_out(connection).await?;
        } else {
            progress::wake(connection).await?;
        }
        self.send(connection).await?;
        self.announce(connection).await?;
        let seconds: Option<f64> = sqlx::query_scalar(
            "select extract(epoch from min(least(due_at, expires_at)) - clock_timestamp())::float8
             from outbox where status in ('pending', 'published')",
        )
        .fetch_one(connection)
        .await?;
        let due = seconds.map_or(self.pace.poll, |seconds| {
            Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
        });
        Ok(due.max(unsettled).min(self.pace.poll))
    }

    async fn send(&self, connection: &mut PgConnection) -> Result<(), RoundError> {
        let rows: Vec<Row> = sqlx::query_as(
            "select id, device_id, agent, kind, wanted, next_attempt, created_at, expires_at from outbox
             where status in ('pending', 'published') and next_attempt is not null and due_at <= clock_timestamp()
                 and expires_at > clock_timestamp()
             order by id limit $1",
        )
        .bind(COMMANDS_A_ROUND)
        .fetch_all(&mut *connection)
        .await?;
        for row in rows {
            let command = match row.command() {
                Ok(command) => command,
                Err(error) => {
                    self.give_up(&mut *connection, &row, &error).await?;
                    continue;
                }
            };
            // Before it is produced: a device may have answered by the time the broker has.
            let sent_at = Utc::now();
            self.produce(topic::COMMANDS, &row.device_id, &command).await?;
            mark_sent(connection, row.id, row.next_attempt, sent_at, self.pace.wait).await?;
            self.metrics.sent.inc();
            tracing::info!(
                outbox_id = row.id,
                attempt = row.next_attempt,
                device = row.device_id,
                agent = row.agent,
                "command sent"
            );
        }
        Ok(())
    }

    /// A row no agent could read, which only a hand in the database can have written. It ends, and holds up nobody else.
    async fn give_up(
        &self,
        connection: &mut PgConnection,
        row: &Row,
        error: &anyhow::Error,
    ) -> Result<(), sqlx::Error> {
        tracing::error!(
            outbox_id = row.id,
            "a command cannot be sent and is given up: {error:#}"
        );
        sqlx::query(
            "update outbox set status = 'failed', finished_at = now(), next_attempt = null, waiting_since = null,
                 reason = 'it cannot be sent: its row is wrong', updated_at = now()
             where id = $1 and status in ('pending', 'published')",
        )
        .bind(row.id)
        .execute(connection)
        .await?;
        Ok(())
    }

    /// At least once and in order; an announcement's id tells that it came again.
    async fn announce(&self, connection: &mut PgConnection) -> Result<(), RoundError> {
        let changes: Vec<Change> = sqlx::query_as(
            "select history.id, outbox_id, device_id, at, history.status
             from outbox_history as history join outbox on outbox.id = outbox_id
             where not announced order by history.id limit $1",
        )
        .bind(CHANGES_A_ROUND)
        .fetch_all(&mut *connection)
        .await?;
        for change in &changes {
            let event = Event {
                // The time keeps it unique where a database from a backup counts again.
                id: format!("settings/{}/{}", change.at.timestamp_micros(), change.id),
                agent: None,
                device_id: DeviceId::parse(change.device_id.clone()).ok(),
                time: change.at,
                body: EventBody::OutboxChanged {
                    outbox_id: change.outbox_id,
                    status: change.status.clone(),
                },
            };
            self.produce(topic::EVENTS, &change.device_id, &event).await?;
            self.metrics.changes.with_label_values(&[&change.status]).inc();
        }
        if !changes.is_empty() {
            let ids: Vec<i64> = changes.iter().map(|change| change.id).collect();
            sqlx::query("update outbox_history set announced = true where id = any ($1)")
                .bind(&ids)
                .execute(connection)
                .await?;
        }
        Ok(())
    }

    async fn produce(
        &self,
        topic: &'static str,
        key: &str,
        message: &impl serde::Serialize,
    ) -> Result<(), RoundError> {
        let value = serde_json::to_vec(message).expect("commands and events have only text keys");
        let record = FutureRecord::to(topic).key(key).payload(&value);
        match self.producer.send(record, Timeout::After(DELIVERY)).await {
            Ok(_) => Ok(()),
            Err((error, _)) => Err(RoundError::Broker { topic, error }),
        }
    }

    /// Finished commands and their history are the audit trail; beyond the retention they go.
    async fn clear(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        for statement in [
            "delete from outbox where id in (
                 select id from outbox where finished_at < now() - make_interval(secs => $1) limit $2)",
            "delete from power_plug_schedule_runs where ctid in (
                 select ctid from power_plug_schedule_runs
                 where run_at < now() - greatest(make_interval(secs => $1), interval '7 days') limit $2)",
        ] {
            loop {
                let cleared = sqlx::query(statement)
                    .bind(self.pace.retention.as_secs_f64())
                    .bind(CLEARED_AT_ONCE)
                    .execute(&mut *connection)
                    .await?
                    .rows_affected();
                if cleared < CLEARED_AT_ONCE as u64 {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// Notes that an attempt is with the broker. What the device reports from `sent_at` on may be about it.
async fn mark_sent(
    connection: &mut PgConnection,
    id: i64,
    attempt: i16,
    sent_at: DateTime<Utc>,
    wait: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update outbox set status = 'published', attempts = $2, next_attempt = null, sent_at = $3,
             due_at = least(now() + make_interval(secs => $4), expires_at), updated_at = now()
         where id = $1 and next_attempt = $2 and status in ('pending', 'published')",
    )
    .bind(id)
    .bind(attempt)
    .bind(sent_at)
    .bind(wait.as_secs_f64())
    .execute(connection)
    .await?;
    Ok(())
}

async fn end_what_ran_out(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query(
        "update outbox set status = 'expired', finished_at = now(), next_attempt = null, waiting_since = null,
             reason = coalesce(reason, 'not confirmed within its time'), updated_at = now()
         where status in ('pending', 'published') and expires_at <= clock_timestamp()",
    )
    .execute(&mut *connection)
    .await?;
    // An attempt had its time. The last one may still be done while its agent has not answered: it stays open until it
    // expires, after which no agent does it.
    let timed_out = "status = 'published' and next_attempt is null and waiting_since is null and due_at <= clock_timestamp()";
    sqlx::query(sqlx::AssertSqlSafe(format!(
        "update outbox set
             status = case when attempts >= $1 and answered >= attempts then 'failed' else status end,
             finished_at = case when attempts >= $1 and answered >= attempts then now() end,
             reason = case
                 when attempts >= $1 and answered >= attempts then coalesce(reason, 'the device did not confirm it')
                 when answered < attempts then 'the agent has not answered'
                 else reason end,
             waiting_since = case when attempts < $1 then sent_at end,
             due_at = expires_at, updated_at = now()
         where {timed_out}"
    )))
    .bind(MAX_ATTEMPTS)
    .execute(&mut *connection)
    .await?;
    progress::wake(connection).await
}

impl Row {
    fn command(&self) -> anyhow::Result<Command> {
        let action = match self.kind.as_str() {
            "plug_power" => CommandAction::PlugPower {
                on: self.wanted.0["on"].as_bool().context("on is no boolean")?,
            },
            _ => CommandAction::HeatpumpSettings {
                settings: serde_json::from_value(self.wanted.0.clone())?,
            },
        };
        Ok(Command {
            id: self.id,
            attempt: u32::try_from(self.next_attempt)?,
            agent: self.agent.clone(),
            device_id: DeviceId::parse(self.device_id.clone())?,
            issued_at: self.created_at,
            expires_at: self.expires_at,
            action,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Shelly plug that ignores a command reports its state once, in answer to the agent's question, and that answer can be
    /// there before the broker has acknowledged the command. It is a sign of life all the same.
    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_device_reports_while_a_command_is_being_sent_makes_its_next_attempt_due() {
        let folder = stack::guardian::run().unwrap().data("relay").unwrap();
        let postgres = stack::postgres::Postgres::start(&folder).await.unwrap();
        let url = postgres.url("settings", "homelab_settings");
        let mut connection = <PgConnection as sqlx::Connection>::connect(&url).await.unwrap();
        sqlx::query(
            "insert into outbox (id, device_id, agent, kind, wanted, asked, requested_by, expires_at)
             overriding system value
             values (1, 'plug', 'p0', 'plug_power', '{\"on\": true}', '{}', 'x', now() + interval '1 hour')",
        )
        .execute(&mut connection)
        .await
        .unwrap();
        let sent_at = Utc::now();
        sqlx::query("insert into power_plugs (plug_id, agent, is_on, reported_at) values ('plug', 'p0', false, clock_timestamp())")
            .execute(&mut connection)
            .await
            .unwrap();
        mark_sent(&mut connection, 1, 1, sent_at, Duration::ZERO)
            .await
            .unwrap();
        end_what_ran_out(&mut connection).await.unwrap();
        let next: Option<i16> = sqlx::query_scalar("select next_attempt from outbox")
            .fetch_one(&mut connection)
            .await
            .unwrap();
        assert_eq!(next, Some(2));
    }
}
