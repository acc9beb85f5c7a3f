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
    group::{self, HEADER_BYTES, Header, PART_BYTES, unpack},
    named,
};

/// Read at a time.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// What begins this close to the end of a window may not be whole in it.
const OVERLAP_BYTES: usize = HEADER_BYTES + PART_BYTES;
const _: () = assert!(named::MAX_BYTES <= OVERLAP_BYTES);

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A group of entries.
    Entries {
        /// The buffer it was written in.
        epoch: u32,
        /// Its entries with their old sequences.
        entries: Vec<Entry>,
    },
    /// A small durable value.
    Value {
        /// The buffer it was written in.
        epoch: u32,
        /// Its name.
        name: Vec<u8>,
        /// The value; older ones of the same name may come before or after.
        value: Vec<u8>,
    },
}

/// Calls `found` for everything whole in the buffer in `dir`; it answers false to stop. Errors are those of
/// reading the file; a file that is not there has nothing.
pub fn salvage(dir: &Path, mut found: impl FnMut(Found) -> bool) -> std::io::Result<()> {
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
            if let Some((what, len)) = found_at(&window[start..]) {
                at = start + len;
                if !found(what) {
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
    bytes
        .windows(4)
        .position(|w| w == group::MAGIC || w == named::MAGIC)
}

fn found_at(bytes: &[u8]) -> Option<(Found, usize)> {
    if let Some((named, len)) = named::find(bytes) {
        let (name, value) = (named.name.to_vec(), named.value.to_vec());
        return Some((
            Found::Value {
                epoch: named.epoch,
                name,
                value,
            },
            len,
        ));
    }
    let header = Header::decode(bytes).ok()?;
    if header.parts != 1 {
        return None;
    }
    let len = HEADER_BYTES + header.packed_len;
    let entries = unpack(&header, bytes, bytes.get(HEADER_BYTES..len)?).ok()?;
    Some((
        Found::Entries {
            epoch: header.epoch,
            entries,
        },
        len,
    ))
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
        salvage(dir, |found| {
            if let Found::Entries { entries, .. } = found {
                all.extend(entries.into_iter().map(|e| (e.sequence.0, e.bytes.to_vec())));
            }
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

    #[tokio::test]
    async fn small_values_are_found_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        let epoch = buffer.epoch();
        buffer
            .put(vec![(b"clock/7".to_vec(), Some(b"offset".to_vec()))])
            .await
            .unwrap();
        assert_eq!(buffer.value(b"clock/7").unwrap().as_deref(), Some(&b"offset"[..]));
        buffer.close();
        drop(buffer);
        let mut values = Vec::new();
        salvage(dir.path(), |found| {
            if let Found::Value { epoch, name, value } = found {
                values.push((epoch, name, value));
            }
            true
        })
        .unwrap();
        assert!(
            values.contains(&(epoch, b"clock/7".to_vec(), b"offset".to_vec())),
            "{values:?}"
        );
    }

    #[test]
    fn a_buffer_that_is_not_there_or_empty_has_nothing() {
        let dir = tempfile::tempdir().unwrap();
        assert!(collect(dir.path()).is_empty());
        std::fs::write(dir.path().join("db"), b"HKG1HKG1").unwrap();
        assert!(collect(dir.path()).is_empty());
    }
}
