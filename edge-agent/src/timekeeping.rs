//! Keeps the clock's knowledge on disk: joins `clock` and `buffer`, which do not know each other.
//!
//! Everything a message's time depends on is written and synced before it is used. What is known of segments that no
//! buffered message belongs to any more is forgotten, so that neither starts nor a clock that jumps about fill the disk.

use std::{
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use anyhow::Context as _;
use telemetry::EventBody;
use tokio_util::sync::CancellationToken;

use crate::{
    buffer::Buffer,
    clock::{self, Change, Clock, Reading, Segment, SegmentId, Source, Timeline},
    message::Message,
    watchdog::Pulse,
};

/// How often the clocks are compared.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// Segments kept before that of the oldest buffered message: a message that waits for a full disk for some seconds comes
/// into the buffer behind younger ones, and no clock makes more segments than one a second.
const KEPT_SEGMENTS: u32 = 64;

/// See the module.
pub struct Timekeeper {
    /// The clock that messages are stamped with.
    pub clock: Arc<Clock>,
    /// Times of messages.
    pub timeline: Arc<Mutex<Timeline>>,
    buffer: Buffer,
    boot_id: String,
}

impl Timekeeper {
    /// Begins a clock segment of this process and puts it on disk, before anything is stamped with it. A clock that was
    /// stepped while no agent ran in this boot is told as one that was stepped before its eyes.
    pub async fn begin(reading: Reading, buffer: &Buffer, boot_id: &str) -> anyhow::Result<Self> {
        let timeline = Timeline::load(
            buffer
                .values(clock::KEY_PREFIX)
                .context("reading the clock's segments")?,
        );
        let before = timeline.latest_offset(boot_id);
        let keeper = Self {
            clock: Arc::new(Clock::new(timeline.next_segment())),
            timeline: Arc::new(Mutex::new(timeline)),
            buffer: buffer.clone(),
            boot_id: boot_id.to_owned(),
        };
        keeper.forget_old().await?;
        let id = keeper.clock.segment();
        keeper.learn(id, Segment::begin(boot_id, reading)).await?;
        if let Some(change) = keeper.clock.compare(reading) {
            keeper.clock.apply(change);
        }
        if let Some(step_seconds) = before.and_then(|offset_us| reading.stepped_from(offset_us)) {
            keeper.clock.note_step(step_seconds);
            keeper.tell_step(step_seconds).await;
        }
        Ok(keeper)
    }

    /// Watches the clocks: a wall clock that becomes known, or steps, is on disk before any message goes out with it.
    pub async fn run(self, source: Source, pulse: Pulse, stop: CancellationToken) -> anyhow::Result<()> {
        let mut interval = tokio::time::interval(CLOCK_INTERVAL);
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                _ = interval.tick() => {}
            }
            pulse.beat();
            self.look(clock::read_machine(source)).await?;
        }
    }

    /// Takes what the clocks say.
    async fn look(&self, reading: Reading) -> anyhow::Result<()> {
        let Some(change) = self.clock.compare(reading) else {
            return Ok(());
        };
        match change {
            Change::Synchronised {
                segment: id,
                offset_us,
            } => {
                let known = self.timeline()?.get(id).cloned();
                let begun = known.unwrap_or_else(|| Segment::begin(&self.boot_id, reading));
                let segment = Segment {
                    offset_us: Some(offset_us),
                    ..begun
                };
                self.learn(id, segment).await?;
                self.clock.apply(change);
                tracing::info!("the wall clock is synchronised");
            }
            Change::Stepped {
                segment: id,
                step_seconds,
                ..
            } => {
                self.learn(id, Segment::begin(&self.boot_id, reading)).await?;
                self.clock.apply(change);
                self.tell_step(step_seconds).await;
                self.forget_old().await?;
            }
        }
        Ok(())
    }

    /// The timeline learns of a segment only after the disk: until then messages wait.
    async fn learn(&self, id: SegmentId, segment: Segment) -> anyhow::Result<()> {
        let mut next = self.timeline()?.clone();
        let changed = next.note(id, segment);
        let values = changed
            .iter()
            .map(|(id, segment)| (Segment::key(*id), Some(segment.encode())))
            .collect();
        self.buffer
            .put(values)
            .await
            .context("writing the clock's offset")?;
        let mut timeline = self.timeline()?;
        for (id, segment) in changed {
            timeline.note(id, segment);
        }
        Ok(())
    }

    async fn tell_step(&self, step_seconds: f64) {
        tracing::warn!(step_seconds, "the wall clock was stepped");
        let event = Message::event(self.clock.stamp(), &EventBody::ClockStep { step_seconds }.into());
        if let Err(error) = self.buffer.append_reserved(event.encode()).await {
            tracing::error!(%error, step_seconds, "a clock step could not be recorded");
        }
    }

    /// Forgets segments of which no message is left.
    async fn forget_old(&self) -> anyhow::Result<()> {
        let batch = self
            .buffer
            .read(self.buffer.head(), 1)
            .context("looking for the oldest message")?;
        let oldest = match batch.entries.into_iter().next() {
            Some(entry) => Message::decode(entry.bytes)
                .ok()
                .map(|message| message.stamp.segment),
            None if batch.corrupt.is_empty() => Some(self.clock.segment()),
            None => None,
        };
        // What cannot be read says nothing of what comes behind it.
        let Some(oldest) = oldest else { return Ok(()) };
        let gone = self
            .timeline()?
            .before(SegmentId(oldest.0.saturating_sub(KEPT_SEGMENTS)));
        if gone.is_empty() {
            return Ok(());
        }
        let values = gone.iter().map(|id| (Segment::key(*id), None)).collect();
        self.buffer
            .put(values)
            .await
            .context("forgetting the clock's old segments")?;
        self.timeline()?.forget(&gone);
        Ok(())
    }

    fn timeline(&self) -> anyhow::Result<MutexGuard<'_, Timeline>> {
        self.timeline
            .lock()
            .map_err(|_| anyhow::anyhow!("the timeline is damaged by a panic"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        buffer::{Limits, Sequence, WhenFull},
        clock::Stamp,
        message::{AgentEvent, Body},
    };

    const DAY: i64 = 24 * 3600;
    /// The first of January 2026.
    const WALL: i64 = 1_767_225_600;

    fn open(dir: &std::path::Path) -> Buffer {
        let limits = Limits {
            max_bytes: 1 << 30,
            commit_interval: Duration::from_millis(1),
            commit_bytes: 1 << 15,
            when_full: WhenFull::Reject,
        };
        Buffer::open(dir, limits).unwrap()
    }

    /// The machine's clocks when `wall_s` stands at `monotonic_s` after boot.
    fn reading(monotonic_s: i64, wall_s: i64, synced: bool) -> Reading {
        Reading {
            monotonic_us: monotonic_s as u64 * 1_000_000,
            wall_us: wall_s * 1_000_000,
            synced,
        }
    }

    fn stamp(segment: SegmentId, monotonic_s: u64, synced: bool) -> Stamp {
        Stamp {
            segment,
            monotonic_us: monotonic_s * 1_000_000,
            synced,
        }
    }

    fn seconds(keeper: &Timekeeper, stamp: Stamp) -> i64 {
        keeper
            .timeline
            .lock()
            .unwrap()
            .resolve(stamp)
            .unwrap()
            .time
            .timestamp()
    }

    fn steps(buffer: &Buffer) -> Vec<f64> {
        let batch = buffer.read(Sequence(1), 1 << 20).unwrap();
        let step = |bytes| match Message::decode(bytes).unwrap().body {
            Body::Event(json) => match serde_json::from_slice::<AgentEvent>(&json).unwrap().body {
                EventBody::ClockStep { step_seconds } => Some(step_seconds),
                _ => None,
            },
            _ => None,
        };
        batch
            .entries
            .into_iter()
            .filter_map(|entry| step(entry.bytes))
            .collect()
    }

    #[tokio::test]
    async fn a_clock_that_steps_back_and_years_forward_is_counted_told_and_forgotten_by_no_message() {
        let dir = tempfile::tempdir().unwrap();
        let buffer = open(dir.path());
        let years = 10 * 365 * DAY;
        let keeper = Timekeeper::begin(reading(100, WALL, true), &buffer, "boot")
            .await
            .unwrap();
        let first = keeper.clock.segment();
        keeper.look(reading(200, WALL + 100, true)).await.unwrap();
        assert_eq!(keeper.clock.segment(), first, "it runs evenly");
        // Back by five minutes, ten years forward, and back to the truth.
        let mut segments = vec![first];
        for (monotonic, wall) in [(300, WALL - 100), (400, WALL + years), (500, WALL + 400)] {
            keeper.look(reading(monotonic, wall, true)).await.unwrap();
            segments.push(keeper.clock.segment());
        }
        assert_eq!(
            segments,
            (0..4).map(|n| SegmentId(first.0 + n)).collect::<Vec<_>>()
        );
        let want = [-300.0, (years + 100 - 100) as f64, -((years - 300) as f64)];
        let want = [want[0], want[1], want[2]];
        assert_eq!(keeper.clock.steps(), (3, Some(steps(&buffer)[2])));
        assert_eq!(steps(&buffer), want);
        let times = |keeper: &Timekeeper| {
            [150, 350, 450, 550]
                .into_iter()
                .zip(&segments)
                .map(|(at, id)| seconds(keeper, stamp(*id, at, true)))
                .collect::<Vec<_>>()
        };
        let before = times(&keeper);
        assert_eq!(before, [WALL + 50, WALL - 50, WALL + years + 50, WALL + 450]);
        // A message that is sent again after a restart has the time it had.
        buffer.close();
        drop((keeper, buffer));
        let buffer = open(dir.path());
        let keeper = Timekeeper::begin(reading(600, WALL + 500, true), &buffer, "boot")
            .await
            .unwrap();
        assert_eq!(times(&keeper), before);
        assert_eq!(keeper.clock.steps(), (0, None), "it did not step meanwhile");
    }

    #[tokio::test]
    async fn a_step_while_no_agent_ran_is_told_at_the_start() {
        let dir = tempfile::tempdir().unwrap();
        let buffer = open(dir.path());
        let begin = |at, wall, boot| Timekeeper::begin(reading(at, wall, true), &buffer, boot);
        begin(100, WALL, "boot").await.unwrap();
        let keeper = begin(200, WALL + 100 - 3_600, "boot").await.unwrap();
        assert_eq!(keeper.clock.steps(), (1, Some(-3_600.0)));
        assert_eq!(steps(&buffer), [-3_600.0]);
        // Another boot has another line; what happened between cannot be known.
        let keeper = begin(5, WALL + 2 * DAY, "another boot").await.unwrap();
        assert_eq!(keeper.clock.steps().0, 0);
        assert_eq!(steps(&buffer).len(), 1);
    }

    #[tokio::test]
    async fn a_clock_that_is_never_right_steps_unseen() {
        let dir = tempfile::tempdir().unwrap();
        let buffer = open(dir.path());
        let keeper = Timekeeper::begin(reading(1, 10, false), &buffer, "boot")
            .await
            .unwrap();
        keeper.look(reading(2, WALL, false)).await.unwrap();
        assert!(!keeper.clock.is_synced());
        let early = stamp(keeper.clock.segment(), 1, false);
        assert_eq!(keeper.timeline.lock().unwrap().resolve(early), None);
        keeper.look(reading(3, WALL + 1, true)).await.unwrap();
        let resolved = keeper.timeline.lock().unwrap().resolve(early).unwrap();
        assert_eq!(
            (resolved.time.timestamp(), resolved.clock),
            (WALL - 1, telemetry::Clock::Corrected)
        );
        assert!(steps(&buffer).is_empty(), "to be set is not to step");
    }

    #[tokio::test]
    async fn segments_without_messages_are_forgotten_those_of_buffered_ones_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let buffer = open(dir.path());
        let keeper = Timekeeper::begin(reading(1, WALL, true), &buffer, "boot")
            .await
            .unwrap();
        let segments = || buffer.values(clock::KEY_PREFIX).unwrap().len() as u32;
        let jump = async |n: i64| {
            let wall = WALL + n % 2 * DAY;
            keeper.look(reading(10 + n, wall, true)).await.unwrap();
        };
        for n in 0..300 {
            jump(n).await;
        }
        // The first event of a step is still there, and so is everything since.
        let oldest = stamp(SegmentId(2), 11, true);
        assert!(segments() > 295);
        let time = seconds(&keeper, oldest);
        assert!((WALL..WALL + 2 * DAY).contains(&time));
        buffer.remove_before(Sequence(u64::MAX));
        for n in 300..310 {
            jump(n).await;
            buffer.remove_before(Sequence(u64::MAX));
        }
        assert!(segments() <= KEPT_SEGMENTS + 2, "{}", segments());
    }
}
