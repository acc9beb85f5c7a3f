//! Keeps the clock's knowledge on disk: joins `clock` and `buffer`, which do not know each other.
//!
//! Everything a message's time depends on is written and synced before it is used.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use telemetry::EventBody;
use tokio_util::sync::CancellationToken;

use crate::{
    buffer::Buffer,
    clock::{self, Change, Clock, Segment, SegmentId, Source, Timeline},
    message::Message,
};

/// How often the clocks are compared.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);

/// Begins a clock segment of this process and puts it on disk, before anything is stamped with it.
pub async fn begin(
    source: Source,
    buffer: &Buffer,
    boot_id: &str,
) -> anyhow::Result<(Arc<Clock>, Arc<Mutex<Timeline>>)> {
    let mut timeline = Timeline::load(
        buffer
            .values(clock::KEY_PREFIX)
            .context("reading the clock's segments")?,
    );
    let id = timeline.next_segment();
    let clock = Clock::new(id);
    let reading = clock::read_machine(source);
    let changed = timeline.note(id, Segment::begin(boot_id, reading));
    store_segments(buffer, changed).await?;
    if let Some(change) = clock.compare(reading) {
        clock.apply(change);
    }
    Ok((Arc::new(clock), Arc::new(Mutex::new(timeline))))
}

async fn store_segments(buffer: &Buffer, changed: Vec<(SegmentId, Segment)>) -> anyhow::Result<()> {
    let values = changed
        .into_iter()
        .map(|(id, segment)| (Segment::key(id), Some(segment.encode())))
        .collect();
    buffer.put(values).await.context("writing the clock's offset")
}

/// Watches the clocks: a wall clock that becomes known, or steps, is on disk before any message goes out with it.
pub async fn keep(
    source: Source,
    clock: Arc<Clock>,
    timeline: Arc<Mutex<Timeline>>,
    buffer: Buffer,
    boot_id: String,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut interval = tokio::time::interval(CLOCK_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = interval.tick() => {}
        }
        let reading = clock::read_machine(source);
        let Some(change) = clock.compare(reading) else {
            continue;
        };
        let (id, segment) = match change {
            Change::Synchronised {
                segment: id,
                offset_us,
            } => {
                tracing::info!("the wall clock is synchronised");
                let known = timeline.lock().ok().and_then(|t| t.get(id).cloned());
                let begun = known.unwrap_or_else(|| Segment::begin(&boot_id, reading));
                (
                    id,
                    Segment {
                        offset_us: Some(offset_us),
                        ..begun
                    },
                )
            }
            Change::Stepped {
                segment: id,
                step_seconds,
                ..
            } => {
                tracing::warn!(step_seconds, "the wall clock was stepped");
                (id, Segment::begin(&boot_id, reading))
            }
        };
        // The timeline learns of it only after the disk: until then messages wait.
        let mut next = timeline.lock().map_err(|_| damaged())?.clone();
        let changed = next.note(id, segment);
        store_segments(&buffer, changed.clone()).await?;
        {
            let mut timeline = timeline.lock().map_err(|_| damaged())?;
            for (id, segment) in changed {
                timeline.note(id, segment);
            }
        }
        clock.apply(change);
        if let Change::Stepped { step_seconds, .. } = change {
            let event = Message::event(clock.stamp(), &EventBody::ClockStep { step_seconds }.into());
            if let Err(error) = buffer.append(event.encode()).await {
                tracing::error!(%error, step_seconds, "a clock step could not be recorded");
            }
        }
    }
}

fn damaged() -> anyhow::Error {
    anyhow::anyhow!("the timeline is damaged by a panic")
}
