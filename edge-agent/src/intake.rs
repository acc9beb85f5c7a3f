//! From the broker to the buffer: what was captured becomes an entry, and its sender hears of it.
//!
//! When the buffer is full, everything captured waits in line for a bounded time: nothing overtakes, so order
//! per device holds. Then it is refused, which closes the connections it came on; their clients keep it.

use std::time::Duration;

use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};

use crate::{
    broker::{CaptureRefused, Captured, CapturedPayload},
    buffer::{Append, AppendError, Buffer},
    message::{Body, Message},
};

/// How long devices are held up before they are sent away with a full buffer.
const FULL_WAIT: Duration = Duration::from_secs(10);
/// How often a full buffer is looked at.
const FULL_POLL: Duration = Duration::from_millis(100);
/// How often a writer that has fallen behind is asked again.
const BUSY_POLL: Duration = Duration::from_millis(1);

/// Takes what is captured until the broker is gone. `max_bytes` is the buffer's limit.
pub async fn run(mut captured: mpsc::Receiver<Captured>, buffer: Buffer, max_bytes: u64) {
    let mut full_since: Option<Instant> = None;
    while let Some(next) = captured.recv().await {
        let stats = buffer.stats();
        if stats.bytes_on_disk >= max_bytes && stats.entries > 0 {
            let since = *full_since.get_or_insert_with(|| {
                tracing::error!(
                    bytes = stats.bytes_on_disk,
                    "the buffer is full; devices are held up, then refused"
                );
                Instant::now()
            });
            if !wait_for_room(&buffer, max_bytes, since + FULL_WAIT).await {
                refuse(next, CaptureRefused::Full);
                continue;
            }
        }
        if full_since.take().is_some() {
            tracing::info!("the buffer has room again");
        }
        append(&buffer, next).await;
    }
}

async fn wait_for_room(buffer: &Buffer, max_bytes: u64, until: Instant) -> bool {
    loop {
        let stats = buffer.stats();
        if stats.bytes_on_disk < max_bytes || stats.entries == 0 {
            return true;
        }
        if Instant::now() >= until {
            return false;
        }
        sleep(FULL_POLL).await;
    }
}

fn refuse(captured: Captured, why: CaptureRefused) {
    if let Some(done) = captured.done {
        // The connection may have ended meanwhile; then its client knows already.
        let _ = done.send(Err(why));
    }
}

async fn append(buffer: &Buffer, captured: Captured) {
    let body = match captured.payload {
        CapturedPayload::Whole(payload) => Body::Payload(payload),
        CapturedPayload::Truncated { head, length, sha256 } => Body::Truncated { head, length, sha256 },
    };
    let message = Message {
        identity: None,
        stamp: captured.stamp,
        topic: captured.topic.to_string(),
        body,
    };
    let done = captured.done;
    let mut append = Append {
        bytes: message.encode(),
        side: Vec::new(),
        done: Box::new(move |outcome| {
            if let Some(done) = done {
                let outcome = outcome.map(|_| ()).map_err(|error| match error {
                    AppendError::Full => CaptureRefused::Full,
                    AppendError::Disk | AppendError::Closed => CaptureRefused::Disk,
                });
                // The connection may have ended meanwhile; its client sends again and is recognised.
                let _ = done.send(outcome);
            }
        }),
    };
    while let Err(back) = buffer.try_append(append) {
        append = back;
        sleep(BUSY_POLL).await;
    }
}
