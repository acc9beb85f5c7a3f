//! The lane: entries in order, a window of them in flight, removed from the front as they are confirmed.

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
use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Progress, Settings,
    outputs::{Output, Translator},
    producer::{self, Report, Reports, Ticket, refused_for_good},
};
use crate::{
    buffer::{Buffer, Entry, Sequence},
    clock::{Resolved, Segment, Stamp, Timeline},
    message::Message,
    presence::Presence,
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

/// How a round ended.
pub enum RoundEnd {
    /// The agent stops.
    Stopped,
    /// The producer must be made anew.
    Failed(String),
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
    in_flight: VecDeque<InFlight>,
    round: u64,
}

impl Lane {
    /// A lane that begins at the oldest entry.
    pub fn new(
        settings: Settings,
        decoders: Arc<crate::decode::Decoders>,
        buffer: Buffer,
        timeline: Arc<Mutex<Timeline>>,
        progress: Arc<Progress>,
        devices: Arc<crate::devices::Devices>,
    ) -> Self {
        let translator = Translator {
            agent: settings.agent.clone(),
            epoch: buffer.epoch(),
            locations: settings.locations.clone(),
            decoders,
            presence: Presence::default(),
            devices,
        };
        Self {
            next: buffer.head(),
            read_ahead: VecDeque::new(),
            in_flight: VecDeque::new(),
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
        self.next = self.buffer.head();
        let (sender, mut reports) = mpsc::unbounded_channel();
        let producer = producer::create(
            &self.settings.agent,
            &self.settings.bootstrap,
            self.progress.clone(),
            sender,
        )?;
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

    /// Produces what the buffer has, as far as the window allows.
    async fn fill(&mut self, producer: &Producer) -> anyhow::Result<Fill> {
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
        for output in &outputs.records[begun.unwrap_or(0)..] {
            let is_dead_letter = output.is_dead_letter();
            let ticket = Ticket {
                round: self.round,
                sequence,
                is_dead_letter,
            };
            let record = BaseRecord::with_opaque_to(output.topic, Box::new(ticket))
                .key(output.key.as_str())
                .payload(output.value.as_slice());
            match producer.send(record) {
                Ok(()) => {
                    self.last_in_flight().open += 1;
                    let counter = if is_dead_letter {
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
                    self.bury(producer, sequence, &output.key, &output.value, &error);
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
    fn take(&mut self, report: Report, producer: &Producer) -> Option<String> {
        let Report { ticket, error, value } = report;
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
                    self.bury(producer, ticket.sequence, "", &value, &error);
                }
                self.confirm(&ticket);
                None
            }
            Some(error) => Some(error.to_string()),
        }
    }

    /// Puts a record Redpanda will never take into the dead letters. It counts for its entry like a record.
    fn bury(&mut self, producer: &Producer, sequence: Sequence, key: &str, value: &[u8], error: &KafkaError) {
        let output = self.translator.refused(sequence, key, value, error);
        let ticket = Ticket {
            round: self.round,
            sequence,
            is_dead_letter: true,
        };
        let record = BaseRecord::with_opaque_to(output.topic, Box::new(ticket))
            .key(output.key.as_str())
            .payload(output.value.as_slice());
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
