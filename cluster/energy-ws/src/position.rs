//! How far the topics have been read, and the cursor that carries it to a client and back.
//!
//! A cursor is the next offset of each partition of each stream, with the time at which it was issued. It means
//! the same to every process, and it says nothing about which streams or devices its holder wanted.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

use crate::stream::Stream;

/// First byte of a cursor; another layout gets another number.
const VERSION: u8 = 1;
/// Most partitions of a topic in a cursor. Ours have three; this bounds what a hostile cursor makes us hold.
const MAX_PARTITIONS: u64 = 64;

/// A partition of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The stream.
    pub stream: Stream,
    /// The partition, counted from 0.
    pub partition: usize,
}

/// The next offset of each partition, in the order of [`Stream::ALL`]. A partition that is not listed is at 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Positions([Vec<i64>; 5]);

impl Positions {
    /// The next offset of a partition.
    pub fn get(&self, place: Place) -> i64 {
        self.0[place.stream as usize]
            .get(place.partition)
            .copied()
            .unwrap_or(0)
    }

    /// Sets the next offset of a partition; partitions before it that are not listed yet are at 0.
    pub fn set(&mut self, place: Place, next: i64) {
        let partitions = &mut self.0[place.stream as usize];
        if partitions.len() <= place.partition {
            partitions.resize(place.partition + 1, 0);
        }
        partitions[place.partition] = next;
    }

    /// Takes the whole of a stream from `other`.
    pub fn take_stream(&mut self, stream: Stream, other: &Positions) {
        self.0[stream as usize].clone_from(&other.0[stream as usize]);
    }

    /// Raises each partition to at least what `other` has.
    pub fn raise_to(&mut self, other: &Positions) {
        for stream in Stream::ALL {
            for (partition, &next) in other.0[stream as usize].iter().enumerate() {
                let place = Place { stream, partition };
                if self.get(place) < next {
                    self.set(place, next);
                }
            }
        }
    }

    /// True when no partition is behind `other`.
    pub fn reaches(&self, other: &Positions) -> bool {
        Stream::ALL.into_iter().all(|stream| {
            let partitions = other.0[stream as usize].iter().enumerate();
            partitions
                .into_iter()
                .all(|(partition, &next)| self.get(Place { stream, partition }) >= next)
        })
    }

    /// The cursor, issued at a time in milliseconds since 1970.
    pub fn to_cursor(&self, issued_ms: i64) -> String {
        // Thirteen partitions with offsets of three or four bytes each.
        let mut bytes = Vec::with_capacity(64);
        bytes.push(VERSION);
        put(&mut bytes, issued_ms.max(0).cast_unsigned());
        for partitions in &self.0 {
            put(&mut bytes, partitions.len() as u64);
            for &next in partitions {
                put(&mut bytes, next.max(0).cast_unsigned());
            }
        }
        BASE64_URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a cursor: positions and when it was issued, in milliseconds since 1970. None when it is not one of ours.
    pub fn from_cursor(text: &str) -> Option<(Self, i64)> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (&version, mut rest) = bytes.split_first()?;
        if version != VERSION {
            return None;
        }
        let issued_ms = i64::try_from(take(&mut rest)?).ok()?;
        let mut positions = Positions::default();
        for partitions in &mut positions.0 {
            let count = take(&mut rest)?;
            if count > MAX_PARTITIONS {
                return None;
            }
            for _ in 0..count {
                partitions.push(i64::try_from(take(&mut rest)?).ok()?);
            }
        }
        rest.is_empty().then_some((positions, issued_ms))
    }
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow (LEB128).
fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push((value as u8 & 0x7f) | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(stream: Stream, partition: usize) -> Place {
        Place { stream, partition }
    }

    fn sample() -> Positions {
        let mut positions = Positions::default();
        positions.set(place(Stream::Energy, 0), 0);
        positions.set(place(Stream::Energy, 2), 1_234_567);
        positions.set(place(Stream::Plug, 1), 127);
        positions.set(place(Stream::Events, 0), i64::MAX);
        positions
    }

    #[test]
    fn cursors_survive_the_round_trip_and_are_short() {
        for (positions, issued_ms) in [(Positions::default(), 0), (sample(), 1_767_254_400_123)] {
            let cursor = positions.to_cursor(issued_ms);
            assert_eq!(
                Positions::from_cursor(&cursor),
                Some((positions, issued_ms)),
                "{cursor}"
            );
            assert!(
                cursor
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_'),
                "{cursor}"
            );
        }
        let mut usual = Positions::default();
        for stream in Stream::ALL {
            for partition in 0..if stream == Stream::Events { 1 } else { 3 } {
                usual.set(place(stream, partition), 30_000_000);
            }
        }
        assert!(usual.to_cursor(1_767_254_400_123).len() < 100);
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        let good = sample().to_cursor(5);
        let other_version = {
            let mut bytes = BASE64_URL_SAFE_NO_PAD.decode(&good).unwrap();
            bytes[0] = 2;
            BASE64_URL_SAFE_NO_PAD.encode(bytes)
        };
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        for text in [
            String::new(),
            "x".into(),
            "not base64!".into(),
            good[..good.len() - 4].to_owned(),
            format!("{good}AAAA"),
            other_version,
            encode(&[1, 0, 200, 1, 0, 0, 0, 0]),
            encode(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
            encode(&[1; 3]),
            encode(&[0xff; 4096]),
        ] {
            assert_eq!(Positions::from_cursor(&text), None, "{text}");
        }
    }

    #[test]
    fn positions_compare_by_partition() {
        let (mut low, high) = (Positions::default(), sample());
        assert!(high.reaches(&low) && !low.reaches(&high));
        low.set(place(Stream::Temperature, 0), 9);
        assert!(!high.reaches(&low));
        low.raise_to(&high);
        assert!(low.reaches(&high));
        assert_eq!(low.get(place(Stream::Temperature, 0)), 9);
        assert_eq!(low.get(place(Stream::Energy, 2)), 1_234_567);
        low.take_stream(Stream::Energy, &Positions::default());
        assert_eq!(low.get(place(Stream::Energy, 2)), 0);
    }
}
