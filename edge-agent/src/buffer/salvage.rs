//! What can still be read of a buffer that cannot be opened.
//!
//! Every file of it is read from front to back, and every frame of the log, group of the older form and named value whose
//! checksum holds is taken, wherever it stands. That may bring back entries that were removed long ago: they carry their
//! old identity, so whoever gets them twice knows. Groups of the older form that are spread over several values (a payload
//! of more than 32 KiB compressed) are not found. Nothing is written here, and memory stays at one window whatever the
//! file's size.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::Path,
};

use super::{
    Entry,
    frame::{self, MAX_FRAME_BYTES},
    group::{self, unpack},
    named, segment,
};

/// Read at a time.
const WINDOW_BYTES: usize = 4 * 1024 * 1024;
/// What begins this close to the end of a window may not be whole in it.
const OVERLAP_BYTES: usize = MAX_FRAME_BYTES;
const _: () =
    assert!(group::HEADER_BYTES + group::PART_BYTES <= OVERLAP_BYTES && named::MAX_BYTES <= OVERLAP_BYTES);

/// What was found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A group of entries.
    Entries {
        /// The buffer it was written in.
        epoch: u32,
        /// Everything before this sequence was removed when it was written; the older form does not say.
        head: Option<u64>,
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
/// reading the files; a file that is not there has nothing.
pub fn salvage(dir: &Path, mut found: impl FnMut(Found) -> bool) -> std::io::Result<()> {
    let log = dir.join("log");
    let segments = match segment::list(&log) {
        Ok(ids) => ids,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(error),
    };
    let sled = [dir.join("db"), dir.join("values").join("db")];
    for file in sled
        .into_iter()
        .chain(segments.into_iter().map(|id| segment::path(&log, id)))
    {
        match File::open(&file) {
            Ok(file) => {
                if !one(file, &mut found)? {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Answers false when it was told to stop.
fn one(mut file: File, found: &mut impl FnMut(Found) -> bool) -> std::io::Result<bool> {
    let mut window = Vec::new();
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
            if let Some((all, len)) = found_at(&window[start..]) {
                at = start + len;
                if !all.into_iter().all(&mut *found) {
                    return Ok(false);
                }
            }
        }
        if last {
            return Ok(true);
        }
        window.drain(..at.max(end).min(window.len()));
    }
}

fn find_magic(bytes: &[u8]) -> Option<usize> {
    bytes
        .windows(4)
        .position(|w| w[0] == b'H' && (w == group::MAGIC || w == named::MAGIC || w == frame::MAGIC))
}

fn found_at(bytes: &[u8]) -> Option<(Vec<Found>, usize)> {
    if let Some((named, len)) = named::find(bytes) {
        let (name, value) = (named.name.to_vec(), named.value.to_vec());
        return Some((
            vec![Found::Value {
                epoch: named.epoch,
                name,
                value,
            }],
            len,
        ));
    }
    if let Some(frame) = frame::Header::decode(bytes).and_then(|header| frame::decode(header, bytes)) {
        let (epoch, head, len) = (frame.header.epoch, frame.header.head, frame.header.len());
        let values = frame.values.into_iter().filter(|value| value.put);
        let values = values.filter_map(|v| {
            Some(Found::Value {
                epoch,
                name: v.name,
                value: v.value?,
            })
        });
        let entries = Found::Entries {
            epoch,
            head: Some(head),
            entries: frame.entries,
        };
        return Some((values.chain([entries]).collect(), len));
    }
    let header = group::Header::decode(bytes).ok()?;
    if header.parts != 1 {
        return None;
    }
    let len = group::HEADER_BYTES + header.packed_len;
    let entries = unpack(&header, bytes, bytes.get(group::HEADER_BYTES..len)?).ok()?;
    Some((
        vec![Found::Entries {
            epoch: header.epoch,
            head: None,
            entries,
        }],
        len,
    ))
}

/// Looks at every place of `bytes` at which something may begin, as [`salvage`] does; for the fuzzer.
#[cfg(any(test, feature = "fuzz"))]
pub(super) fn look_at(bytes: &[u8]) {
    let mut at = 0;
    while let Some(next) = find_magic(&bytes[at..]) {
        let start = at + next;
        at = start + 1;
        if let Some((_, len)) = found_at(&bytes[start..]) {
            assert!(len <= bytes.len() - start, "more than there is");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use super::*;
    use crate::buffer::{Buffer, Limits, WhenFull, tests::older_buffer};

    fn limits() -> Limits {
        Limits {
            max_bytes: 1 << 30,
            commit_interval: Duration::from_millis(1),
            commit_bytes: 32 * 1024,
            when_full: WhenFull::Reject,
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
    async fn every_frame_is_found_without_opening_the_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        let mut want = BTreeMap::new();
        for n in 1..=400_u64 {
            let size = if n % 50 == 0 { 250_000 } else { 20_000 };
            let bytes: Vec<u8> = (0..size).map(|_| rand::random()).collect();
            want.insert(n, bytes.clone());
            buffer.append(bytes).await.unwrap();
        }
        buffer.close();
        drop(buffer);
        assert_eq!(collect(dir.path()), want);
    }

    #[test]
    fn every_group_of_the_older_form_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let want = older_buffer(dir.path(), 7, 1..=300);
        assert_eq!(collect(dir.path()), want.into_iter().collect());
    }

    #[tokio::test]
    async fn damage_costs_the_frames_it_hits_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        for n in 1..=200_u64 {
            buffer.append(format!("entry {n}").into_bytes()).await.unwrap();
        }
        buffer.close();
        drop(buffer);
        let path = segment::path(&dir.path().join("log"), 1);
        let mut bytes = std::fs::read(&path).unwrap();
        for frame in (0..200).step_by(7) {
            bytes[frame * frame::PAGE_BYTES + 10] ^= 0xff;
        }
        std::fs::write(&path, &bytes).unwrap();
        let found = collect(dir.path());
        assert_eq!(found.len(), 200 - (0..200).step_by(7).count());
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
