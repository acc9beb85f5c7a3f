//! A buffer of the older form, in which the entries stood in sled: it is read to its end, and then deleted.
//!
//! The older form is sled's files in the buffer's own folder, groups of entries under `g` and small values under `c`
//! (see `group`). Its values are copied once; its groups stay where they are. Nothing is written to it.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    Batch, BufferError, Sequence,
    frame::Value,
    group, named,
    values::{Initial, Mark},
};

/// The segment size older buffers were made with; sled opens them with no other.
const SEGMENT_BYTES: usize = 4 * 1024 * 1024;
const CACHE_BYTES: u64 = 16 * 1024 * 1024;

pub(super) struct Older {
    dir: PathBuf,
    tree: sled::Db,
    /// First sequence in it.
    pub first: u64,
    /// The sequence after its last entry.
    pub end: u64,
}

impl Older {
    /// The older buffer in `dir`, if there is one.
    pub(super) fn open(dir: &Path) -> Result<Option<Self>, BufferError> {
        if !dir.join("db").exists() {
            return Ok(None);
        }
        let sled_error = |source| BufferError::Sled {
            path: dir.to_owned(),
            source,
        };
        let tree = sled::Config::new()
            .path(dir)
            .cache_capacity(CACHE_BYTES)
            .segment_size(SEGMENT_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput)
            .open()
            .map_err(sled_error)?;
        let stored = match tree.get(b"mnext").map_err(sled_error)? {
            Some(value) => {
                let value = <[u8; 8]>::try_from(&value[..]).map_err(|_| BufferError::Malformed("next"))?;
                u64::from_be_bytes(value)
            }
            None => 1,
        };
        let end = group::last_end(&tree)
            .map_err(sled_error)?
            .map_or(stored, |end| end.max(stored));
        let first = group::first_sequence(&tree).map_err(sled_error)?.unwrap_or(end);
        Ok(Some(Self {
            dir: dir.to_owned(),
            tree,
            first,
            end,
        }))
    }

    /// What a new buffer takes over of it.
    pub(super) fn initial(&self) -> Result<Option<Initial>, BufferError> {
        let sled_error = |source| BufferError::Sled {
            path: self.dir.clone(),
            source,
        };
        let Some(epoch) = self.tree.get(b"mepoch").map_err(sled_error)? else {
            return Ok(None);
        };
        let epoch = <[u8; 4]>::try_from(&epoch[..]).map_err(|_| BufferError::Malformed("epoch"))?;
        let mut values = Vec::new();
        for found in self.tree.scan_prefix(b"c") {
            let (key, stored) = found.map_err(sled_error)?;
            let value = Some(named::unwrap(&stored).to_vec());
            values.push(Value {
                name: key[1..].to_vec(),
                value,
                put: named::find(&stored).is_some(),
            });
        }
        let mark = Mark {
            segment: 0,
            next: self.end,
            head: self.first,
        };
        Ok(Some(Initial {
            epoch: u32::from_be_bytes(epoch),
            values,
            mark,
        }))
    }

    pub(super) fn read(&self, from: u64, max_bytes: usize) -> Result<Batch, BufferError> {
        group::read(&self.tree, Sequence(from), Sequence(self.end), max_bytes).map_err(|source| {
            BufferError::Sled {
                path: self.dir.clone(),
                source,
            }
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.tree.size_on_disk().unwrap_or(0)
    }

    /// Deletes its files: everything in it was removed.
    pub(super) fn delete(self) -> io::Result<()> {
        let Self { dir, tree, .. } = self;
        drop(tree);
        // `db` first: without it no older buffer is looked for, and what else is left does no harm.
        std::fs::remove_file(dir.join("db"))?;
        for entry in std::fs::read_dir(&dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name == "conf" || name.starts_with("snap.") {
                std::fs::remove_file(entry.path())?;
            } else if name == "blobs" {
                std::fs::remove_dir_all(entry.path())?;
            }
        }
        Ok(())
    }
}
