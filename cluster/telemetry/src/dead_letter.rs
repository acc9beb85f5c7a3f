//! A message that could not be decoded or stored, kept for a person, on `homelab.dead-letter`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::Clock;

/// Where the message failed; each stage has its own replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stage {
    /// In an agent: the payload is what the device sent.
    Decode,
    /// In redpanda-sink: the payload is the Kafka record's value.
    Insert,
}

/// Where the message came from. Identifies the dead letter: it may be written twice, never with two origins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Origin {
    /// A message in an agent's buffer.
    Mqtt {
        /// The agent.
        agent: String,
        /// `<agent>/<buffer epoch>/<sequence>`.
        id: String,
        /// MQTT topic.
        mqtt_topic: String,
        /// When the agent received it.
        #[serde(with = "crate::micros")]
        time: DateTime<Utc>,
        /// How far that time can be trusted; absent where an older agent wrote the letter.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        clock: Option<Clock>,
    },
    /// A record in a topic.
    Kafka {
        /// Kafka topic.
        topic: String,
        /// Partition.
        partition: i32,
        /// Offset.
        offset: i64,
    },
}

/// A message that could not be decoded or stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Why, for a person: a stable word first, details after a colon.
    pub reason: String,
    /// Where it failed.
    pub stage: Stage,
    /// Where it came from.
    pub origin: Origin,
    /// The original bytes, or their first 4 KiB where `truncated`.
    pub payload_base64: String,
    /// True when the payload was too large to keep whole.
    pub truncated: bool,
    /// Length of the original in bytes; present when truncated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_bytes: Option<u64>,
    /// SHA-256 of the original in hexadecimal; present when truncated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payload_sha256: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dead_letters_have_the_documented_shape() {
        let text = include_str!("../samples/dead-letter.json");
        let letter: DeadLetter = serde_json::from_str(text).unwrap();
        assert_eq!(letter.stage, Stage::Decode);
        let want: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&letter).unwrap(), want);
    }
}
