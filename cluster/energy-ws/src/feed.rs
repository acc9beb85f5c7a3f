//! Kafka into the hub: one consumer for the whole process, reading every partition of the five topics.
//!
//! It belongs to no consumer group and commits nothing: each process shows everything, and begins some thousand
//! records before the end. The group id below is there because librdkafka asks for one; it never joins.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use chrono::Utc;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{Consumer as _, ConsumerContext, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{ClientConfig, ClientContext, Message as _, Offset, TopicPartitionList};
use serde::Deserialize;
use service::KafkaSettings;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::hub::SEEN_IDS;
use crate::position::Place;
use crate::protocol;
use crate::session::Shared;
use crate::stream::Stream;

/// How often topics are looked for while one is missing or the broker does not answer.
const DISCOVER_MISSING_EVERY: Duration = Duration::from_secs(1);
/// How often new partitions are looked for once all topics are there.
const DISCOVER_EVERY: Duration = Duration::from_secs(30);
/// How long one question about topics may take.
const ASK_LIMIT: Duration = Duration::from_secs(5);
/// How long filling the window may take before clients are served with what there is.
const LOAD_LIMIT: Duration = Duration::from_secs(10);
/// How often librdkafka tells where the topics end and whether a broker is connected.
const STATISTICS_INTERVAL_MS: u32 = 1_000;
/// Bytes librdkafka may hold that we have not taken yet; we take them as they come.
const QUEUED_KBYTES: u32 = 4 * 1024;

type Consumer = StreamConsumer<FeedContext>;

/// Creates the consumer. Errors only on a wrong configuration; the broker may be away.
pub fn consumer(kafka: &KafkaSettings, shared: Arc<Shared>) -> Result<Arc<Consumer>, KafkaError> {
    ClientConfig::from_iter(kafka.properties())
        .set("client.id", "energy-ws")
        .set("group.id", "energy-ws")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("enable.partition.eof", "false")
        .set("auto.offset.reset", "earliest")
        .set("queued.max.messages.kbytes", QUEUED_KBYTES.to_string())
        // A record that comes ends the broker's wait at once; these only bound what an idle or failed fetch costs.
        .set("fetch.min.bytes", "1")
        .set("fetch.wait.max.ms", "100")
        .set("fetch.error.backoff.ms", "100")
        .set("reconnect.backoff.max.ms", "2000")
        .set("allow.auto.create.topics", "false")
        .set("statistics.interval.ms", STATISTICS_INTERVAL_MS.to_string())
        .create_with_context(FeedContext { shared })
        .map(Arc::new)
}

/// Reads until the stop.
pub async fn run(
    consumer: Arc<Consumer>,
    shared: Arc<Shared>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut known: HashMap<Stream, usize> = HashMap::new();
    // Partitions whose beginning is still being read, with the end they had at the start.
    let mut loading: HashMap<Place, i64> = HashMap::new();
    let mut loaded = Loaded::No;
    let mut discover_at = Instant::now();
    let mut failing = false;
    loop {
        if let Loaded::Until(limit) = loaded
            && (loading.is_empty() || limit <= Instant::now())
        {
            shared.hub.set_loaded();
            shared.metrics.streams_loaded();
            loaded = Loaded::Yes;
            tracing::info!("live streams are read from the end on");
        }
        let load_limit = if let Loaded::Until(limit) = loaded {
            Some(limit)
        } else {
            None
        };
        tokio::select! {
            () = stop.cancelled() => break,
            message = consumer.recv() => match message {
                Ok(message) => {
                    failing = false;
                    take(&shared, &message, &mut loading);
                }
                Err(KafkaError::MessageConsumptionFatal(code)) => {
                    return Err(KafkaError::MessageConsumptionFatal(code)).context("the consumer cannot go on");
                }
                Err(error) => {
                    shared.metrics.consume_errors.inc();
                    if !std::mem::replace(&mut failing, true) {
                        tracing::warn!("reading from Kafka fails, it is tried again until it works: {error}");
                    }
                }
            },
            () = sleep_until(discover_at) => {
                let first = matches!(loaded, Loaded::No);
                match discover(&consumer, &known, first).await {
                    Ok(found) => {
                        // The statistics would tell a second later.
                        shared.metrics.broker_is(true);
                        assign(&consumer, &shared, &found, &mut known)?;
                        loading.extend(found.iter().filter(|part| part.start < part.high).map(|part| (part.place, part.high)));
                        if first {
                            loaded = Loaded::Until(Instant::now() + LOAD_LIMIT);
                        }
                    }
                    Err(error) => tracing::debug!("the broker does not tell its topics: {error:#}"),
                }
                let complete = Stream::ALL.iter().all(|stream| known.contains_key(stream));
                discover_at = Instant::now() + if complete { DISCOVER_EVERY } else { DISCOVER_MISSING_EVERY };
            }
            () = sleep_until(load_limit.unwrap_or_else(Instant::now)), if load_limit.is_some() => {}
        }
    }
    // Closing blocks for a moment.
    tokio::task::spawn_blocking(move || drop(consumer))
        .await
        .context("closing the consumer panicked")
}

enum Loaded {
    /// No broker has answered yet.
    No,
    /// The window is being filled, at most until then.
    Until(Instant),
    Yes,
}

/// A partition that was found, where it is read from, and where it ended then.
struct Found {
    place: Place,
    start: i64,
    high: i64,
}

/// Asks for partitions that are not known yet. At the start they are read from so far before the end that what comes
/// again is known as such, which is more than the window keeps; one that comes later is new and read from its beginning.
async fn discover(
    consumer: &Arc<Consumer>,
    known: &HashMap<Stream, usize>,
    first: bool,
) -> anyhow::Result<Vec<Found>> {
    let (consumer, known) = (consumer.clone(), known.clone());
    let asked = tokio::task::spawn_blocking(move || {
        let metadata = consumer.fetch_metadata(None, ASK_LIMIT)?;
        let mut found = Vec::new();
        for topic in metadata.topics() {
            let Some(stream) = Stream::of_topic(topic.name()) else {
                continue;
            };
            for partition in known.get(&stream).copied().unwrap_or(0)..topic.partitions().len() {
                let number = i32::try_from(partition).context("more partitions than Kafka can number")?;
                let (low, high) = consumer.fetch_watermarks(topic.name(), number, ASK_LIMIT)?;
                let start = if first {
                    low.max(high - SEEN_IDS as i64)
                } else {
                    low
                };
                found.push(Found {
                    place: Place { stream, partition },
                    start,
                    high,
                });
            }
        }
        anyhow::Ok(found)
    });
    asked.await.context("asking for topics panicked")?
}

fn assign(
    consumer: &Consumer,
    shared: &Shared,
    found: &[Found],
    known: &mut HashMap<Stream, usize>,
) -> anyhow::Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let mut partitions = TopicPartitionList::new();
    for part in found {
        let number = i32::try_from(part.place.partition).context("more partitions than Kafka can number")?;
        partitions
            .add_partition_offset(part.place.stream.topic(), number, Offset::Offset(part.start))
            .context("a start offset is wrong")?;
        shared.hub.add(part.place, part.start, part.high);
        let count = known.entry(part.place.stream).or_default();
        *count = (*count).max(part.place.partition + 1);
    }
    tracing::info!(partitions = found.len(), "partitions are read");
    consumer
        .incremental_assign(&partitions)
        .context("cannot read the partitions")
}

fn take(shared: &Shared, message: &BorrowedMessage<'_>, loading: &mut HashMap<Place, i64>) {
    let Some(stream) = Stream::of_topic(message.topic()) else {
        return;
    };
    let Ok(partition) = usize::try_from(message.partition()) else {
        return;
    };
    let place = Place { stream, partition };
    let now = Utc::now();
    let appended_ms = message.timestamp().to_millis().unwrap_or(now.timestamp_millis());
    let body = match protocol::body(stream, message.payload().unwrap_or_default(), now) {
        Ok(body) => Some(body),
        Err(reason) => {
            shared.metrics.skipped(reason);
            tracing::debug!(
                stream = stream.name(),
                partition,
                offset = message.offset(),
                "a record is not sent: {reason:?}"
            );
            None
        }
    };
    let readable = body.is_some();
    let published = shared.hub.publish(place, message.offset(), appended_ms, body);
    if published.sent {
        shared.metrics.record(stream);
    } else if readable {
        shared.metrics.repeated.inc();
    }
    if published.broke_off {
        shared.metrics.breaks.inc();
        tracing::warn!(
            stream = stream.name(),
            partition,
            offset = message.offset(),
            "records were deleted before they were read, or the topic was made anew; clients are told"
        );
    }
    match loading.get(&place) {
        Some(&high) if message.offset() + 1 >= high => _ = loading.remove(&place),
        Some(_) => {}
        None => shared
            .metrics
            .delay
            .observe((now.timestamp_millis() - appended_ms).max(0) as f64 / 1_000.0),
    }
}

/// What librdkafka calls.
pub struct FeedContext {
    shared: Arc<Shared>,
}

impl ConsumerContext for FeedContext {}

impl ClientContext for FeedContext {
    fn stats_raw(&self, statistics: &[u8]) {
        match serde_json::from_slice::<Statistics>(statistics) {
            Ok(statistics) => {
                self.shared.metrics.broker_is(statistics.connected());
                for (place, high) in statistics.highs() {
                    self.shared.hub.high_is(place, high);
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
            self.shared.metrics.broker_is(false);
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
    /// The broker's next offset; negative where it is not known.
    hi_offset: i64,
}

impl Statistics {
    fn connected(&self) -> bool {
        self.brokers.values().any(|broker| broker.state == "UP")
    }

    fn highs(&self) -> impl Iterator<Item = (Place, i64)> {
        self.topics
            .iter()
            .filter_map(|(name, topic)| Some((Stream::of_topic(name)?, topic)))
            .flat_map(|(stream, topic)| {
                topic
                    .partitions
                    .iter()
                    .filter_map(move |(partition, statistics)| {
                        // librdkafka's own partition -1 does not parse.
                        Some((
                            Place {
                                stream,
                                partition: partition.parse().ok()?,
                            },
                            statistics.hi_offset,
                        ))
                    })
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_give_ends_and_broker_state() {
        let text = r#"{"brokers":{"a/1":{"state":"UP"}},"topics":{"homelab.plug":{"partitions":{
            "2":{"hi_offset":7,"app_offset":3},"-1":{"hi_offset":-1001}}},"other":{"partitions":{"0":{"hi_offset":1}}}}}"#;
        let statistics: Statistics = serde_json::from_str(text).unwrap();
        assert!(statistics.connected());
        let highs: Vec<_> = statistics.highs().collect();
        assert_eq!(
            highs,
            [(
                Place {
                    stream: Stream::Plug,
                    partition: 2
                },
                7
            )]
        );
    }
}
