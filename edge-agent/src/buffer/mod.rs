//! A durable first-in first-out queue of opaque entries.
//!
//! An entry's callback runs only after its bytes are safe from a power cut: the frame it was written in has gone
//! through fdatasync.
//!
//! Two stores, each for what it is good at (docs/adr/0001 has the figures):
//!
//! - `log`: entries, in files of our own that are made ahead and written in place (`segment`, `frame`). A group commit
//!   is one write of whole pages and one fdatasync, and what was forwarded is given up a file at a time.
//! - `values`: small durable values of other modules (clock offsets, packet ids, sessions) in sled. A change is written in
//!   the log with the entries it belongs to, and goes to sled at the next checkpoint.
//!
//! ```text
//! buffer/log/<number>.log   segments
//! buffer/values/            sled
//! buffer/ballast            room for sled on a full disk
//! buffer/db, conf, blobs    a buffer of the older form, until it is drained (`older`)
//! ```
//!
//! Removal is lazy: a removed entry may come back after a crash and be read again, never the reverse.
//! This module never looks into an entry and knows nothing of MQTT or Kafka.

mod append;
mod ballast;
mod checkpoint;
mod frame;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod group;
mod log;
mod named;
mod older;
mod salvage;
mod segment;
mod values;
mod writer;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};

pub use append::{Append, AppendError, Done, Side};
pub use group::CorruptGroup;
pub use salvage::{Found, salvage};

/// Position of an entry, from 1, without gaps, never reused within an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sequence(pub u64);

impl Sequence {
    /// The position after this one.
    pub const fn next(self) -> Sequence {
        Sequence(self.0 + 1)
    }
}

/// Limits of a buffer.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most bytes on disk; appends are refused from there until entries are removed.
    pub max_bytes: u64,
    /// How long a group waits for company after its first entry.
    pub commit_interval: Duration,
    /// A group is committed at once when its entries reach this many bytes.
    pub commit_bytes: usize,
    /// What happens to new entries when the limit is reached.
    pub when_full: WhenFull,
}

/// What a full buffer does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WhenFull {
    /// Refuses new entries; their senders keep them.
    #[default]
    Reject,
    /// Drops the oldest, acknowledged as they are.
    DropOldest,
}

/// Entries that were acknowledged and are lost.
#[derive(Debug)]
pub struct Loss {
    /// Why.
    pub reason: LossReason,
    /// How many.
    pub count: u64,
    /// The first of them, if it can be read.
    pub first: Option<Bytes>,
    /// The last of them, if it can be read.
    pub last: Option<Bytes>,
}

/// Why entries were lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LossReason {
    /// Dropped by a full buffer.
    Full,
    /// Older than the age limit.
    Expired,
}

impl Loss {
    fn new(reason: LossReason, count: u64, first: Option<Entry>, last: Option<Entry>) -> Self {
        let bytes = |entry: Option<Entry>| entry.map(|entry| entry.bytes);
        Self {
            reason,
            count,
            first: bytes(first),
            last: bytes(last),
        }
    }
}

/// Why a buffer could not be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum BufferError {
    /// sled's own error.
    #[error("buffer in {path}: {source}")]
    Sled {
        /// The buffer's folder.
        path: PathBuf,
        /// What sled says.
        source: sled::Error,
    },
    /// An error of the file system.
    #[error("buffer in {path}: {source}")]
    Io {
        /// The buffer's folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// sled panicked over what it found.
    #[error("buffer in {path}: sled panicked while opening it")]
    Panicked {
        /// The buffer's folder.
        path: PathBuf,
    },
    /// A stored number has the wrong length.
    #[error("buffer value {0} is malformed")]
    Malformed(&'static str),
}

impl BufferError {
    /// True when the files are damaged, so that opening them again cannot help. A full disk or a missing right
    /// is no damage.
    pub fn is_damage(&self) -> bool {
        use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match self {
            BufferError::Malformed(_) | BufferError::Panicked { .. } => true,
            BufferError::Io { .. } => false,
            BufferError::Sled {
                source: sled::Error::Io(error),
                ..
            } => {
                matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof)
            }
            BufferError::Sled { .. } => true,
        }
    }
}

/// One entry read back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its position.
    pub sequence: Sequence,
    /// The bytes that were appended.
    pub bytes: Bytes,
}

/// What [`Buffer::read`] found.
#[derive(Debug, Default)]
pub struct Batch {
    /// Entries in order.
    pub entries: Vec<Entry>,
    /// Groups that could not be read; the read went on behind them.
    pub corrupt: Vec<CorruptGroup>,
    /// Where the next read begins.
    pub next: Option<Sequence>,
}

/// A small durable value with its name, as read back.
pub type NamedValue = (Vec<u8>, Vec<u8>);

/// Figures for `/status` and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries appended and not removed.
    pub entries: u64,
    /// Bytes on disk, those made ready and not used yet included.
    pub bytes_on_disk: u64,
    /// Groups committed since start.
    pub commits: u64,
    /// Entries committed since start.
    pub committed_entries: u64,
    /// Commits that failed since start.
    pub failed_commits: u64,
}

#[derive(Default)]
struct Counters {
    bytes_on_disk: AtomicU64,
    commits: AtomicU64,
    committed_entries: AtomicU64,
    failed_commits: AtomicU64,
    broken: AtomicBool,
    /// Why appends are refused: 0 they are not, 1 the limit, 2 the disk.
    refusing: AtomicU8,
    /// First sequence not yet removed.
    head: AtomicU64,
    /// First sequence not yet committed.
    tail: AtomicU64,
}

impl Counters {
    fn set_refusing(&self, why: Option<AppendError>) {
        let code = match why {
            None => 0,
            Some(AppendError::Full) => 1,
            Some(_) => 2,
        };
        self.refusing.store(code, Ordering::Relaxed);
    }
}

/// What the threads of a buffer share.
struct Parts {
    log: log::Shared,
    values: values::Values,
    older: Mutex<Option<older::Older>>,
    ballast: ballast::Ballast,
    counters: Counters,
}

impl Parts {
    fn older(&self) -> MutexGuard<'_, Option<older::Older>> {
        // Set once and taken once; a panic elsewhere leaves it whole.
        self.older.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Deletes the older buffer when everything in it was removed.
    fn drop_older(&self, head: u64) {
        let drained = self.older().take_if(|older| older.end <= head);
        match drained.map(older::Older::delete) {
            None => {}
            Some(Ok(())) => tracing::info!("the buffer of the older form is drained and deleted"),
            Some(Err(error)) => {
                tracing::error!(%error, "the drained buffer of the older form cannot be deleted")
            }
        }
    }
}

/// The queue. Cheap to clone.
#[derive(Clone)]
pub struct Buffer {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    parts: Arc<Parts>,
    commands: std::sync::mpsc::SyncSender<writer::Command>,
    committed: watch::Receiver<u64>,
    progress: Arc<checkpoint::Progress>,
    threads: Mutex<Vec<std::thread::JoinHandle<()>>>,
    losses: Mutex<Option<mpsc::Receiver<Loss>>>,
}

/// Appends that may wait for the writer thread. Enough for a full group of small entries from every
/// connection; the caller is made to wait beyond it.
const COMMAND_QUEUE: usize = 4_096;
/// Losses that wait to be told. Each is a whole segment.
const LOSS_QUEUE: usize = 64;
/// Largest small values written at once; with a full group before them they still fit a frame.
pub const MAX_PUT_BYTES: usize = 512 * 1024;

impl Buffer {
    /// Opens or creates the buffer in `dir` and starts its threads. A panic of sled over a damaged file is an error like
    /// others.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, BufferError> {
        let open = std::panic::AssertUnwindSafe(|| Self::open_in(dir, limits));
        std::panic::catch_unwind(open).unwrap_or_else(|_| Err(BufferError::Panicked { path: dir.to_owned() }))
    }

    fn open_in(dir: &Path, limits: Limits) -> Result<Self, BufferError> {
        let io = |source| BufferError::Io {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(io)?;
        let ballast = ballast::Ballast::new(dir);
        ballast.free_when_needed();
        let older = older::Older::open(dir)?;
        let (values, mark) = values::Values::open(&dir.join("values"), || {
            match older.as_ref().map(older::Older::initial).transpose()?.flatten() {
                Some(initial) => {
                    tracing::info!(
                        "a buffer of the older form is there; it is read to its end and then deleted"
                    );
                    Ok(initial)
                }
                // A log whose epoch nobody knows would be taken for empty, and what it holds for never acknowledged.
                None if segment::any_frame(&dir.join("log")).map_err(io)? => {
                    Err(BufferError::Malformed("epoch"))
                }
                None => Ok(values::Initial {
                    epoch: rand::random(),
                    ..values::Initial::default()
                }),
            }
        })?;
        let mut head = mark.head;
        let replay = |frame: frame::Frame| {
            head = head.max(frame.header.head);
            values.note(frame.values.into_iter());
        };
        let found = log::Log::open(&dir.join("log"), values.epoch(), mark.segment, replay).map_err(io)?;
        let next = found.end.map_or(mark.next, |end| end.max(mark.next));
        let parts = Arc::new(Parts {
            log: found.shared,
            values,
            older: Mutex::new(older),
            ballast,
            counters: Counters::default(),
        });
        parts.counters.head.store(head.min(next), Ordering::Relaxed);
        parts.counters.tail.store(next, Ordering::Relaxed);
        let progress = Arc::new(checkpoint::Progress::default());
        progress.done(mark, &parts.values);
        let (commands, command_receiver) = std::sync::mpsc::sync_channel(COMMAND_QUEUE);
        // One checkpoint is under way at a time, and one that could not be finished at once is handed over.
        let (checkpoints, checkpoint_receiver) = std::sync::mpsc::sync_channel(2);
        let (committed_sender, committed) = watch::channel(next);
        let (loss_sender, losses) = mpsc::channel(LOSS_QUEUE);
        let writer = writer::Writer::new(writer::Begin {
            log: found.log,
            parts: parts.clone(),
            limits,
            next,
            durable_head: head,
            committed: committed_sender,
            checkpoints,
            progress: progress.clone(),
            losses: loss_sender,
        });
        let checkpointer = std::thread::Builder::new().name("buffer-values".into()).spawn({
            let (parts, progress) = (parts.clone(), progress.clone());
            move || checkpoint::run(&checkpoint_receiver, &parts.values, &parts.ballast, &progress)
        });
        let writer = std::thread::Builder::new()
            .name("buffer-writer".into())
            .spawn(move || writer.run(&command_receiver));
        let threads = vec![checkpointer.map_err(io)?, writer.map_err(io)?];
        Ok(Self {
            shared: Arc::new(Shared {
                dir: dir.to_owned(),
                parts,
                commands,
                committed,
                progress,
                threads: Mutex::new(threads),
                losses: Mutex::new(Some(losses)),
            }),
        })
    }

    /// Random number of this buffer; part of every id.
    pub fn epoch(&self) -> u32 {
        self.shared.parts.values.epoch()
    }

    /// Queues `bytes` for the next group. `done` is called when they are on disk, or were refused.
    /// Gives the entry back when the writer has fallen behind by a whole queue: wait and try again.
    pub fn try_append(&self, append: Append) -> Result<(), Append> {
        use std::sync::mpsc::TrySendError;
        match self.shared.commands.try_send(writer::Command::Append(append)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(writer::Command::Append(append))) => Err(append),
            Err(TrySendError::Disconnected(writer::Command::Append(append))) => {
                (append.done)(Err(AppendError::Closed));
                Ok(())
            }
            Err(_) => unreachable!("the command sent was an append"),
        }
    }

    /// Queues `bytes` and waits until they are on disk.
    pub async fn append(&self, bytes: Vec<u8>) -> Result<Sequence, AppendError> {
        self.append_one(bytes, false).await
    }

    /// The same for what must be kept even when the buffer is full: room is kept back for it.
    pub async fn append_reserved(&self, bytes: Vec<u8>) -> Result<Sequence, AppendError> {
        self.append_one(bytes, true).await
    }

    async fn append_one(&self, bytes: Vec<u8>, reserved: bool) -> Result<Sequence, AppendError> {
        let (sender, receiver) = oneshot::channel();
        let done: Done = Box::new(move |outcome| {
            // A caller that stopped waiting needs no answer.
            let _ = sender.send(outcome);
        });
        let mut append = Append {
            bytes,
            side: Vec::new(),
            line: None,
            reserved,
            done,
        };
        while let Err(back) = self.try_append(append) {
            append = back;
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        receiver.await.unwrap_or(Err(AppendError::Closed))
    }

    /// Up to about `max_bytes` of entries from `from` on (at least one group), in order.
    /// Reads whole groups; entries before `from` are left out.
    pub fn read(&self, from: Sequence, max_bytes: usize) -> Result<Batch, BufferError> {
        let parts = &self.shared.parts;
        if let Some(older) = parts.older().as_ref().filter(|older| from.0 < older.end) {
            return older.read(from.0, max_bytes);
        }
        // What stands behind the tail is not on disk yet, and may never be.
        let tail = parts.counters.tail.load(Ordering::Acquire);
        let head = || parts.counters.head.load(Ordering::Acquire);
        parts
            .log
            .read(from.0, tail, max_bytes, head)
            .map_err(|source| BufferError::Io {
                path: self.shared.dir.clone(),
                source,
            })
    }

    /// The first sequence that is not removed: where a reader starts after a restart.
    pub fn head(&self) -> Sequence {
        Sequence(self.shared.parts.counters.head.load(Ordering::Acquire))
    }

    /// Forgets every entry before `end`. Lazy: written with a later commit.
    pub fn remove_before(&self, end: Sequence) {
        let head = &self.shared.parts.counters.head;
        if head.fetch_max(end.0, Ordering::AcqRel) < end.0 {
            // A full queue is no loss: the next removal covers this one.
            let _ = self.shared.commands.try_send(writer::Command::Removed);
        }
    }

    /// Changes whenever something was committed; the value is the next sequence.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.shared.committed.clone()
    }

    /// A small durable value of another module.
    pub fn value(&self, name: &[u8]) -> Result<Option<Vec<u8>>, BufferError> {
        self.shared.parts.values.get(name)
    }

    /// All small durable values whose name begins with `prefix`, without the prefix.
    pub fn values(&self, prefix: &[u8]) -> Result<Vec<NamedValue>, BufferError> {
        self.shared.parts.values.scan(prefix)
    }

    /// Why appends are refused at the moment, if they are.
    pub fn refusing(&self) -> Option<AppendError> {
        match self.shared.parts.counters.refusing.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(AppendError::Full),
            _ => Some(AppendError::Disk),
        }
    }

    /// The oldest part of the buffer, unless it is the only one: its last entry, and the sequence after it.
    pub fn oldest_part(&self) -> Result<Option<(Entry, Sequence)>, BufferError> {
        let parts = &self.shared.parts;
        if parts.older().is_some() {
            return Ok(None);
        }
        let Some((oldest, Some(end))) = parts.log.find(self.head().0) else {
            return Ok(None);
        };
        let ends = parts.ends_of(oldest.id, self.head().0, end);
        let (_, last) = ends.map_err(|source| BufferError::Io {
            path: self.shared.dir.clone(),
            source,
        })?;
        Ok(last.map(|last| (last, Sequence(end))))
    }

    /// Gives up everything before `end`, which is lost if it was not removed.
    pub fn expire_before(&self, end: Sequence) -> Result<Option<Loss>, BufferError> {
        let head = self.head();
        if head >= end {
            return Ok(None);
        }
        let first = self.read(head, 1)?.entries.into_iter().next();
        let last = self.read(Sequence(end.0 - 1), 1)?.entries.into_iter().next();
        self.remove_before(end);
        Ok(Some(Loss::new(LossReason::Expired, end.0 - head.0, first, last)))
    }

    /// Where losses are told; the first caller gets it.
    pub fn losses(&self) -> Option<mpsc::Receiver<Loss>> {
        self.shared.losses.lock().ok()?.take()
    }

    /// Completes when a thread of the buffer has ended, which is only right after [`Buffer::close`].
    pub async fn ended(&self) {
        const LOOK: Duration = Duration::from_millis(200);
        let is_over = || match self.shared.threads.lock() {
            Ok(threads) => threads.is_empty() || threads.iter().any(std::thread::JoinHandle::is_finished),
            Err(_) => true,
        };
        while !is_over() {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Writes small durable values, at most [`MAX_PUT_BYTES`] of them, and waits until they are on disk. Unlike values that
    /// ride with an append, they can be found by [`salvage`], but for those above 4 KiB that a checkpoint has reached.
    pub async fn put(&self, values: Vec<Side>) -> Result<(), AppendError> {
        let bytes: usize = values
            .iter()
            .map(|(name, value)| name.len() + value.as_ref().map_or(0, Vec::len))
            .sum();
        if bytes > MAX_PUT_BYTES {
            return Err(AppendError::TooLarge);
        }
        let (sender, receiver) = oneshot::channel();
        let mut command = writer::Command::Put(values, sender);
        loop {
            use std::sync::mpsc::TrySendError;
            match self.shared.commands.try_send(command) {
                Ok(()) => break,
                Err(TrySendError::Full(back)) => {
                    command = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(TrySendError::Disconnected(_)) => return Err(AppendError::Closed),
            }
        }
        receiver.await.unwrap_or(Err(AppendError::Closed))
    }

    /// True from a failed commit to the next that works.
    pub fn is_broken(&self) -> bool {
        self.shared.parts.counters.broken.load(Ordering::Relaxed)
    }

    /// Figures for `/status` and metrics.
    pub fn stats(&self) -> Stats {
        let c = &self.shared.parts.counters;
        let load = |n: &AtomicU64| n.load(Ordering::Acquire);
        Stats {
            entries: load(&c.tail).saturating_sub(load(&c.head)),
            bytes_on_disk: load(&c.bytes_on_disk),
            commits: load(&c.commits),
            committed_entries: load(&c.committed_entries),
            failed_commits: load(&c.failed_commits),
        }
    }

    /// Commits what is queued, writes the removals and stops the threads. Later appends are refused.
    pub fn close(&self) {
        self.shared.progress.stopping.store(true, Ordering::Relaxed);
        // The writer may be gone already; then there is nothing to stop.
        let _ = self.shared.commands.send(writer::Command::Stop);
        let threads = match self.shared.threads.lock() {
            Ok(mut threads) => std::mem::take(&mut *threads),
            Err(_) => return,
        };
        // The writer ends last in the list; without it the other one has nothing more to do.
        for thread in threads.into_iter().rev() {
            if thread.join().is_err() {
                tracing::error!("a thread of the buffer panicked");
            }
        }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
