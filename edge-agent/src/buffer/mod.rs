//! A durable first-in first-out queue of opaque entries, on sled.
//!
//! An entry's callback runs only after its bytes are safe from a power cut: the group it was written in has gone
//! through `sled::Db::flush` **and** an fdatasync of sled's file, because sled 0.34's own flush ends
//! with `sync_file_range`, which neither writes the file's metadata nor empties the drive's cache.
//!
//! Form on disk: one sled tree.
//!
//! ```text
//! g <sequence u64 BE> <part u16 BE>   a group of entries, keyed by its first sequence; large groups in several parts
//! m next                              the next sequence, so that an emptied buffer never reuses one
//! m epoch                             random, made with the buffer: a replaced buffer never reuses an id
//! c <name>                            small durable values of other modules (clock offsets, packet ids)
//! ```
//!
//! Writing whole groups as one compressed value is what keeps an SD card alive: a message alone costs some 5 KiB
//! of disk writes, a message in a group of 200 a few hundred bytes.
//!
//! Removal is lazy: a removed group may come back after a crash and be read again, never the reverse.
//! This module never looks into an entry and knows nothing of MQTT or Kafka.

mod group;
mod named;
mod salvage;
mod writer;

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{oneshot, watch};

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
}

/// Why an append was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The byte limit is reached.
    #[error("buffer is full")]
    Full,
    /// The disk refused the write or the sync; nothing is acknowledged until it works again.
    #[error("buffer cannot be written")]
    Disk,
    /// The buffer is being closed.
    #[error("buffer is closed")]
    Closed,
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

/// Called once with the outcome of an append, on the writer's thread: it must not block.
pub type Done = Box<dyn FnOnce(Result<Sequence, AppendError>) + Send>;

/// A change of a small durable value that rides with an append: `None` removes it.
pub type Side = (Vec<u8>, Option<Vec<u8>>);

/// A small durable value with its name, as read back.
pub type NamedValue = (Vec<u8>, Vec<u8>);

/// Figures for `/status` and metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Entries appended and not removed.
    pub entries: u64,
    /// Bytes on disk, as sled reports them.
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
    /// First sequence not yet removed.
    head: AtomicU64,
    /// First sequence not yet committed.
    tail: AtomicU64,
}

/// The queue. Cheap to clone; the last clone closes it.
#[derive(Clone)]
pub struct Buffer {
    shared: Arc<Shared>,
}

struct Shared {
    dir: PathBuf,
    tree: sled::Db,
    epoch: u32,
    counters: Arc<Counters>,
    commands: std::sync::mpsc::SyncSender<writer::Command>,
    committed: watch::Receiver<u64>,
    writer: std::sync::Mutex<Option<std::thread::JoinHandle<()>>>,
}

/// Appends that may wait for the writer thread. Enough for a full group of small entries from every
/// connection; the caller is made to wait beyond it.
const COMMAND_QUEUE: usize = 4_096;

/// sled moves a page above a quarter of its segment size into a file of its own under `blobs/`, and never syncs that
/// file: with the default of 512 KiB a backlog of full groups lives in such files and a power cut can lose
/// it. A leaf holds up to 17 groups (23 while a large group is written), so 4 MiB keep every page inline.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;

/// sled's page cache. 16 MiB keep a drained million of messages at 42 MB RSS on the box with 1 GB.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

impl Buffer {
    /// Opens or creates the buffer in `dir` and starts its writer thread. A panic of sled over a damaged file is
    /// an error like others.
    pub fn open(dir: &Path, limits: Limits) -> Result<Self, BufferError> {
        let open = std::panic::AssertUnwindSafe(|| Self::open_in(dir, limits));
        std::panic::catch_unwind(open).unwrap_or_else(|_| Err(BufferError::Panicked { path: dir.to_owned() }))
    }

    fn open_in(dir: &Path, limits: Limits) -> Result<Self, BufferError> {
        let io = |source| BufferError::Io {
            path: dir.to_owned(),
            source,
        };
        let sled_error = |source| BufferError::Sled {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(io)?;
        let tree = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput)
            .open()
            .map_err(sled_error)?;
        let data_file = File::options()
            .read(true)
            .write(true)
            .open(dir.join("db"))
            .map_err(io)?;

        let epoch = match tree.get(b"mepoch").map_err(sled_error)? {
            Some(value) => read_u32(&value).ok_or(BufferError::Malformed("epoch"))?,
            None => {
                // Before the epoch, which says that this was done.
                sync_new(dir).map_err(io)?;
                let epoch: u32 = rand::random();
                tree.insert(b"mepoch", &epoch.to_be_bytes()).map_err(sled_error)?;
                tree.flush().map_err(sled_error)?;
                data_file.sync_data().map_err(io)?;
                epoch
            }
        };
        let stored_next = match tree.get(b"mnext").map_err(sled_error)? {
            Some(value) => read_u64(&value).ok_or(BufferError::Malformed("next"))?,
            None => 1,
        };
        let next = group::last_end(&tree)
            .map_err(sled_error)?
            .map_or(stored_next, |end| end.max(stored_next));
        let head = group::first_sequence(&tree).map_err(sled_error)?.unwrap_or(next);

        let counters = Arc::new(Counters::default());
        counters.head.store(head, Ordering::Relaxed);
        counters.tail.store(next, Ordering::Relaxed);
        counters
            .bytes_on_disk
            .store(tree.size_on_disk().unwrap_or(0), Ordering::Relaxed);

        let (commands, receiver) = std::sync::mpsc::sync_channel(COMMAND_QUEUE);
        let (committed_sender, committed) = watch::channel(next);
        let writer = writer::Writer::new(
            tree.clone(),
            data_file,
            limits,
            epoch,
            next,
            counters.clone(),
            committed_sender,
        );
        let handle = std::thread::Builder::new()
            .name("buffer-writer".into())
            .spawn(move || writer.run(&receiver))
            .map_err(io)?;
        Ok(Self {
            shared: Arc::new(Shared {
                dir: dir.to_owned(),
                tree,
                epoch,
                counters,
                commands,
                committed,
                writer: std::sync::Mutex::new(Some(handle)),
            }),
        })
    }

    /// Random number of this buffer; part of every id.
    pub fn epoch(&self) -> u32 {
        self.shared.epoch
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
        let (sender, receiver) = oneshot::channel();
        let done: Done = Box::new(move |outcome| {
            // A caller that stopped waiting needs no answer.
            let _ = sender.send(outcome);
        });
        let mut append = Append {
            bytes,
            side: Vec::new(),
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
        // What stands behind the tail is not on disk yet, and may never be.
        let end = Sequence(self.shared.counters.tail.load(Ordering::Acquire));
        group::read(&self.shared.tree, from, end, max_bytes).map_err(|source| self.sled_error(source))
    }

    /// The first sequence that is not removed: where a reader starts after a restart.
    pub fn head(&self) -> Sequence {
        Sequence(self.shared.counters.head.load(Ordering::Acquire))
    }

    /// Forgets every entry before `end`. Lazy: written with a later commit.
    pub fn remove_before(&self, end: Sequence) {
        let head = &self.shared.counters.head;
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
        match self.shared.tree.get(side_key(name)) {
            Ok(found) => Ok(found.map(|value| named::unwrap(&value).to_vec())),
            Err(source) => Err(self.sled_error(source)),
        }
    }

    /// All small durable values whose name begins with `prefix`, without the prefix.
    pub fn values(&self, prefix: &[u8]) -> Result<Vec<NamedValue>, BufferError> {
        let key = side_key(prefix);
        let found = self.shared.tree.scan_prefix(&key);
        found
            .map(|found| found.map(|(k, v)| (k[key.len()..].to_vec(), named::unwrap(&v).to_vec())))
            .collect::<Result<_, _>>()
            .map_err(|source| self.sled_error(source))
    }

    fn sled_error(&self, source: sled::Error) -> BufferError {
        BufferError::Sled {
            path: self.shared.dir.clone(),
            source,
        }
    }

    /// Writes small durable values and waits until they are on disk. Unlike values that ride with an append, they can
    /// be found by [`salvage`].
    pub async fn put(&self, values: Vec<Side>) -> Result<(), AppendError> {
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
        self.shared.counters.broken.load(Ordering::Relaxed)
    }

    /// Figures for `/status` and metrics.
    pub fn stats(&self) -> Stats {
        let c = &self.shared.counters;
        let load = |n: &AtomicU64| n.load(Ordering::Acquire);
        Stats {
            entries: load(&c.tail).saturating_sub(load(&c.head)),
            bytes_on_disk: load(&c.bytes_on_disk),
            commits: load(&c.commits),
            committed_entries: load(&c.committed_entries),
            failed_commits: load(&c.failed_commits),
        }
    }

    /// Commits what is queued, writes the removals and stops the writer. Later appends are refused.
    pub fn close(&self) {
        // The writer may be gone already; then there is nothing to stop.
        let _ = self.shared.commands.send(writer::Command::Stop);
        let handle = self.shared.writer.lock().map(|mut guard| guard.take());
        if let Ok(Some(handle)) = handle
            && handle.join().is_err()
        {
            tracing::error!("the buffer's writer thread panicked");
        }
    }
}

/// An entry on its way into the buffer.
pub struct Append {
    /// The entry.
    pub bytes: Vec<u8>,
    /// Values written in the same group commit, atomically with the entry.
    pub side: Vec<Side>,
    /// Called with the outcome.
    pub done: Done,
}

fn side_key(name: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(1 + name.len());
    key.push(b'c');
    key.extend_from_slice(name);
    key
}

fn read_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(value.try_into().ok()?))
}

fn read_u64(value: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(value.try_into().ok()?))
}

/// sled writes its file `conf` once and never syncs it: with that file cut off nothing else can be opened any more. And
/// a new file is only found again after a power cut when its folder is synced, and that folder's own.
fn sync_new(dir: &Path) -> std::io::Result<()> {
    File::open(dir.join("conf"))?.sync_all()?;
    File::open(dir)?.sync_all()?;
    match dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
