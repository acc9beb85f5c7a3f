//! The lane: entries in order, a window of them in flight, removed from the front as they are confirmed.
//!
//! Redpanda refuses a batch as a whole, be it for one record of it or for its size alone. After that the records in flight
//! are sent again one by one, in order, up to the last of them: the one that is refused alone becomes a dead letter, the
//! others are delivered. Batches that were refused with no such record in them were too large, and become smaller.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use anyhow::Context as _;
use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseRecord, Producer as _, PurgeConfig, ThreadedProducer},
};
use tokio::{
    sync::{Notify, mpsc},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use super::{
    Progress, Settings,
    outputs::{Output, Translator},
    producer::{self, BATCH_BYTES, Batches, Kind, RefusedBatch, Report, Reports, Ticket, refused_for_good},
    window::Window,
};
use crate::{
    buffer::{Buffer, Entry, Sequence},
    clock::{Resolved, Segment, Stamp, Timeline},
    losses::Reason,
    message::Message,
    presence::Presence,
    watchdog::TURN,
};

type Producer = ThreadedProducer<Reports>;

/// Messages sent and not confirmed. Bounds memory; enough to fill a link with 20 ms round trips at 20,000/s.
const IN_FLIGHT: usize = 4_096;
/// Entries read ahead of the producer.
const READ_BYTES: usize = 256 * 1024;
/// The producer's queue is full: it drains in milliseconds when Redpanda is there.
const QUEUE_FULL_PAUSE: Duration = Duration::from_millis(5);
/// How often messages without a time are looked at again.
const CLOCK_POLL: Duration = Duration::from_millis(500);
/// What is in flight at a stop gets this long to be confirmed; the rest is sent again after the start.
const STOP_LIMIT: Duration = Duration::from_secs(3);

/// Batches never become smaller than this; the smallest limit a topic has in practice is larger.
const LEAST_BATCH_BYTES: usize = 16 * 1024;

/// How a round ended.
pub enum RoundEnd {
    /// The agent stops.
    Stopped,
    /// The producer must be made anew, after a pause.
    Failed(String),
    /// It must be made anew, and nothing speaks against doing it at once.
    Again,
}

/// A stretch of the buffer whose records are sent one by one.
struct Suspects {
    /// The first sequence behind it.
    end: Sequence,
    /// Why the batch was refused is known: not for its size, or a record of it was refused alone.
    explained: bool,
}

/// What one entry became.
struct Outputs {
    stamp: Stamp,
    records: Vec<Output>,
}

/// See the module.
pub struct Lane {
    settings: Settings,
    translator: Translator,
    buffer: Buffer,
    timeline: Arc<Mutex<Timeline>>,
    progress: Arc<Progress>,
    /// Where the next read begins.
    next: Sequence,
    read_ahead: VecDeque<Entry>,
    /// What could not be read in this round, until it is passed for good and counted.
    gaps: VecDeque<Gap>,
    in_flight: Window,
    /// After a refused batch, until its records are past.
    suspects: Option<Suspects>,
    batch_bytes: usize,
    round: u64,
}

impl Lane {
    /// A lane that begins at the oldest entry.
    pub fn new(
        settings: Settings,
        buffer: Buffer,
        timeline: Arc<Mutex<Timeline>>,
        progress: Arc<Progress>,
        devices: Arc<crate::devices::Devices>,
    ) -> Self {
        let translator = Translator {
            agent: settings.agent.clone(),
            epoch: buffer.epoch(),
            rules: settings.rules.clone(),
            presence: Presence::default(),
            devices,
            counted: std::sync::atomic::AtomicU64::new(0),
        };
        Self {
            next: buffer.head(),
            read_ahead: VecDeque::new(),
            gaps: VecDeque::new(),
            in_flight: Window::default(),
            suspects: None,
            batch_bytes: BATCH_BYTES,
            round: 0,
            settings,
            translator,
            buffer,
            timeline,
            progress,
        }
    }

    /// Forwards with one producer until it fails or the agent stops.
    pub async fn round(&mut self, stop: &CancellationToken) -> anyhow::Result<RoundEnd> {
        self.round += 1;
        self.in_flight.clear();
        self.read_ahead.clear();
        self.gaps.clear();
        self.next = self.buffer.head();
        let (sender, mut reports) = mpsc::unbounded_channel();
        let refused = Arc::new(Notify::new());
        let batches = match self.suspects {
            None => Batches::UpTo(self.batch_bytes),
            Some(_) => Batches::OneByOne,
        };
        let producer = match producer::create(
            &self.settings.agent,
            &self.settings.kafka,
            batches,
            self.progress.clone(),
            sender,
            refused.clone(),
        ) {
            Ok(producer) => producer,
            // A password or certificate that is being replaced: readings are kept meanwhile.
            Err(error) => return Ok(RoundEnd::Failed(format!("{error:#}"))),
        };
        let mut committed = self.buffer.committed();
        let mut turn = tokio::time::interval(TURN);
        let end = loop {
            self.settings.pulse.beat();
            let waiting = match self.fill(&producer).await? {
                Fill::Idle => Duration::MAX,
                Fill::QueueFull => QUEUE_FULL_PAUSE,
                Fill::NoTimeYet => CLOCK_POLL,
                Fill::Failed(why) => break self.failed(why, &producer),
                Fill::PastSuspects => break self.past_suspects(),
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break self.settle(&mut reports).await,
                Some(report) = reports.recv() => {
                    let mut failed = self.take(report, &producer);
                    while let Ok(report) = reports.try_recv() {
                        failed = failed.or(self.take(report, &producer));
                    }
                    self.release();
                    if let Some(why) = failed {
                        break self.failed(why, &producer);
                    }
                }
                _ = turn.tick() => {}
                () = refused.notified() => {
                    let error = self.progress.last_error().unwrap_or_default();
                    break RoundEnd::Failed(format!("Redpanda refuses the agent: {error}"));
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
                    Some(Report { ticket, error: None }) if ticket.round == self.round => {
                        self.in_flight.confirm(ticket.sequence);
                        self.release();
                    }
                    _ => break,
                }
            }
        }
        RoundEnd::Stopped
    }

    /// A round that cannot go on: because of a batch that was refused, or for another reason.
    fn failed(&mut self, why: String, producer: &Producer) -> RoundEnd {
        let (None, Some(refused), Some(end)) = (
            &self.suspects,
            producer::ended_by_a_batch(producer),
            self.in_flight.end(),
        ) else {
            return RoundEnd::Failed(why);
        };
        self.progress.refused_batches.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%why, "Redpanda refused a batch; what was on its way is sent again one by one");
        self.suspects = Some(Suspects {
            end,
            explained: refused != RefusedBatch::TooLarge,
        });
        RoundEnd::Again
    }

    /// Everything that was on its way when a batch was refused is where it belongs.
    fn past_suspects(&mut self) -> RoundEnd {
        if let Some(Suspects { explained: false, .. }) = self.suspects.take() {
            self.batch_bytes = (self.batch_bytes / 2).max(LEAST_BATCH_BYTES);
            tracing::info!(
                batch_bytes = self.batch_bytes,
                "no record of the refused batch was refused alone, so batches become smaller"
            );
        }
        RoundEnd::Again
    }

    /// Produces what the buffer has, as far as the window allows.
    async fn fill(&mut self, producer: &Producer) -> anyhow::Result<Fill> {
        while self.in_flight.len() < IN_FLIGHT {
            if self.read_ahead.is_empty() && !self.read_more()? {
                return Ok(match self.suspects {
                    // An entry that was among them may have become unreadable.
                    Some(Suspects { end, .. }) if self.next >= end && self.in_flight.is_empty() => {
                        Fill::PastSuspects
                    }
                    _ => Fill::Idle,
                });
            }
            let Some(entry) = self.read_ahead.front().cloned() else {
                return Ok(Fill::Idle);
            };
            if let Some(Suspects { end, .. }) = self.suspects
                && entry.sequence >= end
            {
                return Ok(if self.in_flight.is_empty() {
                    Fill::PastSuspects
                } else {
                    Fill::Idle
                });
            }
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
        // What a full buffer has dropped meanwhile is not looked for.
        self.next = self.next.max(self.buffer.head());
        let batch = self
            .buffer
            .read(self.next, READ_BYTES)
            .context("reading the buffer")?;
        for corrupt in &batch.corrupt {
            // About when that was is told by what can be read around it.
            let after = batch
                .entries
                .iter()
                .find(|entry| entry.sequence.0 > corrupt.first);
            let near = after.or(batch.entries.last()).map(|entry| entry.bytes.clone());
            let stamp = near
                .and_then(|bytes| Message::decode(bytes).ok())
                .map(|message| message.stamp);
            self.gaps.push_back(Gap {
                first: corrupt.first,
                count: corrupt.count.max(1),
                stamp,
                why: corrupt.to_string(),
            });
        }
        if let Some(next) = batch.next {
            self.next = next;
        }
        self.read_ahead.extend(batch.entries);
        if self.in_flight.is_empty() && self.read_ahead.is_empty() {
            // Nothing left but what cannot be read.
            self.pass(self.next);
            self.progress.note_oldest(None);
        }
        Ok(!self.read_ahead.is_empty())
    }

    /// What an entry becomes; `None` while its time is not known.
    async fn outputs(&mut self, entry: &Entry) -> anyhow::Result<Option<Outputs>> {
        let message = match Message::decode(entry.bytes.clone()) {
            Ok(message) => message,
            Err(error) => {
                self.gaps.push_back(Gap {
                    first: entry.sequence.0,
                    count: 1,
                    stamp: None,
                    why: error.to_string(),
                });
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
        let resolved = match message.settled() {
            Some(settled) => settled,
            None => match self.resolve(message.stamp).await? {
                Some(resolved) => resolved,
                None => return Ok(None),
            },
        };
        let records = self.translator.outputs(entry.sequence, &message, resolved);
        if records.is_empty() {
            self.progress.nothing.fetch_add(1, Ordering::Relaxed);
        }
        Ok(Some(Outputs {
            stamp: message.stamp,
            records,
        }))
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
        producer: &Producer,
        sequence: Sequence,
        outputs: &Outputs,
    ) -> Result<(), ProduceError> {
        if self.in_flight.is_empty() {
            self.progress.note_oldest(Some(outputs.stamp));
        }
        let begun = self.in_flight.begin(sequence, outputs.stamp);
        for (part, output) in outputs.records.iter().enumerate().skip(begun) {
            let kind = if output.is_dead_letter() {
                Kind::Letter
            } else {
                Kind::Record
            };
            let ticket = Ticket {
                round: self.round,
                sequence,
                part,
                kind,
            };
            match self.send(producer, ticket, output) {
                Ok(()) => self.in_flight.sent(),
                // Larger than the producer itself takes, so no batch is to blame.
                Err(SendError::Refused(ticket, error)) => {
                    self.in_flight.sent();
                    self.bury(producer, ticket, &error)
                        .map_err(ProduceError::Failed)?;
                }
                Err(SendError::Produce(error)) => return Err(error),
            }
        }
        self.in_flight.complete();
        self.release();
        Ok(())
    }

    fn send(&self, producer: &Producer, ticket: Ticket, output: &Output) -> Result<(), SendError> {
        let counter = match ticket.kind {
            Kind::Record => &self.progress.records,
            Kind::Letter | Kind::CutLetter => &self.progress.dead_letters,
        };
        let record = BaseRecord::with_opaque_to(output.topic, Box::new(ticket))
            .key(output.key.as_str())
            .payload(output.value.as_slice());
        match producer.send(record) {
            Ok(()) => {
                counter.fetch_add(1, Ordering::Relaxed);
                Ok(())
            }
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                Err(SendError::Produce(ProduceError::QueueFull))
            }
            Err((error, record)) if refused_for_good(&error) => {
                Err(SendError::Refused(*record.delivery_opaque, error))
            }
            Err((error, _)) => Err(SendError::Produce(ProduceError::Failed(format!(
                "{}: {error}",
                output.topic
            )))),
        }
    }

    /// Takes a delivery report; an answer is a reason to start again.
    fn take(&mut self, report: Report, producer: &Producer) -> Option<String> {
        let Report { ticket, error } = report;
        if ticket.round != self.round {
            return None;
        }
        let Some((error, topic)) = error else {
            if self.progress.unreachable.swap(false, Ordering::Relaxed) {
                tracing::info!("Redpanda is reached again");
            }
            self.in_flight.confirm(ticket.sequence);
            return None;
        };
        let why = format!("{topic}: {error}");
        if !refused_for_good(&error) || self.suspects.is_none() {
            return Some(why);
        }
        // Alone in its batch. Until its dead letter is delivered the message stays in the buffer.
        self.bury(producer, ticket, &error).err()
    }

    /// Puts a message into the dead letters, one of whose records Redpanda will never take: whole, else the beginning of
    /// it. It takes the record's place; when that is refused as well, the message is given up and told as lost.
    fn bury(&mut self, producer: &Producer, mut ticket: Ticket, error: &KafkaError) -> Result<(), String> {
        if let Some(suspects) = &mut self.suspects {
            suspects.explained = true;
        }
        loop {
            ticket.kind = match ticket.kind {
                Kind::Record => Kind::Letter,
                Kind::Letter => Kind::CutLetter,
                Kind::CutLetter => {
                    let stamp = self.in_flight.stamp(ticket.sequence);
                    tracing::error!(sequence = ticket.sequence.0, %error, "a dead letter was refused; its message is given up");
                    self.progress.losses.many(Reason::Refused, 1, stamp, stamp);
                    self.in_flight.confirm(ticket.sequence);
                    return Ok(());
                }
            };
            let letter = self.letter(&ticket, error)?;
            match self.send(producer, ticket, &letter) {
                Ok(()) => return Ok(()),
                Err(SendError::Refused(back, _)) => ticket = back,
                Err(SendError::Produce(ProduceError::Failed(why))) => return Err(why),
                Err(SendError::Produce(ProduceError::QueueFull)) => {
                    return Err(format!("{error}, and there is no room for the dead letter"));
                }
            }
        }
    }

    /// The dead letter of a record that was refused, made from the message itself.
    fn letter(&self, ticket: &Ticket, error: &KafkaError) -> Result<Output, String> {
        let sequence = ticket.sequence;
        let batch = self.buffer.read(sequence, 1).map_err(|error| error.to_string())?;
        let entry = batch.entries.into_iter().find(|entry| entry.sequence == sequence);
        let message = entry.and_then(|entry| Message::decode(entry.bytes).ok());
        let message = message.ok_or_else(|| "a message that was sent cannot be read any more".to_owned())?;
        let timeline = self
            .timeline
            .lock()
            .map_err(|_| "the timeline is damaged by a panic".to_owned())?;
        let resolved = message.settled().or_else(|| timeline.resolve(message.stamp));
        let resolved = resolved.ok_or_else(|| "the time of a message that was sent is gone".to_owned())?;
        let cut = ticket.kind == Kind::CutLetter;
        Ok(self
            .translator
            .refused(sequence, ticket.part, message, resolved, cut, error))
    }

    /// Removes the entries at the front that are confirmed.
    fn release(&mut self) {
        if let Some((end, count)) = self.in_flight.release() {
            self.progress.delivered.fetch_add(count, Ordering::Relaxed);
            self.progress.note_blocked(None);
            self.pass(end);
            self.progress.note_oldest(self.in_flight.oldest());
        }
    }

    /// Everything before `end` is done. What could not be read is told now and not before: a round that begins anew reads it again.
    fn pass(&mut self, end: Sequence) {
        let (passed, ahead): (VecDeque<Gap>, VecDeque<Gap>) =
            self.gaps.drain(..).partition(|gap| gap.first < end.0);
        self.gaps = ahead;
        for Gap {
            first,
            count,
            stamp,
            why,
        } in passed
        {
            tracing::error!(
                first,
                count,
                why,
                "entries of the buffer could not be read and are skipped"
            );
            self.progress.unreadable.fetch_add(count, Ordering::Relaxed);
            self.progress.losses.many(Reason::Damaged, count, stamp, stamp);
        }
        self.buffer.remove_before(end);
    }
}

/// Entries that cannot be read, or one that is no message.
struct Gap {
    first: u64,
    count: u64,
    /// About when they were received.
    stamp: Option<Stamp>,
    why: String,
}

enum Fill {
    Idle,
    QueueFull,
    NoTimeYet,
    Failed(String),
    PastSuspects,
}

enum ProduceError {
    QueueFull,
    Failed(String),
}

enum SendError {
    /// The record is not one the producer takes; its ticket comes back.
    Refused(Ticket, KafkaError),
    Produce(ProduceError),
}

#[cfg(test)]
mod tests;
