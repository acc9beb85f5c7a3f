//! A reading on its way: who measured what, when, through which agent.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use serde_json::value::RawValue;

use crate::{DeviceId, Kind, Reading};

/// How far a record's time can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Clock {
    /// The agent's clock was synchronised when the message came.
    Synced,
    /// The message came before synchronisation; its time was corrected afterwards.
    Corrected,
    /// The agent never knew the time. Stored and flagged, left out of sums.
    Unsynced,
}

impl Clock {
    /// The word in the record and in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Clock::Synced => "synced",
            Clock::Corrected => "corrected",
            Clock::Unsynced => "unsynced",
        }
    }
}

/// One reading of one device. `id` is its identity: a redelivered record has the same one.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// `<agent>/<buffer epoch>/<sequence>`, with `/<n>` where one message gives several records.
    pub id: String,
    /// The agent that received the message.
    pub agent: String,
    /// The sensor.
    pub device_id: DeviceId,
    /// When the agent received the message, to the microsecond.
    pub time: DateTime<Utc>,
    /// How far `time` can be trusted.
    pub clock: Clock,
    /// Where the sensor is, from the agent's configuration.
    pub location: Option<String>,
    /// What was measured.
    pub reading: Reading,
}

/// Why bytes are no record.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// Not JSON, or a field is missing or of the wrong type.
    #[error("record is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
}

impl Record {
    /// Reads a record from JSON. Unknown fields are ignored; an unknown kind is an error.
    pub fn from_json(bytes: &[u8]) -> Result<Self, RecordError> {
        Ok(serde_json::from_slice(bytes)?)
    }

    /// Writes the record as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record has only text keys and finite numbers")
    }
}

#[derive(Serialize)]
struct WireOut<'a> {
    id: &'a str,
    agent: &'a str,
    device_id: &'a DeviceId,
    #[serde(with = "crate::micros")]
    time: DateTime<Utc>,
    clock: Clock,
    #[serde(skip_serializing_if = "Option::is_none")]
    location: Option<&'a str>,
    kind: Kind,
    reading: &'a Reading,
}

#[derive(Deserialize)]
struct WireIn {
    id: String,
    agent: String,
    device_id: DeviceId,
    time: DateTime<Utc>,
    clock: Clock,
    location: Option<String>,
    kind: Kind,
    reading: Box<RawValue>,
}

impl Serialize for Reading {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Reading::Temperature(r) => r.serialize(serializer),
            Reading::Energy(r) => r.serialize(serializer),
            Reading::Heatpump(r) => r.serialize(serializer),
            Reading::Plug(r) => r.serialize(serializer),
        }
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        WireOut {
            id: &self.id,
            agent: &self.agent,
            device_id: &self.device_id,
            time: self.time,
            clock: self.clock,
            location: self.location.as_deref(),
            kind: self.reading.kind(),
            reading: &self.reading,
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Record {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wire = WireIn::deserialize(deserializer)?;
        let text = wire.reading.get();
        let reading = match wire.kind {
            Kind::Temperature => serde_json::from_str(text).map(Reading::Temperature),
            Kind::Energy => serde_json::from_str(text).map(Reading::Energy),
            Kind::Heatpump => serde_json::from_str(text).map(|r| Reading::Heatpump(Box::new(r))),
            Kind::Plug => serde_json::from_str(text).map(Reading::Plug),
        }
        .map_err(|error| D::Error::custom(format!("reading of kind {}: {error}", wire.kind.as_str())))?;
        Ok(Record {
            id: wire.id,
            agent: wire.agent,
            device_id: wire.device_id,
            time: wire.time,
            clock: wire.clock,
            location: wire.location,
            reading,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every sample is read and written back to the same JSON: the contract in both directions.
    #[test]
    fn samples_survive_a_round_trip() {
        for (name, text) in [
            ("temperature", include_str!("../samples/temperature.json")),
            ("energy", include_str!("../samples/energy.json")),
            ("heatpump", include_str!("../samples/heatpump.json")),
            ("plug", include_str!("../samples/plug.json")),
        ] {
            let record = Record::from_json(text.as_bytes()).unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(record.reading.kind().as_str(), name);
            let back: serde_json::Value = serde_json::from_slice(&record.to_json()).unwrap();
            let want: serde_json::Value = serde_json::from_str(text).unwrap();
            assert_eq!(back, want, "{name}");
        }
    }

    #[test]
    fn readers_ignore_what_they_do_not_know_and_refuse_what_is_wrong() {
        let base = include_str!("../samples/temperature.json");
        let with = |pointer: &str, value: serde_json::Value| {
            let mut json: serde_json::Value = serde_json::from_str(base).unwrap();
            let (parent, key) = pointer.rsplit_once('/').unwrap();
            json.pointer_mut(parent).unwrap()[key] = value;
            Record::from_json(json.to_string().as_bytes())
        };
        assert!(with("/future", serde_json::json!({"a": 1})).is_ok());
        assert!(with("/reading/future", serde_json::json!(1)).is_ok());
        assert!(with("/reading/temperature_c", serde_json::Value::Null).is_ok());
        assert!(with("/reading/temperature_c", serde_json::json!("21")).is_err());
        assert!(with("/kind", serde_json::json!("water")).is_err());
        assert!(with("/device_id", serde_json::json!("")).is_err());
        assert!(with("/time", serde_json::json!("yesterday")).is_err());
    }

    #[test]
    fn times_always_have_six_digits() {
        let mut record = Record::from_json(include_bytes!("../samples/plug.json")).unwrap();
        record.time = "2026-01-01T09:00:00+01:00".parse().unwrap();
        let json: serde_json::Value = serde_json::from_slice(&record.to_json()).unwrap();
        assert_eq!(json["time"], "2026-01-01T08:00:00.000000Z");
    }
}
