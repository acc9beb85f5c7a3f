//! Small durable values: what changed lately in memory, as the log has it on disk; the rest in sled.
//!
//! A change is written in a frame of the log, with the entries it belongs to. From time to time what has gathered goes to
//! sled, and after it the number of the segment from which the log is to be replayed: a checkpoint. Only then may older segments be given up. A value that is written a hundred times between two checkpoints,
//! as those of the redeliveries are, costs sled one write.
//!
//! ```text
//! c <name>                                      a value
//! p <name length u16 BE> <name> <part u16 BE>   parts of a value too long for one; c <name> says how many
//! m epoch, m next, m head, m segment            the buffer's random number, and the checkpoint
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{BufferError, NamedValue, frame::Value, named};

/// sled moves a page above a quarter of its segment size into a file of its own under `blobs/` and never syncs that
/// file. A leaf holds up to 17 values, 23 while it is split: with values of this size it stays below 128 KiB, a quarter
/// of sled's default.
const PART_BYTES: usize = 4 * 1024;
const _: () = assert!(named::MAX_BYTES <= PART_BYTES);
/// sled's page cache. Values are read at start and looked up at checkpoints.
const CACHE_BYTES: u64 = 8 * 1024 * 1024;
/// Changes given to sled at a time.
const BATCH: usize = 256;
/// Each frees up to 512 pieces of memory; a batch leaves some thousand.
const GARBAGE_ROUNDS: usize = 32;
/// sled lets go of its file when the last piece of its memory is freed, which is some time after it was closed in this
/// process: after a write that failed it is opened anew. Another agent on the same folder holds it for ever.
const LOCK_WAIT: Duration = Duration::from_secs(10);
const LOCK_POLL: Duration = Duration::from_millis(20);
/// Begins the stored form of a value in parts, followed by their number.
const IN_PARTS: [u8; 4] = *b"HKL1";

/// What changed since a checkpoint began.
pub(super) type Changes = BTreeMap<Vec<u8>, Change>;

/// The latest change of a value.
#[derive(Clone, Debug)]
pub(super) struct Change {
    value: Option<Vec<u8>>,
    put: bool,
}

/// Where the log stands at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    /// The log is replayed from this segment on.
    pub segment: u64,
    /// The next sequence.
    pub next: u64,
    /// Everything before this was removed.
    pub head: u64,
}

/// What a new store begins with.
#[derive(Default)]
pub(super) struct Initial {
    pub epoch: u32,
    pub values: Vec<Value>,
    pub mark: Mark,
}

impl Default for Mark {
    fn default() -> Self {
        Self {
            segment: 0,
            next: 1,
            head: 1,
        }
    }
}

/// See the module.
pub(super) struct Values {
    dir: PathBuf,
    epoch: u32,
    state: Mutex<State>,
}

struct State {
    fresh: Changes,
    fresh_bytes: usize,
    /// On their way to sled.
    frozen: Option<Arc<Changes>>,
    /// Gone after a failed write: sled keeps its first error, so it is opened anew.
    store: Option<Arc<Store>>,
}

struct Store {
    tree: sled::Db,
    file: File,
    /// Names of the values in parts.
    in_parts: Mutex<BTreeSet<Vec<u8>>>,
}

impl Values {
    /// Opens or creates the values in `dir`; a new store begins with `initial`.
    pub(super) fn open(
        dir: &Path,
        initial: impl FnOnce() -> Result<Initial, BufferError>,
    ) -> Result<(Self, Mark), BufferError> {
        let store = Store::open(dir)?;
        let sled_error = |source| BufferError::Sled {
            path: dir.to_owned(),
            source,
        };
        let (epoch, mark) = match store.tree.get(b"mepoch").map_err(sled_error)? {
            Some(epoch) => {
                let epoch = <[u8; 4]>::try_from(&epoch[..]).map_err(|_| BufferError::Malformed("epoch"))?;
                let number = |name: &'static str| {
                    let value = store.tree.get(name.as_bytes()).map_err(sled_error)?;
                    let value = value.and_then(|value| <[u8; 8]>::try_from(&value[..]).ok());
                    value.map(u64::from_be_bytes).ok_or(BufferError::Malformed(name))
                };
                let mark = Mark {
                    segment: number("msegment")?,
                    next: number("mnext")?,
                    head: number("mhead")?,
                };
                (u32::from_be_bytes(epoch), mark)
            }
            None => {
                let initial = initial()?;
                let error = |error| match error {
                    StoreError::Sled(source) => sled_error(source),
                    StoreError::Io(source) => BufferError::Io {
                        path: dir.to_owned(),
                        source,
                    },
                };
                sync_new(dir).map_err(|source| error(source.into()))?;
                let changes = initial
                    .values
                    .into_iter()
                    .map(|Value { name, value, put }| (name, Change { value, put }));
                // The epoch is written last: it says that everything else is there.
                store
                    .apply(&changes.collect(), initial.mark, initial.epoch)
                    .map_err(error)?;
                (initial.epoch, initial.mark)
            }
        };
        let state = State {
            fresh: Changes::new(),
            fresh_bytes: 0,
            frozen: None,
            store: Some(Arc::new(store)),
        };
        Ok((
            Self {
                dir: dir.to_owned(),
                epoch,
                state: Mutex::new(state),
            },
            mark,
        ))
    }

    pub(super) fn epoch(&self) -> u32 {
        self.epoch
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Changed in single steps; a panic elsewhere leaves it whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes changes that are on disk in the log.
    pub(super) fn note(&self, changes: impl Iterator<Item = Value>) {
        let mut state = self.state();
        for Value { name, value, put } in changes {
            state.fresh_bytes += name.len() + value.as_ref().map_or(0, Vec::len);
            state.fresh.insert(name, Change { value, put });
        }
    }

    /// Bytes of what changed since the last checkpoint began, with repetitions.
    pub(super) fn fresh_bytes(&self) -> usize {
        self.state().fresh_bytes
    }

    pub(super) fn get(&self, name: &[u8]) -> Result<Option<Vec<u8>>, BufferError> {
        let state = self.state();
        let frozen = state.frozen.as_ref().and_then(|frozen| frozen.get(name));
        if let Some(change) = state.fresh.get(name).or(frozen) {
            return Ok(change.value.clone());
        }
        state
            .store(&self.dir)?
            .get(name)
            .map_err(|error| self.sled_error(error))
    }

    /// All values whose name begins with `prefix`, without the prefix.
    pub(super) fn scan(&self, prefix: &[u8]) -> Result<Vec<NamedValue>, BufferError> {
        let state = self.state();
        let stored = state
            .store(&self.dir)?
            .scan(prefix)
            .map_err(|error| self.sled_error(error))?;
        let mut all: BTreeMap<Vec<u8>, Option<Vec<u8>>> = stored
            .into_iter()
            .map(|(name, value)| (name, Some(value)))
            .collect();
        for changes in state.frozen.as_deref().into_iter().chain([&state.fresh]) {
            let from = changes.range(prefix.to_vec()..);
            for (name, change) in from.take_while(|(name, _)| name.starts_with(prefix)) {
                all.insert(name.clone(), change.value.clone());
            }
        }
        let without = |name: Vec<u8>| name[prefix.len()..].to_vec();
        Ok(all
            .into_iter()
            .filter_map(|(name, value)| Some((without(name), value?)))
            .collect())
    }

    /// What is to be in the next checkpoint; `None` while one is under way.
    pub(super) fn freeze(&self) -> Option<Arc<Changes>> {
        let mut state = self.state();
        if state.frozen.is_some() {
            return None;
        }
        let frozen = Arc::new(std::mem::take(&mut state.fresh));
        state.fresh_bytes = 0;
        state.frozen = Some(frozen.clone());
        Some(frozen)
    }

    /// Writes a checkpoint and syncs it. After an error it is to be tried again with the same.
    pub(super) fn checkpoint(&self, changes: &Changes, mark: Mark) -> Result<(), BufferError> {
        let open = self.state().store.clone();
        let store = match open {
            Some(store) => store,
            None => {
                let store = Arc::new(Store::open(&self.dir)?);
                self.state().store = Some(store.clone());
                store
            }
        };
        // Readers find the same changes in `frozen` meanwhile.
        let applied = store.apply(changes, mark, self.epoch);
        let mut state = self.state();
        match applied {
            Ok(()) => {
                state.frozen = None;
                Ok(())
            }
            Err(error) => {
                state.store = None;
                Err(match error {
                    StoreError::Sled(source) => self.sled_error(source),
                    StoreError::Io(source) => BufferError::Io {
                        path: self.dir.clone(),
                        source,
                    },
                })
            }
        }
    }

    /// Bytes of sled's files.
    pub(super) fn bytes(&self) -> u64 {
        let state = self.state();
        state
            .store
            .as_ref()
            .and_then(|store| store.tree.size_on_disk().ok())
            .unwrap_or(0)
    }

    fn sled_error(&self, source: sled::Error) -> BufferError {
        BufferError::Sled {
            path: self.dir.clone(),
            source,
        }
    }
}

impl State {
    fn store(&self, dir: &Path) -> Result<&Arc<Store>, BufferError> {
        self.store.as_ref().ok_or_else(|| BufferError::Io {
            path: dir.to_owned(),
            source: std::io::Error::other("the values cannot be read until the disk can be written again"),
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum StoreError {
    #[error("{0}")]
    Sled(#[from] sled::Error),
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

impl Store {
    fn open(dir: &Path) -> Result<Self, BufferError> {
        let sled_error = |source| BufferError::Sled {
            path: dir.to_owned(),
            source,
        };
        let io = |source| BufferError::Io {
            path: dir.to_owned(),
            source,
        };
        std::fs::create_dir_all(dir).map_err(io)?;
        let config = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        let until = Instant::now() + LOCK_WAIT;
        let tree = loop {
            match config.open() {
                Err(sled::Error::Io(error)) if is_locked(&error) && Instant::now() < until => {
                    collect_garbage();
                    std::thread::sleep(LOCK_POLL);
                }
                outcome => break outcome.map_err(sled_error)?,
            }
        };
        let file = File::options()
            .read(true)
            .write(true)
            .open(dir.join("db"))
            .map_err(io)?;
        let mut in_parts = BTreeSet::new();
        for key in tree.scan_prefix(b"p").keys() {
            let key = key.map_err(sled_error)?;
            if let Some((name, _)) = key.get(3..).and_then(|rest| rest.split_last_chunk::<2>()) {
                in_parts.insert(name.to_vec());
            }
        }
        Ok(Self {
            tree,
            file,
            in_parts: Mutex::new(in_parts),
        })
    }

    fn get(&self, name: &[u8]) -> sled::Result<Option<Vec<u8>>> {
        match self.tree.get(value_key(name))? {
            Some(stored) => self.whole(name, &stored),
            None => Ok(None),
        }
    }

    fn scan(&self, prefix: &[u8]) -> sled::Result<Vec<NamedValue>> {
        let mut all = Vec::new();
        for found in self.tree.scan_prefix(value_key(prefix)) {
            let (key, stored) = found?;
            let name = key[1..].to_vec();
            if let Some(value) = self.whole(&name, &stored)? {
                all.push((name, value));
            }
        }
        Ok(all)
    }

    fn whole(&self, name: &[u8], stored: &[u8]) -> sled::Result<Option<Vec<u8>>> {
        let parts = stored
            .strip_prefix(&IN_PARTS[..])
            .and_then(|parts| <[u8; 2]>::try_from(parts).ok());
        let Some(parts) = parts.filter(|_| self.in_parts().contains(name)) else {
            return Ok(Some(named::unwrap(stored).to_vec()));
        };
        let mut value = Vec::new();
        for part in 0..u16::from_be_bytes(parts) {
            match self.tree.get(part_key(name, part))? {
                Some(piece) => value.extend_from_slice(&piece),
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    fn in_parts(&self) -> MutexGuard<'_, BTreeSet<Vec<u8>>> {
        self.in_parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes changes, and then where the log stands. They need not be atomic: what is there of a checkpoint that was not
    /// finished is replayed over from the log.
    fn apply(&self, changes: &Changes, mark: Mark, epoch: u32) -> Result<(), StoreError> {
        let mut in_parts = self.in_parts();
        let mut batch = sled::Batch::default();
        for (n, (name, Change { value, put })) in changes.iter().enumerate() {
            if in_parts.remove(name) {
                let mut prefix = part_key(name, 0);
                prefix.truncate(prefix.len() - 2);
                for key in self.tree.scan_prefix(prefix).keys() {
                    batch.remove(key?);
                }
            }
            match value {
                None => batch.remove(value_key(name)),
                Some(value) if *put && named::fits(name, value) => {
                    batch.insert(value_key(name), named::wrap(epoch, name, value));
                }
                Some(value) if value.len() <= PART_BYTES => {
                    batch.insert(value_key(name), value.as_slice());
                }
                Some(value) => {
                    let mut parts = 0;
                    for piece in value.chunks(PART_BYTES) {
                        batch.insert(part_key(name, parts), piece);
                        parts += 1;
                    }
                    batch.insert(value_key(name), [&IN_PARTS[..], &parts.to_be_bytes()].concat());
                    in_parts.insert(name.clone());
                }
            }
            if n % BATCH == BATCH - 1 {
                self.tree.apply_batch(std::mem::take(&mut batch))?;
                collect_garbage();
            }
        }
        self.tree.apply_batch(batch)?;
        self.sync()?;
        let mut marks = sled::Batch::default();
        for (key, number) in [
            ("msegment", mark.segment),
            ("mnext", mark.next),
            ("mhead", mark.head),
        ] {
            marks.insert(key.as_bytes(), &number.to_be_bytes());
        }
        marks.insert(b"mepoch", &epoch.to_be_bytes());
        self.tree.apply_batch(marks)?;
        self.sync()?;
        collect_garbage();
        Ok(())
    }

    fn sync(&self) -> Result<(), StoreError> {
        self.tree.flush()?;
        // sled's own flush ends with `sync_file_range`, which is no protection against a power cut.
        self.file.sync_data()?;
        Ok(())
    }
}

/// Frees what sled has replaced. It leaves that to crossbeam's epochs, which free a little at every 128th operation of a
/// thread; a checkpoint replaces pages in fewer and larger ones, and without this the memory of a busy day grew by 35 MB
/// at each.
fn collect_garbage() {
    for _ in 0..GARBAGE_ROUNDS {
        crossbeam_epoch::pin().flush();
    }
}

/// sled has no error of its own for it.
fn is_locked(error: &std::io::Error) -> bool {
    error.to_string().starts_with("could not acquire lock")
}

fn value_key(name: &[u8]) -> Vec<u8> {
    [b"c", name].concat()
}

fn part_key(name: &[u8], part: u16) -> Vec<u8> {
    let len = u16::try_from(name.len()).expect("names are far below 64 KiB");
    [b"p", &len.to_be_bytes()[..], name, &part.to_be_bytes()].concat()
}

/// sled writes its file `conf` once and never syncs it: with that file cut off nothing else can be opened any more. And
/// a new file is only found again after a power cut when its folder is synced, and that folder's own.
fn sync_new(dir: &Path) -> std::io::Result<()> {
    File::open(dir.join("conf"))?.sync_all()?;
    for folder in dir
        .ancestors()
        .take(3)
        .filter(|folder| !folder.as_os_str().is_empty())
    {
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
