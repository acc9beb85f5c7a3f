//! The one thread that writes: it gathers appends into groups, commits each group and only then says so.

use std::{
    fs::File,
    sync::{
        Arc,
        atomic::Ordering,
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};

use super::{Append, AppendError, Counters, Limits, Sequence, Side, group, named, side_key};

type PutDone = oneshot::Sender<Result<(), AppendError>>;

pub(super) enum Command {
    Append(Append),
    Put(Vec<Side>, PutDone),
    Removed,
    Stop,
}

/// Removals wait this long for a commit to ride with, so that a quiet house does not write twice a message.
const REMOVAL_DELAY: Duration = Duration::from_secs(1);

/// A retry of a failed commit waits this long: a full disk does not become free by hammering it.
const DISK_RETRY: Duration = Duration::from_millis(500);

pub(super) struct Writer {
    tree: sled::Db,
    data_file: File,
    limits: Limits,
    epoch: u32,
    next: u64,
    removed_to: u64,
    counters: Arc<Counters>,
    committed: watch::Sender<u64>,
    /// Set while a removal is known that is not written yet.
    removal_due: Option<Instant>,
}

#[derive(Default)]
struct Pending {
    appends: Vec<Append>,
    puts: Vec<(Vec<Side>, PutDone)>,
    bytes: usize,
    stop: bool,
}

impl Writer {
    pub(super) fn new(
        tree: sled::Db,
        data_file: File,
        limits: Limits,
        epoch: u32,
        next: u64,
        counters: Arc<Counters>,
        committed: watch::Sender<u64>,
    ) -> Self {
        Self {
            tree,
            data_file,
            limits,
            epoch,
            next,
            removed_to: 0,
            counters,
            committed,
            removal_due: None,
        }
    }

    pub(super) fn run(mut self, commands: &Receiver<Command>) {
        loop {
            let mut pending = self.gather(commands);
            let stop = pending.stop;
            self.refuse_when_full(&mut pending);
            let due = stop || self.removal_due.is_some_and(|due| due <= Instant::now());
            if !pending.appends.is_empty() || !pending.puts.is_empty() || due {
                self.commit_and_answer(pending);
            }
            if stop {
                return;
            }
        }
    }

    /// Waits for a first command, then for company until the interval or the size is reached.
    fn gather(&mut self, commands: &Receiver<Command>) -> Pending {
        let mut pending = Pending::default();
        let mut deadline: Option<Instant> = None;
        while pending.bytes < self.limits.commit_bytes {
            let until = deadline.or(self.removal_due);
            let received = match until {
                Some(until) => commands.recv_timeout(until.saturating_duration_since(Instant::now())),
                None => commands.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match received {
                Ok(Command::Append(append)) => {
                    pending.bytes += append.bytes.len();
                    pending.appends.push(append);
                }
                Ok(Command::Put(values, done)) => {
                    pending.bytes += values
                        .iter()
                        .map(|(k, v)| k.len() + v.as_ref().map_or(0, Vec::len))
                        .sum::<usize>();
                    pending.puts.push((values, done));
                }
                Ok(Command::Removed) => {
                    self.removal_due
                        .get_or_insert_with(|| Instant::now() + REMOVAL_DELAY);
                    continue;
                }
                Ok(Command::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    pending.stop = true;
                    return pending;
                }
                Err(RecvTimeoutError::Timeout) => return pending,
            }
            deadline.get_or_insert_with(|| Instant::now() + self.limits.commit_interval);
        }
        pending
    }

    fn refuse_when_full(&self, pending: &mut Pending) {
        if self.counters.bytes_on_disk.load(Ordering::Relaxed) < self.limits.max_bytes {
            return;
        }
        // sled's file never shrinks, so "full" is also left when everything was forwarded: freed space is reused.
        if self.counters.head.load(Ordering::Acquire) >= self.next {
            return;
        }
        for append in pending.appends.drain(..) {
            (append.done)(Err(AppendError::Full));
        }
    }

    fn commit_and_answer(&mut self, pending: Pending) {
        let first = self.next;
        match self.commit(&pending) {
            Ok(()) => {
                if self.counters.broken.swap(false, Ordering::Relaxed) {
                    tracing::info!("the buffer can be written again");
                }
                let count = pending.appends.len() as u64;
                self.next += count;
                self.counters.tail.store(self.next, Ordering::Release);
                if count > 0 {
                    self.counters.commits.fetch_add(1, Ordering::Relaxed);
                    self.counters
                        .committed_entries
                        .fetch_add(count, Ordering::Relaxed);
                }
                for (n, append) in pending.appends.into_iter().enumerate() {
                    (append.done)(Ok(Sequence(first + n as u64)));
                }
                for (_, done) in pending.puts {
                    // A caller that stopped waiting needs no answer.
                    let _ = done.send(Ok(()));
                }
                if count > 0 {
                    self.committed.send_replace(self.next);
                }
            }
            Err(error) => {
                self.counters.failed_commits.fetch_add(1, Ordering::Relaxed);
                if !self.counters.broken.swap(true, Ordering::Relaxed) {
                    tracing::error!(%error, "the buffer cannot be written; nothing is acknowledged until it can");
                }
                self.forget_failed(first, pending.appends.len() as u64);
                for append in pending.appends {
                    (append.done)(Err(AppendError::Disk));
                }
                for (_, done) in pending.puts {
                    let _ = done.send(Err(AppendError::Disk));
                }
                std::thread::sleep(DISK_RETRY);
            }
        }
        self.counters
            .bytes_on_disk
            .store(self.tree.size_on_disk().unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// sled may hold the failed group in memory and write it with a later flush. It is taken out again, and its
    /// sequences are burnt, so that an entry its sender was refused can neither come back nor lend its id.
    fn forget_failed(&mut self, first: u64, count: u64) {
        if count == 0 {
            return;
        }
        self.next += count;
        let mut removal = sled::Batch::default();
        let keys: Vec<_> = self
            .tree
            .range(group::key(first, 0)..group::key(self.next, 0))
            .keys()
            .flatten()
            .collect();
        keys.into_iter().for_each(|key| removal.remove(key));
        if let Err(error) = self.tree.apply_batch(removal) {
            tracing::error!(%error, "a group that failed to commit could not be taken out of the buffer");
        }
    }

    /// One atomic batch, then flush and fdatasync: after this the group survives a power cut.
    fn commit(&mut self, pending: &Pending) -> Result<(), CommitError> {
        let mut batch = sled::Batch::default();
        if !pending.appends.is_empty() {
            let entries: Vec<&[u8]> = pending.appends.iter().map(|a| a.bytes.as_slice()).collect();
            group::write(&mut batch, self.epoch, self.next, &entries);
            batch.insert(b"mnext", &(self.next + entries.len() as u64).to_be_bytes());
        }
        for (name, value) in pending.appends.iter().flat_map(|append| &append.side) {
            match value {
                Some(value) => batch.insert(side_key(name), value.as_slice()),
                None => batch.remove(side_key(name)),
            }
        }
        for (name, value) in pending.puts.iter().flat_map(|(values, _)| values) {
            match value {
                Some(value) => batch.insert(side_key(name), named::wrap(self.epoch, name, value)),
                None => batch.remove(side_key(name)),
            }
        }
        let head = self.counters.head.load(Ordering::Acquire);
        if head > self.removed_to {
            for key in group::keys_before(&self.tree, head)? {
                batch.remove(key);
            }
        }
        self.tree.apply_batch(batch)?;
        self.tree.flush()?;
        self.data_file.sync_data()?;
        self.removed_to = head;
        self.removal_due = None;
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum CommitError {
    #[error("{0}")]
    Sled(#[from] sled::Error),
    #[error("fdatasync: {0}")]
    Sync(#[from] std::io::Error),
}
