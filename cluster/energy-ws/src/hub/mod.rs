//! One place where what comes from Kafka meets the clients: a bounded window for those who come back, and a ring
//! for those who are here.
//!
//! Records get a process-wide order here. Each is written as JSON once, with the cursor that is right for every
//! client that has had everything before it, and one that Kafka holds twice is sent once. A client that falls
//! behind the ring goes on from the window; one that falls behind the window too is told so and cut off. Nobody is ever
//! waited for.

mod entry;
mod measures;
mod seen;
#[cfg(test)]
mod tests;
mod window;

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{broadcast, watch};

use self::measures::Devices;
use self::seen::Seen;
use self::window::Window;
use crate::position::{Place, Positions};
use crate::protocol::{Body, GapReason, with_cursor};
use crate::stream::Stream;

pub use self::entry::{Break, Entry, Gap, Live, Missed, Step};
pub use self::seen::SEEN_IDS;
#[cfg(test)]
use self::window::WINDOW_RECORDS;

/// Records a session may be behind before it has to catch up from the window. At the ten readings a second of a busy
/// house it is minutes; an agent that sends what it kept during an outage brings as many in a moment.
const RING_RECORDS: usize = 4_096;
/// Records of one step of a replay: what one client that comes back holds in memory at a time.
pub const REPLAY_STEP: usize = 128;

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    /// It went to clients; not when it has no body or was read before.
    pub sent: bool,
    /// It is not the one that was due: librdkafka goes on elsewhere without a word when what it wants is gone.
    pub broke_off: bool,
}

struct State {
    sequence: u64,
    next: Positions,
    windows: [Vec<Window>; 5],
    devices: Devices,
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
            devices: Devices::default(),
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

    /// A record was read. Without a body there is nothing to send, but cursors go past it; so they do past one that was
    /// read before.
    pub fn publish(&self, place: Place, offset: i64, appended_ms: i64, body: Option<Body>) -> Published {
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
        let body = body.filter(|body| window.seen.is_new(&body.id));
        let published = Published {
            sent: body.is_some(),
            broke_off: reason.is_some(),
        };
        let Some(body) = body else { return published };
        let device = body.device.as_deref();
        let measures = device.map(|device| state.devices.heard(device, place.stream));
        state.sequence += 1;
        let message = with_cursor(&body.text, &state.next.to_cursor(appended_ms));
        let entry = Arc::new(Entry {
            sequence: state.sequence,
            place,
            offset,
            appended_ms,
            device: body.device,
            measures: measures.filter(|_| place.stream == Stream::Events),
            message: message.into(),
            body_bytes: body.text.len(),
        });
        state.window(place).keep(entry.clone());
        // Nobody may be listening; then there is nobody to tell.
        let _ = state.ring.send(Live::Record(entry));
        published
    }

    /// Joins the ring: every record that is published from now on, which is after the given place in the order.
    pub fn listen(&self) -> (broadcast::Receiver<Live>, u64) {
        let state = self.state();
        (state.ring.subscribe(), state.sequence)
    }

    /// What the ring carried of each stream after a place in the order, for a listener it has gone on without. None when
    /// the windows do not hold all of that any more.
    pub fn missed(&self, streams: &[(Stream, u64)]) -> Option<Missed> {
        let state = self.state();
        let mut entries = Vec::new();
        for &(stream, after) in streams {
            for window in &state.windows[stream as usize] {
                if window.past > after {
                    return None;
                }
                let first = window.entries.partition_point(|entry| entry.sequence <= after);
                entries.extend(window.entries.iter().skip(first).cloned());
            }
        }
        entries.sort_unstable_by_key(|entry| entry.sequence);
        Some(Missed {
            entries,
            ring: state.ring.subscribe(),
            sequence: state.sequence,
        })
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
        // A topic that was made anew may hold the same records again.
        let seen = match reason {
            GapReason::Window => std::mem::take(&mut window.seen),
            GapReason::Reset => Seen::default(),
        };
        let high = match reason {
            GapReason::Window => window.high,
            GapReason::Reset => 0,
        };
        self.sequence += 1;
        let sequence = self.sequence;
        *self.window(place) = Window::from(next, high, seen, sequence);
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
