//! What was read from Kafka and is on its way into the database: one batch is one transaction.
//!
//! A batch never stores offsets itself; it remembers how far each partition has been read, and under which
//! assignment, so that the consumer can.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use tokio::time::Instant;

use crate::classify::{Poison, Row, Source, classify};

/// A batch of this many records is written as soon as the writer is free. Up to about this many an `unnest` insert
/// is the fastest way into the table.
pub const READY_RECORDS: usize = 1_000;
/// A batch of this many payload bytes is written as soon as the writer is free: near [`READY_RECORDS`] of energy.
pub const READY_BYTES: usize = 512 * 1024;
/// Most records in a batch. It grows past [`READY_RECORDS`] only while the writer is busy with the one before, which
/// is when there is a backlog. From a few thousand rows on COPY gains little more by more of them; with 8,000 the
/// process was measured at 70 MB, above the 64 MB it may take.
pub const MAX_RECORDS: usize = 4_000;
/// Most payload bytes in a batch. With the decoded rows beside the payload, and one batch being written while the
/// next is filled, this keeps the sink's memory near four times this figure plus Kafka's own queue.
pub const MAX_BYTES: usize = 2 * 1024 * 1024;
/// A batch is written at the latest this long after its first record came: ten commits a second spare the
/// flash storage of a small machine, and a reading is visible well within 300 ms.
pub const MAX_AGE: std::time::Duration = std::time::Duration::from_millis(100);

/// A partition of a topic.
pub type Place = (Source, i32);

/// One record as it came from Kafka, with what became of it.
#[derive(Debug)]
pub struct Item {
    /// The topic.
    pub source: Source,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The key, kept for the dead letter.
    pub key: Option<Vec<u8>>,
    /// The whole value, kept for the dead letter: the database may refuse what classification let through.
    pub payload: Vec<u8>,
    /// The row, or why there is none.
    pub verdict: Result<Row, Poison>,
}

/// A record as it stands in Kafka.
#[derive(Clone, Copy, Debug)]
pub struct Raw<'a> {
    /// The topic.
    pub source: Source,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// When the broker appended it, in milliseconds since 1970; none when the broker does not say.
    pub appended_ms: Option<i64>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value.
    pub payload: Option<&'a [u8]>,
}

/// How far a partition has been read in a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The assignment under which the records came; after a rebalance it no longer counts.
    pub assignment: u64,
    /// The first offset not in the batch.
    pub next_offset: i64,
}

/// Records for one transaction.
#[derive(Debug, Default)]
pub struct Batch {
    /// The records, in the order in which they came.
    pub items: Vec<Item>,
    /// How far each partition has been read.
    pub marks: HashMap<Place, Mark>,
    bytes: usize,
    first_came: Option<Instant>,
    oldest_appended_ms: Option<i64>,
}

impl Batch {
    /// Classifies one record as of `now` and adds it. `assignment` is the one it came under.
    pub fn push(&mut self, raw: Raw<'_>, assignment: u64, now: DateTime<Utc>) {
        let verdict = classify(raw.source, raw.payload, now);
        let item = Item {
            source: raw.source,
            partition: raw.partition,
            offset: raw.offset,
            key: raw.key.map(<[u8]>::to_vec),
            payload: raw.payload.unwrap_or_default().to_vec(),
            verdict,
        };
        self.bytes += item.payload.len() + item.key.as_ref().map_or(0, Vec::len);
        self.first_came.get_or_insert_with(Instant::now);
        if let Some(appended) = raw.appended_ms {
            self.oldest_appended_ms = Some(
                self.oldest_appended_ms
                    .map_or(appended, |oldest| oldest.min(appended)),
            );
        }
        // The newest assignment wins: what an older one read is read again from the committed offset.
        self.marks.insert(
            (raw.source, raw.partition),
            Mark {
                assignment,
                next_offset: raw.offset + 1,
            },
        );
        self.items.push(item);
    }

    /// True when the batch is large enough to be written before it is due.
    pub fn is_ready(&self) -> bool {
        self.items.len() >= READY_RECORDS || self.bytes >= READY_BYTES
    }

    /// True when the batch takes no more.
    pub fn is_full(&self) -> bool {
        self.items.len() >= MAX_RECORDS || self.bytes >= MAX_BYTES
    }

    /// When the batch is to be written even though it is not full; none while it is empty.
    pub fn due(&self) -> Option<Instant> {
        self.first_came.map(|came| came + MAX_AGE)
    }

    /// When the broker appended the oldest record, in milliseconds since 1970.
    pub fn oldest_appended_ms(&self) -> Option<i64> {
        self.oldest_appended_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(source: Source, partition: i32, offset: i64, payload: &[u8]) -> Raw<'_> {
        Raw {
            source,
            partition,
            offset,
            appended_ms: Some(offset * 10),
            key: Some(b"key"),
            payload: Some(payload),
        }
    }

    fn now() -> DateTime<Utc> {
        "2026-01-01T09:00:00Z".parse().unwrap()
    }

    #[test]
    fn marks_remember_the_next_offset_and_the_newest_assignment() {
        let mut batch = Batch::default();
        batch.push(raw(Source::Energy, 0, 5, b"x"), 1, now());
        batch.push(raw(Source::Energy, 0, 6, b"x"), 1, now());
        batch.push(raw(Source::Energy, 1, 90, b"x"), 1, now());
        batch.push(raw(Source::Energy, 0, 3, b"x"), 2, now());
        assert_eq!(
            batch.marks[&(Source::Energy, 0)],
            Mark {
                assignment: 2,
                next_offset: 4
            }
        );
        assert_eq!(
            batch.marks[&(Source::Energy, 1)],
            Mark {
                assignment: 1,
                next_offset: 91
            }
        );
        assert_eq!(batch.oldest_appended_ms(), Some(30));
        assert_eq!(batch.items.len(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn batches_are_bounded_by_records_bytes_and_age() {
        let mut batch = Batch::default();
        assert!(!batch.is_full() && batch.due().is_none());
        batch.push(raw(Source::Plug, 0, 1, b"x"), 1, now());
        assert_eq!(batch.due(), Some(Instant::now() + MAX_AGE));
        assert!(!batch.is_ready());
        for offset in 2..=MAX_RECORDS as i64 {
            assert!(!batch.is_full());
            batch.push(raw(Source::Plug, 0, offset, b"x"), 1, now());
            assert_eq!(batch.is_ready(), offset >= READY_RECORDS as i64);
        }
        assert!(batch.is_full());
        let mut batch = Batch::default();
        batch.push(raw(Source::Plug, 0, 1, &vec![b'x'; READY_BYTES]), 1, now());
        assert!(batch.is_ready() && !batch.is_full());
        let mut batch = Batch::default();
        batch.push(raw(Source::Plug, 0, 1, &vec![b'x'; MAX_BYTES]), 1, now());
        assert!(batch.is_full());
    }
}
