//! What is kept of one partition for clients that come back.

use std::collections::VecDeque;
use std::sync::Arc;

use super::entry::Entry;
use super::seen::Seen;

/// Records kept of each partition for clients that come back: half an hour of one meter's readings a second.
pub const WINDOW_RECORDS: usize = 2_000;
/// Bytes kept of each partition. With thirteen partitions the windows stay below 20 MB.
pub(super) const WINDOW_BYTES: usize = 1_500_000;

/// The window of one partition.
#[derive(Debug, Default)]
pub(super) struct Window {
    pub entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// The lowest offset that can still be replayed; from here on nothing is missing.
    pub floor: i64,
    /// The broker's next offset when last heard of: a cursor beyond it is of another life of the topic.
    pub high: i64,
    /// When the last record read was appended, in milliseconds since 1970; none before the first.
    pub last_ms: Option<i64>,
    /// False until the partition is known: a cursor then neither lacks anything nor is it ahead.
    pub known: bool,
    /// Ids the partition has brought lately.
    pub seen: Seen,
    /// The place in the process-wide order up to which records are no longer here.
    pub past: u64,
}

impl Window {
    /// One that begins at `floor`, after the place `past`.
    pub fn from(floor: i64, high: i64, seen: Seen, past: u64) -> Self {
        Self {
            floor,
            high,
            known: true,
            seen,
            past,
            ..Self::default()
        }
    }

    /// Keeps a record, and gives up the oldest beyond the limits.
    pub(super) fn keep(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.message.len();
        self.entries.push_back(entry);
        while self.entries.len() > WINDOW_RECORDS || self.bytes > WINDOW_BYTES {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.message.len();
            self.floor = oldest.offset + 1;
            self.past = oldest.sequence;
        }
    }
}
