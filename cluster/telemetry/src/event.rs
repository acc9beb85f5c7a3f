//! What happened besides readings, on `homelab.events`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::DeviceId;

/// One event. Its JSON is flat: `type` names the body, the body's fields stand beside the common ones.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Identity, unique for ever; a redelivered event has the same one.
    pub id: String,
    /// The agent it happened on; absent for events of the settings API.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// The device it concerns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_id: Option<DeviceId>,
    /// When it happened.
    #[serde(with = "crate::micros")]
    pub time: DateTime<Utc>,
    /// What happened.
    #[serde(flatten)]
    pub body: EventBody,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum EventBody {
    /// Readings were refused or dropped at an agent.
    BufferLoss {
        /// Time of the first lost message.
        #[serde(with = "crate::micros")]
        from: DateTime<Utc>,
        /// Time of the last lost message.
        #[serde(with = "crate::micros")]
        to: DateTime<Utc>,
        /// How many.
        count: u64,
        /// Why, one word.
        reason: String,
    },
    /// An agent's wall clock jumped.
    ClockStep {
        /// By how much, in seconds; negative when it went back.
        step_seconds: f64,
    },
    /// A device came or went.
    DeviceOnline {
        /// True when it came.
        online: bool,
    },
    /// What an agent did with a command.
    CommandOutcome {
        /// Id of the command.
        command_id: i64,
        /// Attempt of the command.
        attempt: u32,
        /// What became of it.
        outcome: CommandOutcome,
    },
    /// An outbox row of the settings API changed its state.
    OutboxChanged {
        /// Id of the outbox row.
        outbox_id: i64,
        /// The new state.
        status: String,
    },
}

impl EventBody {
    /// The word in `type`.
    pub const fn kind(&self) -> &'static str {
        match self {
            EventBody::BufferLoss { .. } => "buffer_loss",
            EventBody::ClockStep { .. } => "clock_step",
            EventBody::DeviceOnline { .. } => "device_online",
            EventBody::CommandOutcome { .. } => "command_outcome",
            EventBody::OutboxChanged { .. } => "outbox_changed",
        }
    }
}

/// What an agent did with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CommandOutcome {
    /// Published to at least one subscriber.
    Published,
    /// Nobody listened on the device's command topic.
    NoSubscriber,
    /// Its time had passed.
    Expired,
    /// Not for this agent to do: unknown device, bad value, no synchronised clock.
    Refused,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_flat_json() {
        let event = Event {
            id: "p0/9c41f02b/77".into(),
            agent: Some("p0".into()),
            device_id: None,
            time: "2026-01-01T08:00:00Z".parse().unwrap(),
            body: EventBody::CommandOutcome {
                command_id: 42,
                attempt: 1,
                outcome: CommandOutcome::NoSubscriber,
            },
        };
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"id":"p0/9c41f02b/77","agent":"p0","time":"2026-01-01T08:00:00.000000Z",
                "type":"command_outcome","command_id":42,"attempt":1,"outcome":"no_subscriber"})
        );
        assert_eq!(serde_json::from_value::<Event>(json).unwrap(), event);
        assert_eq!(event.body.kind(), "command_outcome");
    }
}
