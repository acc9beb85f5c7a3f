//! The time of a reading, without a battery clock (promise P3).
//!
//! A message is stamped with the kernel's monotonic clock and a *segment*: a stretch of one boot in which the wall
//! clock runs evenly against the monotonic one. A segment's wall offset is written to disk once, before the
//! first record of the segment goes out, so a record that is sent twice has one time. A wall clock that steps while
//! synchronised begins a new segment. Stamps taken before synchronisation are corrected with the offset
//! found later, if that happens within the same boot.
//!
//! This module never sets a clock and never talks to a time server; whether the wall clock can be trusted is the
//! kernel's word (`adjtimex`), or the configuration's where a machine has no such word.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use chrono::{DateTime, Utc};

/// A stretch of even time; numbered through the life of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentId(pub u32);

/// When a message was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// The segment `monotonic_us` belongs to.
    pub segment: SegmentId,
    /// Microseconds of the kernel's monotonic clock; strictly increasing within a process.
    pub monotonic_us: u64,
    /// Whether the wall clock was synchronised at that moment.
    pub synced: bool,
}

/// Whose word is taken for "the wall clock is right".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The kernel's, kept by NTP.
    #[default]
    Kernel,
    /// Ours: the wall clock is always right. For containers and development machines.
    Trusted,
}

/// A wall clock that differs from the segment's line by more than this has been stepped, not slewed:
/// slewing moves both clocks together.
const STEP_US: i64 = 1_000_000;

/// The clocks of the machine, read together.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Microseconds since boot.
    pub monotonic_us: u64,
    /// Microseconds since 1970.
    pub wall_us: i64,
    /// Whether the wall clock can be trusted.
    pub synced: bool,
}

impl Reading {
    fn offset_us(&self) -> i64 {
        self.wall_us - self.monotonic_us as i64
    }

    /// By how many seconds the wall clock was stepped since its offset was this; `None` when it was not, or is not to be
    /// trusted.
    pub fn stepped_from(&self, offset_us: i64) -> Option<f64> {
        let step_us = self.offset_us() - offset_us;
        (self.synced && step_us.abs() > STEP_US).then(|| step_us as f64 / 1e6)
    }
}

/// What [`Clock::compare`] noticed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Change {
    /// The wall clock became known for this segment.
    Synchronised {
        /// The segment.
        segment: SegmentId,
        /// Wall minus monotonic, microseconds.
        offset_us: i64,
    },
    /// The wall clock was stepped; a new segment began.
    Stepped {
        /// The new segment.
        segment: SegmentId,
        /// Wall minus monotonic, microseconds.
        offset_us: i64,
        /// By how much, seconds; negative when it went back.
        step_seconds: f64,
    },
}

/// Hands out stamps.
pub struct Clock {
    state: Mutex<State>,
}

struct State {
    segment: SegmentId,
    offset_us: Option<i64>,
    last_monotonic_us: u64,
    steps: u64,
    last_step_seconds: Option<f64>,
}

impl Clock {
    /// A clock whose first segment is `segment`, which no earlier process used.
    pub fn new(segment: SegmentId) -> Self {
        Self {
            state: Mutex::new(State {
                segment,
                offset_us: None,
                last_monotonic_us: 0,
                steps: 0,
                last_step_seconds: None,
            }),
        }
    }

    /// The stamp of a message received now.
    pub fn stamp(&self) -> Stamp {
        let mut state = self.state();
        let monotonic_us = monotonic_us().max(state.last_monotonic_us + 1);
        state.last_monotonic_us = monotonic_us;
        Stamp {
            segment: state.segment,
            monotonic_us,
            synced: state.offset_us.is_some(),
        }
    }

    /// Compares the machine's clocks with what is known. Changes nothing: the caller puts the change on disk, then
    /// calls [`Clock::apply`], so that no message is ever stamped with a segment the disk does not know.
    pub fn compare(&self, reading: Reading) -> Option<Change> {
        if !reading.synced {
            return None;
        }
        let state = self.state();
        let offset_us = reading.offset_us();
        match state.offset_us {
            None => Some(Change::Synchronised {
                segment: state.segment,
                offset_us,
            }),
            Some(known) => Some(Change::Stepped {
                segment: SegmentId(state.segment.0 + 1),
                offset_us,
                step_seconds: reading.stepped_from(known)?,
            }),
        }
    }

    /// Stamps from now on follow `change`.
    pub fn apply(&self, change: Change) {
        let (Change::Synchronised { segment, offset_us }
        | Change::Stepped {
            segment, offset_us, ..
        }) = change;
        let mut state = self.state();
        state.segment = segment;
        state.offset_us = Some(offset_us);
        drop(state);
        if let Change::Stepped { step_seconds, .. } = change {
            self.note_step(step_seconds);
        }
    }

    /// Counts a step of the wall clock.
    pub fn note_step(&self, seconds: f64) {
        let mut state = self.state();
        state.steps += 1;
        state.last_step_seconds = Some(seconds);
    }

    /// Steps since start, and by how many seconds the last one was.
    pub fn steps(&self) -> (u64, Option<f64>) {
        let state = self.state();
        (state.steps, state.last_step_seconds)
    }

    /// The current segment.
    pub fn segment(&self) -> SegmentId {
        self.state().segment
    }

    /// True once the wall clock is known.
    pub fn is_synced(&self) -> bool {
        self.state().offset_us.is_some()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing between lock and unlock can panic.
        self.state
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Segments of damaged buffers are numbered from here. A clock that steps once a second takes 68 years to get here.
const FIRST_ADOPTED: u32 = 1 << 31;

/// What is known of every segment that still has messages in the buffer.
#[derive(Clone, Debug, Default)]
pub struct Timeline {
    segments: HashMap<SegmentId, Segment>,
}

/// What is known of one segment.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Segment {
    /// The kernel's id of the boot.
    pub boot_id: String,
    /// Wall minus monotonic, microseconds; absent while it is not known.
    pub offset_us: Option<i64>,
    /// What the unsynchronised wall clock said when the segment began, minus monotonic: all there is to go by for
    /// messages that waited too long.
    pub guess_us: i64,
    /// Messages stamped up to here went out with the guess and keep it, whatever becomes known later.
    pub guessed_until_us: u64,
}

/// A message's time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Resolved {
    /// The time.
    pub time: DateTime<Utc>,
    /// How far it can be trusted.
    pub clock: telemetry::Clock,
}

impl Timeline {
    /// Reads the durable values under [`KEY_PREFIX`], without the prefix; what cannot be read is left out.
    pub fn load(values: Vec<(Vec<u8>, Vec<u8>)>) -> Self {
        let mut segments = HashMap::new();
        for (key, value) in values {
            if let (Ok(key), Some(segment)) = (<[u8; 4]>::try_from(key.as_slice()), Segment::decode(&value)) {
                segments.insert(SegmentId(u32::from_be_bytes(key)), segment);
            }
        }
        Self { segments }
    }

    /// The first segment number nobody used.
    pub fn next_segment(&self) -> SegmentId {
        let own = self.segments.keys().filter(|id| id.0 < FIRST_ADOPTED);
        SegmentId(own.map(|id| id.0 + 1).max().unwrap_or(1))
    }

    /// The first number for a segment of a damaged buffer; they are counted apart from the clock's own.
    pub fn next_adopted_segment(&self) -> SegmentId {
        SegmentId(
            self.segments
                .keys()
                .map(|id| id.0 + 1)
                .max()
                .unwrap_or(0)
                .max(FIRST_ADOPTED),
        )
    }

    /// Notes a segment of a damaged buffer, as it was.
    pub fn adopt(&mut self, id: SegmentId, segment: Segment) {
        self.segments.insert(id, segment);
    }

    /// Wall minus monotonic as it was known last in a boot, microseconds.
    pub fn latest_offset(&self, boot_id: &str) -> Option<i64> {
        let of_boot = |(id, segment): &(&SegmentId, &Segment)| {
            id.0 < FIRST_ADOPTED && segment.boot_id == boot_id && segment.offset_us.is_some()
        };
        let latest = self.segments.iter().filter(of_boot).max_by_key(|(id, _)| **id);
        latest.and_then(|(_, segment)| segment.offset_us)
    }

    /// Whether both segments are of one boot, so that their stamps can be compared.
    pub fn is_same_boot(&self, one: SegmentId, other: SegmentId) -> bool {
        match (self.segments.get(&one), self.segments.get(&other)) {
            (Some(one), Some(other)) => one.boot_id == other.boot_id,
            _ => false,
        }
    }

    /// The clock's own segments before this one; none before one of a damaged buffer, which are not in order.
    pub fn before(&self, id: SegmentId) -> Vec<SegmentId> {
        let is_before = |known: &&SegmentId| known.0 < id.0 && id.0 < FIRST_ADOPTED;
        self.segments.keys().filter(is_before).copied().collect()
    }

    /// Forgets segments.
    pub fn forget(&mut self, ids: &[SegmentId]) {
        ids.iter().for_each(|id| {
            self.segments.remove(id);
        });
    }

    /// What is known of a segment.
    pub fn get(&self, id: SegmentId) -> Option<&Segment> {
        self.segments.get(&id)
    }

    /// Notes what is known of a segment. Segments of the same boot that had no offset get this one:
    /// a process that died before synchronisation is corrected by its successor.
    /// Answers every segment that changed, for the disk.
    pub fn note(&mut self, id: SegmentId, segment: Segment) -> Vec<(SegmentId, Segment)> {
        let mut changed = Vec::new();
        if let Some(offset_us) = segment.offset_us {
            for (other, known) in &mut self.segments {
                if *other != id && known.boot_id == segment.boot_id && known.offset_us.is_none() {
                    known.offset_us = Some(offset_us);
                    changed.push((*other, known.clone()));
                }
            }
        }
        self.segments.insert(id, segment.clone());
        changed.push((id, segment));
        changed
    }

    /// The time of a stamp, or `None` while its segment's offset is not known.
    pub fn resolve(&self, stamp: Stamp) -> Option<Resolved> {
        let segment = self.segments.get(&stamp.segment)?;
        let guessed = stamp.monotonic_us <= segment.guessed_until_us;
        let offset_us = if guessed {
            segment.guess_us
        } else {
            segment.offset_us?
        };
        let clock = match (guessed, stamp.synced) {
            (true, _) => telemetry::Clock::Unsynced,
            (false, true) => telemetry::Clock::Synced,
            (false, false) => telemetry::Clock::Corrected,
        };
        let time = (stamp.monotonic_us as i64)
            .checked_add(offset_us)
            .and_then(DateTime::from_timestamp_micros);
        Some(match time {
            Some(time) => Resolved { time, clock },
            // A clock that far off is no clock; waiting for a better time would be in vain.
            None => Resolved {
                time: DateTime::UNIX_EPOCH,
                clock: telemetry::Clock::Unsynced,
            },
        })
    }

    /// True when the segment belongs to this boot and may still become known.
    pub fn may_become_known(&self, segment: SegmentId, boot_id: &str) -> bool {
        self.segments
            .get(&segment)
            .is_some_and(|s| s.offset_us.is_none() && s.boot_id == boot_id)
    }

    /// Gives the messages of a segment up to `until_us` the guessed time. Answers what to write to disk
    /// before the first of them goes out. A segment nobody knows gets a guess of 1970.
    pub fn give_up(&mut self, id: SegmentId, until_us: u64) -> Segment {
        let segment = self.segments.entry(id).or_insert_with(|| Segment {
            boot_id: String::new(),
            offset_us: None,
            guess_us: 0,
            guessed_until_us: 0,
        });
        segment.guessed_until_us = segment.guessed_until_us.max(until_us);
        segment.clone()
    }
}

impl Segment {
    /// A segment that begins now.
    pub fn begin(boot_id: &str, reading: Reading) -> Self {
        let offset_us = reading.synced.then(|| reading.offset_us());
        Self {
            boot_id: boot_id.to_owned(),
            offset_us,
            guess_us: reading.offset_us(),
            guessed_until_us: 0,
        }
    }

    /// Takes over what another state of the same segment knows.
    pub fn learn(&mut self, other: Segment) {
        self.offset_us = self.offset_us.or(other.offset_us);
        self.guessed_until_us = self.guessed_until_us.max(other.guessed_until_us);
    }

    /// Name of its durable value.
    pub fn key(id: SegmentId) -> Vec<u8> {
        [KEY_PREFIX, &id.0.to_be_bytes()].concat()
    }

    /// Form on disk: JSON.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a segment has only text and whole numbers")
    }

    /// Reads the form on disk.
    pub fn decode(value: &[u8]) -> Option<Self> {
        serde_json::from_slice(value).ok()
    }
}

/// Prefix of the durable values that hold segments.
pub const KEY_PREFIX: &[u8] = b"clock/";

/// Reads the machine's clocks.
pub fn read_machine(source: Source) -> Reading {
    let wall_us = Utc::now().timestamp_micros();
    Reading {
        monotonic_us: monotonic_us(),
        wall_us,
        synced: source == Source::Trusted || kernel_says_synced(),
    }
}

/// The kernel's id of this boot; the process id where the kernel gives none.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").map_or_else(
        |_| format!("process-{}", std::process::id()),
        |id| id.trim().to_owned(),
    )
}

/// `CLOCK_BOOTTIME` counts while the machine sleeps, as the wall clock does.
fn monotonic_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}

/// `adjtimex` has no safe wrapper in our dependencies; `ntp_adjtime`'s answer is also what `timedatectl` shows.
fn kernel_says_synced() -> bool {
    // SAFETY: an all-zero `timex` with modes 0 only asks; the kernel fills the struct we own.
    #[expect(unsafe_code, reason = "adjtimex has no safe wrapper; modes 0 only reads")]
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&mut timex)
    };
    state >= 0 && state != libc::TIME_ERROR
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(monotonic_s: u64, wall_s: i64, synced: bool) -> Reading {
        Reading {
            monotonic_us: monotonic_s * 1_000_000,
            wall_us: wall_s * 1_000_000,
            synced,
        }
    }

    fn observe(clock: &Clock, reading: Reading) -> Option<Change> {
        let change = clock.compare(reading)?;
        clock.apply(change);
        Some(change)
    }

    fn segment(offset_us: Option<i64>) -> Segment {
        Segment {
            boot_id: "boot".into(),
            offset_us,
            guess_us: 0,
            guessed_until_us: 0,
        }
    }

    #[test]
    fn stamps_strictly_increase() {
        let clock = Clock::new(SegmentId(1));
        let stamps: Vec<_> = (0..10_000).map(|_| clock.stamp().monotonic_us).collect();
        assert!(stamps.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn readings_before_synchronisation_are_corrected_afterwards() {
        let clock = Clock::new(SegmentId(3));
        let mut timeline = Timeline::default();
        timeline.note(SegmentId(3), segment(None));
        let early = Stamp {
            segment: SegmentId(3),
            monotonic_us: 5_000_000,
            synced: false,
        };
        assert_eq!(timeline.resolve(early), None);
        assert_eq!(
            observe(&clock, reading(10, 50, false)),
            None,
            "1970 is not the time"
        );
        let change = observe(&clock, reading(20, 1_767_254_412, true)).unwrap();
        let Change::Synchronised {
            segment: id,
            offset_us,
        } = change
        else {
            panic!("{change:?}")
        };
        timeline.note(id, segment(Some(offset_us)));
        let resolved = timeline.resolve(early).unwrap();
        assert_eq!(resolved.time.timestamp(), 1_767_254_412 - 15);
        assert_eq!(resolved.clock, telemetry::Clock::Corrected);
        let late = Stamp {
            synced: true,
            ..early
        };
        assert_eq!(timeline.resolve(late).unwrap().clock, telemetry::Clock::Synced);
    }

    #[test]
    fn a_step_begins_a_segment_and_old_messages_keep_their_time() {
        let clock = Clock::new(SegmentId(1));
        observe(&clock, reading(100, 1_000_100, true)).unwrap();
        assert_eq!(observe(&clock, reading(200, 1_000_200, true)), None);
        let change = observe(&clock, reading(300, 1_000_000, true)).unwrap();
        let Change::Stepped {
            segment: new,
            step_seconds,
            offset_us,
        } = change
        else {
            panic!("{change:?}")
        };
        assert_eq!((new, step_seconds), (SegmentId(2), -300.0));
        let mut timeline = Timeline::default();
        timeline.note(SegmentId(1), segment(Some(1_000_000_000_000)));
        timeline.note(new, segment(Some(offset_us)));
        let old = Stamp {
            segment: SegmentId(1),
            monotonic_us: 250_000_000,
            synced: true,
        };
        assert_eq!(timeline.resolve(old).unwrap().time.timestamp(), 1_000_250);
        let fresh = Stamp {
            segment: new,
            monotonic_us: 301_000_000,
            synced: true,
        };
        assert_eq!(timeline.resolve(fresh).unwrap().time.timestamp(), 1_000_001);
    }

    #[test]
    fn a_process_that_died_before_synchronisation_is_corrected_by_its_successor() {
        let mut timeline = Timeline::default();
        timeline.note(SegmentId(1), segment(None));
        timeline.note(
            SegmentId(9),
            Segment {
                boot_id: "another boot".into(),
                ..segment(None)
            },
        );
        let changed = timeline.note(SegmentId(2), segment(Some(7)));
        let ids: Vec<_> = changed.iter().map(|(id, _)| id.0).collect();
        assert_eq!(ids, [1, 2], "the other boot stays unknown");
        let stored: Vec<_> = changed
            .iter()
            .map(|(id, s)| (id.0.to_be_bytes().to_vec(), s.encode()))
            .collect();
        let mut loaded = Timeline::load(stored);
        assert_eq!(loaded.next_segment(), SegmentId(3));
        assert!(
            loaded
                .resolve(Stamp {
                    segment: SegmentId(1),
                    monotonic_us: 1,
                    synced: false
                })
                .is_some()
        );
        loaded.note(SegmentId(3), segment(None));
        assert!(loaded.may_become_known(SegmentId(3), "boot"));
        assert!(!loaded.may_become_known(SegmentId(3), "another boot"));
    }

    #[test]
    fn a_message_that_went_out_with_a_guess_keeps_it() {
        let mut timeline = Timeline::default();
        timeline.note(
            SegmentId(1),
            Segment {
                guess_us: 500,
                ..segment(None)
            },
        );
        let stamp = |monotonic_us| Stamp {
            segment: SegmentId(1),
            monotonic_us,
            synced: false,
        };
        assert_eq!(timeline.resolve(stamp(10)), None);
        let stored = timeline.give_up(SegmentId(1), 10);
        let guessed = timeline.resolve(stamp(10)).unwrap();
        assert_eq!(guessed.clock, telemetry::Clock::Unsynced);
        assert_eq!(
            timeline.resolve(stamp(11)),
            None,
            "younger messages go on waiting"
        );
        timeline.note(
            SegmentId(1),
            Segment {
                offset_us: Some(1_000_000),
                ..stored
            },
        );
        assert_eq!(timeline.resolve(stamp(10)), Some(guessed));
        assert_eq!(
            timeline.resolve(stamp(11)).unwrap().clock,
            telemetry::Clock::Corrected
        );
        timeline.give_up(SegmentId(77), u64::MAX);
        let unknown = Stamp {
            segment: SegmentId(77),
            monotonic_us: 1,
            synced: true,
        };
        assert_eq!(
            timeline.resolve(unknown).unwrap().clock,
            telemetry::Clock::Unsynced
        );
    }
}
