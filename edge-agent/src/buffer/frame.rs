//! Frames: how a group commit stands in a segment of the log.
//!
//! ```text
//! magic 4 bytes | epoch u32 | segment u64 | first sequence u64 | head u64 | entries u32 | values u32 | raw length u32
//! | packed length u32 | crc32 of the header so far and of the packed bytes u32 | packed bytes | zeros to the next page
//! packed:  (length u32 | bytes) for each entry, then (kind u8 | name length u16 | value length u32 | name | value) for each
//!          small value; lz4 block compressed
//! ```
//!
//! A frame begins at a page and fills it: a write never touches a page that holds what was acknowledged before, so a
//! torn write cannot hurt it, and no write costs the disk a second page. The header names its segment, so what a segment's
//! file held in an earlier life is told apart, and everything needed to trust a frame found anywhere.

use bytes::{Buf, BufMut, Bytes};

use super::{Entry, Sequence, Side};

/// Begins every frame; the digit is the version of the form.
pub(super) const MAGIC: [u8; 4] = *b"HKF1";
/// Length of a frame's header.
pub(super) const HEADER_BYTES: usize = 4 + 4 + 8 + 8 + 8 + 4 + 4 + 4 + 4 + 4;
/// Frames begin at multiples of this: the page of most disks, cards and kernels.
pub(super) const PAGE_BYTES: usize = 4096;
/// Longest frame when uncompressed: a full group, one captured payload or one large value on top. Guards the reader
/// against a damaged length.
pub(super) const MAX_RAW_BYTES: usize = 1024 * 1024;
/// Longest frame on disk: what does not compress grows a little.
pub(super) const MAX_FRAME_BYTES: usize =
    (HEADER_BYTES + MAX_RAW_BYTES + MAX_RAW_BYTES / 64).next_multiple_of(PAGE_BYTES);

const REMOVED: u8 = 0;
const RIDING: u8 = 1;
const PUT: u8 = 2;

/// What a frame says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// The buffer it was written in.
    pub epoch: u32,
    /// The segment it was written to.
    pub segment: u64,
    /// Sequence of its first entry; of the next one when it has none.
    pub first: u64,
    /// Everything before this was removed when it was written.
    pub head: u64,
    /// Entries in it.
    pub entries: u32,
    values: u32,
    raw_len: usize,
    packed_len: usize,
    crc: u32,
}

/// A small durable value in a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// Its name.
    pub name: Vec<u8>,
    /// The value; `None` removes it.
    pub value: Option<Vec<u8>>,
    /// Written by itself, so that it is to be found when the buffer is salvaged.
    pub put: bool,
}

/// All of a frame.
#[derive(Debug)]
pub(super) struct Frame {
    pub header: Header,
    pub entries: Vec<Entry>,
    pub values: Vec<Value>,
}

/// Where a frame stands, for its header.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub epoch: u32,
    pub segment: u64,
    pub first: u64,
    pub head: u64,
}

/// The bytes of a frame, whole pages. `riding` are values that came with entries, `put` those that came alone.
pub(super) fn encode<'a>(
    place: Place,
    entries: &[&[u8]],
    riding: impl Iterator<Item = &'a Side>,
    put: impl Iterator<Item = &'a Side>,
) -> Vec<u8> {
    let mut raw = Vec::with_capacity(entries.iter().map(|e| e.len() + 4).sum::<usize>() + 64);
    for entry in entries {
        raw.put_u32(length(entry.len()));
        raw.put_slice(entry);
    }
    let mut values = 0;
    let all = riding
        .map(|side| (side, RIDING))
        .chain(put.map(|side| (side, PUT)));
    for ((name, value), kind) in all {
        raw.put_u8(if value.is_some() { kind } else { REMOVED });
        raw.put_u16(u16::try_from(name.len()).expect("names are far below 64 KiB"));
        raw.put_u32(length(value.as_ref().map_or(0, Vec::len)));
        raw.put_slice(name);
        raw.put_slice(value.as_deref().unwrap_or_default());
        values += 1;
    }
    let packed = lz4_flex::block::compress(&raw);
    let mut out = Vec::with_capacity((HEADER_BYTES + packed.len()).next_multiple_of(PAGE_BYTES));
    out.put_slice(&MAGIC);
    out.put_u32(place.epoch);
    out.put_u64(place.segment);
    out.put_u64(place.first);
    out.put_u64(place.head);
    out.put_u32(length(entries.len()));
    out.put_u32(values);
    out.put_u32(length(raw.len()));
    out.put_u32(length(packed.len()));
    let crc = checksum(&out, &packed);
    out.put_u32(crc);
    out.put_slice(&packed);
    out.resize(out.len().next_multiple_of(PAGE_BYTES), 0);
    out
}

fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("a frame is far below 4 GiB")
}

impl Header {
    /// Reads the header at the beginning of `bytes`; its checksum is checked with the packed bytes.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.get(..HEADER_BYTES)?.strip_prefix(&MAGIC[..])?;
        let header = Self {
            epoch: fields.get_u32(),
            segment: fields.get_u64(),
            first: fields.get_u64(),
            head: fields.get_u64(),
            entries: fields.get_u32(),
            values: fields.get_u32(),
            raw_len: fields.get_u32() as usize,
            packed_len: fields.get_u32() as usize,
            crc: fields.get_u32(),
        };
        let possible = header.raw_len <= MAX_RAW_BYTES
            && HEADER_BYTES + header.packed_len <= MAX_FRAME_BYTES
            && header.entries as usize + header.values as usize <= header.raw_len
            && header.first.checked_add(header.entries.into()).is_some();
        possible.then_some(header)
    }

    /// Bytes from the beginning of the frame to the end of what is packed.
    pub(super) fn len(&self) -> usize {
        HEADER_BYTES + self.packed_len
    }

    /// Bytes to the beginning of the next frame.
    pub(super) fn stride(&self) -> usize {
        self.len().next_multiple_of(PAGE_BYTES)
    }

    /// The sequence after its last entry.
    pub(super) fn end(&self) -> u64 {
        self.first + u64::from(self.entries)
    }
}

/// The frame whose header was read from `bytes`, which hold all of it; `None` when it is damaged.
pub(super) fn decode(header: Header, bytes: &[u8]) -> Option<Frame> {
    let packed = bytes.get(HEADER_BYTES..header.len())?;
    if header.crc != checksum(&bytes[..HEADER_BYTES - 4], packed) {
        return None;
    }
    let raw = lz4_flex::block::decompress(packed, header.raw_len).ok()?;
    let mut raw = Bytes::from(raw);
    let mut entries = Vec::with_capacity(header.entries as usize);
    for n in 0..u64::from(header.entries) {
        let len = raw.try_get_u32().ok()? as usize;
        if len > raw.len() {
            return None;
        }
        entries.push(Entry {
            sequence: Sequence(header.first + n),
            bytes: raw.split_to(len),
        });
    }
    let mut values = Vec::with_capacity(header.values as usize);
    for _ in 0..header.values {
        let kind = raw.try_get_u8().ok()?;
        let name_len = usize::from(raw.try_get_u16().ok()?);
        let value_len = raw.try_get_u32().ok()? as usize;
        if name_len + value_len > raw.len() {
            return None;
        }
        let (name, value) = (raw.split_to(name_len).to_vec(), raw.split_to(value_len).to_vec());
        values.push(Value {
            name,
            value: (kind != REMOVED).then_some(value),
            put: kind == PUT,
        });
    }
    Some(Frame {
        header,
        entries,
        values,
    })
}

fn checksum(header: &[u8], packed: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(header);
    hasher.update(packed);
    hasher.finalize()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        let place = Place {
            epoch: 7,
            segment: 3,
            first: 100,
            head: 90,
        };
        let riding: Vec<Side> = vec![
            (b"seen/a".to_vec(), Some(vec![1; 20])),
            (b"seen/b".to_vec(), None),
        ];
        let put: Vec<Side> = vec![(b"clock/1".to_vec(), Some(b"offset".to_vec()))];
        encode(place, &[b"one", b"", b"three"], riding.iter(), put.iter())
    }

    #[test]
    fn a_frame_survives_a_round_trip_and_fills_pages() {
        let bytes = sample();
        assert_eq!(bytes.len(), PAGE_BYTES);
        let frame = decode(Header::decode(&bytes).unwrap(), &bytes).unwrap();
        assert_eq!(
            (frame.header.first, frame.header.end(), frame.header.head),
            (100, 103, 90)
        );
        let entries: Vec<_> = frame
            .entries
            .iter()
            .map(|e| (e.sequence.0, &e.bytes[..]))
            .collect();
        assert_eq!(entries, [(100, &b"one"[..]), (101, b""), (102, b"three")]);
        assert_eq!(frame.values.len(), 3);
        assert_eq!(frame.values[1].value, None);
        assert!(frame.values[2].put && !frame.values[0].put);
    }

    #[test]
    fn every_changed_byte_and_every_cut_is_noticed() {
        let bytes = sample();
        let len = Header::decode(&bytes).unwrap().len();
        for at in 0..len {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let read = Header::decode(&damaged).and_then(|header| decode(header, &damaged));
            assert!(read.is_none(), "byte {at}");
            let cut = Header::decode(&bytes[..at]).and_then(|header| decode(header, &bytes[..at]));
            assert!(cut.is_none(), "cut at {at}");
        }
    }

    #[test]
    fn the_largest_frame_fits_a_segment() {
        let noise: Vec<u8> = (0..MAX_RAW_BYTES - 64).map(|_| rand::random()).collect();
        let place = Place {
            epoch: 7,
            segment: 3,
            first: 1,
            head: 1,
        };
        let bytes = encode(place, &[&noise], [].iter(), [].iter());
        assert!(bytes.len() <= MAX_FRAME_BYTES, "{}", bytes.len());
        assert!(decode(Header::decode(&bytes).unwrap(), &bytes).is_some());
    }
}
