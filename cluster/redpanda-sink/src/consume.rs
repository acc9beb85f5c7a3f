//! Kafka into batches, and offsets stored for batches that are written.
//!
//! The consumer's task never waits for the database: while one batch is being written the next is filled, and
//! when both are full it stops taking records from librdkafka's bounded queue. Should that last, it pauses the
//! partitions and keeps polling, so that the group does not take this replica for dead.
//!
//! It never commits an offset of a record that is not written, nor one of a partition that was taken away
//! meanwhile: whoever has the partition now goes on from what was committed, and rows that come twice are ignored.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext, Rebalance, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};
use serde::Deserialize;
use service::KafkaSettings;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::batch::{Batch, Mark, Place, Raw};
use crate::classify::Source;
use crate::metrics::Metrics;

/// Bytes librdkafka may hold that we have not taken yet. With 64 MB for the whole process this is the largest
/// part; it is what keeps the writer busy while the broker is being asked for more.
const QUEUED_KBYTES: u32 = 8 * 1024;
/// Bytes of one partition in one fetch. Thirteen partitions answer at once when all have a backlog.
const FETCH_PARTITION_BYTES: u32 = 512 * 1024;
/// How long librdkafka waits when its queue is full. A second, its default, is longer than it takes to empty that queue, and
/// was measured to be a ceiling of 21,000 records/s.
const QUEUE_FULL_WAIT_MS: u32 = 5;
/// How long a full batch may wait for the writer before the partitions are paused. A pause throws away what
/// librdkafka has fetched, so it is for a database in trouble, not for a batch that takes its time.
const PAUSE_AFTER: Duration = Duration::from_secs(5);
/// Within this time of silence the group takes a replica for dead; the least that brokers take by default. Short, so
/// that a killed sink is at work again soon after its restart; heartbeats come from a thread of their own.
const SESSION_TIMEOUT_MS: u32 = 6_000;
/// How often librdkafka tells lag and broker state. Readiness is at most this old.
const STATISTICS_INTERVAL_MS: u32 = 2_000;
/// How often offsets of written batches go to the broker. What a kill makes us read again is at most this.
const COMMIT_INTERVAL_MS: u32 = 1_000;
/// A topic that is created after our start is found within this time.
const METADATA_REFRESH_MS: u32 = 5_000;
/// How long the batch under way may take once the stop has come; it is written again after a restart otherwise.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// The consumer with its rebalance and statistics callbacks.
pub type Consumer = StreamConsumer<Context>;

/// Creates the consumer and subscribes. Errors only on a wrong configuration; the broker may be away.
pub fn consumer(kafka: &KafkaSettings, group: &str, metrics: Arc<Metrics>) -> Result<Consumer, KafkaError> {
    let consumer: Consumer = ClientConfig::from_iter(kafka.properties())
        .set("client.id", "redpanda-sink")
        .set("group.id", group)
        .set("partition.assignment.strategy", "cooperative-sticky")
        .set("session.timeout.ms", SESSION_TIMEOUT_MS.to_string())
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "true")
        .set("auto.commit.interval.ms", COMMIT_INTERVAL_MS.to_string())
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        .set("queued.max.messages.kbytes", QUEUED_KBYTES.to_string())
        .set("fetch.queue.backoff.ms", QUEUE_FULL_WAIT_MS.to_string())
        .set("fetch.message.max.bytes", FETCH_PARTITION_BYTES.to_string())
        .set("fetch.wait.max.ms", "100")
        .set("allow.auto.create.topics", "false")
        .set(
            "topic.metadata.refresh.interval.ms",
            METADATA_REFRESH_MS.to_string(),
        )
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS.to_string())
        .create_with_context(Context {
            metrics,
            assignment: Mutex::default(),
        })?;
    consumer.subscribe(&Source::ALL.map(Source::topic))?;
    Ok(consumer)
}

/// Runs until the stop: fills batches, gives them to the writer, stores the offsets of those that come back.
pub async fn run(
    consumer: Consumer,
    batches: mpsc::Sender<Batch>,
    mut written: mpsc::Receiver<Batch>,
    metrics: Arc<Metrics>,
    stop: CancellationToken,
    cut_writer: CancellationToken,
) -> anyhow::Result<()> {
    // However this ends, the writer does not go on for nobody.
    let _cut_writer = cut_writer.drop_guard();
    let mut next = Batch::default();
    // Since when a batch is with the writer and when the broker appended its oldest record. One at a time: two
    // batches in memory are the bound.
    let mut writing: Option<Writing> = None;
    let mut paused = false;
    let mut errors = ErrorLog::default();
    let mut second = interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let outcome = loop {
        let held_up = writing.as_ref().filter(|_| next.is_full());
        let stuck = held_up.is_some_and(|writing| writing.since.elapsed() >= PAUSE_AFTER);
        if stuck != paused {
            paused = consumer.context().pause(&consumer, stuck);
        }
        let due = next.due().filter(|_| writing.is_none());
        let take = held_up.is_none() || paused;
        tokio::select! {
            () = stop.cancelled() => break Ok(()),
            batch = written.recv() => {
                let Some(batch) = batch else { break Err(anyhow::anyhow!("the writer is gone")) };
                writing = None;
                store(&consumer, &batch);
            }
            message = consumer.recv(), if take => match message {
                Ok(message) => {
                    errors.over();
                    push(&mut next, consumer.context(), &message);
                }
                Err(KafkaError::MessageConsumptionFatal(code)) => {
                    break Err(KafkaError::MessageConsumptionFatal(code)).context("the consumer cannot go on");
                }
                Err(error) => {
                    metrics.consume_errors.inc();
                    errors.failed(&error);
                }
            },
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            _ = second.tick() => metrics.refresh_behind(Utc::now().timestamp_millis()),
        }
        let ready = next.is_ready() || next.due().is_some_and(|due| due <= Instant::now());
        if writing.is_none() && ready {
            writing = Some(Writing {
                since: Instant::now(),
                oldest_appended_ms: next.oldest_appended_ms(),
            });
            if batches.send(std::mem::take(&mut next)).await.is_err() {
                break Err(anyhow::anyhow!("the writer is gone"));
            }
        }
        let oldest = writing.as_ref().and_then(|writing| writing.oldest_appended_ms);
        metrics.oldest_in_hand_is(oldest.or_else(|| next.oldest_appended_ms()));
    };
    // What was only read is read again; what the writer has may still be finished.
    drop(batches);
    if writing.is_some()
        && let Ok(Some(batch)) = tokio::time::timeout(STOP_LIMIT, written.recv()).await
    {
        store(&consumer, &batch);
    }
    // Leaving the group commits the stored offsets; it blocks, a little longer when the broker is away.
    let left = tokio::task::spawn_blocking(move || drop(consumer));
    left.await.context("leaving the consumer group panicked")?;
    outcome
}

/// A batch that is with the writer.
struct Writing {
    since: Instant,
    oldest_appended_ms: Option<i64>,
}

fn push(batch: &mut Batch, context: &Context, message: &BorrowedMessage<'_>) {
    let Some(source) = Source::of_topic(message.topic()) else {
        return;
    };
    let place = (source, message.partition());
    // A record of a partition that was taken away a moment ago may still come; its new owner reads it as well.
    let Some(assignment) = context.assignment().first_record(place, message.offset()) else {
        return;
    };
    let raw = Raw {
        source,
        partition: message.partition(),
        offset: message.offset(),
        appended_ms: message.timestamp().to_millis(),
        key: message.key(),
        payload: message.payload(),
    };
    batch.push(raw, assignment, Utc::now());
}

/// Stores the offsets of a written batch for the partitions that are still held under the same assignment.
fn store(consumer: &Consumer, batch: &Batch) {
    let mut offsets = TopicPartitionList::new();
    let assignment = consumer.context().assignment();
    for (&(source, partition), mark) in &batch.marks {
        if assignment.still_holds((source, partition), mark) {
            offsets
                .add_partition_offset(source.topic(), partition, Offset::Offset(mark.next_offset))
                .expect("offsets of records are not negative");
        }
    }
    drop(assignment);
    if offsets.count() == 0 {
        return;
    }
    if let Err(error) = consumer.store_offsets(&offsets) {
        // Rebalances run in this task alone, so this is a fault to be seen; the records come again, nothing is lost.
        tracing::warn!("offsets of a written batch could not be stored: {error}");
    }
}

/// The partitions this replica holds. Every time one is given it gets a new number, so that a batch read under an
/// earlier assignment is told from one read under this.
#[derive(Debug, Default)]
struct Assignment {
    given: u64,
    held: HashMap<Place, u64>,
    /// Given, and no record of them came yet.
    unread: HashSet<Place>,
    paused: bool,
}

impl Assignment {
    fn give(&mut self, place: Place) {
        self.given += 1;
        self.held.insert(place, self.given);
        self.unread.insert(place);
    }

    /// The number of the assignment of a partition of which a record came. The first one is logged: where reading begins
    /// tells an operator whether the group had its offsets.
    fn first_record(&mut self, place: Place, offset: i64) -> Option<u64> {
        let assignment = self.of(place)?;
        if self.unread.remove(&place) {
            let (source, partition) = place;
            tracing::info!(topic = source.topic(), partition, offset, "reading begins");
        }
        Some(assignment)
    }

    fn take(&mut self, place: Place) {
        self.held.remove(&place);
        self.unread.remove(&place);
    }

    fn of(&self, place: Place) -> Option<u64> {
        self.held.get(&place).copied()
    }

    fn still_holds(&self, place: Place, mark: &Mark) -> bool {
        self.of(place) == Some(mark.assignment)
    }
}

/// What librdkafka calls: rebalances, statistics, errors.
pub struct Context {
    metrics: Arc<Metrics>,
    assignment: Mutex<Assignment>,
}

impl Context {
    fn assignment(&self) -> MutexGuard<'_, Assignment> {
        self.assignment.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pauses or resumes all partitions; partitions that come while paused are paused as well. Answers whether
    /// they are paused now.
    fn pause(&self, consumer: &Consumer, pause: bool) -> bool {
        let outcome = consumer.assignment().and_then(|held| {
            if pause {
                consumer.pause(&held)
            } else {
                consumer.resume(&held)
            }
        });
        if let Err(error) = outcome {
            tracing::warn!("partitions could not be paused or resumed: {error}");
        }
        self.assignment().paused = pause;
        if pause {
            tracing::warn!("the database takes no rows: reading is paused, the group membership is kept");
        } else {
            tracing::info!("reading goes on");
        }
        pause
    }
}

impl ConsumerContext for Context {
    fn pre_rebalance(&self, _consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(partitions) = rebalance {
            let mut assignment = self.assignment();
            places(partitions).for_each(|place| assignment.take(place));
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let mut assignment = self.assignment();
                places(partitions).for_each(|place| assignment.give(place));
                if assignment.paused
                    && let Err(error) = consumer.pause(partitions)
                {
                    tracing::warn!("new partitions could not be paused: {error}");
                }
                let held = assignment.held.len();
                // Who gives partitions is there; the statistics would tell seconds later.
                self.metrics.broker_is(true);
                tracing::info!(given = partitions.count(), held, "partitions were given");
            }
            Rebalance::Revoke(partitions) => {
                let held = self.assignment().held.len();
                tracing::info!(taken = partitions.count(), held, "partitions were taken away");
            }
            Rebalance::Error(error) => tracing::warn!("a rebalance failed: {error}"),
        }
        self.metrics.rebalances.inc();
    }
}

fn places(partitions: &TopicPartitionList) -> impl Iterator<Item = Place> {
    let places: Vec<Place> = partitions
        .elements()
        .iter()
        .filter_map(|element| Some((Source::of_topic(element.topic())?, element.partition())))
        .collect();
    places.into_iter()
}

impl ClientContext for Context {
    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(statistics) => {
                self.metrics.broker_is(statistics.connected());
                for source in Source::ALL {
                    self.metrics.lag_is(source, statistics.lag(source.topic()));
                }
            }
            Err(error) => tracing::warn!("librdkafka's statistics could not be read: {error}"),
        }
    }

    /// librdkafka repeats itself at every attempt; what matters is seen in broker state and consume errors.
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown) {
            self.metrics.broker_is(false);
        }
        tracing::debug!("librdkafka: {error}: {reason}");
    }
}

/// The part of librdkafka's statistics that is used; STATISTICS.md there has the whole.
#[derive(Deserialize)]
struct Statistics {
    #[serde(default)]
    brokers: HashMap<String, BrokerStatistics>,
    #[serde(default)]
    topics: HashMap<String, TopicStatistics>,
}

#[derive(Deserialize)]
struct BrokerStatistics {
    state: String,
}

#[derive(Deserialize)]
struct TopicStatistics {
    #[serde(default)]
    partitions: HashMap<String, PartitionStatistics>,
}

#[derive(Deserialize)]
struct PartitionStatistics {
    /// High watermark minus stored offset; -1 where it is not known.
    consumer_lag_stored: i64,
}

impl Statistics {
    fn connected(&self) -> bool {
        self.brokers.values().any(|broker| broker.state == "UP")
    }

    fn lag(&self, topic: &str) -> i64 {
        let partitions = self.topics.get(topic).map(|topic| &topic.partitions);
        partitions
            .into_iter()
            .flatten()
            .filter(|(partition, _)| *partition != "-1")
            .map(|(_, partition)| partition.consumer_lag_stored.max(0))
            .sum()
    }
}

/// Consumer errors, logged once until a record comes again.
#[derive(Default)]
struct ErrorLog {
    failing: bool,
}

impl ErrorLog {
    fn failed(&mut self, error: &KafkaError) {
        if !std::mem::replace(&mut self.failing, true) {
            tracing::warn!("reading from Kafka fails, it is tried again until it works: {error}");
        } else {
            tracing::debug!("reading from Kafka still fails: {error}");
        }
    }

    fn over(&mut self) {
        if std::mem::take(&mut self.failing) {
            tracing::info!("reading from Kafka works again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_that_came_back_is_another_one() {
        let place = (Source::Energy, 1);
        let mut assignment = Assignment::default();
        assert_eq!(assignment.of(place), None);
        assignment.give(place);
        let mark = Mark {
            assignment: assignment.of(place).unwrap(),
            next_offset: 100,
        };
        assert!(assignment.still_holds(place, &mark));
        assignment.give((Source::Energy, 2));
        assert!(assignment.still_holds(place, &mark), "others come and go");
        assignment.take(place);
        assert!(!assignment.still_holds(place, &mark));
        assignment.give(place);
        assert!(
            !assignment.still_holds(place, &mark),
            "another replica may be further by now"
        );
    }

    #[test]
    fn statistics_give_lag_and_broker_state() {
        let text = r#"{"name":"x","brokers":{"a/1":{"state":"UP","rtt":{}},"b/2":{"state":"DOWN"}},
            "topics":{"homelab.energy":{"partitions":{"0":{"consumer_lag_stored":3},"1":{"consumer_lag_stored":4},
            "2":{"consumer_lag_stored":-1},"-1":{"consumer_lag_stored":9}}}}}"#;
        let statistics: Statistics = serde_json::from_str(text).unwrap();
        assert!(statistics.connected());
        assert_eq!(statistics.lag("homelab.energy"), 7);
        assert_eq!(statistics.lag("homelab.plug"), 0);
        let none: Statistics = serde_json::from_str("{}").unwrap();
        assert!(!none.connected());
    }
}
