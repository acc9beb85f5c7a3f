//! From the broker to the buffer: what was captured becomes an entry, and its sender hears of it.
//!
//! A redelivery is acknowledged and not kept again. When the buffer is full, everything captured waits in line for a
//! bounded time: nothing overtakes, so order per device holds. Then it is refused, which closes the connections it
//! came on; their clients keep it. What follows a refused message on its connection is refused as well, wherever it
//! is by then: its client sends both again, in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};

use crate::{
    broker::{CaptureRefused, Captured, CapturedPayload},
    buffer::{Append, AppendError, Buffer},
    clock::Stamp,
    losses::{Losses, Reason},
    message::{Body, Message},
    redelivery::{self, Attempt, Redeliveries, Verdict},
    watchdog::{Pulse, TURN},
};

/// How long devices are held up before they are sent away with a full buffer.
const FULL_WAIT: Duration = Duration::from_secs(10);
/// How often a full buffer is looked at.
const FULL_POLL: Duration = Duration::from_millis(100);
/// How often a writer that has fallen behind is asked again.
const BUSY_POLL: Duration = Duration::from_millis(1);

/// Counted since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Redeliveries recognised.
    pub redelivered: AtomicU64,
    /// Messages refused, those at QoS 0 included.
    pub refused: AtomicU64,
}

/// Where captured messages go.
pub struct Intake {
    buffer: Buffer,
    known: Redeliveries,
    counters: Arc<Counters>,
    losses: Arc<Losses>,
    full_since: Option<Instant>,
    pulse: Pulse,
}

impl Intake {
    /// Reads what is remembered of earlier deliveries.
    pub fn new(
        buffer: Buffer,
        counters: Arc<Counters>,
        losses: Arc<Losses>,
        pulse: Pulse,
    ) -> anyhow::Result<Self> {
        let values = buffer
            .values(redelivery::KEY_PREFIX)
            .context("reading what was delivered before")?;
        let known = Redeliveries::load(values);
        Ok(Self {
            buffer,
            known,
            counters,
            losses,
            full_since: None,
            pulse,
        })
    }

    /// Takes what is captured until the broker is gone.
    pub async fn run(mut self, mut captured: mpsc::Receiver<Captured>) {
        loop {
            let next = match timeout(TURN, captured.recv()).await {
                Ok(Some(next)) => next,
                Ok(None) => return,
                Err(_) => {
                    self.pulse.beat();
                    continue;
                }
            };
            self.pulse.beat();
            if let Some(why) = self.buffer.refusing() {
                let since = *self.full_since.get_or_insert_with(|| {
                    tracing::warn!(%why, "devices are held up, then refused");
                    Instant::now()
                });
                if !self.wait_for_room(since + FULL_WAIT).await {
                    self.refuse(next, refusal(why));
                    continue;
                }
            }
            if self.full_since.take().is_some() {
                tracing::info!("the buffer has room again");
            }
            self.keep(next).await;
        }
    }

    async fn wait_for_room(&self, until: Instant) -> bool {
        while self.buffer.refusing().is_some() {
            if Instant::now() >= until {
                return false;
            }
            sleep(FULL_POLL).await;
        }
        true
    }

    fn refuse(&self, captured: Captured, why: CaptureRefused) {
        if let Some(line) = captured.line {
            line.refused();
        }
        refused(&self.counters, &self.losses, captured.stamp, why);
        if let Some(done) = captured.done {
            // The connection may have ended meanwhile; then its client knows already.
            let _ = done.send(Err(why));
        }
    }

    async fn keep(&mut self, captured: Captured) {
        let sender = captured.sender.as_ref();
        let attempt = sender.map(|s| Attempt {
            client: &s.client,
            pkid: s.pkid,
            dup: s.dup,
        });
        let content: &[u8] = match &captured.payload {
            CapturedPayload::Whole(payload) => payload,
            CapturedPayload::Truncated { sha256, .. } => sha256,
        };
        let now_ms = captured
            .stamp
            .synced
            .then(|| chrono::Utc::now().timestamp_millis());
        match self.known.judge(attempt, &captured.topic, content, now_ms) {
            Verdict::New { side, fate } => {
                let done = captured.done;
                let (counters, losses) = (self.counters.clone(), self.losses.clone());
                let stamp = captured.stamp;
                let settle = move |kept: Result<(), CaptureRefused>| {
                    fate.settle(kept.is_ok());
                    if let Err(why) = kept {
                        refused(&counters, &losses, stamp, why);
                    }
                    if let Some(done) = done {
                        // The connection may have ended meanwhile; its client sends again and is recognised.
                        let _ = done.send(kept);
                    }
                };
                let body = match captured.payload {
                    CapturedPayload::Whole(payload) => Body::Payload(payload),
                    CapturedPayload::Truncated { head, length, sha256 } => {
                        Body::Truncated { head, length, sha256 }
                    }
                };
                let message = Message {
                    identity: None,
                    stamp: captured.stamp,
                    topic: captured.topic.to_string(),
                    body,
                };
                self.append(Append {
                    bytes: message.encode(),
                    side,
                    line: captured.line,
                    reserved: false,
                    done: Box::new(move |outcome| settle(outcome.map(|_| ()).map_err(refusal))),
                })
                .await;
            }
            Verdict::Again(fate) => {
                self.counters.redelivered.fetch_add(1, Ordering::Relaxed);
                let Some(done) = captured.done else { return };
                if fate.is_kept() {
                    // As above.
                    let _ = done.send(Ok(()));
                    return;
                }
                // The first delivery is in the writer's queue: an answer from behind it knows what became of it.
                let barrier = self.buffer.clone();
                tokio::spawn(async move {
                    let passed = barrier.put(Vec::new()).await;
                    let kept = passed.is_ok() && fate.is_kept();
                    let _ = done.send(if kept { Ok(()) } else { Err(CaptureRefused::Disk) });
                });
            }
        }
    }

    async fn append(&self, mut append: Append) {
        while let Err(back) = self.buffer.try_append(append) {
            append = back;
            sleep(BUSY_POLL).await;
        }
    }
}

fn refused(counters: &Counters, losses: &Losses, stamp: Stamp, why: CaptureRefused) {
    counters.refused.fetch_add(1, Ordering::Relaxed);
    let reason = match why {
        CaptureRefused::Full => Reason::Full,
        CaptureRefused::Disk => Reason::Disk,
    };
    losses.one(reason, stamp);
}

fn refusal(error: AppendError) -> CaptureRefused {
    match error {
        AppendError::Full => CaptureRefused::Full,
        AppendError::Disk | AppendError::Closed | AppendError::TooLarge => CaptureRefused::Disk,
    }
}
