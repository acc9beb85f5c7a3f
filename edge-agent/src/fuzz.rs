//! What is fuzzed: everything that reads bytes a stranger, a dying disk or another version may have written.
//!
//! Each target takes any bytes, and panics when a promise is broken. `fuzz/` has them as targets of cargo-fuzz, which looks
//! for new bytes in `make test-faults`; a test here, in every run, tries the seeds, cut at every length and changed at
//! random with a fixed beginning.

use bytes::Bytes;
use telemetry::{Command, DeadLetter, Record};

use crate::{
    broker, buffer,
    clock::Segment,
    decode::{Decoded, Decoders, GenericRoute, Route},
    message::{AgentEvent, Message},
    presence::Presence,
    redelivery::Redeliveries,
    topic_filter::{TopicFilter, valid_topic_name},
};

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("mqtt_3", broker::fuzz::mqtt_3),
    ("mqtt_5", broker::fuzz::mqtt_5),
    ("sessions", broker::fuzz::sessions),
    ("frames", buffer::fuzz::frames),
    ("messages", messages),
    ("decoders", decoders),
    ("texts", texts),
];

/// Runs a target.
///
/// # Panics
/// When there is none of that name, or it fails.
pub fn run(name: &str, bytes: &[u8]) {
    let target = TARGETS.iter().find(|(known, _)| *known == name);
    target.expect("a target of this name").1(bytes);
}

/// Entries of the buffer.
fn messages(bytes: &[u8]) {
    if let Ok(message) = Message::decode(Bytes::copy_from_slice(bytes)) {
        let again = Message::decode(message.encode().into());
        assert_eq!(again.expect("what was written can be read"), message);
    }
}

/// Topics of every decoder; what stands before the first line feed chooses one.
const TOPICS: [&str; 8] = [
    "shellyhtg3-e4b32322a0f4/events/rpc",
    "saveeye/telemetry",
    "thermiq_heatpump/data",
    "tele/plug/STATE",
    "tele/plug/SENSOR",
    "stat/plug/POWER",
    "stat/plug/POWER2",
    "weather/roof/data",
];

/// A generic device with every kind of source.
const GENERIC: &str = r#"
filter = "weather/+/data"
kind = "temperature"
device_id = { topic_level = 1 }
[fields]
temperature_c = { pointer = "/outdoor/temp", factor = 0.1 }
humidity_percent = { pointer = "/outdoor/humidity" }
wind_speed_ms = { pointer = "/wind/0" }
external_power = { pointer = "/usb" }
"#;

/// Payloads of devices.
fn decoders(bytes: &[u8]) {
    let generic: GenericRoute = toml::from_str(GENERIC).expect("the constant is a route");
    let decoders = Decoders::new(&Route::defaults(), &[generic]).expect("the constants are routes");
    let split = bytes.iter().position(|byte| *byte == b'\n');
    let (choice, payload) = split.map_or((&[][..], bytes), |at| (&bytes[..at], &bytes[at + 1..]));
    let topic = TOPICS[choice.iter().map(|byte| usize::from(*byte)).sum::<usize>() % TOPICS.len()];
    if let Ok(Decoded::Readings(readings)) = decoders.decode(topic, payload) {
        assert!(!readings.is_empty(), "readings are at least one");
        for (n, reading) in readings.iter().enumerate() {
            let twin = readings[..n].iter().find(|other| {
                other.device_id == reading.device_id && other.reading.kind() == reading.reading.kind()
            });
            assert!(twin.is_none(), "two readings of one kind and device: {reading:?}");
            let record = Record {
                id: "p0/00000000/1".into(),
                agent: "p0".into(),
                device_id: reading.device_id.clone(),
                time: chrono::DateTime::UNIX_EPOCH,
                clock: telemetry::Clock::Synced,
                location: None,
                reading: reading.reading.clone(),
            };
            let again = Record::from_json(&record.to_json()).expect("a record that was written can be read");
            // Numbers may differ in the last bit, which is JSON's.
            assert_eq!(
                (again.device_id, again.reading.kind()),
                (record.device_id, record.reading.kind())
            );
        }
    }
    let presence = Presence::default();
    for topic in ["shelly/online", "tele/plug/LWT"] {
        let _online_or_not = presence.read(topic, payload);
    }
}

/// What is read as text: filters and topics, commands, events, dead letters, offsets of the clock; and redeliveries.
fn texts(bytes: &[u8]) {
    let _ = serde_json::from_slice::<Command>(bytes);
    let _ = serde_json::from_slice::<AgentEvent>(bytes);
    let _ = serde_json::from_slice::<DeadLetter>(bytes);
    if let Some(segment) = Segment::decode(bytes) {
        assert_eq!(Segment::decode(&segment.encode()), Some(segment));
    }
    if bytes.len() >= 10 {
        let (name, value) = bytes.split_at(10);
        let _known = Redeliveries::load(vec![(name.to_vec(), value.to_vec())]);
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (filter, topic) = text.split_once(' ').unwrap_or((text, "a/b"));
    if let Ok(parsed) = TopicFilter::parse(filter)
        && valid_topic_name(topic)
    {
        let filter: Vec<&str> = filter.split('/').collect();
        let topic_levels: Vec<&str> = topic.split('/').collect();
        assert_eq!(
            parsed.matches(topic),
            matches(&filter, &topic_levels, true),
            "{text:?}"
        );
    }
}

/// Whether a filter covers a topic, as MQTT 4.7 says it, level by level.
fn matches(filter: &[&str], topic: &[&str], first: bool) -> bool {
    let hidden = first && topic.first().is_some_and(|level| level.starts_with('$'));
    match (filter.split_first(), topic.split_first()) {
        (Some((&"#", _)), _) => !hidden,
        (Some((&"+", filter)), Some((_, topic))) => !hidden && matches(filter, topic, false),
        (Some((level, filter)), Some((other, topic))) => level == other && matches(filter, topic, false),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

    use super::*;

    /// Seeds are cut at every length up to here.
    const CUTS: usize = 400;
    /// Changed copies of a seed that are tried.
    const CHANGED: u64 = 400;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("fuzz/seeds")
            .join(target);
        let mut files: Vec<_> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    #[test]
    fn seeds_cut_and_changed_break_no_promise() {
        for (name, target) in TARGETS {
            let seeds = seeds(name);
            assert!(!seeds.is_empty(), "{name} has no seeds");
            for seed in &seeds {
                target(seed);
                (0..seed.len().min(CUTS)).for_each(|at| target(&seed[..at]));
            }
            let mut random = StdRng::seed_from_u64(1);
            for seed in seeds.iter().filter(|seed| !seed.is_empty()) {
                for _ in 0..CHANGED {
                    let mut bytes = seed.clone();
                    for _ in 0..random.random_range(1..6) {
                        let at = random.random_range(0..bytes.len());
                        match random.random_range(0..4) {
                            0 => bytes.insert(at, random.random()),
                            1 if bytes.len() > 1 => drop(bytes.remove(at)),
                            // What parsers like least.
                            2 => bytes[at] = [0, 0x7f, 0x80, 0xff][random.random_range(0..4)],
                            _ => bytes[at] = random.random(),
                        }
                    }
                    target(&bytes);
                }
            }
        }
    }
}
