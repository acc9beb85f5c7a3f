//! From the buffer to Redpanda: in order, decoded on the way, removed when Redpanda says it has it.
//!
//! One lane. The producer is idempotent and retries for ever inside its own small queue, so records of a device
//! cannot overtake each other. A delivery report is the only reason to remove an entry. Any failure that is not the
//! record's own fault empties the producer and starts again at the oldest entry not delivered: a repeated
//! prefix, which the sink recognises by id. A record Redpanda will never take becomes a dead letter.
//!
//! This module never acknowledges anything to a device and never changes an entry.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, PurgeConfig, ThreadedProducer},
};
use telemetry::{DeadLetter, Origin, Record, Stage, topic};
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    buffer::{Buffer, Entry, Sequence},
    clock::{Resolved, Segment, Stamp, Timeline},
    decode::{Decoded, Decoders},
    message::{Body, Message},
};

/// Messages sent and not confirmed. Bounds memory; enough to fill a link with 20 ms round trips at 20,000/s.
const IN_FLIGHT: usize = 4_096;
/// Entries read ahead of the producer.
const READ_BYTES: usize = 256 * 1024;
/// The producer's own queue, kilobytes.
const PRODUCER_QUEUE_KB: &str = "8192";
/// Longest pause between attempts to reach Redpanda again.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// The producer's queue is full: it drains in milliseconds when Redpanda is there.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);
/// How often messages without a time are looked at again.
const CLOCK_POLL: Duration = Duration::from_millis(500);
/// What is in flight at a stop gets this long to be confirmed; the rest is sent again after the start.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// What the lane needs to know.
pub struct Settings {
    /// Name of this agent.
    pub agent: String,
    /// Bootstrap servers.
    pub bootstrap: String,
    /// How long messages wait for the time.
    pub clock_wait: Duration,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// Where a device is.
    pub locations: HashMap<String, String>,
}

/// Counted since start, for `/status` and metrics.
#[derive(Default)]
pub struct Progress {
    /// Entries confirmed by Redpanda.
    pub delivered: AtomicU64,
    /// Records produced.
    pub records: AtomicU64,
    /// Entries with nothing to record.
    pub nothing: AtomicU64,
    /// Dead letters written.
    pub dead_letters: AtomicU64,
    /// Entries that could not be read from the buffer.
    pub unreadable: AtomicU64,
    /// Times the lane had to start again.
    pub restarts: AtomicU64,
    /// Messages that went out without a known time.
    pub unsynced: AtomicU64,
    /// True from the moment no broker can be reached to the next delivery.
    pub unreachable: AtomicBool,
    last_error: Mutex<Option<String>>,
    oldest: Mutex<Option<Stamp>>,
}

impl Progress {
    /// The last error, if any.
    pub fn last_error(&self) -> Option<String> {
        self.last_error.lock().ok().and_then(|guard| guard.clone())
    }

    /// Stamp of the oldest entry not confirmed, as far as it was looked at.
    pub fn oldest(&self) -> Option<Stamp> {
        self.oldest.lock().ok().and_then(|guard| *guard)
    }

    fn note_error(&self, error: &str) {
        if let Ok(mut guard) = self.last_error.lock() {
            *guard = Some(error.to_owned());
        }
    }

    fn note_oldest(&self, stamp: Option<Stamp>) {
        if let Ok(mut guard) = self.oldest.lock() {
            *guard = stamp;
        }
    }
}

/// Runs the lane until `stop`.
pub async fn run(
    settings: Settings,
    decoders: Arc<Decoders>,
    buffer: Buffer,
    timeline: Arc<Mutex<Timeline>>,
    progress: Arc<Progress>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut lane = Lane {
        next: buffer.head(),
        read_ahead: VecDeque::new(),
        in_flight: VecDeque::new(),
        round: 0,
        settings,
        decoders,
        buffer,
        timeline,
        progress,
    };
    let mut failures = 0_u32;
    loop {
        let before = lane.progress.delivered.load(Ordering::Relaxed);
        let why = match lane.round(&stop).await? {
            RoundEnd::Stopped => return Ok(()),
            RoundEnd::Failed(why) => why,
        };
        failures = if lane.progress.delivered.load(Ordering::Relaxed) > before {
            1
        } else {
            failures + 1
        };
        lane.progress.restarts.fetch_add(1, Ordering::Relaxed);
        lane.progress.note_error(&why);
        let pause = pause(failures);
        tracing::warn!(%why, pause_seconds = pause.as_secs_f64(), "forwarding starts again at the oldest message");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(pause) => {}
        }
    }
}

/// Exponential from a quarter of a second, capped, with half of it random: two agents do not come back in step.
fn pause(failures: u32) -> Duration {
    let full = Duration::from_millis(250)
        .saturating_mul(1 << failures.min(10))
        .min(MAX_PAUSE);
    full.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// A message sent and not confirmed.
struct InFlight {
    sequence: Sequence,
    stamp: Stamp,
    /// Records of it handed to the producer.
    sent: usize,
    /// Of these, not confirmed.
    open: usize,
    /// All of them were handed over.
    complete: bool,
}

/// Comes back with every delivery report.
struct Ticket {
    round: u64,
    sequence: Sequence,
    /// A dead letter that is refused as well is given up: there is no third place to put it.
    is_dead_letter: bool,
}

struct Report {
    ticket: Ticket,
    error: Option<KafkaError>,
    bytes: Vec<u8>,
}

struct Reports {
    sender: mpsc::UnboundedSender<Report>,
    progress: Arc<Progress>,
}

impl ClientContext for Reports {
    /// librdkafka repeats every failed connection at its own pace; what matters of it is reported by us, once.
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown)
            && !self.progress.unreachable.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                reason,
                "Redpanda cannot be reached; readings are kept in the buffer"
            );
        }
        self.progress.note_error(&format!("{error}: {reason}"));
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Self::DeliveryOpaque) {
        let report = match result {
            Ok(_) => Report {
                ticket: *ticket,
                error: None,
                bytes: Vec::new(),
            },
            Err((error, message)) => {
                let bytes = message.payload().map(<[u8]>::to_vec).unwrap_or_default();
                Report {
                    ticket: *ticket,
                    error: Some(error.clone()),
                    bytes,
                }
            }
        };
        // The lane is gone only at a stop; then the record is simply sent again after the start.
        let _ = self.sender.send(report);
    }
}

enum RoundEnd {
    Stopped,
    Failed(String),
}

/// What one entry became.
struct Outputs {
    stamp: Stamp,
    records: Vec<(&'static str, String, Vec<u8>, bool)>,
}

struct Lane {
    settings: Settings,
    decoders: Arc<Decoders>,
    buffer: Buffer,
    timeline: Arc<Mutex<Timeline>>,
    progress: Arc<Progress>,
    /// Where the next read begins.
    next: Sequence,
    read_ahead: VecDeque<Entry>,
    in_flight: VecDeque<InFlight>,
    round: u64,
}

impl Lane {
    /// Forwards with one producer until it fails or the agent stops.
    async fn round(&mut self, stop: &CancellationToken) -> anyhow::Result<RoundEnd> {
        self.round += 1;
        self.in_flight.clear();
        self.read_ahead.clear();
        self.next = self.buffer.head();
        let (sender, mut reports) = mpsc::unbounded_channel();
        let producer = self.producer(sender)?;
        let mut committed = self.buffer.committed();
        let end = loop {
            let waiting = match self.fill(&producer).await? {
                Fill::Idle => Duration::MAX,
                Fill::QueueFull => QUEUE_FULL_PAUSE,
                Fill::NoTimeYet => CLOCK_POLL,
                Fill::Failed(why) => break RoundEnd::Failed(why),
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break self.settle(&mut reports).await,
                Some(report) = reports.recv() => {
                    let mut failed = self.take(report, &producer);
                    while let Ok(report) = reports.try_recv() {
                        failed = failed.or(self.take(report, &producer));
                    }
                    if let Some(why) = failed {
                        break RoundEnd::Failed(why);
                    }
                }
                changed = committed.changed() => {
                    changed.context("the buffer's writer ended")?;
                }
                () = sleep(waiting), if waiting != Duration::MAX => {}
            }
        };
        producer.purge(PurgeConfig::default().queue().inflight());
        // Dropping the producer waits for its thread; that must not hold up the runtime.
        tokio::task::spawn_blocking(move || drop(producer))
            .await
            .context("closing the producer")?;
        Ok(end)
    }

    /// At a stop: what is in flight gets a little time to be confirmed.
    async fn settle(&mut self, reports: &mut mpsc::UnboundedReceiver<Report>) -> RoundEnd {
        let deadline = sleep(STOP_LIMIT);
        tokio::pin!(deadline);
        while !self.in_flight.is_empty() {
            tokio::select! {
                () = &mut deadline => break,
                report = reports.recv() => match report {
                    Some(report) if report.error.is_none() => self.confirm(&report.ticket),
                    _ => break,
                }
            }
        }
        RoundEnd::Stopped
    }

    fn producer(&self, sender: mpsc::UnboundedSender<Report>) -> anyhow::Result<ThreadedProducer<Reports>> {
        ClientConfig::new()
            .set("bootstrap.servers", &self.settings.bootstrap)
            .set("client.id", format!("edge-agent/{}", self.settings.agent))
            .set("enable.idempotence", "true")
            .set("acks", "all")
            // Retry for ever: with a limit, record n could be sent again after n+1 was delivered.
            .set("message.timeout.ms", "0")
            .set("partitioner", "murmur2_random")
            .set("compression.type", "lz4")
            .set("linger.ms", "2")
            .set("queue.buffering.max.kbytes", PRODUCER_QUEUE_KB)
            .set("reconnect.backoff.max.ms", "5000")
            .set("log.connection.close", "false")
            .create_with_context(Reports {
                sender,
                progress: self.progress.clone(),
            })
            .context("creating the Kafka producer")
    }

    /// Produces what the buffer has, as far as the window allows.
    async fn fill(&mut self, producer: &ThreadedProducer<Reports>) -> anyhow::Result<Fill> {
        while self.in_flight.len() < IN_FLIGHT {
            if self.read_ahead.is_empty() && !self.read_more()? {
                return Ok(Fill::Idle);
            }
            let Some(entry) = self.read_ahead.front().cloned() else {
                return Ok(Fill::Idle);
            };
            let Some(outputs) = self.outputs(&entry).await? else {
                return Ok(Fill::NoTimeYet);
            };
            match self.produce(producer, entry.sequence, &outputs) {
                Ok(()) => {
                    self.read_ahead.pop_front();
                }
                Err(ProduceError::QueueFull) => return Ok(Fill::QueueFull),
                Err(ProduceError::Failed(why)) => return Ok(Fill::Failed(why)),
            }
        }
        Ok(Fill::Idle)
    }

    /// Reads more entries; false when there are none.
    fn read_more(&mut self) -> anyhow::Result<bool> {
        let batch = self
            .buffer
            .read(self.next, READ_BYTES)
            .context("reading the buffer")?;
        for corrupt in &batch.corrupt {
            tracing::error!(%corrupt, "entries of the buffer cannot be read and are skipped");
            self.progress
                .unreadable
                .fetch_add(corrupt.count.max(1), Ordering::Relaxed);
        }
        if let Some(next) = batch.next {
            self.next = next;
        }
        self.read_ahead.extend(batch.entries);
        if self.in_flight.is_empty() && self.read_ahead.is_empty() {
            // Nothing left but what cannot be read.
            self.buffer.remove_before(self.next);
            self.progress.note_oldest(None);
        }
        Ok(!self.read_ahead.is_empty())
    }

    /// What an entry becomes; `None` while its time is not known.
    async fn outputs(&mut self, entry: &Entry) -> anyhow::Result<Option<Outputs>> {
        let message = match Message::decode(entry.bytes.clone()) {
            Ok(message) => message,
            Err(error) => {
                tracing::error!(sequence = entry.sequence.0, %error, "an entry of the buffer is no message and is skipped");
                self.progress.unreadable.fetch_add(1, Ordering::Relaxed);
                let stamp = Stamp {
                    segment: crate::clock::SegmentId(0),
                    monotonic_us: 0,
                    synced: false,
                };
                return Ok(Some(Outputs {
                    stamp,
                    records: Vec::new(),
                }));
            }
        };
        let Some(resolved) = self.resolve(message.stamp).await? else {
            return Ok(None);
        };
        Ok(Some(Outputs {
            stamp: message.stamp,
            records: self.decode(entry.sequence, &message, resolved),
        }))
    }

    fn decode(
        &self,
        sequence: Sequence,
        message: &Message,
        resolved: Resolved,
    ) -> Vec<(&'static str, String, Vec<u8>, bool)> {
        let id = format!(
            "{}/{:08x}/{}",
            self.settings.agent,
            self.buffer.epoch(),
            sequence.0
        );
        let payload = match &message.body {
            Body::Payload(payload) => payload,
            Body::Truncated { .. } => {
                return vec![self.dead_letter(id, message, resolved.time, "payload too large".into())];
            }
        };
        let readings = match self.decoders.decode(&message.topic, payload) {
            Ok(Decoded::Readings(readings)) => readings,
            Ok(Decoded::Nothing(_)) => {
                self.progress.nothing.fetch_add(1, Ordering::Relaxed);
                return Vec::new();
            }
            Err(error) => return vec![self.dead_letter(id, message, resolved.time, error.to_string())],
        };
        let several = readings.len() > 1;
        let record = |(n, reading): (usize, crate::decode::DeviceReading)| {
            let record = Record {
                id: if several { format!("{id}/{n}") } else { id.clone() },
                agent: self.settings.agent.clone(),
                location: self.settings.locations.get(reading.device_id.as_str()).cloned(),
                device_id: reading.device_id,
                time: resolved.time,
                clock: resolved.clock,
                reading: reading.reading,
            };
            (
                topic::of(record.reading.kind()),
                record.device_id.to_string(),
                record.to_json(),
                false,
            )
        };
        readings.into_iter().enumerate().map(record).collect()
    }

    fn dead_letter(
        &self,
        id: String,
        message: &Message,
        time: DateTime<Utc>,
        reason: String,
    ) -> (&'static str, String, Vec<u8>, bool) {
        let (payload, truncated, payload_bytes, payload_sha256) = match &message.body {
            Body::Payload(payload) => (payload, false, None, None),
            Body::Truncated { head, length, sha256 } => (head, true, Some(*length), Some(hex(sha256))),
        };
        let letter = DeadLetter {
            reason,
            stage: Stage::Decode,
            origin: Origin::Mqtt {
                agent: self.settings.agent.clone(),
                id,
                mqtt_topic: message.topic.clone(),
                time,
            },
            payload_base64: BASE64_STANDARD.encode(payload),
            truncated,
            payload_bytes,
            payload_sha256,
        };
        let json = serde_json::to_vec(&letter).expect("a dead letter has only text, numbers and flags");
        (topic::DEAD_LETTER, message.topic.clone(), json, true)
    }

    /// A message's time: known, or fixed to the guess after the wait, in both cases on disk before it is used.
    async fn resolve(&mut self, stamp: Stamp) -> anyhow::Result<Option<Resolved>> {
        let given_up = {
            let mut timeline = self
                .timeline
                .lock()
                .map_err(|_| anyhow::anyhow!("the timeline is damaged by a panic"))?;
            if let Some(resolved) = timeline.resolve(stamp) {
                return Ok(Some(resolved));
            }
            let until_us = if timeline.may_become_known(stamp.segment, &self.settings.boot_id) {
                let now_us = crate::clock::read_machine(crate::clock::Source::Kernel).monotonic_us;
                let wait_us = u64::try_from(self.settings.clock_wait.as_micros()).unwrap_or(u64::MAX);
                let Some(until_us) = now_us
                    .checked_sub(wait_us)
                    .filter(|until| stamp.monotonic_us <= *until)
                else {
                    return Ok(None);
                };
                until_us
            } else {
                u64::MAX
            };
            timeline.give_up(stamp.segment, until_us)
        };
        self.progress.unsynced.fetch_add(1, Ordering::Relaxed);
        let value = vec![(Segment::key(stamp.segment), Some(given_up.encode()))];
        self.buffer
            .put(value)
            .await
            .context("writing the time of unsynchronised messages")?;
        let timeline = self
            .timeline
            .lock()
            .map_err(|_| anyhow::anyhow!("the timeline is damaged by a panic"))?;
        Ok(timeline.resolve(stamp))
    }

    fn produce(
        &mut self,
        producer: &ThreadedProducer<Reports>,
        sequence: Sequence,
        outputs: &Outputs,
    ) -> Result<(), ProduceError> {
        // An entry that was taken in part before the queue was full is finished, not begun again.
        let begun = self
            .in_flight
            .back()
            .filter(|last| last.sequence == sequence)
            .map(|last| last.sent);
        if begun.is_none() {
            if self.in_flight.is_empty() {
                self.progress.note_oldest(Some(outputs.stamp));
            }
            let entry = InFlight {
                sequence,
                stamp: outputs.stamp,
                sent: 0,
                open: 0,
                complete: false,
            };
            self.in_flight.push_back(entry);
        }
        for (topic, key, payload, is_dead_letter) in &outputs.records[begun.unwrap_or(0)..] {
            let ticket = Ticket {
                round: self.round,
                sequence,
                is_dead_letter: *is_dead_letter,
            };
            let record = BaseRecord::with_opaque_to(topic, Box::new(ticket))
                .key(key.as_str())
                .payload(payload.as_slice());
            match producer.send(record) {
                Ok(()) => {
                    self.last_in_flight().open += 1;
                    let counter = if *is_dead_letter {
                        &self.progress.dead_letters
                    } else {
                        &self.progress.records
                    };
                    counter.fetch_add(1, Ordering::Relaxed);
                }
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                    return Err(ProduceError::QueueFull);
                }
                Err((error, _)) if refused_for_good(&error) && !is_dead_letter => {
                    self.bury(producer, sequence, key, payload, &error);
                }
                Err((error, _)) => return Err(ProduceError::Failed(error.to_string())),
            }
            self.last_in_flight().sent += 1;
        }
        self.last_in_flight().complete = true;
        self.release();
        Ok(())
    }

    fn last_in_flight(&mut self) -> &mut InFlight {
        self.in_flight
            .back_mut()
            .expect("the entry being produced is the last in flight")
    }

    /// Takes a delivery report; an answer is a reason to start again.
    fn take(&mut self, report: Report, producer: &ThreadedProducer<Reports>) -> Option<String> {
        let Report { ticket, error, bytes } = report;
        if ticket.round != self.round {
            return None;
        }
        match error {
            None => {
                if self.progress.unreachable.swap(false, Ordering::Relaxed) {
                    tracing::info!("Redpanda is reached again");
                }
                self.confirm(&ticket);
                None
            }
            Some(error) if refused_for_good(&error) => {
                if ticket.is_dead_letter {
                    tracing::error!(sequence = ticket.sequence.0, %error, "a dead letter was refused and is given up");
                } else {
                    self.bury(producer, ticket.sequence, "", &bytes, &error);
                }
                self.confirm(&ticket);
                None
            }
            Some(error) => Some(error.to_string()),
        }
    }

    /// Puts a record Redpanda will never take into the dead letters. It counts for its entry like a record.
    fn bury(
        &mut self,
        producer: &ThreadedProducer<Reports>,
        sequence: Sequence,
        key: &str,
        payload: &[u8],
        error: &KafkaError,
    ) {
        /// The dead letter must be smaller than the record that was too large.
        const KEEP_BYTES: usize = 64 * 1024;
        let letter = DeadLetter {
            reason: format!("refused by the broker: {error}"),
            stage: Stage::Decode,
            origin: Origin::Mqtt {
                agent: self.settings.agent.clone(),
                id: format!(
                    "{}/{:08x}/{}",
                    self.settings.agent,
                    self.buffer.epoch(),
                    sequence.0
                ),
                mqtt_topic: String::new(),
                time: Utc::now(),
            },
            payload_base64: BASE64_STANDARD.encode(&payload[..payload.len().min(KEEP_BYTES)]),
            truncated: payload.len() > KEEP_BYTES,
            payload_bytes: Some(payload.len() as u64),
            payload_sha256: None,
        };
        let json = serde_json::to_vec(&letter).expect("a dead letter has only text, numbers and flags");
        let ticket = Ticket {
            round: self.round,
            sequence,
            is_dead_letter: true,
        };
        let record = BaseRecord::with_opaque_to(topic::DEAD_LETTER, Box::new(ticket))
            .key(key)
            .payload(json.as_slice());
        match producer.send(record) {
            Ok(()) => {
                self.progress.dead_letters.fetch_add(1, Ordering::Relaxed);
                if let Some(entry) = self.in_flight.iter_mut().find(|e| e.sequence == sequence) {
                    entry.open += 1;
                }
            }
            Err((error, _)) => {
                tracing::error!(sequence = sequence.0, %error, "a dead letter could not be sent")
            }
        }
    }

    fn confirm(&mut self, ticket: &Ticket) {
        let Some(front) = self.in_flight.front() else {
            return;
        };
        // Sequences in flight have no gaps but for unreadable entries, so the place is near the difference.
        let guess = usize::try_from(ticket.sequence.0.saturating_sub(front.sequence.0)).unwrap_or(0);
        let start = guess.min(self.in_flight.len() - 1);
        let place = (0..=start)
            .rev()
            .find(|&n| self.in_flight[n].sequence <= ticket.sequence);
        if let Some(entry) = place.map(|n| &mut self.in_flight[n])
            && entry.sequence == ticket.sequence
        {
            entry.open = entry.open.saturating_sub(1);
        }
        self.release();
    }

    /// Removes the entries at the front that are confirmed.
    fn release(&mut self) {
        let mut end = None;
        while let Some(front) = self.in_flight.front()
            && front.complete
            && front.open == 0
        {
            end = Some(front.sequence.next());
            self.in_flight.pop_front();
            self.progress.delivered.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(end) = end {
            self.buffer.remove_before(end);
            self.progress
                .note_oldest(self.in_flight.front().map(|front| front.stamp));
        }
    }
}

enum Fill {
    Idle,
    QueueFull,
    NoTimeYet,
    Failed(String),
}

enum ProduceError {
    QueueFull,
    Failed(String),
}

/// Errors that are the record's own: no retry can help.
fn refused_for_good(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
        )
    )
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_capped() {
        assert!(pause(1) <= Duration::from_millis(500));
        for failures in 0..100 {
            assert!(pause(failures) <= MAX_PAUSE);
            assert!(pause(failures) >= Duration::from_millis(125));
        }
        assert!(pause(50) >= MAX_PAUSE / 2);
    }
}
