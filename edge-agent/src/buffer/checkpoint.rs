//! The thread that moves small values from the log to sled, so that no acknowledgement waits for sled.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    time::Duration,
};

use super::{
    ballast::Ballast,
    values::{Changes, Mark, Values},
};

/// A checkpoint that failed is tried again after this: a full disk does not become free by hammering it.
const RETRY: Duration = Duration::from_secs(1);
/// How often a ballast that was given up is looked at.
const BALLAST_INTERVAL: Duration = Duration::from_secs(10);

/// One checkpoint.
pub(super) struct Job {
    pub changes: Arc<Changes>,
    pub mark: Mark,
}

/// What the thread tells the writer.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Segments before this one are not needed for their small values.
    pub segment: AtomicU64,
    /// The head of the last checkpoint.
    pub head: AtomicU64,
    /// Bytes of sled's files.
    pub bytes: AtomicU64,
    /// The buffer is being closed: a checkpoint that fails is given up, the log has everything.
    pub stopping: AtomicBool,
}

impl Progress {
    pub(super) fn done(&self, mark: Mark, values: &Values) {
        self.head.fetch_max(mark.head, Ordering::Relaxed);
        self.bytes.store(values.bytes(), Ordering::Relaxed);
        self.segment.store(mark.segment, Ordering::Release);
    }
}

pub(super) fn run(jobs: &Receiver<Job>, values: &Values, ballast: &Ballast, progress: &Progress) {
    loop {
        ballast.restore();
        match jobs.recv_timeout(BALLAST_INTERVAL) {
            Ok(job) => one(&job, values, ballast, progress),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn one(job: &Job, values: &Values, ballast: &Ballast, progress: &Progress) {
    let mut failed = false;
    loop {
        ballast.free_when_needed();
        match values.checkpoint(&job.changes, job.mark) {
            Ok(()) => {
                progress.done(job.mark, values);
                if failed {
                    tracing::info!("small values can be written again");
                }
                return;
            }
            Err(error) if !failed => {
                failed = true;
                tracing::error!(%error, "small values cannot be written; the log keeps them until they can");
            }
            Err(_) => {}
        }
        if progress.stopping.load(Ordering::Relaxed) {
            return;
        }
        std::thread::sleep(RETRY);
    }
}
