//! A redelivery is not a new reading (promise P2).
//!
//! Two kinds are recognised, across restarts, because what is remembered is written in the same group commit as the
//! message itself:
//!
//! - a publish above QoS 0 with DUP that has the client, packet id, topic and payload of one of the client's last 256;
//! - a Shelly frame that is equal, byte for byte, to one of the last 256 on its topic within 24 hours. A frame carries
//!   its device and the device's time, so an equal frame is the same one, sent as new by a device that reconnected.
//!   Where the time of one of both is not known, as before the clock is set, no time has passed.
//!
//! A redelivery is acknowledged when the first delivery is on disk, never before, and refused when that failed.
//! This module reads no clock and writes nothing itself.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use sha2::{Digest, Sha256};

use crate::buffer::{NamedValue, Side};

/// Publishes remembered of one client, and frames of one topic. Devices keep far fewer unacknowledged.
const WINDOW: usize = 256;
/// Clients and topics remembered; the one heard longest ago makes room. 2,000 of them fill 20 MB at most.
const SENDERS: usize = 1_000;
/// How long a frame is remembered: a sensor that lost its network tries again within hours.
const FRAME_MS: u64 = 24 * 3600 * 1000;
/// Stands for a time that is not known.
const NO_TIME: i64 = 0;
/// Prefix of the durable values.
pub const KEY_PREFIX: &[u8] = b"seen/";
/// Where Shelly devices publish frames, behind a prefix of one level or more.
const FRAMES: &str = "/events/rpc";
/// What makes a frame unlike the next one, when a number follows that is not 0: a device whose clock is not set sends null.
const FRAME_TIME: &[u8] = b"\"ts\":";

/// Who sent a publish above QoS 0, and how.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// Client id.
    pub client: &'a str,
    /// Packet id.
    pub pkid: u16,
    /// Marked as sent before.
    pub dup: bool,
}

/// Whether a first delivery reached the disk.
#[derive(Clone, Debug, Default)]
pub struct Fate(Arc<AtomicU8>);

/// 0, the default, means that it is not known yet.
const KEPT: u8 = 1;
const REFUSED: u8 = 2;

impl Fate {
    fn kept() -> Self {
        let fate = Self::default();
        fate.settle(true);
        fate
    }

    /// The first delivery is on disk, or will never be.
    pub fn settle(&self, kept: bool) {
        self.0.store(if kept { KEPT } else { REFUSED }, Ordering::Release);
    }

    /// True when the first delivery is on disk.
    pub fn is_kept(&self) -> bool {
        self.0.load(Ordering::Acquire) == KEPT
    }

    fn is_refused(&self) -> bool {
        self.0.load(Ordering::Acquire) == REFUSED
    }
}

/// What to do with a publish.
pub enum Verdict {
    /// It is new: keep it, write `side` with it, and settle `fate` with the outcome.
    New {
        /// To be written in the same commit.
        side: Vec<Side>,
        /// To be settled.
        fate: Fate,
    },
    /// It came before: acknowledge it when that delivery's fate is known.
    Again(Fate),
}

/// See the module.
pub struct Redeliveries {
    senders: HashMap<[u8; 9], Sender>,
    clock: u64,
}

struct Sender {
    slots: Vec<Slot>,
    count: u32,
    used: u64,
}

struct Slot {
    count: u32,
    /// Packet id, or milliseconds of the wall clock, 0 while that is not known.
    mark: i64,
    hash: [u8; 8],
    fate: Fate,
}

/// What is compared: a client's packet id and content, or a topic's content in a stretch of time.
enum Kind {
    Client(u16),
    Frame { now_ms: Option<i64> },
}

impl Redeliveries {
    /// From the durable values under [`KEY_PREFIX`], without the prefix; what cannot be read is left out.
    pub fn load(values: Vec<NamedValue>) -> Self {
        let mut known = Self {
            senders: HashMap::new(),
            clock: 0,
        };
        for (name, value) in values {
            let (Ok(name), Ok(value)) = (<[u8; 10]>::try_from(name), <[u8; 20]>::try_from(value)) else {
                continue;
            };
            let mut sender = [0; 9];
            sender.copy_from_slice(&name[..9]);
            let field = |range: std::ops::Range<usize>| value[range].try_into();
            let (Ok(count), Ok(mark), Ok(hash)) =
                (field(0..4), value[4..12].try_into(), value[12..20].try_into())
            else {
                continue;
            };
            let count = u32::from_be_bytes(count);
            let slot = Slot {
                count,
                mark: i64::from_be_bytes(mark),
                hash,
                fate: Fate::kept(),
            };
            let entry = known.senders.entry(sender).or_insert_with(Sender::empty);
            entry.count = entry.count.max(count.wrapping_add(1));
            entry.slots.push(slot);
        }
        for sender in known.senders.values_mut() {
            sender.slots.sort_by_key(|slot| slot.count);
        }
        known
    }

    /// Looks a publish up and remembers it. `attempt` is `None` at QoS 0, `payload` what identifies the content.
    pub fn judge(
        &mut self,
        attempt: Option<Attempt<'_>>,
        topic: &str,
        payload: &[u8],
        now_ms: Option<i64>,
    ) -> Verdict {
        let hash = short_hash(&[topic.as_bytes(), &[0], payload]);
        let is_frame = topic.ends_with(FRAMES) && has_time(payload);
        let client = attempt.map(|a| (sender_key(b'c', a.client), a));
        let frame = is_frame.then(|| sender_key(b'f', topic));

        if let Some((key, attempt)) = &client
            && attempt.dup
            && let Some(fate) = self.find(*key, &hash, &Kind::Client(attempt.pkid))
        {
            return Verdict::Again(fate);
        }
        if let Some(key) = frame
            && let Some(fate) = self.find(key, &hash, &Kind::Frame { now_ms })
        {
            return Verdict::Again(fate);
        }
        let fate = Fate::default();
        let mut side = Vec::new();
        if let Some((key, attempt)) = client {
            self.note(key, i64::from(attempt.pkid), hash, fate.clone(), &mut side);
        }
        if let Some(key) = frame {
            self.note(key, now_ms.unwrap_or(NO_TIME), hash, fate.clone(), &mut side);
        }
        Verdict::New { side, fate }
    }

    fn find(&mut self, key: [u8; 9], hash: &[u8; 8], kind: &Kind) -> Option<Fate> {
        let sender = self.senders.get_mut(&key)?;
        sender.slots.retain(|slot| !slot.fate.is_refused());
        let same = |slot: &&Slot| {
            slot.hash == *hash
                && match kind {
                    Kind::Client(pkid) => slot.mark == i64::from(*pkid),
                    Kind::Frame { .. } if slot.mark == NO_TIME => true,
                    Kind::Frame { now_ms } => {
                        now_ms.is_none_or(|now_ms| now_ms.abs_diff(slot.mark) <= FRAME_MS)
                    }
                }
        };
        sender.slots.iter().rev().find(same).map(|slot| slot.fate.clone())
    }

    fn note(&mut self, key: [u8; 9], mark: i64, hash: [u8; 8], fate: Fate, side: &mut Vec<Side>) {
        self.clock += 1;
        if !self.senders.contains_key(&key) && self.senders.len() >= SENDERS {
            self.forget_oldest(side);
        }
        let sender = self.senders.entry(key).or_insert_with(Sender::empty);
        sender.used = self.clock;
        let count = sender.count;
        sender.count = count.wrapping_add(1);
        if sender.slots.len() >= WINDOW {
            sender.slots.remove(0);
        }
        sender.slots.push(Slot {
            count,
            mark,
            hash,
            fate,
        });
        let value = [&count.to_be_bytes()[..], &mark.to_be_bytes(), &hash].concat();
        side.push((slot_key(&key, count), Some(value)));
    }

    fn forget_oldest(&mut self, side: &mut Vec<Side>) {
        let oldest = self
            .senders
            .iter()
            .min_by_key(|(_, sender)| sender.used)
            .map(|(key, _)| *key);
        let Some((key, sender)) = oldest.and_then(|key| self.senders.remove_entry(&key)) else {
            return;
        };
        side.extend(sender.slots.iter().map(|slot| (slot_key(&key, slot.count), None)));
    }
}

impl Sender {
    fn empty() -> Self {
        Self {
            slots: Vec::new(),
            count: 0,
            used: 0,
        }
    }
}

fn sender_key(kind: u8, name: &str) -> [u8; 9] {
    let mut key = [kind; 9];
    key[1..].copy_from_slice(&short_hash(&[name.as_bytes()]));
    key
}

/// The window wraps around: a new publish overwrites the value of the one 256 before it.
fn slot_key(sender: &[u8; 9], count: u32) -> Vec<u8> {
    [KEY_PREFIX, sender, &[(count % WINDOW as u32) as u8]].concat()
}

/// Whether a frame says when it was made.
fn has_time(payload: &[u8]) -> bool {
    let mut at = payload.windows(FRAME_TIME.len()).enumerate();
    at.any(|(at, window)| {
        let value = payload[at + window.len()..].trim_ascii_start();
        window == FRAME_TIME && matches!(value.first(), Some(b'1'..=b'9'))
    })
}

/// 64 bits of SHA-256: two of 256 unequal publishes collide once in some 10^14 windows.
fn short_hash(parts: &[&[u8]]) -> [u8; 8] {
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    let digest = hasher.finalize();
    let mut short = [0; 8];
    short.copy_from_slice(&digest[..8]);
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON_MS: i64 = 1_767_268_800_000;
    const DAY_MS: i64 = FRAME_MS as i64;
    const FRAME: &[u8] = br#"{"src":"s","params":{"ts":1767254412.61}}"#;

    fn attempt(client: &str, pkid: u16, dup: bool) -> Option<Attempt<'_>> {
        Some(Attempt { client, pkid, dup })
    }

    /// Judges and settles; true when it is new.
    fn is_new(
        known: &mut Redeliveries,
        attempt: Option<Attempt<'_>>,
        topic: &str,
        payload: &[u8],
        now_ms: i64,
    ) -> bool {
        match known.judge(attempt, topic, payload, Some(NOON_MS + now_ms)) {
            Verdict::New { fate, .. } => {
                fate.settle(true);
                true
            }
            Verdict::Again(fate) => {
                assert!(fate.is_kept());
                false
            }
        }
    }

    #[test]
    fn a_resend_is_one_with_dup_and_everything_equal() {
        let mut known = Redeliveries::load(Vec::new());
        let mut check = |a, topic: &str, payload: &[u8], want| {
            assert_eq!(
                is_new(&mut known, a, topic, payload, 0),
                want,
                "{topic} {payload:?}"
            );
        };
        check(attempt("c", 1, false), "saveeye/telemetry", b"x", true);
        check(attempt("c", 1, true), "saveeye/telemetry", b"x", false);
        check(attempt("c", 1, false), "saveeye/telemetry", b"x", true); // sent as new: a new reading
        check(attempt("c", 2, true), "saveeye/telemetry", b"x", true);
        check(attempt("d", 1, true), "saveeye/telemetry", b"x", true);
        check(attempt("c", 1, true), "saveeye/telemetry", b"y", true);
        check(attempt("c", 1, true), "thermiq_heatpump/data", b"x", true);
        check(None, "saveeye/telemetry", b"x", true);
        check(None, "saveeye/telemetry", b"x", true);
    }

    #[test]
    fn an_equal_shelly_frame_is_the_same_frame_for_a_day() {
        let mut known = Redeliveries::load(Vec::new());
        let topic = "shellyhtg3-e4b32322a0f4/events/rpc";
        assert!(is_new(&mut known, attempt("c", 1, false), topic, FRAME, 0));
        assert!(
            !is_new(&mut known, attempt("c", 2, false), topic, FRAME, 1000),
            "reconnected, sent as new"
        );
        assert!(!is_new(&mut known, None, topic, FRAME, DAY_MS));
        assert!(is_new(
            &mut known,
            attempt("c", 2, false),
            "other/events/rpc",
            FRAME,
            1000
        ));
        assert!(is_new(
            &mut known,
            attempt("c", 3, false),
            topic,
            FRAME,
            DAY_MS + 1
        ));
        let timeless: [&[u8]; 3] = [
            br#"{"src":"s"}"#,
            br#"{"src":"s","params":{"ts":null}}"#,
            br#"{"src":"s","params":{"ts": 0.00}}"#,
        ];
        for frame in timeless.into_iter().cycle().take(6) {
            assert!(
                is_new(&mut known, None, topic, frame, 0),
                "without a time it may be another one"
            );
        }
    }

    #[test]
    fn a_prefix_of_several_levels_makes_no_other_frame_of_it() {
        let mut known = Redeliveries::load(Vec::new());
        let topic = "cottage/cellar/shelly/events/rpc";
        let spaced = br#"{"src": "s", "params": {"ts": 1767254412.61}}"#;
        assert!(is_new(&mut known, attempt("c", 1, false), topic, spaced, 0));
        assert!(!is_new(&mut known, attempt("c", 2, false), topic, spaced, 1000));
    }

    #[test]
    fn an_equal_frame_is_the_same_when_the_time_is_not_known() {
        let topic = "shellyhtg3-e4b32322a0f4/events/rpc";
        // The agent kept it at noon; then the power fails, and the Pi comes up in 1970, or the other way round.
        for (first, second) in [(Some(NOON_MS), None), (None, Some(NOON_MS)), (None, None)] {
            let mut known = Redeliveries::load(Vec::new());
            let is_again = |verdict| matches!(verdict, Verdict::Again(_));
            assert!(!is_again(known.judge(None, topic, FRAME, first)));
            assert!(
                is_again(known.judge(None, topic, FRAME, second)),
                "{first:?} {second:?}"
            );
        }
    }

    #[test]
    fn the_window_holds_256_and_survives_a_restart() {
        let mut known = Redeliveries::load(Vec::new());
        let mut disk: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for n in 0..300_u16 {
            let payload = n.to_be_bytes();
            let Verdict::New { side, fate } = known.judge(attempt("c", n, false), "t", &payload, None) else {
                panic!("{n}")
            };
            fate.settle(true);
            disk.extend(side.into_iter().map(|(key, value)| (key, value.unwrap())));
        }
        assert_eq!(disk.len(), WINDOW);
        let stored = disk
            .into_iter()
            .map(|(key, value)| (key[KEY_PREFIX.len()..].to_vec(), value))
            .collect();
        let mut restarted = Redeliveries::load(stored);
        for known in [&mut known, &mut restarted] {
            assert!(!is_new(
                known,
                attempt("c", 299, true),
                "t",
                &299_u16.to_be_bytes(),
                0
            ));
            assert!(!is_new(
                known,
                attempt("c", 44, true),
                "t",
                &44_u16.to_be_bytes(),
                0
            ));
            assert!(
                is_new(known, attempt("c", 43, true), "t", &43_u16.to_be_bytes(), 0),
                "out of the window"
            );
        }
    }

    #[test]
    fn a_first_delivery_that_was_refused_is_forgotten() {
        let mut known = Redeliveries::load(Vec::new());
        let Verdict::New { fate, .. } = known.judge(attempt("c", 1, false), "t", b"x", None) else {
            panic!()
        };
        let Verdict::Again(again) = known.judge(attempt("c", 1, true), "t", b"x", None) else {
            panic!()
        };
        assert!(!again.is_kept(), "it is not on disk yet");
        fate.settle(false);
        assert!(!again.is_kept());
        assert!(is_new(&mut known, attempt("c", 1, true), "t", b"x", 0));
    }

    #[test]
    fn senders_are_bounded() {
        let mut known = Redeliveries::load(Vec::new());
        let mut removed = 0;
        for n in 0..SENDERS + 50 {
            let Verdict::New { side, .. } = known.judge(attempt(&format!("c{n}"), 1, false), "t", b"x", None)
            else {
                panic!()
            };
            removed += side.iter().filter(|(_, value)| value.is_none()).count();
        }
        assert_eq!((known.senders.len(), removed), (SENDERS, 50));
    }
}
