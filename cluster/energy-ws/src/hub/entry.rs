//! What the hub hands to sessions: records, breaks, and the steps of a replay.

use std::sync::Arc;

use axum::extract::ws::Utf8Bytes;
use tokio::sync::broadcast;

use super::measures::Measures;
use crate::position::{Place, Positions};
use crate::protocol::{GapReason, with_cursor};
use crate::stream::Stream;

/// One record on its way to clients.
#[derive(Debug)]
pub struct Entry {
    /// The process-wide order.
    pub sequence: u64,
    /// The partition it came from.
    pub place: Place,
    /// Its offset there.
    pub offset: i64,
    /// When the broker appended it, in milliseconds since 1970.
    pub appended_ms: i64,
    /// The device it is about.
    pub device: Option<Box<str>>,
    /// What the device of an event measures; none for readings and for events of no device.
    pub measures: Option<Arc<Measures>>,
    /// The whole message, shared by all clients.
    pub message: Utf8Bytes,
    /// Where the cursor begins in `message`.
    pub(super) body_bytes: usize,
}

impl Live {
    /// The place in the process-wide order.
    pub fn sequence(&self) -> u64 {
        match self {
            Self::Record(entry) => entry.sequence,
            Self::Break(there) => there.sequence,
        }
    }
}

impl Entry {
    /// The positions of the cursor in the message.
    pub fn positions(&self) -> Positions {
        let field = &self.message.as_str()[self.body_bytes..];
        let cursor = field
            .strip_prefix(",\"cursor\":\"")
            .and_then(|rest| rest.strip_suffix("\"}"));
        let read = cursor.and_then(Positions::from_cursor);
        read.expect("the hub wrote the cursor itself").0
    }

    /// The message with another cursor, for a client whose place differs from the hub's.
    pub fn message_at(&self, positions: &Positions) -> Utf8Bytes {
        let body = &self.message.as_str()[..self.body_bytes];
        with_cursor(body, &positions.to_cursor(self.appended_ms)).into()
    }
}

/// What the ring carries.
#[derive(Clone, Debug)]
pub enum Live {
    /// A record.
    Record(Arc<Entry>),
    /// Records that nobody here has read, before the one that follows.
    Break(Arc<Break>),
}

/// A place where a partition does not go on with the next offset.
#[derive(Debug)]
pub struct Break {
    /// The process-wide order.
    pub sequence: u64,
    /// The partition.
    pub place: Place,
    /// The offset it goes on with.
    pub next: i64,
    /// When the last record before it was appended, in milliseconds since 1970.
    pub from_ms: i64,
    /// When the record that follows was appended.
    pub to_ms: i64,
    /// `Window`: the topic's retention took them before they were read. `Reset`: the topic was made anew.
    pub reason: GapReason,
}

/// Records missing between a cursor and what can be replayed.
#[derive(Debug, PartialEq, Eq)]
pub struct Gap {
    /// The stream.
    pub stream: Stream,
    /// When the oldest record that follows was appended, in milliseconds since 1970, in the partition where that is
    /// latest; none when in one none follows yet.
    pub to_ms: Option<i64>,
    /// Why.
    pub reason: GapReason,
}

/// What a listener missed, and where it listens on.
#[derive(Debug)]
pub struct Missed {
    /// In the process-wide order.
    pub entries: Vec<Arc<Entry>>,
    /// What follows `sequence`.
    pub ring: broadcast::Receiver<Live>,
    /// The last place in the process-wide order.
    pub sequence: u64,
}

/// One step of a replay.
#[derive(Debug)]
pub struct Step {
    /// What is missing before `entries`.
    pub gaps: Vec<Gap>,
    /// In the process-wide order.
    pub entries: Vec<Arc<Entry>>,
    /// True when nothing was left to replay.
    pub complete: bool,
    /// The last place in the process-wide order that this step has seen.
    pub sequence: u64,
}
