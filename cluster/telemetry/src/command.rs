//! What a device shall do, on `homelab.commands`.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::{DeviceId, HeatpumpSettings};

/// Settings wanted of a heat pump: only the fields to change are present.
pub type WantedSettings = HeatpumpSettings;

/// One attempt at one command. Done at most once per (`id`, `attempt`), never after `expires_at`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Id of the command; a retry keeps it.
    pub id: i64,
    /// Counts from 1.
    pub attempt: u32,
    /// The agent the device's latest telemetry came through; the others ignore the command.
    pub agent: String,
    /// The device.
    pub device_id: DeviceId,
    /// When the command was given.
    #[serde(with = "crate::micros")]
    pub issued_at: DateTime<Utc>,
    /// When it stops being wanted.
    #[serde(with = "crate::micros")]
    pub expires_at: DateTime<Utc>,
    /// What to do.
    #[serde(flatten)]
    pub action: CommandAction,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum CommandAction {
    /// Write settings of a heat pump.
    HeatpumpSettings {
        /// The wanted values.
        settings: WantedSettings,
    },
    /// Switch a plug.
    PlugPower {
        /// True for on.
        on: bool,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_have_the_documented_shape() {
        let text = include_str!("../samples/command.json");
        let command: Command = serde_json::from_str(text).unwrap();
        assert_eq!(
            command.action,
            CommandAction::HeatpumpSettings {
                settings: WantedSettings {
                    indoor_target_c: Some(22),
                    ..WantedSettings::default()
                }
            }
        );
        let want: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(serde_json::to_value(&command).unwrap(), want);
    }
}
