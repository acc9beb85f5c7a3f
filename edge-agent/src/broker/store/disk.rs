//! The sled database of the store.
//!
//! After [`Disk::commit`] the changes survive a power cut: sled 0.34's own flush does not call fdatasync, so its file is
//! synced here. A panic of sled over a damaged file is an error like others. It knows keys and values, and nothing of
//! what they mean.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use super::journal::Change;

/// sled moves a page above a quarter of its segment size into a file of its own that it never syncs. A leaf holds at
/// most some twenty values of [`PART_BYTES`], 100 KiB, so 1 MiB keeps every page where it is safe.
const SEGMENT_BYTES: usize = 1024 * 1024;
/// A longer value is stored in parts.
const PART_BYTES: usize = 4 * 1024;
/// sled's page cache. Everything is read once at start, and afterwards only written.
const CACHE_BYTES: u64 = 2 * 1024 * 1024;

/// A file in the store's folder, made when all the others are safe from a power cut, and before anything is committed.
const COMPLETE: &str = "complete";

/// Why the store cannot be opened or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// sled's own error.
    #[error("{path}: {source}")]
    Sled {
        /// The store's folder.
        path: PathBuf,
        /// What sled says.
        source: sled::Error,
    },
    /// An error of the file system.
    #[error("{path}: {source}")]
    Io {
        /// The store's folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// sled panicked over what it found.
    #[error("{path}: sled panicked")]
    Panicked {
        /// The store's folder.
        path: PathBuf,
    },
}

impl StoreError {
    /// True when the disk has no room.
    pub fn is_full_disk(&self) -> bool {
        match self {
            StoreError::Io { source, .. }
            | StoreError::Sled {
                source: sled::Error::Io(source),
                ..
            } => source.kind() == std::io::ErrorKind::StorageFull,
            StoreError::Sled { .. } | StoreError::Panicked { .. } => false,
        }
    }

    /// True when the files are damaged, so that opening them again cannot help. A full disk or a missing right is no
    /// damage.
    pub fn is_damage(&self) -> bool {
        use std::io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
        match self {
            StoreError::Panicked { .. } => true,
            StoreError::Io { .. } => false,
            StoreError::Sled {
                source: sled::Error::Io(error),
                ..
            } => matches!(error.kind(), InvalidData | InvalidInput | UnexpectedEof),
            StoreError::Sled { .. } => true,
        }
    }
}

/// Takes away sled's snapshots, which only make a start quicker; answers whether there were any. A disk that was full while
/// one was written leaves it empty, and then sled takes the whole database for damaged.
pub fn drop_snapshots(path: &Path) -> bool {
    let mut dropped = false;
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            tracing::warn!(file = %entry.path().display(), "the store of sessions is read without its snapshot");
            dropped |= std::fs::remove_file(entry.path()).is_ok();
        }
    }
    dropped
}

/// Whether the power went while the store was made: sled writes and syncs its files one after the other. Nothing was ever
/// committed to it.
pub fn is_incomplete(path: &Path) -> bool {
    path.exists() && !path.join(COMPLETE).exists()
}

/// Values by their keys.
pub type Values = BTreeMap<Vec<u8>, Vec<u8>>;

/// The open database.
pub struct Disk {
    path: PathBuf,
    tree: sled::Db,
    data_file: File,
}

impl Disk {
    /// Opens or makes the database in `path`.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        catch_unwind(AssertUnwindSafe(|| Self::open_in(path)))
            .unwrap_or_else(|_| Err(StoreError::Panicked { path: path.into() }))
    }

    fn open_in(path: &Path) -> Result<Self, StoreError> {
        let io = |source| StoreError::Io {
            path: path.into(),
            source,
        };
        std::fs::create_dir_all(path).map_err(io)?;
        let tree = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput)
            .open()
            .map_err(|source| StoreError::Sled {
                path: path.into(),
                source,
            })?;
        sync_names(path).map_err(io)?;
        let data_file = File::options()
            .read(true)
            .write(true)
            .open(path.join("db"))
            .map_err(io)?;
        if is_incomplete(path) {
            let complete = || {
                data_file.sync_all()?;
                File::create(path.join(COMPLETE))?.sync_all()?;
                File::open(path)?.sync_all()
            };
            complete().map_err(io)?;
        }
        Ok(Self {
            path: path.into(),
            tree,
            data_file,
        })
    }

    /// Everything there is. The second value counts what was not whole.
    pub fn read(&self) -> Result<(Values, u64), StoreError> {
        catch_unwind(AssertUnwindSafe(|| self.read_all())).unwrap_or_else(|_| Err(self.panicked()))
    }

    fn read_all(&self) -> Result<(Values, u64), StoreError> {
        let mut found: BTreeMap<Vec<u8>, (usize, Vec<u8>)> = BTreeMap::new();
        for entry in self.tree.iter() {
            let (key, part) = entry.map_err(|source| self.sled(source))?;
            let Some((key, number)) = key.split_last_chunk::<2>() else {
                continue;
            };
            if *number != [0, 0] {
                // Parts come in their order, behind the first.
                if let Some((_, value)) = found.get_mut(key) {
                    value.extend_from_slice(&part);
                }
            } else if let Some((length, head)) = part.split_first_chunk::<4>() {
                found.insert(
                    key.to_vec(),
                    (u32::from_be_bytes(*length) as usize, head.to_vec()),
                );
            }
        }
        let count = found.len();
        let whole: Values = found
            .into_iter()
            .filter(|(_, (length, value))| *length == value.len())
            .map(|(key, (_, value))| (key, value))
            .collect();
        let broken = (count - whole.len()) as u64;
        Ok((whole, broken))
    }

    /// One atomic batch, then flush and fdatasync.
    pub fn commit(&self, changes: &HashMap<Vec<u8>, Change>) -> Result<(), StoreError> {
        catch_unwind(AssertUnwindSafe(|| self.commit_all(changes))).unwrap_or_else(|_| Err(self.panicked()))
    }

    fn commit_all(&self, changes: &HashMap<Vec<u8>, Change>) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, change) in changes {
            let before = if change.is_fresh() { 0 } else { self.parts_of(key)? };
            let parts = change.value.as_deref().map(parts).unwrap_or_default();
            for (number, part) in parts.iter().enumerate() {
                batch.insert(part_key(key, number), part.as_slice());
            }
            (parts.len()..before).for_each(|number| batch.remove(part_key(key, number)));
        }
        self.tree.apply_batch(batch).map_err(|source| self.sled(source))?;
        self.tree.flush().map_err(|source| self.sled(source))?;
        self.data_file.sync_data().map_err(|source| StoreError::Io {
            path: self.path.clone(),
            source,
        })
    }

    /// How many parts a key has on disk.
    fn parts_of(&self, key: &[u8]) -> Result<usize, StoreError> {
        let first = self
            .tree
            .get(part_key(key, 0))
            .map_err(|source| self.sled(source))?;
        let length = first.and_then(|part| Some(u32::from_be_bytes(*part.first_chunk()?)));
        Ok(length.map_or(0, |length| (4 + length as usize).div_ceil(PART_BYTES)))
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.tree.size_on_disk().unwrap_or(0)
    }

    fn sled(&self, source: sled::Error) -> StoreError {
        StoreError::Sled {
            path: self.path.clone(),
            source,
        }
    }

    fn panicked(&self) -> StoreError {
        StoreError::Panicked {
            path: self.path.clone(),
        }
    }
}

fn part_key(key: &[u8], number: usize) -> Vec<u8> {
    let number = u16::try_from(number).expect("a packet has far fewer parts");
    let mut out = key.to_vec();
    out.extend_from_slice(&number.to_be_bytes());
    out
}

/// A value behind its length, cut into parts.
fn parts(value: &[u8]) -> Vec<Vec<u8>> {
    let length = u32::try_from(value.len()).expect("a packet is far shorter");
    let mut whole = length.to_be_bytes().to_vec();
    whole.extend_from_slice(value);
    whole.chunks(PART_BYTES).map(<[u8]>::to_vec).collect()
}

/// sled writes its file `conf` once and never syncs it, and without it nothing can be opened; a new file is only found
/// again after a power cut when its folder is synced, and that folder's own.
fn sync_names(path: &Path) -> std::io::Result<()> {
    File::open(path.join("conf"))?.sync_all()?;
    File::open(path)?.sync_all()?;
    match path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}
