//! Changes that are not on disk yet: the latest one of each key.
//!
//! It lives under the lock of the broker's state, so one taking of it is one moment of that state. A message that is
//! delivered before it was written leaves again without a trace, so traffic to clients that read costs the disk
//! nothing. It never waits and never writes.

use std::{
    collections::HashMap,
    sync::Arc,
    thread::Thread,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::form::Now;
use crate::clock::Clock;

/// How long a change that somebody waits for waits for company.
const COMMIT_DELAY: Duration = Duration::from_millis(2);
/// How long a change that nobody waits for waits for company: what comes and goes within it is never written.
const QUIET_DELAY: Duration = Duration::from_millis(100);

/// See the module.
pub struct Journal {
    dirty: HashMap<Vec<u8>, Change>,
    /// Number of the latest change.
    version: u64,
    /// Somebody waits for the changes that are here.
    due: Option<Instant>,
    /// The writer has changes that are not on disk yet.
    writing: bool,
    closing: bool,
    /// Every change up to this one is on disk, or was undone.
    committed: watch::Sender<u64>,
    /// The thread that writes; without it nothing is kept.
    writer: Option<Thread>,
    /// Says whether the wall clock can be believed.
    clock: Option<Arc<Clock>>,
}

/// What becomes of a key.
pub struct Change {
    /// Its new value; `None` removes it.
    pub value: Option<Vec<u8>>,
    /// The key is not on disk, so that taking it away again needs no write.
    fresh: bool,
}

impl Change {
    /// The key is not on disk.
    pub const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// An attempt to write it failed: who knows what is on disk.
    pub const fn doubt(&mut self) {
        self.fresh = false;
    }
}

/// What the writer is to do.
pub enum Task {
    /// Write these, and say so with their number.
    Write(HashMap<Vec<u8>, Change>, u64),
    /// Nothing before this time, or before it is woken.
    Wait(Option<Instant>),
    /// Nothing any more.
    End,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            dirty: HashMap::new(),
            version: 0,
            due: None,
            writing: false,
            closing: false,
            committed: watch::Sender::new(0),
            writer: None,
            clock: None,
        }
    }
}

impl Journal {
    /// From now on changes are kept, and `writer` is woken for them.
    pub fn begin(&mut self, writer: Thread, clock: Arc<Clock>) {
        self.writer = Some(writer);
        self.clock = Some(clock);
    }

    /// Whether a change of `key` may not be on disk yet.
    pub fn is_pending(&self, key: &[u8]) -> bool {
        self.writing || self.dirty.contains_key(key)
    }

    /// The time for what is kept.
    pub fn now(&self) -> Now {
        Now {
            wall_is_known: self.clock.as_ref().is_none_or(|clock| clock.is_synced()),
            ..Now::read()
        }
    }

    /// True when changes are kept.
    pub const fn is_kept(&self) -> bool {
        self.writer.is_some()
    }

    /// Follows what is on disk.
    pub fn committed(&self) -> watch::Receiver<u64> {
        self.committed.subscribe()
    }

    /// A key that is not on disk gets a value.
    pub fn put_new(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let fresh = !self.dirty.contains_key(&key);
        self.change(key, Some(value), fresh);
    }

    /// A key gets a value, in place of the one it has.
    pub fn put(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let fresh = self.dirty.get(&key).is_some_and(|change| change.fresh);
        self.change(key, Some(value), fresh);
    }

    /// A key goes.
    pub fn remove(&mut self, key: Vec<u8>) {
        if !self.is_kept() {
            return;
        }
        if self.dirty.get(&key).is_some_and(|change| change.fresh) {
            self.dirty.remove(&key);
            self.version += 1;
            if self.dirty.is_empty() {
                self.due = None;
                if !self.writing {
                    self.committed.send_replace(self.version);
                }
            }
            return;
        }
        self.change(key, None, false);
    }

    fn change(&mut self, key: Vec<u8>, value: Option<Vec<u8>>, fresh: bool) {
        let Some(writer) = &self.writer else { return };
        self.version += 1;
        self.dirty.insert(key, Change { value, fresh });
        if self.due.is_none() {
            self.due = Some(Instant::now() + QUIET_DELAY);
            writer.unpark();
        }
    }

    /// The number of the latest change, for somebody who will wait for it: it is written soon.
    pub fn promise(&mut self) -> u64 {
        let soon = Instant::now() + COMMIT_DELAY;
        if let (Some(writer), Some(due)) = (&self.writer, &mut self.due)
            && *due > soon
        {
            *due = soon;
            writer.unpark();
        }
        self.version
    }

    /// What the writer is to do now.
    pub fn task(&mut self, now: Instant) -> Task {
        match self.due {
            None if self.closing => Task::End,
            None => Task::Wait(None),
            Some(due) if due > now && !self.closing => Task::Wait(Some(due)),
            Some(_) => {
                self.due = None;
                self.writing = true;
                Task::Write(std::mem::take(&mut self.dirty), self.version)
            }
        }
    }

    /// What was taken with `version` is on disk.
    pub fn written(&mut self, version: u64) {
        self.writing = false;
        let reached = if self.dirty.is_empty() {
            self.version
        } else {
            version
        };
        self.committed.send_replace(reached);
    }

    /// The writer ends when everything is written.
    pub fn close(&mut self) {
        self.closing = true;
        if let Some(writer) = &self.writer {
            writer.unpark();
        }
    }

    /// True once it is told to close.
    pub const fn is_closing(&self) -> bool {
        self.closing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        let mut journal = Journal::default();
        journal.begin(
            std::thread::current(),
            Arc::new(Clock::new(crate::clock::SegmentId(0))),
        );
        journal
    }

    type Taken = Vec<(Vec<u8>, Option<Vec<u8>>)>;

    fn take(journal: &mut Journal) -> (Taken, u64) {
        match journal.task(Instant::now() + QUIET_DELAY) {
            Task::Write(changes, version) => {
                let mut changes: Taken = changes.into_iter().map(|(k, c)| (k, c.value)).collect();
                changes.sort();
                (changes, version)
            }
            Task::Wait(_) | Task::End => panic!("there is something to write"),
        }
    }

    #[test]
    fn what_comes_and_goes_at_once_is_never_written() {
        let mut journal = journal();
        journal.put_new(b"a".to_vec(), b"1".to_vec());
        let promised = journal.promise();
        journal.remove(b"a".to_vec());
        assert!(
            *journal.committed().borrow() >= promised,
            "nobody waits for nothing"
        );
        assert!(matches!(journal.task(Instant::now()), Task::Wait(None)));
    }

    #[test]
    fn what_is_on_disk_is_taken_away_there() {
        let mut journal = journal();
        journal.put_new(b"a".to_vec(), b"1".to_vec());
        journal.put_new(b"b".to_vec(), b"1".to_vec());
        let (changes, version) = take(&mut journal);
        assert_eq!(changes.len(), 2);
        // Taken away while it is being written.
        journal.remove(b"a".to_vec());
        assert_eq!(*journal.committed().borrow(), 0);
        journal.written(version);
        assert_eq!(*journal.committed().borrow(), version);
        let (changes, version) = take(&mut journal);
        assert_eq!(changes, [(b"a".to_vec(), None)]);
        // Put again before that was written: it may still be there, so it must be taken away again.
        journal.put_new(b"a".to_vec(), b"2".to_vec());
        journal.written(version);
        journal.put(b"b".to_vec(), b"2".to_vec());
        journal.remove(b"b".to_vec());
        let (changes, _) = take(&mut journal);
        assert_eq!(
            changes,
            [(b"a".to_vec(), Some(b"2".to_vec())), (b"b".to_vec(), None)]
        );
    }

    #[test]
    fn a_change_that_somebody_waits_for_is_written_soon_others_in_company() {
        let mut journal = journal();
        let begun = Instant::now();
        journal.put(b"a".to_vec(), b"1".to_vec());
        let Task::Wait(Some(due)) = journal.task(begun) else {
            panic!("not at once");
        };
        assert!(due >= begun + QUIET_DELAY);
        journal.promise();
        let Task::Wait(Some(due)) = journal.task(begun) else {
            panic!("not at once");
        };
        assert!(due < begun + QUIET_DELAY);
        journal.close();
        assert!(matches!(journal.task(begun), Task::Write(..)));
        assert!(matches!(journal.task(begun), Task::End));
    }

    #[test]
    fn without_a_writer_nothing_is_gathered() {
        let mut journal = Journal::default();
        journal.put(b"a".to_vec(), b"1".to_vec());
        journal.remove(b"b".to_vec());
        assert!(journal.dirty.is_empty());
        assert_eq!(journal.promise(), 0);
    }
}
