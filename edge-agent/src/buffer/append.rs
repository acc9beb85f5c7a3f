//! What is handed to the buffer, and how that may end.

use super::Sequence;
use crate::line::Line;

/// Why an append was not kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The byte limit is reached.
    #[error("buffer is full")]
    Full,
    /// The disk refused the write or the sync; nothing is acknowledged until it works again.
    #[error("buffer cannot be written")]
    Disk,
    /// The buffer is being closed.
    #[error("buffer is closed")]
    Closed,
    /// It is larger than the buffer takes.
    #[error("entry or value is too large for the buffer")]
    TooLarge,
}

/// Called once with the outcome of an append, on the writer's thread: it must not block.
pub type Done = Box<dyn FnOnce(Result<Sequence, AppendError>) + Send>;

/// A change of a small durable value that rides with an append: `None` removes it.
pub type Side = (Vec<u8>, Option<Vec<u8>>);

/// An entry on its way into the buffer.
pub struct Append {
    /// The entry.
    pub bytes: Vec<u8>,
    /// Values written in the same group commit, atomically with the entry.
    pub side: Vec<Side>,
    /// Where it stands among those it must not overtake, if there are such.
    pub line: Option<Line>,
    /// It may use the room that is kept back in a full buffer.
    pub reserved: bool,
    /// Called with the outcome.
    pub done: Done,
}
