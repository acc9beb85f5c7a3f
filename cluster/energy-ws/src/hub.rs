//! One place where what comes from Kafka meets the clients: a bounded window for those who come back, and a ring
//! for those who are here.
//!
//! Records get a process-wide order here. Each is written as JSON once, with the cursor that is right for every
//! client that has had everything before it. A client that is slower than the ring is long is told so and cut off;
//! nobody is ever waited for.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::extract::ws::Utf8Bytes;
use tokio::sync::{broadcast, watch};

use crate::position::{Place, Positions};
use crate::protocol::{Body, GapReason, with_cursor};
use crate::stream::Stream;

/// Records kept of each partition for clients that come back: half an hour of one meter's readings a second.
pub const WINDOW_RECORDS: usize = 2_000;
/// Bytes kept of each partition. With thirteen partitions the windows stay below 20 MB.
pub const WINDOW_BYTES: usize = 1_500_000;
/// Records a client may be behind before it is cut off. At the ten readings a second of a busy house it is minutes.
const RING_RECORDS: usize = 4_096;
/// Records of one step of a replay: what one client that comes back holds in memory at a time.
pub const REPLAY_STEP: usize = 128;

/// One record on its way to clients.
#[derive(Debug)]
pub struct Entry {
    /// The process-wide order.
    pub sequence: u64,
    /// The partition it came from.
    pub place: Place,
    /// Its offset there.
    pub offset: i64,
    /// When the broker appended it, in milliseconds since 1970.
    pub appended_ms: i64,
    /// The device it is about.
    pub device: Option<Box<str>>,
    /// The whole message, shared by all clients.
    pub message: Utf8Bytes,
    /// Where the cursor begins in `message`.
    body_bytes: usize,
}

impl Entry {
    /// The positions of the cursor in the message.
    pub fn positions(&self) -> Positions {
        let field = &self.message.as_str()[self.body_bytes..];
        let cursor = field
            .strip_prefix(",\"cursor\":\"")
            .and_then(|rest| rest.strip_suffix("\"}"));
        let read = cursor.and_then(Positions::from_cursor);
        read.expect("the hub wrote the cursor itself").0
    }

    /// The message with another cursor, for a client whose place differs from the hub's.
    pub fn message_at(&self, positions: &Positions) -> Utf8Bytes {
        let body = &self.message.as_str()[..self.body_bytes];
        with_cursor(body, &positions.to_cursor(self.appended_ms)).into()
    }
}

/// What the ring carries.
#[derive(Clone, Debug)]
pub enum Live {
    /// A record.
    Record(Arc<Entry>),
    /// Records that nobody here has read, before the one that follows.
    Break(Arc<Break>),
}

/// A place where a partition does not go on with the next offset.
#[derive(Debug)]
pub struct Break {
    /// The process-wide order.
    pub sequence: u64,
    /// The partition.
    pub place: Place,
    /// The offset it goes on with.
    pub next: i64,
    /// When the last record before it was appended, in milliseconds since 1970.
    pub from_ms: i64,
    /// When the record that follows was appended.
    pub to_ms: i64,
    /// `Window`: the topic's retention took them before they were read. `Reset`: the topic was made anew.
    pub reason: GapReason,
}

/// Records missing between a cursor and what can be replayed.
#[derive(Debug, PartialEq, Eq)]
pub struct Gap {
    /// The stream.
    pub stream: Stream,
    /// When the oldest record that follows was appended, in milliseconds since 1970, in the partition where that is
    /// latest; none when in one none follows yet.
    pub to_ms: Option<i64>,
    /// Why.
    pub reason: GapReason,
}

/// One step of a replay.
#[derive(Debug)]
pub struct Step {
    /// What is missing before `entries`.
    pub gaps: Vec<Gap>,
    /// In the process-wide order.
    pub entries: Vec<Arc<Entry>>,
    /// True when nothing was left to replay.
    pub complete: bool,
    /// The last place in the process-wide order that this step has seen.
    pub sequence: u64,
}

/// The window of one partition.
#[derive(Debug, Default)]
struct Window {
    entries: VecDeque<Arc<Entry>>,
    bytes: usize,
    /// The lowest offset that can still be replayed; from here on nothing is missing.
    floor: i64,
    /// The broker's next offset when last heard of: a cursor beyond it is of another life of the topic.
    high: i64,
    /// When the last record read was appended, in milliseconds since 1970; none before the first.
    last_ms: Option<i64>,
    /// False until the partition is known: a cursor then neither lacks anything nor is it ahead.
    known: bool,
}

struct State {
    sequence: u64,
    next: Positions,
    windows: [Vec<Window>; 5],
    ring: broadcast::Sender<Live>,
}

/// See the module.
pub struct Hub {
    state: Mutex<State>,
    loaded: watch::Sender<bool>,
}

impl Default for Hub {
    fn default() -> Self {
        let state = State {
            sequence: 0,
            next: Positions::default(),
            windows: Default::default(),
            ring: broadcast::channel(RING_RECORDS).0,
        };
        Self {
            state: Mutex::new(state),
            loaded: watch::channel(false).0,
        }
    }
}

impl Hub {
    /// A partition is read from `start` on; the broker is at `high`.
    pub fn add(&self, place: Place, start: i64, high: i64) {
        let mut state = self.state();
        let window = state.window(place);
        window.floor = start;
        window.high = high;
        window.known = true;
        state.next.set(place, start);
    }

    /// The broker is at `high`.
    pub fn high_is(&self, place: Place, high: i64) {
        let mut state = self.state();
        let window = state.window(place);
        if window.known {
            window.high = window.high.max(high);
        }
    }

    /// A record was read. Without a body there is nothing to send, but cursors go past it. True when it is not the one
    /// that was due: librdkafka goes on elsewhere without a word when what it wants is gone.
    pub fn publish(&self, place: Place, offset: i64, appended_ms: i64, body: Option<Body>) -> bool {
        let mut state = self.state();
        let reason = match offset.cmp(&state.next.get(place)) {
            Ordering::Equal => None,
            // The topic was made anew: what was kept belongs to its former life.
            Ordering::Less => Some(GapReason::Reset),
            // Nobody writes transactions or compacts: what is missing was deleted before it was read.
            Ordering::Greater => Some(GapReason::Window),
        };
        if let Some(reason) = reason {
            state.break_at(place, offset, appended_ms, reason);
        }
        state.next.set(place, offset + 1);
        let window = state.window(place);
        window.high = window.high.max(offset + 1);
        window.last_ms = Some(appended_ms);
        let Some(body) = body else { return reason.is_some() };
        state.sequence += 1;
        let message = with_cursor(&body.text, &state.next.to_cursor(appended_ms));
        let entry = Arc::new(Entry {
            sequence: state.sequence,
            place,
            offset,
            appended_ms,
            device: body.device,
            message: message.into(),
            body_bytes: body.text.len(),
        });
        state.window(place).keep(entry.clone());
        // Nobody may be listening; then there is nobody to tell.
        let _ = state.ring.send(Live::Record(entry));
        reason.is_some()
    }

    /// Joins the ring: every record that is published from now on.
    pub fn listen(&self) -> broadcast::Receiver<Live> {
        self.state().ring.subscribe()
    }

    /// Where the streams stand now, and the last place in the process-wide order.
    pub fn positions(&self) -> (Positions, u64) {
        let state = self.state();
        (state.next.clone(), state.sequence)
    }

    /// True when `positions` are beyond the end of a partition as last heard of.
    pub fn is_behind(&self, streams: &[Stream], positions: &Positions) -> bool {
        let state = self.state();
        streams.iter().any(|&stream| {
            let mut windows = state.windows[stream as usize].iter().enumerate();
            windows.any(|(partition, window)| {
                window.known && positions.get(Place { stream, partition }) > window.high
            })
        })
    }

    /// The next records of `streams` from `positions` on, which are moved behind them. When the step is complete,
    /// `positions` are where live records go on.
    pub fn replay(&self, streams: &[Stream], positions: &mut Positions) -> Step {
        let state = self.state();
        let mut gaps = Vec::new();
        let mut entries = Vec::new();
        for &stream in streams {
            let mut missing: Option<Gap> = None;
            for (partition, window) in state.windows[stream as usize].iter().enumerate() {
                let place = Place { stream, partition };
                let wanted = positions.get(place);
                let reason = match window.known {
                    true if wanted > window.high => Some(GapReason::Reset),
                    true if wanted < window.floor => Some(GapReason::Window),
                    _ => None,
                };
                if reason.is_some() {
                    positions.set(place, window.floor);
                }
                let from = positions.get(place);
                let first = window.entries.partition_point(|entry| entry.offset < from);
                if let Some(reason) = reason {
                    let to_ms = window.entries.get(first).map(|entry| entry.appended_ms);
                    missing = Some(match missing {
                        None => Gap {
                            stream,
                            to_ms,
                            reason,
                        },
                        Some(other) => Gap {
                            stream,
                            to_ms: other.to_ms.zip(to_ms).map(|(one, two)| one.max(two)),
                            reason: if other.reason == GapReason::Reset {
                                other.reason
                            } else {
                                reason
                            },
                        },
                    });
                }
                entries.extend(window.entries.iter().skip(first).take(REPLAY_STEP).cloned());
            }
            gaps.extend(missing);
        }
        entries.sort_unstable_by_key(|entry| entry.sequence);
        // With this many of the lowest from each partition, the lowest of all are among them.
        let complete = entries.len() < REPLAY_STEP;
        entries.truncate(REPLAY_STEP);
        for entry in &entries {
            positions.set(entry.place, entry.offset + 1);
        }
        if complete {
            // Records without a body have no entry; go past them as well, unless the client is ahead of us.
            for &stream in streams {
                for partition in 0..state.windows[stream as usize].len() {
                    let place = Place { stream, partition };
                    positions.set(place, positions.get(place).max(state.next.get(place)));
                }
            }
        }
        Step {
            gaps,
            entries,
            complete,
            sequence: state.sequence,
        }
    }

    /// The window holds what was in the topics at the start: clients may subscribe.
    pub fn set_loaded(&self) {
        self.loaded.send_replace(true);
    }

    /// Waits until [`Hub::set_loaded`].
    pub async fn loaded(&self) {
        // The sender is ours, so it cannot be gone.
        let _ = self.loaded.subscribe().wait_for(|loaded| *loaded).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn window(&mut self, place: Place) -> &mut Window {
        let windows = &mut self.windows[place.stream as usize];
        if windows.len() <= place.partition {
            windows.resize_with(place.partition + 1, Window::default);
        }
        &mut windows[place.partition]
    }

    /// What was kept does not lead up to what follows: it goes, and who listens is told.
    fn break_at(&mut self, place: Place, next: i64, to_ms: i64, reason: GapReason) {
        let window = self.window(place);
        let from_ms = window.last_ms.unwrap_or(to_ms).min(to_ms);
        *window = Window {
            floor: next,
            high: if reason == GapReason::Reset {
                0
            } else {
                window.high
            },
            known: true,
            ..Window::default()
        };
        self.sequence += 1;
        let sequence = self.sequence;
        let there = Break {
            sequence,
            place,
            next,
            from_ms,
            to_ms,
            reason,
        };
        // As with a record.
        let _ = self.ring.send(Live::Break(Arc::new(there)));
    }
}

impl Window {
    fn keep(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.message.len();
        self.entries.push_back(entry);
        while self.entries.len() > WINDOW_RECORDS || self.bytes > WINDOW_BYTES {
            let Some(oldest) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= oldest.message.len();
            self.floor = oldest.offset + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENERGY: Place = Place {
        stream: Stream::Energy,
        partition: 0,
    };
    const PLUG: Place = Place {
        stream: Stream::Plug,
        partition: 1,
    };

    fn body(name: &str) -> Option<Body> {
        Some(Body {
            text: format!("{{\"id\":\"{name}\""),
            device: Some("d".into()),
        })
    }

    fn hub() -> Hub {
        let hub = Hub::default();
        hub.add(ENERGY, 10, 10);
        hub.add(PLUG, 0, 0);
        hub
    }

    fn publish(hub: &Hub, place: Place, offsets: std::ops::Range<i64>) {
        for offset in offsets {
            hub.publish(
                place,
                offset,
                offset * 1_000,
                body(&format!("{}/{offset}", place.stream.name())),
            );
        }
    }

    /// Everything a replay gives: offsets by stream in order, gaps, and the positions at the end.
    fn replay(
        hub: &Hub,
        streams: &[Stream],
        mut positions: Positions,
    ) -> (Vec<(Stream, i64)>, Vec<Gap>, Positions) {
        let (mut offsets, mut gaps) = (Vec::new(), Vec::new());
        loop {
            let step = hub.replay(streams, &mut positions);
            assert!(step.entries.len() <= REPLAY_STEP);
            offsets.extend(
                step.entries
                    .iter()
                    .map(|entry| (entry.place.stream, entry.offset)),
            );
            gaps.extend(step.gaps);
            if step.complete {
                return (offsets, gaps, positions);
            }
        }
    }

    fn record_of(live: Live) -> Arc<Entry> {
        match live {
            Live::Record(entry) => entry,
            Live::Break(there) => panic!("{there:?}"),
        }
    }

    fn at(energy: i64, plug: i64) -> Positions {
        let mut positions = Positions::default();
        positions.set(ENERGY, energy);
        positions.set(PLUG, plug);
        positions
    }

    #[test]
    fn messages_carry_the_cursor_behind_them() {
        let hub = hub();
        let mut ring = hub.listen();
        publish(&hub, ENERGY, 10..12);
        publish(&hub, PLUG, 0..1);
        let entries: Vec<_> = (0..3).map(|_| record_of(ring.try_recv().unwrap())).collect();
        assert_eq!(entries[0].positions(), at(11, 0));
        assert_eq!(entries[1].positions(), at(12, 0));
        assert_eq!(entries[2].positions(), at(12, 1));
        let other = entries[0].message_at(&at(11, 7));
        assert!(
            other.starts_with("{\"id\":\"energy/10\",\"cursor\":\""),
            "{other}"
        );
        assert!(serde_json::from_str::<serde_json::Value>(&other).is_ok());
        assert_eq!(hub.positions(), (at(12, 1), 3));
    }

    #[test]
    fn a_replay_gives_what_was_missed_once_and_in_order() {
        let hub = hub();
        publish(&hub, ENERGY, 10..12);
        publish(&hub, PLUG, 0..3);
        publish(&hub, ENERGY, 12..400);
        let both = [Stream::Energy, Stream::Plug];
        let (offsets, gaps, end) = replay(&hub, &both, at(11, 1));
        let mut want = vec![(Stream::Energy, 11), (Stream::Plug, 1), (Stream::Plug, 2)];
        want.extend((12..400).map(|offset| (Stream::Energy, offset)));
        assert_eq!((offsets, gaps), (want, vec![]));
        assert_eq!(end, at(400, 3));
        let (offsets, gaps, end) = replay(&hub, &[Stream::Plug], at(11, 2));
        assert_eq!((offsets, gaps), (vec![(Stream::Plug, 2)], vec![]));
        assert_eq!(
            end,
            at(11, 3),
            "streams that were not asked for stay where they are"
        );
        assert_eq!(replay(&hub, &both, at(400, 3)).0, vec![]);
    }

    #[test]
    fn what_is_older_than_the_window_is_a_gap_and_the_rest_follows() {
        let hub = hub();
        let end = 10 + WINDOW_RECORDS as i64 + 5;
        publish(&hub, ENERGY, 10..end);
        let (offsets, gaps, _) = replay(&hub, &[Stream::Energy, Stream::Plug], at(12, 0));
        assert_eq!(offsets.len(), WINDOW_RECORDS);
        assert_eq!(offsets[0], (Stream::Energy, 15));
        assert_eq!(
            gaps,
            vec![Gap {
                stream: Stream::Energy,
                to_ms: Some(15_000),
                reason: GapReason::Window
            }]
        );
        assert_eq!(replay(&hub, &[Stream::Energy], at(15, 0)).1, vec![]);
        // Before the process's own start there is nothing to replay either.
        let fresh = super::tests::hub();
        let (offsets, gaps, end) = replay(&fresh, &[Stream::Energy], at(3, 0));
        assert_eq!(offsets, vec![]);
        assert_eq!(
            gaps,
            vec![Gap {
                stream: Stream::Energy,
                to_ms: None,
                reason: GapReason::Window
            }]
        );
        assert_eq!(end, at(10, 0));
    }

    #[test]
    fn windows_are_bounded_in_bytes() {
        let hub = hub();
        let large = "x".repeat(WINDOW_BYTES / 10);
        for offset in 10..40 {
            hub.publish(ENERGY, offset, 0, body(&large));
        }
        let (offsets, gaps, _) = replay(&hub, &[Stream::Energy], at(10, 0));
        assert_eq!(offsets.len(), 9);
        assert_eq!(gaps.len(), 1);
    }

    #[test]
    fn a_client_of_a_faster_process_is_not_sent_back() {
        let hub = hub();
        publish(&hub, ENERGY, 10..12);
        hub.high_is(ENERGY, 15);
        assert!(!hub.is_behind(&Stream::ALL, &at(15, 0)) && hub.is_behind(&Stream::ALL, &at(16, 0)));
        let (offsets, gaps, end) = replay(&hub, &[Stream::Energy], at(14, 0));
        assert_eq!((offsets, gaps, end), (vec![], vec![], at(14, 0)));
        // Beyond the topic's end: of a former life of it. The present one follows from its beginning.
        let (offsets, gaps, end) = replay(&hub, &[Stream::Energy], at(900, 0));
        assert_eq!(offsets, vec![(Stream::Energy, 10), (Stream::Energy, 11)]);
        assert_eq!(
            gaps,
            vec![Gap {
                stream: Stream::Energy,
                to_ms: Some(10_000),
                reason: GapReason::Reset
            }]
        );
        assert_eq!(end, at(12, 0));
    }

    #[test]
    fn a_gap_reaches_to_where_every_partition_goes_on() {
        let hub = hub();
        let second = Place {
            stream: Stream::Energy,
            partition: 1,
        };
        hub.add(second, 50, 50);
        publish(&hub, ENERGY, 10..12);
        publish(&hub, second, 50..51);
        let of = |to_ms| {
            vec![Gap {
                stream: Stream::Energy,
                to_ms,
                reason: GapReason::Window,
            }]
        };
        let (offsets, gaps, _) = replay(&hub, &[Stream::Energy], at(3, 0));
        assert_eq!((offsets.len(), gaps), (3, of(Some(50_000))));
        let third = Place {
            stream: Stream::Energy,
            partition: 2,
        };
        hub.add(third, 5, 5);
        assert_eq!(replay(&hub, &[Stream::Energy], at(3, 0)).1, of(None));
    }

    #[test]
    fn what_was_deleted_before_it_was_read_is_a_break() {
        let hub = hub();
        let mut ring = hub.listen();
        publish(&hub, ENERGY, 10..12);
        assert!(hub.publish(ENERGY, 40, 40_000, body("after")));
        assert!(!hub.publish(ENERGY, 41, 41_000, body("after")));
        let sequences = [
            record_of(ring.try_recv().unwrap()).sequence,
            record_of(ring.try_recv().unwrap()).sequence,
        ];
        assert_eq!(sequences, [1, 2]);
        match ring.try_recv().unwrap() {
            Live::Break(there) => {
                assert_eq!((there.sequence, there.place, there.next), (3, ENERGY, 40));
                assert_eq!((there.from_ms, there.to_ms), (11_000, 40_000));
                assert_eq!(there.reason, GapReason::Window);
            }
            Live::Record(entry) => panic!("{entry:?}"),
        }
        assert_eq!(record_of(ring.try_recv().unwrap()).positions(), at(41, 0));
        // Who comes back from before it is told as well, and gets what follows it.
        let (offsets, gaps, end) = replay(&hub, &[Stream::Energy], at(11, 0));
        assert_eq!(offsets, vec![(Stream::Energy, 40), (Stream::Energy, 41)]);
        assert_eq!(
            gaps,
            vec![Gap {
                stream: Stream::Energy,
                to_ms: Some(40_000),
                reason: GapReason::Window
            }]
        );
        assert_eq!(end, at(42, 0));
        assert_eq!(replay(&hub, &[Stream::Energy], at(40, 0)).1, vec![]);
        // One that cannot be shown counts as well.
        assert!(hub.publish(ENERGY, 50, 0, None));
    }

    #[test]
    fn records_without_a_message_are_gone_past() {
        let hub = hub();
        publish(&hub, ENERGY, 10..11);
        hub.publish(ENERGY, 11, 0, None);
        let (offsets, _, end) = replay(&hub, &[Stream::Energy], at(10, 0));
        assert_eq!((offsets, end), (vec![(Stream::Energy, 10)], at(12, 0)));
    }

    #[test]
    fn a_topic_that_was_made_anew_starts_over() {
        let hub = hub();
        publish(&hub, ENERGY, 10..12);
        let mut ring = hub.listen();
        publish(&hub, ENERGY, 0..2);
        assert!(matches!(ring.try_recv().unwrap(), Live::Break(there) if there.reason == GapReason::Reset));
        let (offsets, gaps, end) = replay(&hub, &[Stream::Energy], at(0, 0));
        assert_eq!(
            (offsets, gaps, end),
            (vec![(Stream::Energy, 0), (Stream::Energy, 1)], vec![], at(2, 0))
        );
    }
}
