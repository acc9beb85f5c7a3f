//! The one thread that writes: it gathers appends into groups, commits each group and only then says so.

use std::{
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError, SyncSender},
    },
    time::{Duration, Instant},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::{
    Append, AppendError, Counters, Entry, Limits, Loss, LossReason, Parts, Sequence, Side, WhenFull,
    checkpoint::{Job, Progress},
    frame::{self, Place, Value},
    log::Log,
    segment::SEGMENT_BYTES,
    values::Mark,
};
use crate::line::Line;

type PutDone = oneshot::Sender<Result<(), AppendError>>;

pub(super) enum Command {
    Append(Append),
    Put(Vec<Side>, PutDone),
    Removed,
    Stop,
}

/// Removals wait this long for a commit to ride with.
const REMOVAL_DELAY: Duration = Duration::from_secs(1);
/// Fewer removals than this wait for the next commit however long it takes: a quiet house does not write twice a
/// message, and after a kill no more than these go out again, under their old identity.
const REMOVAL_BATCH: u64 = 256;
/// A retry of a failed commit, or of making a segment, waits this long: a full disk does not become free by hammering
/// it.
const DISK_RETRY: Duration = Duration::from_millis(500);
/// After so many failures at one place of the disk the log goes on in the next segment.
const FAILURES_AT_ONE_PLACE: u32 = 3;
/// Small values go to sled after this much of the log: replayed in a fraction of a second at a start.
const CHECKPOINT_BYTES: u64 = 4 * SEGMENT_BYTES;
/// And when this much of them is in memory.
const CHECKPOINT_VALUE_BYTES: usize = 4 * 1024 * 1024;
/// So long an append waits in a buffer that drops the oldest: what was dropped is given up only after a checkpoint, and
/// a slow disk takes its time for one. Shorter than the watchdog's patience.
const DROP_WAIT: Duration = Duration::from_secs(10);
/// How often it looks whether the room is there.
const DROP_LOOK: Duration = Duration::from_millis(2);
/// Less room than this for appends counts as full: what is on its way still fits.
const FULL_BYTES: usize = 384 * 1024;

pub(super) struct Writer {
    log: Log,
    parts: Arc<Parts>,
    limits: Limits,
    next: u64,
    /// The head in the last frame that was synced.
    durable_head: u64,
    committed: watch::Sender<u64>,
    checkpoints: SyncSender<Job>,
    progress: Arc<Progress>,
    losses: mpsc::Sender<Loss>,
    /// Set while a removal is known that is not written yet.
    removal_due: Option<Instant>,
    /// Written to the log since the last checkpoint began.
    since_checkpoint: u64,
    failures_here: u32,
    /// Why there is no segment to follow the one being written.
    pressed: Option<AppendError>,
    prepare_at: Instant,
}

#[derive(Default)]
struct Pending {
    appends: Vec<Append>,
    puts: Vec<(Vec<Side>, PutDone)>,
    bytes: usize,
    stop: bool,
}

/// What the writer begins with.
pub(super) struct Begin {
    pub log: Log,
    pub parts: Arc<Parts>,
    pub limits: Limits,
    pub next: u64,
    pub durable_head: u64,
    pub committed: watch::Sender<u64>,
    pub checkpoints: SyncSender<Job>,
    pub progress: Arc<Progress>,
    pub losses: mpsc::Sender<Loss>,
}

impl Pending {
    /// A put of nothing only wants to know that everything before it has been seen to, which it has: earlier groups are
    /// committed before the next is gathered, and one that company came to waits for that company's commit. It must not
    /// cost a write: the watchdog asks every few seconds.
    fn answer_empty_puts(&mut self) {
        if !self.appends.is_empty() || self.puts.iter().any(|(values, _)| !values.is_empty()) {
            return;
        }
        for (_, done) in self.puts.drain(..) {
            // A caller that stopped waiting needs no answer.
            let _ = done.send(Ok(()));
        }
    }
}

impl Writer {
    pub(super) fn new(begin: Begin) -> Self {
        let Begin {
            log,
            parts,
            limits,
            next,
            durable_head,
            committed,
            checkpoints,
            progress,
            losses,
        } = begin;
        let mut writer = Self {
            log,
            parts,
            limits,
            next,
            durable_head,
            committed,
            checkpoints,
            progress,
            losses,
            removal_due: None,
            since_checkpoint: 0,
            failures_here: 0,
            pressed: None,
            prepare_at: Instant::now(),
        };
        writer.tidy();
        writer
    }

    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let mut pending = self.gather(commands);
            let stop = pending.stop;
            pending.answer_empty_puts();
            if !pending.appends.is_empty() || !pending.puts.is_empty() || self.must_write_removal(stop) {
                self.commit_and_answer(pending);
            }
            self.tidy();
            if stop {
                return;
            }
        }
    }

    fn counters(&self) -> &Counters {
        &self.parts.counters
    }

    /// Waits for a first command, then for company until the interval or the size is reached.
    fn gather(&mut self, commands: &Receiver<Command>) -> Pending {
        let mut pending = Pending::default();
        let mut deadline: Option<Instant> = None;
        let look_again = self.pressed.map(|_| Instant::now() + DISK_RETRY);
        while pending.bytes < self.limits.commit_bytes {
            let until = deadline.or(self.removal_due).into_iter().chain(look_again).min();
            let received = match until {
                Some(until) => commands.recv_timeout(until.saturating_duration_since(Instant::now())),
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match received {
                Ok(Command::Append(append)) => {
                    pending.bytes += append.bytes.len() + bytes_of(&append.side);
                    pending.appends.push(append);
                }
                Ok(Command::Put(values, done)) => {
                    pending.bytes += bytes_of(&values);
                    pending.puts.push((values, done));
                }
                Ok(Command::Removed) => {
                    self.removal_due
                        .get_or_insert_with(|| Instant::now() + REMOVAL_DELAY);
                    continue;
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    pending.stop = true;
                    return pending;
                }
                Err(RecvTimeoutError::Timeout) => return pending,
            }
            deadline.get_or_insert_with(|| Instant::now() + self.limits.commit_interval);
        }
        pending
    }

    /// Whether the removals known so far are worth a write of their own.
    fn must_write_removal(&mut self, stop: bool) -> bool {
        let removed = self
            .counters()
            .head
            .load(Ordering::Acquire)
            .saturating_sub(self.durable_head);
        if stop {
            return removed > 0;
        }
        if self.removal_due.is_none_or(|due| due > Instant::now()) {
            return false;
        }
        self.removal_due = None;
        removed >= REMOVAL_BATCH || (removed > 0 && self.pressed.is_some())
    }

    fn commit_and_answer(&mut self, mut pending: Pending) {
        refuse_followers(&mut pending.appends);
        let bytes = match self.make_room(&mut pending) {
            Ok(bytes) => bytes,
            Err(why) => {
                refuse(pending, why);
                return;
            }
        };
        let first = self.next;
        let head = self.counters().head.load(Ordering::Acquire).min(first);
        match self.log.write(&bytes, first) {
            Ok(()) => {
                self.failures_here = 0;
                self.since_checkpoint += bytes.len() as u64;
                self.durable_head = self.durable_head.max(head);
                self.removal_due = None;
                self.committed(first, pending);
            }
            Err(error) => {
                self.failures_here += 1;
                self.counters().failed_commits.fetch_add(1, Ordering::Relaxed);
                if !self.counters().broken.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the buffer cannot be written; nothing is acknowledged until it can");
                }
                // The next frame is written over this one, so what was refused here cannot come back.
                refuse(pending, AppendError::Disk);
                if self.failures_here >= FAILURES_AT_ONE_PLACE && self.log.rotate() {
                    self.failures_here = 0;
                }
                std::thread::sleep(DISK_RETRY);
            }
        }
    }

    fn committed(&mut self, first: u64, pending: Pending) {
        let count = pending.appends.len() as u64;
        let riding = pending
            .appends
            .iter()
            .flat_map(|append| &append.side)
            .map(|side| value(side, false));
        let put = pending
            .puts
            .iter()
            .flat_map(|(values, _)| values)
            .map(|side| value(side, true));
        self.parts.values.note(riding.chain(put));
        if self.counters().broken.swap(false, Ordering::Relaxed) {
            tracing::info!("the buffer can be written again");
        }
        self.next += count;
        self.counters().tail.store(self.next, Ordering::Release);
        if count > 0 {
            self.counters().commits.fetch_add(1, Ordering::Relaxed);
            self.counters()
                .committed_entries
                .fetch_add(count, Ordering::Relaxed);
        }
        for (n, append) in pending.appends.into_iter().enumerate() {
            (append.done)(Ok(Sequence(first + n as u64)));
        }
        for (_, done) in pending.puts {
            // A caller that stopped waiting needs no answer.
            let _ = done.send(Ok(()));
        }
        if count > 0 {
            self.committed.send_replace(self.next);
        }
    }

    /// The frame of what is pending, and a segment it fits in. Where there is room for nothing but what must be written
    /// in any case, the rest is refused and taken out.
    fn make_room(&mut self, pending: &mut Pending) -> Result<Vec<u8>, AppendError> {
        loop {
            let reserved = pending.appends.iter().all(|append| append.reserved);
            let bytes = self.encode(pending);
            if bytes.len() > frame::MAX_FRAME_BYTES {
                return Err(AppendError::TooLarge);
            }
            if self.log.fits(bytes.len(), reserved) {
                return Ok(bytes);
            }
            if self.log.is_prepared() || self.prepare(reserved) || (!reserved && self.wait_for_drop()) {
                self.log.rotate();
                continue;
            }
            let why = self.pressed.unwrap_or(AppendError::Disk);
            if reserved {
                return Err(why);
            }
            self.counters().set_refusing(Some(why));
            let (kept, refused) = std::mem::take(&mut pending.appends)
                .into_iter()
                .partition(|append| append.reserved);
            pending.appends = kept;
            refuse(
                Pending {
                    appends: refused,
                    ..Pending::default()
                },
                why,
            );
        }
    }

    /// Where the oldest is dropped, waits for its segment; whether it came.
    fn wait_for_drop(&mut self) -> bool {
        if self.limits.when_full != WhenFull::DropOldest || self.pressed != Some(AppendError::Full) {
            return false;
        }
        let deadline = Instant::now() + DROP_WAIT;
        while Instant::now() < deadline {
            self.prepare_at = Instant::now();
            self.tidy();
            if self.log.is_prepared() {
                return true;
            }
            std::thread::sleep(DROP_LOOK);
        }
        false
    }

    fn encode(&self, pending: &Pending) -> Vec<u8> {
        let entries: Vec<&[u8]> = pending
            .appends
            .iter()
            .map(|append| append.bytes.as_slice())
            .collect();
        let place = Place {
            epoch: self.parts.values.epoch(),
            segment: self.log.active_id(),
            first: self.next,
            head: self.counters().head.load(Ordering::Acquire).min(self.next),
        };
        let riding = pending.appends.iter().flat_map(|append| &append.side);
        let put = pending.puts.iter().flat_map(|(values, _)| values);
        frame::encode(place, &entries, riding, put)
    }

    /// Makes the next segment within the limit; for what must be written in any case beyond it, and from the ballast.
    fn prepare(&mut self, must: bool) -> bool {
        if !must && self.bytes_on_disk() + SEGMENT_BYTES > self.limits.max_bytes {
            self.pressed = Some(AppendError::Full);
            return false;
        }
        if must {
            self.parts.ballast.free_when_needed();
        }
        match self.log.prepare() {
            Ok(()) => {
                self.pressed = None;
                true
            }
            Err(error) => {
                if self.pressed != Some(AppendError::Disk) {
                    tracing::error!(%error, "there is no room on the disk for the next part of the buffer");
                }
                self.pressed = Some(AppendError::Disk);
                false
            }
        }
    }

    fn bytes_on_disk(&self) -> u64 {
        let older = self.parts.older().as_ref().map_or(0, super::older::Older::bytes);
        self.log.bytes() + self.progress.bytes.load(Ordering::Relaxed) + older
    }

    /// Everything that need not be done before acknowledgements go out.
    fn tidy(&mut self) {
        // What a checkpoint has counts as well: it was synced.
        self.durable_head = self.durable_head.max(self.progress.head.load(Ordering::Relaxed));
        if let Err(error) = self
            .log
            .retire(self.durable_head, self.progress.segment.load(Ordering::Acquire))
        {
            tracing::error!(%error, "a part of the buffer that is no longer needed cannot be given up");
        }
        self.parts.drop_older(self.durable_head);
        if self.log.is_prepared() {
            self.pressed = None;
        } else if self.prepare_at <= Instant::now() && !self.prepare(false) {
            self.prepare_at = Instant::now() + DISK_RETRY;
            self.make_way();
        }
        let refusing = self.pressed.filter(|_| !self.log.fits(FULL_BYTES, false));
        self.counters().set_refusing(refusing);
        if self.since_checkpoint >= CHECKPOINT_BYTES
            || self.parts.values.fresh_bytes() >= CHECKPOINT_VALUE_BYTES
        {
            self.begin_checkpoint();
        }
        self.counters()
            .bytes_on_disk
            .store(self.bytes_on_disk(), Ordering::Relaxed);
    }

    /// There is no next segment: an old one must become it.
    fn make_way(&mut self) {
        let head = self.counters().head.load(Ordering::Acquire);
        match self.parts.log.oldest() {
            Some((_, end)) if end <= head => {}
            Some(_) if self.limits.when_full == WhenFull::DropOldest => self.drop_oldest(),
            Some(_) => return,
            None => {
                self.begin_anew(head);
                return;
            }
        }
        // Without a checkpoint nothing is given up, and without a durable head neither.
        if self.counters().head.load(Ordering::Acquire) > self.durable_head {
            self.commit_and_answer(Pending::default());
        }
        self.begin_checkpoint();
    }

    /// The only segment is as good as full and nothing in it is waited for: it becomes the next one.
    fn begin_anew(&mut self, head: u64) {
        if head < self.next || self.log.fits(FULL_BYTES, false) || !self.log.is_single() {
            return;
        }
        let Some(changes) = self.parts.values.freeze() else {
            return;
        };
        let mark = Mark {
            segment: self.log.active_id(),
            next: self.next,
            head,
        };
        self.parts.ballast.free_when_needed();
        let done = self
            .parts
            .values
            .checkpoint(&changes, mark)
            .map_err(|error| error.to_string());
        let done = done.and_then(|()| {
            self.progress.done(mark, &self.parts.values);
            self.log.begin_anew().map_err(|error| error.to_string())
        });
        match done {
            Ok(()) => {
                self.durable_head = head;
                self.pressed = None;
                self.since_checkpoint = 0;
            }
            Err(error) => {
                tracing::debug!(error, "the buffer cannot begin anew yet");
                // The same changes again, later and elsewhere.
                let _ = self.checkpoints.try_send(Job { changes, mark });
            }
        }
    }

    fn drop_oldest(&mut self) {
        if self.parts.older().is_some() {
            return;
        }
        let Some((oldest, end)) = self.parts.log.oldest() else {
            return;
        };
        let head = self.counters().head.fetch_max(end, Ordering::AcqRel);
        let loss = match self.parts.ends_of(oldest.id, head, end) {
            Ok((first, last)) => Loss::new(LossReason::Full, end.saturating_sub(head), first, last),
            Err(error) => {
                tracing::error!(%error, "what is dropped from the buffer cannot be read");
                Loss::new(LossReason::Full, end.saturating_sub(head), None, None)
            }
        };
        if let Err(error) = self.losses.try_send(loss) {
            tracing::error!(%error, "a loss could not be reported");
        }
    }

    fn begin_checkpoint(&mut self) {
        let Some(changes) = self.parts.values.freeze() else {
            return;
        };
        self.since_checkpoint = 0;
        // What the segment being written holds is replayed, so the next one need not be begun.
        let mark = Mark {
            segment: self.log.active_id(),
            next: self.next,
            head: self.durable_head,
        };
        if self.checkpoints.try_send(Job { changes, mark }).is_err() {
            tracing::error!("the thread that writes small values is gone");
        }
    }
}

fn bytes_of(values: &[Side]) -> usize {
    values
        .iter()
        .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len))
        .sum()
}

fn value((name, value): &Side, put: bool) -> Value {
    Value {
        name: name.clone(),
        value: value.clone(),
        put,
    }
}

/// What comes after a refused append on the same line is refused as well: its sender sends both again, in order.
fn refuse_followers(appends: &mut Vec<Append>) {
    let is_cut = |append: &Append| append.line.as_ref().is_some_and(Line::is_cut);
    if appends.iter().any(is_cut) {
        let (refused, kept) = std::mem::take(appends).into_iter().partition(is_cut);
        *appends = kept;
        refuse(
            Pending {
                appends: refused,
                ..Pending::default()
            },
            AppendError::Disk,
        );
    }
}

fn refuse(pending: Pending, why: AppendError) {
    for append in pending.appends {
        if let Some(line) = append.line {
            line.refused();
        }
        (append.done)(Err(why));
    }
    for (_, done) in pending.puts {
        // A caller that stopped waiting needs no answer.
        let _ = done.send(Err(why));
    }
}

impl Parts {
    /// First and last entry of `[from, end)` in a segment, to tell from when to when something was lost.
    pub(super) fn ends_of(
        &self,
        id: u64,
        from: u64,
        end: u64,
    ) -> std::io::Result<(Option<Entry>, Option<Entry>)> {
        let (mut first, mut last) = (None, None);
        for found in self.log.frames(id)? {
            let (_, frame) = found?;
            for entry in frame
                .entries
                .into_iter()
                .filter(|entry| (from..end).contains(&entry.sequence.0))
            {
                first.get_or_insert_with(|| entry.clone());
                last = Some(entry);
            }
        }
        Ok((first, last))
    }
}
