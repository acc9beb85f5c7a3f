//! From the buffer to Redpanda: in order, decoded on the way, removed when Redpanda says it has it.
//!
//! One lane. The producer is idempotent and retries for ever inside its own small queue, so records of a device
//! cannot overtake each other. A delivery report is the only reason to remove an entry. Any failure that is not the
//! record's own fault empties the producer and starts again at the oldest entry not delivered: a repeated
//! prefix, which the sink recognises by id. A record Redpanda will never take becomes a dead letter, and none of those that
//! shared a batch with it does. A topic that is missing is waited for.
//!
//! This module never acknowledges anything to a device and never changes an entry.

mod lane;
mod outputs;
mod producer;
mod window;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, Utc};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::{
    buffer::Buffer,
    clock::{Stamp, Timeline},
    devices::Devices,
    kafka::Kafka,
    losses::Losses,
    rules::Rules,
    watchdog::Pulse,
};
use lane::{Lane, RoundEnd};

/// Longest pause between attempts to reach Redpanda again.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// What the lane needs to know.
pub struct Settings {
    /// Name of this agent.
    pub agent: String,
    /// How Redpanda is reached.
    pub kafka: Kafka,
    /// How long messages wait for the time.
    pub clock_wait: Duration,
    /// The kernel's id of this boot.
    pub boot_id: String,
    /// How payloads are decoded, and where devices are.
    pub rules: Arc<Rules>,
    /// The lane's sign of life.
    pub pulse: Pulse,
}

/// Counted since start, for `/status` and metrics.
#[derive(Default)]
pub struct Progress {
    /// Entries confirmed by Redpanda.
    pub delivered: AtomicU64,
    /// Records produced.
    pub records: AtomicU64,
    /// Entries with nothing to record.
    pub nothing: AtomicU64,
    /// Dead letters written.
    pub dead_letters: AtomicU64,
    /// Entries that could not be read from the buffer.
    pub unreadable: AtomicU64,
    /// Where they are told.
    pub losses: Arc<Losses>,
    /// Times the lane had to start again.
    pub restarts: AtomicU64,
    /// Batches refused whole, whose records were then sent one by one.
    pub refused_batches: AtomicU64,
    /// Messages that went out without a known time.
    pub unsynced: AtomicU64,
    /// True from the moment no broker can be reached to the next delivery.
    pub unreachable: AtomicBool,
    last_error: Mutex<Option<(String, DateTime<Utc>)>>,
    blocked: Mutex<Option<String>>,
    oldest: Mutex<Option<Stamp>>,
}

impl Progress {
    /// Nothing yet; what cannot be read goes to `losses`.
    pub fn new(losses: Arc<Losses>) -> Self {
        Self {
            losses,
            ..Self::default()
        }
    }

    /// The last error, if any.
    pub fn last_error(&self) -> Option<String> {
        let guard = self.last_error.lock().ok()?;
        guard.as_ref().map(|(error, _)| error.clone())
    }

    /// When that was.
    pub fn last_error_at(&self) -> Option<DateTime<Utc>> {
        let guard = self.last_error.lock().ok()?;
        guard.as_ref().map(|(_, time)| *time)
    }

    /// Why nothing goes out at present; `None` from the next delivery on.
    pub fn blocked(&self) -> Option<String> {
        self.blocked.lock().ok().and_then(|guard| guard.clone())
    }

    /// Stamp of the oldest entry not confirmed, as far as it was looked at.
    pub fn oldest(&self) -> Option<Stamp> {
        self.oldest.lock().ok().and_then(|guard| *guard)
    }

    fn note_error(&self, error: &str) {
        if let Ok(mut guard) = self.last_error.lock() {
            *guard = Some((error.to_owned(), Utc::now()));
        }
    }

    fn note_blocked(&self, why: Option<&str>) {
        if let Ok(mut guard) = self.blocked.lock() {
            *guard = why.map(str::to_owned);
        }
    }

    fn note_oldest(&self, stamp: Option<Stamp>) {
        if let Ok(mut guard) = self.oldest.lock() {
            *guard = stamp;
        }
    }
}

/// Runs the lane until `stop`.
pub async fn run(
    settings: Settings,
    buffer: Buffer,
    timeline: Arc<Mutex<Timeline>>,
    progress: Arc<Progress>,
    devices: Arc<Devices>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut lane = Lane::new(settings, buffer, timeline, progress.clone(), devices);
    let mut failures = 0_u32;
    loop {
        let before = progress.delivered.load(Ordering::Relaxed);
        let why = match lane.round(&stop).await? {
            RoundEnd::Stopped => return Ok(()),
            RoundEnd::Again => continue,
            RoundEnd::Failed(why) => why,
        };
        failures = if progress.delivered.load(Ordering::Relaxed) > before {
            1
        } else {
            failures + 1
        };
        progress.restarts.fetch_add(1, Ordering::Relaxed);
        progress.note_error(&why);
        progress.note_blocked(Some(&why));
        let pause = pause(failures);
        tracing::warn!(%why, pause_seconds = pause.as_secs_f64(), "forwarding starts again at the oldest message");
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = sleep(pause) => {}
        }
    }
}

/// Exponential from a quarter of a second, capped, with half of it random: two agents do not come back in step.
fn pause(failures: u32) -> Duration {
    let full = Duration::from_millis(250)
        .saturating_mul(1 << failures.min(10))
        .min(MAX_PAUSE);
    full.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_and_are_capped() {
        assert!(pause(1) <= Duration::from_millis(500));
        for failures in 0..100 {
            assert!(pause(failures) <= MAX_PAUSE);
            assert!(pause(failures) >= Duration::from_millis(125));
        }
        assert!(pause(50) >= MAX_PAUSE / 2);
    }
}
