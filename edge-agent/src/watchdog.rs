//! What systemd is told: that the agent is alive, and in one line what it is doing.
//!
//! Every stage of the way of a reading beats when its own loop has come round. The watchdog is fed only while all of them
//! have, so a stage that hangs ends in a restart, however busy the others are. Nothing here feeds it by a timer alone, and
//! nothing here decides about a reading.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sd_notify::NotifyState;
use tokio_util::sync::CancellationToken;

use crate::buffer::Buffer;

/// A stage that waits for something comes round at least this often.
pub const TURN: Duration = Duration::from_secs(5);
/// A stage that has not come round for this long hangs. Longer than any wait a stage makes on purpose: the longest is the
/// pause of up to 30 s before Redpanda is tried again.
const SILENCE: Duration = Duration::from_secs(45);
/// How often the line of status is renewed.
const STATUS: Duration = Duration::from_secs(10);

/// The stages of one agent.
#[derive(Debug)]
pub struct Stages {
    began: Instant,
    stages: Vec<Arc<Stage>>,
}

#[derive(Debug)]
struct Stage {
    name: &'static str,
    began: Instant,
    last_ms: AtomicU64,
}

/// A stage's own sign of life.
#[derive(Clone, Debug)]
pub struct Pulse(Arc<Stage>);

impl Pulse {
    /// The stage's loop has come round.
    pub fn beat(&self) {
        self.0.last_ms.store(elapsed_ms(self.0.began), Ordering::Relaxed);
    }
}

impl Default for Stages {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            stages: Vec::new(),
        }
    }
}

impl Stages {
    /// A stage that beats from now on.
    pub fn add(&mut self, name: &'static str) -> Pulse {
        let stage = Arc::new(Stage {
            name,
            began: self.began,
            last_ms: AtomicU64::new(elapsed_ms(self.began)),
        });
        self.stages.push(stage.clone());
        Pulse(stage)
    }

    /// Stages that hang.
    pub fn hanging(&self) -> Vec<&'static str> {
        self.silent_for(SILENCE)
    }

    fn silent_for(&self, silence: Duration) -> Vec<&'static str> {
        let now = elapsed_ms(self.began);
        let limit = u64::try_from(silence.as_millis()).unwrap_or(u64::MAX);
        let is_silent =
            |stage: &&Arc<Stage>| now.saturating_sub(stage.last_ms.load(Ordering::Relaxed)) > limit;
        self.stages
            .iter()
            .filter(is_silent)
            .map(|stage| stage.name)
            .collect()
    }
}

fn elapsed_ms(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// Feeds systemd's watchdog while no stage hangs, and renews the line of status that `line` gives, until `stop`.
pub async fn run(
    stages: Arc<Stages>,
    line: impl Fn() -> String,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let watchdog = sd_notify::watchdog_enabled();
    // Twice within the time systemd waits.
    let turn = watchdog.map_or(STATUS, |limit| (limit / 2).min(STATUS));
    let mut interval = tokio::time::interval(turn);
    let (mut said, mut hung) = (None::<(Instant, String)>, false);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = interval.tick() => {}
        }
        let silence = watchdog.map_or(SILENCE, |limit| SILENCE.max(limit / 2));
        let hanging = stages.silent_for(silence);
        if hanging.is_empty() {
            hung = false;
            if watchdog.is_some() {
                notify(&[NotifyState::Watchdog]);
            }
        } else if !std::mem::replace(&mut hung, true) {
            tracing::error!(
                ?hanging,
                "stages hang; systemd is no longer told that the agent is alive"
            );
        }
        let line = if hanging.is_empty() {
            line()
        } else {
            format!("hangs: {}", hanging.join(", "))
        };
        if said
            .as_ref()
            .is_none_or(|(at, old)| *old != line && at.elapsed() >= turn)
        {
            notify(&[NotifyState::Status(&line)]);
            said = Some((Instant::now(), line));
        }
    }
}

/// The buffer's stage: something goes through the writer's own queue and comes back, whatever came of it.
pub async fn probe_buffer(buffer: Buffer, pulse: Pulse, stop: CancellationToken) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(TURN) => {}
        }
        // A full disk is an answer too; what it means is said elsewhere.
        let _ = buffer.put(Vec::new()).await;
        pulse.beat();
    }
}

/// Tells systemd, where there is one.
pub fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "systemd could not be told how the agent is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_silent_stage_is_enough() {
        let mut stages = Stages::default();
        let (busy, quiet) = (stages.add("forward"), stages.add("intake"));
        assert!(stages.silent_for(Duration::from_millis(50)).is_empty());
        std::thread::sleep(Duration::from_millis(80));
        busy.beat();
        assert_eq!(stages.silent_for(Duration::from_millis(50)), ["intake"]);
        quiet.beat();
        assert!(stages.silent_for(Duration::from_millis(50)).is_empty());
    }
}
