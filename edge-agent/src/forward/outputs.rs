//! What a buffered message becomes: records, an event, a dead letter, or nothing.
//!
//! Pure: the same message with the same time always gives the same bytes, so that what is sent twice is equal.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use telemetry::{DeadLetter, DeviceId, Event, EventBody, Origin, Record, Stage, topic};

use crate::{
    buffer::Sequence,
    clock::Resolved,
    decode::{Decoded, DeviceReading},
    devices::Devices,
    message::{AgentEvent, Body, Identity, Message},
    presence::Presence,
    rules::Rules,
};

/// What is kept of a payload whose whole dead letter is refused: as much as of one that is too large from the beginning.
const CUT_BYTES: usize = 4 * 1024;

/// A record for Redpanda.
pub struct Output {
    /// Its topic.
    pub topic: &'static str,
    /// Its key: the device.
    pub key: String,
    /// Its value: JSON.
    pub value: Vec<u8>,
}

impl Output {
    /// True when it goes to the dead letters.
    pub fn is_dead_letter(&self) -> bool {
        self.topic == topic::DEAD_LETTER
    }
}

/// Turns messages into records.
pub struct Translator {
    /// Name of this agent.
    pub agent: String,
    /// Epoch of the buffer.
    pub epoch: u32,
    /// How payloads are decoded, and where devices are.
    pub rules: Arc<Rules>,
    /// How devices say that they come and go.
    pub presence: Presence,
    /// Who was heard.
    pub devices: Arc<Devices>,
    /// Messages before this sequence were counted: what is sent again after a failure is not counted again.
    pub counted: AtomicU64,
}

impl Translator {
    /// The dead letter of a message of a device, which is counted the first time it goes out.
    fn undecoded(
        &self,
        id: String,
        sequence: Sequence,
        message: &Message,
        resolved: Resolved,
        reason: String,
    ) -> Vec<Output> {
        if self.counted.fetch_max(sequence.0 + 1, Ordering::Relaxed) <= sequence.0 {
            self.devices.not_decoded(&message.topic, &reason, resolved.time);
        }
        vec![self.dead_letter(id, message, resolved, reason)]
    }

    fn id(&self, identity: Identity) -> String {
        format!("{}/{:08x}/{}", self.agent, identity.epoch, identity.sequence)
    }

    /// What `message` becomes; empty when there is nothing to record.
    pub fn outputs(&self, sequence: Sequence, message: &Message, resolved: Resolved) -> Vec<Output> {
        let here = Identity {
            epoch: self.epoch,
            sequence: sequence.0,
        };
        let id = self.id(message.identity.unwrap_or(here));
        let payload = match &message.body {
            Body::Payload(payload) | Body::Again { payload, .. } => payload,
            Body::Truncated { .. } => {
                return self.undecoded(id, sequence, message, resolved, "payload too large".into());
            }
            Body::Event(json) => {
                return match serde_json::from_slice(json) {
                    Ok(AgentEvent { device_id, body }) => {
                        vec![self.event(id, device_id, resolved.time, body)]
                    }
                    Err(error) => {
                        vec![self.dead_letter(id, message, resolved, format!("unreadable event: {error}"))]
                    }
                };
            }
        };
        if self.presence.covers(&message.topic) {
            return match self.presence.read(&message.topic, payload) {
                Some((device, online)) => {
                    self.devices
                        .came_or_went(&device, &message.topic, online, resolved.time);
                    vec![self.event(
                        id,
                        Some(device),
                        resolved.time,
                        EventBody::DeviceOnline { online },
                    )]
                }
                None => Vec::new(),
            };
        }
        let rules = self.rules.current();
        let readings = match rules.decoders.decode(&message.topic, payload) {
            Ok(Decoded::Readings(readings)) => readings,
            Ok(Decoded::Nothing(_)) => return Vec::new(),
            Err(error) => return self.undecoded(id, sequence, message, resolved, error.to_string()),
        };
        let several = readings.len() > 1;
        for reading in &readings {
            self.devices
                .heard(&reading.device_id, &message.topic, resolved.time);
        }
        let record = |(n, reading): (usize, DeviceReading)| {
            let record = Record {
                id: if several { format!("{id}/{n}") } else { id.clone() },
                agent: self.agent.clone(),
                location: rules.locations.get(reading.device_id.as_str()).cloned(),
                device_id: reading.device_id,
                time: resolved.time,
                clock: resolved.clock,
                reading: reading.reading,
            };
            Output {
                topic: topic::of(record.reading.kind()),
                key: record.device_id.to_string(),
                value: record.to_json(),
            }
        };
        readings.into_iter().enumerate().map(record).collect()
    }

    fn event(&self, id: String, device: Option<DeviceId>, time: DateTime<Utc>, body: EventBody) -> Output {
        let key = device
            .as_ref()
            .map_or(self.agent.as_str(), DeviceId::as_str)
            .to_owned();
        let event = Event {
            id,
            agent: Some(self.agent.clone()),
            device_id: device,
            time,
            body,
        };
        let value = serde_json::to_vec(&event).expect("an event has only text, numbers and flags");
        Output {
            topic: topic::EVENTS,
            key,
            value,
        }
    }

    fn dead_letter(&self, id: String, message: &Message, resolved: Resolved, reason: String) -> Output {
        let (payload, truncated, payload_bytes, payload_sha256) = match &message.body {
            Body::Payload(payload) | Body::Event(payload) | Body::Again { payload, .. } => {
                (payload, false, None, None)
            }
            Body::Truncated { head, length, sha256 } => (head, true, Some(*length), Some(hex(sha256))),
        };
        let letter = DeadLetter {
            reason,
            stage: Stage::Decode,
            origin: Origin::Mqtt {
                agent: self.agent.clone(),
                id,
                mqtt_topic: message.topic.clone(),
                time: resolved.time,
                clock: Some(resolved.clock),
            },
            payload_base64: BASE64_STANDARD.encode(payload),
            truncated,
            payload_bytes,
            payload_sha256,
        };
        let value = serde_json::to_vec(&letter).expect("a dead letter has only text, numbers and flags");
        Output {
            topic: topic::DEAD_LETTER,
            key: message.topic.clone(),
            value,
        }
    }

    /// The dead letter of a message, record `part` of which the broker will never take; `cut` keeps only the beginning of
    /// its payload.
    pub fn refused(
        &self,
        sequence: Sequence,
        part: usize,
        mut message: Message,
        resolved: Resolved,
        cut: bool,
        error: &dyn std::fmt::Display,
    ) -> Output {
        let here = Identity {
            epoch: self.epoch,
            sequence: sequence.0,
        };
        let mut id = self.id(message.identity.unwrap_or(here));
        if part > 0 {
            id = format!("{id}/{part}");
        }
        let mut reason = format!("refused by the broker: {error}");
        // What was a dead letter before is one for its own reason first.
        let was = self.outputs(sequence, &message, resolved).into_iter().nth(part);
        if let Some(was) = was.filter(Output::is_dead_letter)
            && let Ok(letter) = serde_json::from_slice::<DeadLetter>(&was.value)
        {
            reason = format!("{}; {reason}", letter.reason);
        }
        if cut {
            message.body = match message.body {
                Body::Payload(payload) | Body::Event(payload) | Body::Again { payload, .. } => {
                    Body::Truncated {
                        head: payload.slice(..payload.len().min(CUT_BYTES)),
                        length: payload.len() as u64,
                        sha256: Sha256::digest(&payload).into(),
                    }
                }
                truncated @ Body::Truncated { .. } => truncated,
            };
        }
        self.dead_letter(id, &message, resolved, reason)
    }
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
            write!(text, "{byte:02x}").expect("writing to a string cannot fail");
            text
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{SegmentId, Stamp},
        decode::{Decoders, Route},
    };

    fn translator() -> Translator {
        Translator {
            agent: "p0".into(),
            epoch: 0x9c41_f02b,
            rules: Arc::new(Rules::new(
                Decoders::new(&Route::defaults(), &[]).unwrap(),
                [("shellyhtg3-e4b32322a0f4".to_owned(), "bedroom".to_owned())].into(),
            )),
            presence: Presence::default(),
            devices: Arc::default(),
            counted: AtomicU64::new(0),
        }
    }

    fn message(topic: &str, body: Body) -> Message {
        let stamp = Stamp {
            segment: SegmentId(1),
            monotonic_us: 1,
            synced: true,
        };
        Message {
            identity: None,
            stamp,
            topic: topic.into(),
            body,
        }
    }

    fn resolved() -> Resolved {
        Resolved {
            time: "2026-01-01T08:00:12.610123Z".parse().unwrap(),
            clock: telemetry::Clock::Synced,
        }
    }

    fn translate(topic: &str, body: Body) -> Vec<Output> {
        translator().outputs(Sequence(12345), &message(topic, body), resolved())
    }

    fn payload(text: &str) -> Body {
        Body::Payload(bytes::Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn one_reading_keeps_the_id_of_its_message_and_several_are_numbered() {
        let frame = |components: &str| {
            payload(&format!(
                r#"{{"src":"shellyhtg3-e4b32322a0f4","method":"NotifyStatus","params":{{"ts":1.5,{components}}}}}"#
            ))
        };
        let one = translate("x/events/rpc", frame(r#""temperature:0":{"id":0,"tC":21.3}"#));
        let record = Record::from_json(&one[0].value).unwrap();
        assert_eq!(
            (one.len(), one[0].topic, one[0].key.as_str()),
            (1, topic::TEMPERATURE, "shellyhtg3-e4b32322a0f4")
        );
        assert_eq!(record.id, "p0/9c41f02b/12345");
        assert_eq!(record.location.as_deref(), Some("bedroom"));
        let two = translate(
            "x/events/rpc",
            frame(r#""temperature:0":{"id":0,"tC":21.3},"temperature:100":{"id":100,"tC":5.0}"#),
        );
        let ids: Vec<_> = two
            .iter()
            .map(|o| Record::from_json(&o.value).unwrap().id)
            .collect();
        assert_eq!(ids, ["p0/9c41f02b/12345/0", "p0/9c41f02b/12345/1"]);
    }

    #[test]
    fn what_cannot_be_decoded_is_a_dead_letter_with_every_byte() {
        let check = |topic: &str, body: Body, reason: &str, original: &[u8], truncated: bool| {
            let outputs = translate(topic, body);
            assert_eq!(
                (outputs.len(), outputs[0].topic),
                (1, topic::DEAD_LETTER),
                "{reason}"
            );
            let letter: DeadLetter = serde_json::from_slice(&outputs[0].value).unwrap();
            assert!(letter.reason.starts_with(reason), "{}", letter.reason);
            assert_eq!(BASE64_STANDARD.decode(&letter.payload_base64).unwrap(), original);
            assert_eq!(
                (letter.truncated, letter.payload_bytes.is_some()),
                (truncated, truncated)
            );
        };
        check("x/events/rpc", payload("garbage"), "not json", b"garbage", false);
        check("nobody/takes/this", payload("x"), "no decoder", b"x", false);
        check(
            "x/events/rpc",
            Body::Payload(bytes::Bytes::from_static(&[0xff, 0])),
            "not json",
            &[0xff, 0],
            false,
        );
        let truncated = Body::Truncated {
            head: "head".into(),
            length: 2_000_000,
            sha256: [7; 32],
        };
        check("x/events/rpc", truncated, "payload too large", b"head", true);
    }

    #[test]
    fn a_refused_record_becomes_its_whole_message_and_then_the_beginning_of_it() {
        let check = |text: &str, cut: bool, reason: &str, kept: &[u8]| {
            let message = message("x/events/rpc", payload(text));
            let output = translator().refused(Sequence(12345), 0, message, resolved(), cut, &"too large");
            let letter: DeadLetter = serde_json::from_slice(&output.value).unwrap();
            assert_eq!(output.topic, topic::DEAD_LETTER);
            assert!(letter.reason.starts_with(reason), "{}", letter.reason);
            assert!(
                letter.reason.ends_with("refused by the broker: too large"),
                "{}",
                letter.reason
            );
            assert_eq!(BASE64_STANDARD.decode(&letter.payload_base64).unwrap(), kept);
            assert_eq!(letter.truncated, cut);
            assert_eq!(letter.payload_bytes, cut.then_some(text.len() as u64));
            let Origin::Mqtt { id, mqtt_topic, .. } = letter.origin else {
                panic!("{:?}", letter.origin)
            };
            assert_eq!(
                (id.as_str(), mqtt_topic.as_str()),
                ("p0/9c41f02b/12345", "x/events/rpc")
            );
        };
        let frame =
            r#"{"src":"s","method":"NotifyStatus","params":{"ts":1.5,"temperature:0":{"id":0,"tC":21.3}}}"#;
        check(frame, false, "refused", frame.as_bytes());
        check(frame, true, "refused", frame.as_bytes());
        let garbage = "g".repeat(10_000);
        check(&garbage, false, "not json", garbage.as_bytes());
        check(&garbage, true, "not json", &garbage.as_bytes()[..CUT_BYTES]);
    }

    #[test]
    fn devices_coming_and_the_agents_own_news_are_events() {
        let outputs = translate("shellyhtg3-e4b32322a0f4/online", payload("true"));
        let event: Event = serde_json::from_slice(&outputs[0].value).unwrap();
        assert_eq!(
            (outputs[0].topic, outputs[0].key.as_str()),
            (topic::EVENTS, "shellyhtg3-e4b32322a0f4")
        );
        assert_eq!(event.body, EventBody::DeviceOnline { online: true });
        let step = EventBody::ClockStep { step_seconds: -300.0 };
        let outputs = translate("", Body::Event(serde_json::to_vec(&step).unwrap().into()));
        let event: Event = serde_json::from_slice(&outputs[0].value).unwrap();
        assert_eq!(
            (event.body, outputs[0].key.as_str(), event.id.as_str()),
            (step, "p0", "p0/9c41f02b/12345")
        );
        assert!(translate("shellyhtg3-e4b32322a0f4/online", payload("maybe")).is_empty());
        assert!(
            translate(
                "x/events/rpc",
                payload(r#"{"src":"x","method":"NotifyEvent","params":{"ts":1,"events":[]}}"#)
            )
            .is_empty()
        );
    }
}
