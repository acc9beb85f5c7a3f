//! When messages without a time go out. The rest of the lane is tried with a real Kafka, in `tests/e2e` and `tests/faults`.

use std::collections::HashMap;

use super::*;
use crate::{
    buffer::{Limits, WhenFull},
    clock::{self, SegmentId, Source},
    decode::{Decoders, Route},
    rules::Rules,
    watchdog::Stages,
};

/// This boot's id in the test.
const BOOT: &str = "this boot";
const GUESS_US: i64 = 1_000_000_000_000;

/// A lane over a buffer with two segments without a time: 1 of an earlier boot, 2 of this one.
async fn lane(dir: &std::path::Path, clock_wait: Duration) -> Lane {
    let limits = Limits {
        max_bytes: 1 << 30,
        commit_interval: Duration::from_millis(1),
        commit_bytes: 1 << 15,
        when_full: WhenFull::Reject,
    };
    let buffer = Buffer::open(dir, limits).unwrap();
    let mut timeline = Timeline::default();
    for (id, boot_id) in [(1, "an earlier boot"), (2, BOOT)] {
        let segment = Segment {
            boot_id: boot_id.into(),
            offset_us: None,
            guess_us: GUESS_US,
            guessed_until_us: 0,
        };
        timeline.note(SegmentId(id), segment);
    }
    let kafka = toml::from_str("bootstrap = \"127.0.0.1:1\"").unwrap();
    let settings = Settings {
        agent: "p0".into(),
        kafka: crate::kafka::Kafka::check(kafka, None).unwrap(),
        clock_wait,
        boot_id: BOOT.into(),
        rules: Arc::new(Rules::new(
            Decoders::new(&Route::defaults(), &[]).unwrap(),
            HashMap::new(),
        )),
        pulse: Stages::default().add("forward"),
    };
    let timeline = Arc::new(Mutex::new(timeline));
    Lane::new(settings, buffer, timeline, Arc::default(), Arc::default())
}

fn stamp(segment: u32, monotonic_us: u64) -> Stamp {
    Stamp {
        segment: SegmentId(segment),
        monotonic_us,
        synced: false,
    }
}

fn now_us() -> u64 {
    clock::read_machine(Source::Kernel).monotonic_us
}

#[tokio::test]
async fn a_message_without_a_time_waits_no_longer_than_clock_wait_and_keeps_what_it_was_given() {
    let dir = tempfile::tempdir().unwrap();
    let mut lane = lane(dir.path(), Duration::from_secs(120)).await;
    let (young, old) = (
        stamp(2, now_us()),
        stamp(2, now_us().saturating_sub(121_000_000).max(1)),
    );
    assert_eq!(lane.resolve(young).await.unwrap(), None, "it waits");
    lane.settings.clock_wait = Duration::from_micros(now_us() - old.monotonic_us);
    let guessed = lane
        .resolve(old)
        .await
        .unwrap()
        .expect("it has waited long enough");
    assert_eq!(guessed.clock, telemetry::Clock::Unsynced);
    assert_eq!(
        guessed.time.timestamp_micros(),
        GUESS_US + old.monotonic_us as i64
    );
    assert_eq!(
        lane.resolve(young).await.unwrap(),
        None,
        "younger ones go on waiting"
    );
    assert_eq!(lane.progress.unsynced.load(Ordering::Relaxed), 1);
    // What it was given is on disk, and stays when the clock becomes known.
    let on_disk = Timeline::load(lane.buffer.values(clock::KEY_PREFIX).unwrap());
    assert_eq!(on_disk.resolve(old), Some(guessed));
    let mut known = lane.timeline.lock().unwrap().get(SegmentId(2)).cloned().unwrap();
    known.offset_us = Some(2 * GUESS_US);
    lane.timeline.lock().unwrap().note(SegmentId(2), known);
    assert_eq!(lane.resolve(old).await.unwrap(), Some(guessed));
    let corrected = lane.resolve(young).await.unwrap().unwrap();
    assert_eq!(corrected.clock, telemetry::Clock::Corrected);
}

#[tokio::test]
async fn a_boot_that_is_over_without_a_time_is_not_waited_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut lane = lane(dir.path(), Duration::from_secs(120)).await;
    let guessed = lane.resolve(stamp(1, now_us() + 1)).await.unwrap().unwrap();
    assert_eq!(guessed.clock, telemetry::Clock::Unsynced);
    // A segment that nobody knows, as of a damaged buffer, is no reason to wait either.
    let unknown = lane.resolve(stamp(99, 1)).await.unwrap().unwrap();
    assert_eq!(unknown.clock, telemetry::Clock::Unsynced);
}
