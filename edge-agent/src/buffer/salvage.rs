//! What can still be read of a buffer sled cannot open.
//!
//! The file is read from front to back and every group whose checksum holds is taken, wherever it stands. That may
//! bring back entries that were removed long ago: they carry their old identity, so whoever gets them twice knows.
//! Groups spread over several values (a payload of more than 32 KiB compressed) are not found. Nothing is written
//! here, and memory stays at one window whatever the file's size.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use super::{
    Entry,
    group::{HEADER_BYTES, Header, MAGIC, PART_BYTES, unpack},
};

/// Read at a time.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// A group may begin this close to the end of a window.
const OVERLAP_BYTES: usize = HEADER_BYTES + PART_BYTES;

/// A group found.
#[derive(Debug, PartialEq, Eq)]
pub struct Salvaged {
    /// The buffer it was written in.
    pub epoch: u32,
    /// Its entries with their old sequences.
    pub entries: Vec<Entry>,
}

/// Calls `found` for every group in the buffer in `dir`; it answers false to stop. Errors are those of reading the
/// file; a file that is not there has no groups.
pub fn salvage(dir: &Path, mut found: impl FnMut(Salvaged) -> bool) -> std::io::Result<()> {
    let mut file = match File::open(dir.join("db")) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let mut window = Vec::with_capacity(WINDOW_BYTES);
    loop {
        let read = file
            .by_ref()
            .take((WINDOW_BYTES - window.len()) as u64)
            .read_to_end(&mut window)?;
        let last = read == 0;
        // Only what is sure to be whole is looked at, but at the end of the file everything.
        let end = if last {
            window.len()
        } else {
            window.len().saturating_sub(OVERLAP_BYTES)
        };
        let mut at = 0;
        while let Some(next) = find_magic(&window[at..]) {
            let start = at + next;
            if start >= end {
                break;
            }
            at = start + 1;
            if let Some((salvaged, len)) = group_at(&window[start..]) {
                at = start + len;
                if !found(salvaged) {
                    return Ok(());
                }
            }
        }
        if last {
            return Ok(());
        }
        window.drain(..at.max(end).min(window.len()));
    }
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    bytes.windows(MAGIC.len()).position(|w| w == MAGIC)
}

fn group_at(bytes: &[u8]) -> Option<(Salvaged, usize)> {
    let header = Header::decode(bytes).ok()?;
    if header.parts != 1 {
        return None;
    }
    let len = HEADER_BYTES + header.packed_len;
    let entries = unpack(&header, bytes, bytes.get(HEADER_BYTES..len)?).ok()?;
    let epoch = header.epoch;
    Some((Salvaged { epoch, entries }, len))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::buffer::{Buffer, Limits};

    fn limits() -> Limits {
        let commit_interval = Duration::from_millis(1);
        Limits {
            max_bytes: 1 << 30,
            commit_interval,
            commit_bytes: 32 * 1024,
        }
    }

    fn collect(dir: &Path) -> BTreeMap<u64, Vec<u8>> {
        let mut all = BTreeMap::new();
        salvage(dir, |group| {
            all.extend(
                group
                    .entries
                    .into_iter()
                    .map(|e| (e.sequence.0, e.bytes.to_vec())),
            );
            true
        })
        .unwrap();
        all
    }

    #[tokio::test]
    async fn every_group_is_found_without_sled() {
        let dir = tempfile::tempdir().unwrap();
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        let mut want = BTreeMap::new();
        for n in 1..=400_u64 {
            let bytes: Vec<u8> = (0..20_000).map(|_| rand::random()).collect();
            want.insert(n, bytes.clone());
            buffer.append(bytes).await.unwrap();
        }
        buffer.close();
        drop(buffer);
        assert_eq!(collect(dir.path()), want);
    }

    #[tokio::test]
    async fn damage_costs_the_groups_it_hits_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        for n in 1..=50_u64 {
            buffer.append(format!("entry {n}").into_bytes()).await.unwrap();
        }
        buffer.close();
        drop(buffer);
        let path = dir.path().join("db");
        let mut bytes = std::fs::read(&path).unwrap();
        let mut changed = 0;
        for at in (0..bytes.len()).step_by(4_001) {
            bytes[at] ^= 0xff;
            changed += 1;
        }
        std::fs::write(&path, &bytes).unwrap();
        let found = collect(dir.path());
        assert!(
            found.len() + changed >= 50,
            "{} of 50 found after {changed} damaged bytes",
            found.len()
        );
        for (n, bytes) in found {
            assert_eq!(bytes, format!("entry {n}").into_bytes(), "nothing is invented");
        }
    }

    #[test]
    fn a_buffer_that_is_not_there_or_empty_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(collect(dir.path()).is_empty());
        std::fs::write(dir.path().join("db"), b"HKG1HKG1").unwrap();
        assert!(collect(dir.path()).is_empty());
    }
}
