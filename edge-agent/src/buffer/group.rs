//! Groups: how entries stood in sled, in buffers of the older form. They are read and no longer written.
//!
//! ```text
//! value of part 0:  magic 4 bytes | epoch u32 | first sequence u64 | parts u16 | count u32 | raw length u32 | packed length u32
//!                   | crc32 of the header so far and of the packed bytes u32 | first piece of the packed bytes
//! value of part n:  piece n
//! packed:           (length u32 | bytes) for each entry, lz4 block compressed
//! ```
//!
//! The header names everything that is needed to find and trust a group in a file sled can no longer open.

use bytes::{Buf, Bytes};

use super::{Batch, Entry, Sequence};

/// Begins every group; the digit is the version of the form.
pub(super) const MAGIC: [u8; 4] = *b"HKG1";
/// Length of a group's header.
pub(super) const HEADER_BYTES: usize = 4 + 4 + 8 + 2 + 4 + 4 + 4 + 4;

/// Largest value of a group.
pub(super) const PART_BYTES: usize = 32 * 1024;

/// Longest group when uncompressed: one captured payload of 256 KiB, its topic and times, and room for the
/// entries that came before it. Guards the reader against a damaged length.
const MAX_RAW_BYTES: usize = 1024 * 1024;

/// A group that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group at sequence {first}: {what}")]
pub struct CorruptGroup {
    /// First sequence of the group.
    pub first: u64,
    /// How many entries it says it had; 0 when even that is unreadable.
    pub count: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

fn key(first: u64, part: u16) -> [u8; 11] {
    let mut key = [0; 11];
    key[0] = b'g';
    key[1..9].copy_from_slice(&first.to_be_bytes());
    key[9..].copy_from_slice(&part.to_be_bytes());
    key
}

fn parse_key(key: &[u8]) -> Option<(u64, u16)> {
    let key: [u8; 11] = key.try_into().ok()?;
    let first = u64::from_be_bytes(key[1..9].try_into().ok()?);
    let part = u16::from_be_bytes(key[9..].try_into().ok()?);
    (key[0] == b'g').then_some((first, part))
}

/// Adds a group's parts to `batch`, as older versions did.
#[cfg(test)]
pub(super) fn write(batch: &mut sled::Batch, epoch: u32, first: u64, entries: &[&[u8]]) {
    let mut raw = Vec::with_capacity(entries.iter().map(|e| e.len() + 4).sum());
    for entry in entries {
        let len = u32::try_from(entry.len()).expect("an entry is far below 4 GiB");
        raw.extend_from_slice(&len.to_be_bytes());
        raw.extend_from_slice(entry);
    }
    let packed = lz4_flex::block::compress(&raw);
    let rest = packed.len().saturating_sub(PART_BYTES);
    let first_len = packed.len().min(PART_BYTES);
    let header = Header {
        epoch,
        first,
        parts: u16::try_from(1 + rest.div_ceil(PART_BYTES)).expect("a group is far below 65,535 parts"),
        count: u32::try_from(entries.len()).expect("a group has far below 4 billion entries"),
        raw_len: raw.len(),
        packed_len: packed.len(),
    };
    let mut value = header.encode(&packed);
    value.extend_from_slice(&packed[..first_len]);
    batch.insert(&key(first, 0), value);
    for (n, piece) in packed[first_len..].chunks(PART_BYTES).enumerate() {
        let part = u16::try_from(n + 1).expect("a group is far below 65,535 parts");
        batch.insert(&key(first, part), piece);
    }
}

/// What a group says of itself.
pub(super) struct Header {
    /// The buffer it was written in.
    pub epoch: u32,
    /// First sequence.
    pub first: u64,
    /// Values it is spread over.
    pub parts: u16,
    /// Entries in it.
    pub count: u32,
    raw_len: usize,
    /// Bytes of it, compressed.
    pub packed_len: usize,
}

impl Header {
    #[cfg(test)]
    fn encode(&self, packed: &[u8]) -> Vec<u8> {
        let mut value = Vec::with_capacity(HEADER_BYTES + packed.len().min(PART_BYTES));
        value.extend_from_slice(&MAGIC);
        value.extend_from_slice(&self.epoch.to_be_bytes());
        value.extend_from_slice(&self.first.to_be_bytes());
        value.extend_from_slice(&self.parts.to_be_bytes());
        value.extend_from_slice(&self.count.to_be_bytes());
        value.extend_from_slice(&(self.raw_len as u32).to_be_bytes());
        value.extend_from_slice(&(self.packed_len as u32).to_be_bytes());
        let crc = checksum(&value, packed);
        value.extend_from_slice(&crc.to_be_bytes());
        value
    }

    /// Reads the header at the beginning of `value`; the checksum is checked with the packed bytes.
    pub(super) fn decode(value: &[u8]) -> Result<Self, &'static str> {
        if value.len() < HEADER_BYTES {
            return Err("header is cut off");
        }
        if value[..MAGIC.len()] != MAGIC {
            return Err("no group, or of an unknown version");
        }
        let mut value = &value[MAGIC.len()..];
        let header = Self {
            epoch: value.get_u32(),
            first: value.get_u64(),
            parts: value.get_u16(),
            count: value.get_u32(),
            raw_len: value.get_u32() as usize,
            packed_len: value.get_u32() as usize,
        };
        let parts = 1 + header.packed_len.saturating_sub(PART_BYTES).div_ceil(PART_BYTES);
        let possible = header.raw_len <= MAX_RAW_BYTES
            && header.packed_len <= 2 * MAX_RAW_BYTES
            && usize::from(header.parts) == parts
            && header.count as usize <= header.raw_len
            && header.first.checked_add(header.count.into()).is_some();
        if possible {
            Ok(header)
        } else {
            Err("header is impossible")
        }
    }
}

fn checksum(header: &[u8], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(packed);
    hasher.finalize()
}

/// Unpacks a group into its entries. `head` is the value of part 0, `packed` all packed bytes.
pub(super) fn unpack(header: &Header, head: &[u8], packed: &[u8]) -> Result<Vec<Entry>, &'static str> {
    let (fields, crc) = head[..HEADER_BYTES].split_at(HEADER_BYTES - 4);
    if crc != checksum(fields, packed).to_be_bytes() {
        return Err("checksum does not match");
    }
    let raw = lz4_flex::block::decompress(packed, header.raw_len).map_err(|_| "compression is damaged")?;
    let mut raw = Bytes::from(raw);
    let mut entries = Vec::with_capacity(header.count as usize);
    for n in 0..u64::from(header.count) {
        if raw.len() < 4 {
            return Err("entry is cut off");
        }
        let len = raw.get_u32() as usize;
        if len > raw.len() {
            return Err("entry is cut off");
        }
        entries.push(Entry {
            sequence: Sequence(header.first + n),
            bytes: raw.split_to(len),
        });
    }
    Ok(entries)
}

/// First sequence in the tree.
pub(super) fn first_sequence(tree: &sled::Tree) -> sled::Result<Option<u64>> {
    let first = tree.scan_prefix(b"g").keys().next().transpose()?;
    Ok(first.and_then(|key| parse_key(&key)).map(|(first, _)| first))
}

/// The sequence after the last group in the tree.
pub(super) fn last_end(tree: &sled::Tree) -> sled::Result<Option<u64>> {
    let Some((last_key, _)) = tree.scan_prefix(b"g").next_back().transpose()? else {
        return Ok(None);
    };
    let Some((first, _)) = parse_key(&last_key) else {
        return Ok(None);
    };
    let count = match tree.get(key(first, 0))? {
        Some(value) => Header::decode(&value).map_or(1, |h| u64::from(h.count)),
        None => 1,
    };
    Ok(Some(first + count))
}

/// About `max_bytes` of entries from `from` on and before `end`.
pub(super) fn read(
    tree: &sled::Tree,
    from: Sequence,
    end: Sequence,
    max_bytes: usize,
) -> sled::Result<Batch> {
    let mut batch = Batch::default();
    let mut bytes = 0;
    // The group that holds `from` begins at or before it.
    if from >= end {
        return Ok(batch);
    }
    let start = match tree
        .range(key(0, 0)..=key(from.0, u16::MAX))
        .next_back()
        .transpose()?
    {
        Some((k, _)) => parse_key(&k).map_or(from.0, |(first, _)| first),
        None => from.0,
    };
    let mut groups = tree.range(key(start, 0)..key(end.0, 0));
    let mut pending = groups.next().transpose()?;
    while let Some((k, value)) = pending.take() {
        let Some((first, part)) = parse_key(&k) else {
            pending = groups.next().transpose()?;
            continue;
        };
        if bytes >= max_bytes && !batch.entries.is_empty() {
            break;
        }
        let mut pieces = vec![value];
        let mut parts_seen = vec![part];
        for found in groups.by_ref() {
            let (k, value) = found?;
            match parse_key(&k) {
                Some((same, part)) if same == first => {
                    parts_seen.push(part);
                    pieces.push(value);
                }
                _ => {
                    pending = Some((k, value));
                    break;
                }
            }
        }
        match assemble(first, &parts_seen, &pieces) {
            Ok(entries) => {
                batch.next = entries.last().map(|e| e.sequence.next()).or(batch.next);
                for entry in entries.into_iter().filter(|e| e.sequence >= from) {
                    bytes += entry.bytes.len();
                    batch.entries.push(entry);
                }
            }
            Err((count, what)) => {
                batch.next = Some(Sequence(first + count.max(1)));
                // A group before `from` was reported when it was passed.
                if first >= from.0 {
                    batch.corrupt.push(CorruptGroup { first, count, what });
                }
            }
        }
    }
    if batch.entries.is_empty() && batch.corrupt.is_empty() {
        // What is left are sequences that a failed commit has burnt: a reader that stopped before them would never
        // see the buffer empty.
        batch.next = Some(end);
    }
    Ok(batch)
}

fn assemble(first: u64, parts: &[u16], pieces: &[sled::IVec]) -> Result<Vec<Entry>, (u64, &'static str)> {
    if parts[0] != 0 {
        return Err((0, "first part is missing"));
    }
    let head = Header::decode(&pieces[0]).map_err(|what| (0, what))?;
    let count = u64::from(head.count);
    if head.first != first {
        return Err((0, "group stands in the wrong place"));
    }
    if usize::from(head.parts) != pieces.len() || parts.windows(2).any(|w| w[1] != w[0] + 1) {
        return Err((count, "a part is missing"));
    }
    let unpacked = if pieces.len() == 1 {
        unpack(&head, &pieces[0], &pieces[0][HEADER_BYTES..])
    } else {
        let mut packed = pieces[0][HEADER_BYTES..].to_vec();
        pieces[1..]
            .iter()
            .for_each(|piece| packed.extend_from_slice(piece));
        unpack(&head, &pieces[0], &packed)
    };
    unpacked.map_err(|what| (count, what))
}
