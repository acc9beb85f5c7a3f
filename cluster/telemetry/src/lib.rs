//! The contract between the parts of Homelab K12n: topics, records, events, commands and dead letters.
//!
//! Producers and consumers compile against these types, and the JSON samples in `samples/` hold both sides to
//! the same text. This crate never talks to a broker, a database or a device, and it never reads a clock.

mod acceptance;
mod command;
mod dead_letter;
mod device_id;
mod event;
mod range;
mod reading;
mod record;
pub mod topic;

pub use acceptance::{MAX_AHEAD, MAX_KEY_BYTES, Refusal};
pub use command::{Command, CommandAction, WantedSettings};
pub use dead_letter::{DeadLetter, Origin, Stage};
pub use device_id::{DeviceId, InvalidDeviceId};
pub use event::{CommandOutcome, Event, EventBody};
pub use range::OutOfRange;
pub use reading::{Energy, Heatpump, HeatpumpSettings, Kind, Plug, Reading, Temperature};
pub use record::{Clock, Record, RecordError};

/// Times on the wire: RFC 3339, UTC, always six digits of a second, so that equal times are equal text.
pub mod micros {
    use chrono::{DateTime, SecondsFormat, Utc};
    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes `2026-01-01T08:00:12.610123Z`.
    pub fn serialize<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true))
    }

    /// Reads any RFC 3339 time; the offset is converted to UTC.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        DateTime::<Utc>::deserialize(deserializer)
    }
}
