//! The five streams a client can subscribe to.

use serde::{Deserialize, Serialize};
use service::scope;
use telemetry::{Kind, topic};

/// A stream; each has its Kafka topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Energy readings.
    Energy,
    /// Temperature readings.
    Temperature,
    /// Heat-pump readings.
    Heatpump,
    /// Plug readings.
    Plug,
    /// Losses, clock steps, online changes, command outcomes, outbox changes.
    Events,
}

impl Stream {
    /// Every stream. A cursor lists them in this order, which therefore never changes.
    pub const ALL: [Stream; 5] = [
        Stream::Energy,
        Stream::Temperature,
        Stream::Heatpump,
        Stream::Plug,
        Stream::Events,
    ];

    /// Those that carry readings.
    pub const READINGS: [Stream; 4] = [
        Stream::Energy,
        Stream::Temperature,
        Stream::Heatpump,
        Stream::Plug,
    ];

    /// The name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Stream::Energy => "energy",
            Stream::Temperature => "temperature",
            Stream::Heatpump => "heatpump",
            Stream::Plug => "plug",
            Stream::Events => "events",
        }
    }

    /// The stream of that name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.name() == name)
    }

    /// The Kafka topic.
    pub const fn topic(self) -> &'static str {
        match self {
            Stream::Energy => topic::ENERGY,
            Stream::Temperature => topic::TEMPERATURE,
            Stream::Heatpump => topic::HEATPUMP,
            Stream::Plug => topic::PLUG,
            Stream::Events => topic::EVENTS,
        }
    }

    /// The stream of a topic; none for a topic that is not ours.
    pub fn of_topic(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stream| stream.topic() == name)
    }

    /// The only kind of reading in the stream; none for events.
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Stream::Energy => Some(Kind::Energy),
            Stream::Temperature => Some(Kind::Temperature),
            Stream::Heatpump => Some(Kind::Heatpump),
            Stream::Plug => Some(Kind::Plug),
            Stream::Events => None,
        }
    }

    /// Scopes of which a token needs one.
    pub const fn any_of(self) -> &'static [&'static str] {
        match self {
            Stream::Energy => &[scope::READ_ENERGY],
            Stream::Temperature => &[scope::READ_TEMPERATURE],
            Stream::Heatpump => &[scope::READ_HEATPUMP],
            Stream::Plug => &[scope::READ_PLUGS],
            Stream::Events => &[
                scope::READ_ENERGY,
                scope::READ_TEMPERATURE,
                scope::READ_HEATPUMP,
                scope::READ_PLUGS,
            ],
        }
    }
}
