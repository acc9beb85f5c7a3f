//! Names of the Redpanda topics. The tree in `gitops/` creates exactly these.

use crate::Kind;

/// Energy readings.
pub const ENERGY: &str = "homelab.energy";
/// Temperature readings.
pub const TEMPERATURE: &str = "homelab.temperature";
/// Heat-pump readings.
pub const HEATPUMP: &str = "homelab.heatpump";
/// Plug readings.
pub const PLUG: &str = "homelab.plug";
/// Commands to devices, written by homelab-settings-api only.
pub const COMMANDS: &str = "homelab.commands";
/// Losses, clock steps, online changes, command outcomes.
pub const EVENTS: &str = "homelab.events";
/// What could not be decoded or stored, for a person.
pub const DEAD_LETTER: &str = "homelab.dead-letter";

/// Partitions of a reading topic; the other topics have one.
pub const READING_PARTITIONS: i32 = 3;

/// Every topic with its partition count.
pub const ALL: [(&str, i32); 7] = [
    (ENERGY, READING_PARTITIONS),
    (TEMPERATURE, READING_PARTITIONS),
    (HEATPUMP, READING_PARTITIONS),
    (PLUG, READING_PARTITIONS),
    (COMMANDS, 1),
    (EVENTS, 1),
    (DEAD_LETTER, 1),
];

/// The topics that carry readings.
pub const READINGS: [&str; 4] = [ENERGY, TEMPERATURE, HEATPUMP, PLUG];

/// The topic of a kind of reading.
pub const fn of(kind: Kind) -> &'static str {
    match kind {
        Kind::Energy => ENERGY,
        Kind::Temperature => TEMPERATURE,
        Kind::Heatpump => HEATPUMP,
        Kind::Plug => PLUG,
    }
}
