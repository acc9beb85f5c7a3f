//! Room kept for the day the disk is full.
//!
//! The log's segments are made before they are needed, so a full disk does not hurt them; sled's file grows when it
//! likes. This file holds the room sled needs to write a checkpoint, or to be opened, on a disk that others have filled;
//! the checkpoint then lets segments of the log be used again. It comes back by itself when there is room.

use std::{
    fs::File,
    io,
    path::{Path, PathBuf},
};

/// Several of sled's segments of 512 KiB.
const BALLAST_BYTES: u64 = 4 * 1024 * 1024;
/// On a small disk no more than this part of it.
const SMALLEST_SHARE: u64 = 16;

/// The file.
#[derive(Debug)]
pub(super) struct Ballast {
    path: PathBuf,
    bytes: u64,
}

impl Ballast {
    /// The ballast of the buffer in `dir`; nothing is written yet.
    pub(super) fn new(dir: &Path) -> Self {
        let disk =
            rustix::fs::statvfs(dir).map_or(u64::MAX, |disk| disk.f_blocks.saturating_mul(disk.f_frsize));
        Self {
            path: dir.join("ballast"),
            bytes: BALLAST_BYTES.min(disk / SMALLEST_SHARE),
        }
    }

    /// Bytes others may still write to the disk.
    fn free(&self) -> u64 {
        let dir = self.path.parent().unwrap_or(&self.path);
        rustix::fs::statvfs(dir).map_or(u64::MAX, |disk| disk.f_bavail.saturating_mul(disk.f_frsize))
    }

    /// Gives the room back when the disk has less than that left. Answers whether it did.
    pub(super) fn free_when_needed(&self) -> bool {
        if self.free() >= self.bytes {
            return false;
        }
        match std::fs::remove_file(&self.path) {
            Ok(()) => {
                tracing::warn!(
                    bytes = self.bytes,
                    "the disk is full; the ballast file was deleted to make room for the buffer"
                );
                true
            }
            Err(_) => false,
        }
    }

    /// Takes the room, when the disk has three times as much.
    pub(super) fn restore(&self) {
        if self.path.exists() || self.free() < 3 * self.bytes {
            return;
        }
        let made = File::create(&self.path).and_then(|file| {
            rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.bytes)
                .map_err(io::Error::from)
        });
        if let Err(error) = made {
            tracing::debug!(%error, "there is no ballast file");
            // Half of one is of no use.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
