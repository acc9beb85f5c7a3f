//! Reads heat-pump and plug records and events from Kafka; keeps the reported state in the database, and the state of commands.
//!
//! Offsets are stored only after the database has committed, so a kill leads to records that are read again, never to
//! one that is missing; reading one again changes nothing. Broker and database may be away for as long as they like.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use prometheus::{IntCounter, IntCounterVec};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};
use serde::Deserialize;
use service::backoff::Backoff;
use service::{Check, Health, KafkaSettings, Metrics};
use sqlx::{Connection as _, PgConnection, PgPool};
use telemetry::{Event, Record, RecordError, topic};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::database::is_the_data;
use crate::progress::{self, Said, Sighting};
use crate::reported::{Reports, Skipped};

/// Topics that say something about settings, plugs and commands.
const TOPICS: [&str; 3] = [topic::HEATPUMP, topic::PLUG, topic::EVENTS];
/// Records folded into one transaction: a month's backlog is caught up in seconds, memory stays small.
const BATCH_RECORDS: usize = 1_000;
/// How long a record may wait for others to join its batch; a person waits for a plug to show its state.
const BATCH_WAIT: Duration = Duration::from_millis(20);
/// Bytes librdkafka may hold that were not taken yet.
const QUEUED_KBYTES: u32 = 4 * 1024;
/// How long one attempt to write a batch may take: a database whose host vanished answers nothing, not even an error.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(20);
/// Pauses while the database is away.
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_CAP: Duration = Duration::from_secs(10);
/// Pause after an error of the broker: librdkafka reconnects by itself, this only keeps the loop from spinning.
const ERROR_PAUSE: Duration = Duration::from_millis(500);

pub(crate) struct ReportedMetrics {
    records: IntCounterVec,
    database_errors: IntCounter,
    consume_errors: IntCounter,
}

impl ReportedMetrics {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        let records = metrics.counters(
            "records_total",
            "Records read by what became of them: taken, nothing_reported, ahead, bad or refused.",
            &["outcome"],
        );
        for outcome in ["taken", "nothing_reported", "ahead", "bad", "refused"] {
            records.with_label_values(&[outcome]);
        }
        Self {
            records,
            database_errors: metrics.counter(
                "database_errors_total",
                "Failed attempts to write what was reported.",
            ),
            consume_errors: metrics.counter("consume_errors_total", "Errors while reading from Kafka."),
        }
    }

    fn count(&self, outcome: &str, records: u64) {
        self.records.with_label_values(&[outcome]).inc_by(records);
    }
}

/// Reads and writes until `stop`.
pub(crate) struct Reader {
    consumer: StreamConsumer<Context>,
    pool: PgPool,
    database: Check,
    metrics: ReportedMetrics,
    /// How long an attempt has to be confirmed.
    wait: Duration,
}

/// One batch: the newest reports, where each partition stands after it, and what was wrong in it.
#[derive(Default)]
struct Batch {
    reports: Reports,
    sightings: Vec<Sighting>,
    said: Vec<Said>,
    records: usize,
    next_offsets: HashMap<(&'static str, i32), i64>,
    first_bad: Option<String>,
    bad: u64,
}

impl Reader {
    /// Creates the consumer; the broker may be away. Adds the readiness check `kafka`.
    pub(crate) fn new(
        kafka: &KafkaSettings,
        group: &str,
        pool: PgPool,
        database: Check,
        health: &Health,
        metrics: ReportedMetrics,
        wait: Duration,
    ) -> anyhow::Result<Self> {
        let consumer: StreamConsumer<Context> = ClientConfig::from_iter(kafka.properties())
            .set("client.id", "homelab-settings-api")
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", "10000")
            .set("auto.offset.reset", "earliest")
            .set("enable.auto.commit", "true")
            .set("auto.commit.interval.ms", "1000")
            .set("enable.auto.offset.store", "false")
            .set("queued.max.messages.kbytes", QUEUED_KBYTES.to_string())
            .set("fetch.wait.max.ms", "100")
            .set("allow.auto.create.topics", "false")
            // A topic that is created after our start is found within this time.
            .set("topic.metadata.refresh.interval.ms", "5000")
            .set("statistics.interval.ms", "2000")
            .create_with_context(Context {
                check: health.check("kafka"),
            })
            .context("cannot create the consumer")?;
        consumer.subscribe(&TOPICS).context("cannot subscribe")?;
        Ok(Self {
            consumer,
            pool,
            database,
            metrics,
            wait,
        })
    }

    /// Reads and writes until the stop. An error is one that reading cannot recover from.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let outcome = tokio::select! {
            outcome = self.read() => outcome,
            // What was read and not written is read again after the start.
            () = stop.cancelled() => Ok(()),
        };
        // Leaving the group commits the stored offsets. It blocks, a little longer when the broker is away.
        let consumer = self.consumer;
        tokio::task::spawn_blocking(move || drop(consumer))
            .await
            .context("leaving the consumer group panicked")?;
        outcome
    }

    async fn read(&self) -> anyhow::Result<()> {
        let mut failing = false;
        loop {
            let batch = match self.next_batch().await {
                Ok(batch) => batch,
                Err(error @ KafkaError::MessageConsumptionFatal(_)) => {
                    return Err(error).context("the consumer cannot go on");
                }
                Err(error) => {
                    self.metrics.consume_errors.inc();
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!("reading from Kafka fails, it is tried again until it works: {error}");
                    }
                    tokio::time::sleep(ERROR_PAUSE).await;
                    continue;
                }
            };
            if std::mem::take(&mut failing) {
                tracing::info!("reading from Kafka works again");
            }
            if let Some(first) = &batch.first_bad {
                tracing::warn!(
                    records = batch.bad,
                    "{} bad records were passed over, the first {first}",
                    batch.bad
                );
            }
            self.write(&batch).await;
            self.store_offsets(&batch);
        }
    }

    /// Waits for a record, then takes what comes within [`BATCH_WAIT`]. An error after the first record is left for the
    /// next call, which meets it again.
    async fn next_batch(&self) -> Result<Batch, KafkaError> {
        let mut batch = Batch::default();
        let first = self.consumer.recv().await?;
        self.take(&mut batch, &first);
        let due = Instant::now() + BATCH_WAIT;
        while batch.records < BATCH_RECORDS {
            match timeout_at(due, self.consumer.recv()).await {
                Ok(Ok(message)) => self.take(&mut batch, &message),
                Ok(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        Ok(batch)
    }

    fn take(&self, batch: &mut Batch, message: &BorrowedMessage<'_>) {
        let Some(topic) = TOPICS.into_iter().find(|topic| *topic == message.topic()) else {
            return;
        };
        batch.records += 1;
        batch
            .next_offsets
            .insert((topic, message.partition()), message.offset() + 1);
        if topic == topic::EVENTS {
            let outcome = batch.take_event(message);
            self.metrics.count(outcome, 1);
            return;
        }
        let record = Record::from_json(message.payload().unwrap_or_default());
        let outcome = match record.map(|record| {
            let sighting = Sighting::of(&record);
            batch
                .reports
                .take(record, Utc::now())
                .map(|()| batch.sightings.extend(sighting))
        }) {
            Ok(Ok(())) => "taken",
            Ok(Err(Skipped::NothingReported)) => "nothing_reported",
            Ok(Err(Skipped::Ahead)) => "ahead",
            Ok(Err(Skipped::BadTime)) => {
                batch.bad(message, "its time is before 2020");
                "bad"
            }
            Ok(Err(Skipped::BadAgent)) => {
                batch.bad(message, "its agent's name cannot be stored");
                "bad"
            }
            // The place of the fault, not its text: that can quote the payload.
            Err(RecordError::Malformed(error)) => {
                batch.bad(
                    message,
                    &format!("is malformed at line {} column {}", error.line(), error.column()),
                );
                "bad"
            }
        };
        self.metrics.count(outcome, 1);
    }

    /// Writes until it is written. A report the database refuses is counted and given up, never the others.
    async fn write(&self, batch: &Batch) {
        if batch.reports.is_empty() && batch.said.is_empty() {
            return;
        }
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_CAP);
        loop {
            match self.attempt(batch).await {
                Ok(refused) => {
                    self.metrics.count("refused", refused);
                    self.database.set(true);
                    return;
                }
                Err(error) => {
                    self.metrics.database_errors.inc();
                    self.database.set(false);
                    let pause = backoff.next_pause();
                    tracing::warn!("cannot write what was reported, trying again in {pause:.1?}: {error}");
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Answers how many reports were refused.
    async fn attempt(&self, batch: &Batch) -> Result<u64, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        let attempt = async {
            match self.write_once(&mut connection, batch, true).await {
                Err(error) if is_the_data(&error) => {
                    let refused = batch.reports.write_singly(&mut connection).await?;
                    self.write_once(&mut connection, batch, false).await?;
                    Ok(refused)
                }
                other => other.map(|()| 0),
            }
        };
        match timeout(ATTEMPT_LIMIT, attempt).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // Given back, it would be asked whether it is well, and would not answer that either.
                drop(connection.detach());
                Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()))
            }
        }
    }

    /// What was reported and what follows for commands, in one transaction.
    async fn write_once(
        &self,
        connection: &mut PgConnection,
        batch: &Batch,
        with_reports: bool,
    ) -> Result<(), sqlx::Error> {
        let mut transaction = connection.begin().await?;
        if with_reports {
            batch.reports.write(&mut transaction).await?;
        }
        progress::note(&mut transaction, &batch.sightings, &batch.said, self.wait).await?;
        transaction.commit().await
    }

    fn store_offsets(&self, batch: &Batch) {
        let mut offsets = TopicPartitionList::new();
        for (&(topic, partition), &next) in &batch.next_offsets {
            offsets
                .add_partition_offset(topic, partition, Offset::Offset(next))
                .expect("offsets of records are not negative");
        }
        if let Err(error) = self.consumer.store_offsets(&offsets) {
            // The partition was given to another replica meanwhile, which reads the records again; that is harmless.
            tracing::info!("offsets of a written batch were not stored, its records are read again: {error}");
        }
    }
}

impl Batch {
    fn take_event(&mut self, message: &BorrowedMessage<'_>) -> &'static str {
        match serde_json::from_slice::<Event>(message.payload().unwrap_or_default()).map(Said::of) {
            Ok(Some(said)) if said.is_storable(Utc::now()) => {
                self.said.push(said);
                "taken"
            }
            Ok(None) => "nothing_reported",
            Ok(Some(_)) => {
                self.bad(
                    message,
                    "its agent's name cannot be stored, or its time is before 2020 or an hour ahead",
                );
                "bad"
            }
            Err(error) => {
                self.bad(
                    message,
                    &format!("is malformed at line {} column {}", error.line(), error.column()),
                );
                "bad"
            }
        }
    }

    fn bad(&mut self, message: &BorrowedMessage<'_>, reason: &str) {
        self.bad += 1;
        self.first_bad.get_or_insert_with(|| {
            format!(
                "at {} partition {} offset {}: it {reason}",
                message.topic(),
                message.partition(),
                message.offset()
            )
        });
    }
}

/// Keeps the check `kafka`: well while a broker is connected.
struct Context {
    check: Check,
}

/// The part of librdkafka's statistics that is used.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    state: String,
}

impl ClientContext for Context {
    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(statistics) => self
                .check
                .set(statistics.brokers.values().any(|broker| broker.state == "UP")),
            Err(error) => tracing::warn!("librdkafka's statistics could not be read: {error}"),
        }
    }

    /// librdkafka repeats itself at every attempt; what matters is seen in the check.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.check.set(false);
        }
        tracing::debug!("librdkafka: {error}: {reason}");
    }
}

impl ConsumerContext for Context {}
