//! From the broker to the buffer: what was captured becomes an entry, and its sender hears of it.
//!
//! A redelivery is acknowledged and not kept again. When the buffer is full, everything captured waits in line for a
//! bounded time: nothing overtakes, so order per device holds. Then it is refused, which closes the connections it
//! came on; their clients keep it.

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
    time::{Instant, sleep},
};

use crate::{
    broker::{CaptureRefused, Captured, CapturedPayload},
    buffer::{Append, AppendError, Buffer},
    message::{Body, Message},
    redelivery::{self, Attempt, Redeliveries, Verdict},
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
    max_bytes: u64,
    known: Redeliveries,
    counters: Arc<Counters>,
    full_since: Option<Instant>,
}

impl Intake {
    /// Reads what is remembered of earlier deliveries. `max_bytes` is the buffer's limit.
    pub fn new(buffer: Buffer, max_bytes: u64, counters: Arc<Counters>) -> anyhow::Result<Self> {
        let values = buffer
            .values(redelivery::KEY_PREFIX)
            .context("reading what was delivered before")?;
        let known = Redeliveries::load(values);
        Ok(Self {
            buffer,
            max_bytes,
            known,
            counters,
            full_since: None,
        })
    }

    /// Takes what is captured until the broker is gone.
    pub async fn run(mut self, mut captured: mpsc::Receiver<Captured>) {
        while let Some(next) = captured.recv().await {
            if self.is_full() {
                let since = *self.full_since.get_or_insert_with(|| {
                    tracing::error!("the buffer is full; devices are held up, then refused");
                    Instant::now()
                });
                if !self.wait_for_room(since + FULL_WAIT).await {
                    self.refuse(next, CaptureRefused::Full);
                    continue;
                }
            }
            if self.full_since.take().is_some() {
                tracing::info!("the buffer has room again");
            }
            self.keep(next).await;
        }
    }

    fn is_full(&self) -> bool {
        let stats = self.buffer.stats();
        stats.bytes_on_disk >= self.max_bytes && stats.entries > 0
    }

    async fn wait_for_room(&self, until: Instant) -> bool {
        while self.is_full() {
            if Instant::now() >= until {
                return false;
            }
            sleep(FULL_POLL).await;
        }
        true
    }

    fn refuse(&self, captured: Captured, why: CaptureRefused) {
        self.counters.refused.fetch_add(1, Ordering::Relaxed);
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
        let now_ms = chrono::Utc::now().timestamp_millis();
        match self.known.judge(attempt, &captured.topic, content, now_ms) {
            Verdict::New { side, fate } => {
                let done = captured.done;
                let counters = self.counters.clone();
                let settle = move |kept: Result<(), CaptureRefused>| {
                    fate.settle(kept.is_ok());
                    if kept.is_err() {
                        counters.refused.fetch_add(1, Ordering::Relaxed);
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

fn refusal(error: AppendError) -> CaptureRefused {
    match error {
        AppendError::Full => CaptureRefused::Full,
        AppendError::Disk | AppendError::Closed => CaptureRefused::Disk,
    }
}
