//! A captured message as it stands in the buffer: exactly what the device sent, and when.
//!
//! The form is our own and small: it is written for every reading and must be read by every later version.
//! Decoding the payload happens on the way out, never here.

use bytes::{Buf, BufMut, Bytes};
use chrono::DateTime;
use serde::{Deserialize, Serialize};
use telemetry::{Clock, DeviceId, EventBody};

use crate::clock::{Resolved, SegmentId, Stamp};

/// What was captured.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Where it stood in an earlier buffer, if it was salvaged from one. It keeps that identity, because it may have
    /// been forwarded under it.
    pub identity: Option<Identity>,
    /// When the agent received it.
    pub stamp: Stamp,
    /// MQTT topic.
    pub topic: String,
    /// What it carries.
    pub body: Body,
}

/// Place of a message in a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The buffer.
    pub epoch: u32,
    /// Its sequence there.
    pub sequence: u64,
}

/// The payload, or what is kept of one that was too large.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// The payload, whole.
    Payload(Bytes),
    /// The beginning of a payload above the capture limit, for the dead letters.
    Truncated {
        /// First bytes of it.
        head: Bytes,
        /// Its whole length in bytes.
        length: u64,
        /// SHA-256 of all of it.
        sha256: [u8; 32],
    },
    /// An event of the agent itself, as JSON; it has no topic.
    Event(Bytes),
    /// The payload of a dead letter that was put into the buffer again. It keeps its time as it keeps its identity: both
    /// were given when it went out first.
    Again {
        /// The payload, whole.
        payload: Bytes,
        /// Its time.
        settled: Resolved,
    },
}

/// An event of the agent itself; id and time are given to it on the way out.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AgentEvent {
    /// The device it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

impl From<EventBody> for AgentEvent {
    fn from(body: EventBody) -> Self {
        Self {
            device_id: None,
            body,
        }
    }
}

/// Why an entry is no message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("buffered message is malformed: {0}")]
pub struct MalformedMessage(&'static str);

const VERSION: u8 = 1;
const WHOLE: u8 = 0;
const TRUNCATED: u8 = 1;
const EVENT: u8 = 2;
const AGAIN: u8 = 3;
const AGAIN_BYTES: usize = 8 + 1;
/// The words of [`Clock`] as they are written.
const CLOCKS: [Clock; 3] = [Clock::Synced, Clock::Corrected, Clock::Unsynced];
/// Set in the form of a message that brings its identity.
const SALVAGED: u8 = 0x80;
const HEADER_BYTES: usize = 1 + 1 + 4 + 8 + 1 + 2;
const IDENTITY_BYTES: usize = 4 + 8;

impl Message {
    /// An event of the agent itself.
    pub fn event(stamp: Stamp, event: &AgentEvent) -> Self {
        let json = serde_json::to_vec(event).expect("an event has only text, numbers and flags");
        Self {
            identity: None,
            stamp,
            topic: String::new(),
            body: Body::Event(json.into()),
        }
    }

    /// The time that was given to it before, which it keeps.
    pub fn settled(&self) -> Option<Resolved> {
        match self.body {
            Body::Again { settled, .. } => Some(settled),
            _ => None,
        }
    }

    /// The message as an entry of the buffer.
    pub fn encode(&self) -> Vec<u8> {
        let payload_bytes = match &self.body {
            Body::Payload(payload) | Body::Event(payload) => payload.len(),
            Body::Truncated { head, .. } => 8 + 32 + head.len(),
            Body::Again { payload, .. } => AGAIN_BYTES + payload.len(),
        };
        let mut out = Vec::with_capacity(HEADER_BYTES + IDENTITY_BYTES + self.topic.len() + payload_bytes);
        out.put_u8(VERSION);
        let form = match self.body {
            Body::Payload(_) => WHOLE,
            Body::Truncated { .. } => TRUNCATED,
            Body::Event(_) => EVENT,
            Body::Again { .. } => AGAIN,
        };
        out.put_u8(form | if self.identity.is_some() { SALVAGED } else { 0 });
        out.put_u32(self.stamp.segment.0);
        out.put_u64(self.stamp.monotonic_us);
        out.put_u8(u8::from(self.stamp.synced));
        if let Some(identity) = self.identity {
            out.put_u32(identity.epoch);
            out.put_u64(identity.sequence);
        }
        out.put_u16(u16::try_from(self.topic.len()).expect("an MQTT topic has at most 65,535 bytes"));
        out.put_slice(self.topic.as_bytes());
        match &self.body {
            Body::Payload(payload) | Body::Event(payload) => out.put_slice(payload),
            Body::Truncated { head, length, sha256 } => {
                out.put_u64(*length);
                out.put_slice(sha256);
                out.put_slice(head);
            }
            Body::Again { payload, settled } => {
                out.put_i64(settled.time.timestamp_micros());
                let word = CLOCKS.iter().position(|clock| *clock == settled.clock);
                out.put_u8(
                    word.and_then(|n| u8::try_from(n).ok())
                        .expect("all words are listed"),
                );
                out.put_slice(payload);
            }
        }
        out
    }

    /// Reads an entry of the buffer.
    pub fn decode(mut entry: Bytes) -> Result<Self, MalformedMessage> {
        if entry.len() < HEADER_BYTES {
            return Err(MalformedMessage("header is cut off"));
        }
        if entry.get_u8() != VERSION {
            return Err(MalformedMessage("unknown version"));
        }
        let form = entry.get_u8();
        let segment = SegmentId(entry.get_u32());
        let monotonic_us = entry.get_u64();
        let synced = entry.get_u8() != 0;
        let mut identity = None;
        if form & SALVAGED != 0 {
            if entry.len() < IDENTITY_BYTES + 2 {
                return Err(MalformedMessage("identity is cut off"));
            }
            identity = Some(Identity {
                epoch: entry.get_u32(),
                sequence: entry.get_u64(),
            });
        }
        let topic_len = usize::from(entry.get_u16());
        if entry.len() < topic_len {
            return Err(MalformedMessage("topic is cut off"));
        }
        let topic = String::from_utf8(entry.split_to(topic_len).to_vec())
            .map_err(|_| MalformedMessage("topic is not UTF-8"))?;
        let body = match form & !SALVAGED {
            WHOLE => Body::Payload(entry),
            EVENT => Body::Event(entry),
            TRUNCATED if entry.len() >= 8 + 32 => {
                let length = entry.get_u64();
                let mut sha256 = [0; 32];
                entry.copy_to_slice(&mut sha256);
                Body::Truncated {
                    head: entry,
                    length,
                    sha256,
                }
            }
            TRUNCATED => return Err(MalformedMessage("truncated payload is cut off")),
            AGAIN if entry.len() >= AGAIN_BYTES => {
                let time = DateTime::from_timestamp_micros(entry.get_i64())
                    .ok_or(MalformedMessage("time is out of range"))?;
                let clock = *CLOCKS
                    .get(usize::from(entry.get_u8()))
                    .ok_or(MalformedMessage("unknown word for the clock"))?;
                Body::Again {
                    payload: entry,
                    settled: Resolved { time, clock },
                }
            }
            AGAIN => return Err(MalformedMessage("settled time is cut off")),
            _ => return Err(MalformedMessage("unknown form")),
        };
        Ok(Self {
            identity,
            stamp: Stamp {
                segment,
                monotonic_us,
                synced,
            },
            topic,
            body,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(body: Body) -> Message {
        let stamp = Stamp {
            segment: SegmentId(7),
            monotonic_us: 123_456_789,
            synced: true,
        };
        Message {
            identity: None,
            stamp,
            topic: "shellyhtg3-e4b32322a0f4/events/rpc".into(),
            body,
        }
    }

    #[test]
    fn messages_survive_a_round_trip() {
        for body in [
            Body::Payload(Bytes::from_static(b"{\"a\":1}")),
            Body::Payload(Bytes::new()),
            Body::Event(Bytes::from_static(b"{}")),
            Body::Truncated {
                head: Bytes::from_static(b"{"),
                length: 2 << 20,
                sha256: [9; 32],
            },
            Body::Again {
                payload: Bytes::from_static(b"{}"),
                settled: Resolved {
                    time: "2026-01-01T08:00:12.610123Z".parse().unwrap(),
                    clock: Clock::Corrected,
                },
            },
        ] {
            let message = sample(body);
            assert_eq!(Message::decode(message.encode().into()), Ok(message));
        }
    }

    #[test]
    fn every_cut_is_an_error_or_another_message_but_never_a_panic() {
        let whole = sample(Body::Truncated {
            head: Bytes::new(),
            length: 1,
            sha256: [0; 32],
        })
        .encode();
        for len in 0..whole.len() {
            assert!(
                Message::decode(Bytes::copy_from_slice(&whole[..len])).is_err(),
                "{len}"
            );
        }
    }
}
