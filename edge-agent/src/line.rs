//! The line on which entries of one sender stand: they must not overtake each other on their way to the disk.
//!
//! A refused entry whose sender sends it again cuts the line, and what follows is refused too, until the sender begins a new one.
//! It holds no entries and never waits.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// A place on the line of a connection.
#[derive(Clone, Debug, Default)]
pub struct Line {
    is_cut: Arc<AtomicBool>,
    is_resent: bool,
}

impl Line {
    /// The place of an entry whose sender hears of a refusal and sends it again: what follows must wait for that.
    pub fn of_resent(&self) -> Self {
        self.of(true)
    }

    /// The place of an entry that nobody sends again: refused, it holds up nothing.
    pub fn of_sent_once(&self) -> Self {
        self.of(false)
    }

    fn of(&self, is_resent: bool) -> Self {
        Self {
            is_cut: self.is_cut.clone(),
            is_resent,
        }
    }

    /// The entry was refused.
    pub fn refused(&self) {
        if self.is_resent {
            self.is_cut.store(true, Ordering::Release);
        }
    }

    /// Whether one before it was refused and is sent again.
    pub fn is_cut(&self) -> bool {
        self.is_cut.load(Ordering::Acquire)
    }
}
