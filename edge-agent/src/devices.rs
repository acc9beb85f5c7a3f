//! Which devices were heard, when, and in which language: for commands, `/status` and metrics.
//!
//! Filled from messages on their way to Redpanda. Kept in memory and bounded; a device that was never heard
//! since the start is not known. Holds no readings.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard},
};

use chrono::{DateTime, Utc};
use telemetry::DeviceId;

/// Devices remembered; the one heard longest ago makes room. Also bounds the labels of a metric.
const DEVICES: usize = 500;

/// The language of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// Shelly Gen2 and later.
    Shelly,
    /// Tasmota.
    Tasmota,
    /// ThermIQ.
    Thermiq,
    /// One that takes no commands.
    Other,
}

/// What is known of a device.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Seen {
    /// Its language.
    pub family: Family,
    /// The topic level its command topics are made from.
    pub prefix: String,
    /// The component's index; 0 for most.
    pub index: u32,
    /// When it was heard last.
    pub last_seen: DateTime<Utc>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Devices {
    seen: Mutex<HashMap<DeviceId, Seen>>,
}

impl Devices {
    /// Notes that a device was heard on a topic.
    pub fn heard(&self, device: &DeviceId, topic: &str, time: DateTime<Utc>) {
        let mut seen = self.seen();
        if let Some(known) = seen.get_mut(device) {
            known.last_seen = known.last_seen.max(time);
            if known.matches(topic) {
                return;
            }
        } else if seen.len() >= DEVICES
            && let Some(oldest) = seen
                .iter()
                .min_by_key(|(_, s)| s.last_seen)
                .map(|(device, _)| device.clone())
        {
            seen.remove(&oldest);
        }
        let (family, prefix) = language(topic);
        let index = device
            .as_str()
            .rsplit_once(':')
            .and_then(|(_, index)| index.parse().ok())
            .unwrap_or(0);
        seen.insert(
            device.clone(),
            Seen {
                family,
                prefix: prefix.to_owned(),
                index,
                last_seen: time,
            },
        );
    }

    /// What is known of a device.
    pub fn find(&self, device: &DeviceId) -> Option<Seen> {
        self.seen().get(device).cloned()
    }

    /// All of them, by name.
    pub fn all(&self) -> Vec<(DeviceId, Seen)> {
        let mut all: Vec<_> = self
            .seen()
            .iter()
            .map(|(device, seen)| (device.clone(), seen.clone()))
            .collect();
        all.sort_by(|a, b| a.0.cmp(&b.0));
        all
    }

    fn seen(&self) -> MutexGuard<'_, HashMap<DeviceId, Seen>> {
        // Nothing between lock and unlock can panic.
        self.seen
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Seen {
    fn matches(&self, topic: &str) -> bool {
        language(topic) == (self.family, self.prefix.as_str())
    }
}

/// A device's language by the topic it speaks on.
fn language(topic: &str) -> (Family, &str) {
    if topic == "thermiq_heatpump/data" {
        return (Family::Thermiq, "thermiq_heatpump");
    }
    if let Some(prefix) = topic.strip_suffix("/events/rpc") {
        return (Family::Shelly, prefix);
    }
    let mut levels = topic.split('/');
    match (levels.next(), levels.next(), levels.next()) {
        (Some("tele" | "stat"), Some(plug), Some(_)) => (Family::Tasmota, plug),
        _ => (Family::Other, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(text: &str) -> DeviceId {
        DeviceId::parse(text).unwrap()
    }

    #[test]
    fn a_device_is_known_by_the_topic_it_speaks_on() {
        let devices = Devices::default();
        let now = Utc::now();
        let check = |id: &str, topic: &str, family, prefix: &str, index| {
            devices.heard(&device(id), topic, now);
            let want = Seen {
                family,
                prefix: prefix.into(),
                index,
                last_seen: now,
            };
            assert_eq!(devices.find(&device(id)), Some(want), "{topic}");
        };
        check(
            "shellyplugsg3-d0cf13c0ffee",
            "kitchen/events/rpc",
            Family::Shelly,
            "kitchen",
            0,
        );
        check(
            "shellypro4pm-1:2",
            "shellypro4pm-1/events/rpc",
            Family::Shelly,
            "shellypro4pm-1",
            2,
        );
        check("plug", "tele/plug/STATE", Family::Tasmota, "plug", 0);
        check("plug:1", "stat/plug/POWER2", Family::Tasmota, "plug", 1);
        check(
            "ivt-495",
            "thermiq_heatpump/data",
            Family::Thermiq,
            "thermiq_heatpump",
            0,
        );
        check("SE1234567", "saveeye/telemetry", Family::Other, "", 0);
        assert_eq!(devices.find(&device("never heard")), None);
    }

    #[test]
    fn the_one_heard_longest_ago_makes_room() {
        let devices = Devices::default();
        let start = Utc::now();
        for n in 0..=DEVICES {
            let time = start + chrono::TimeDelta::seconds(n as i64);
            devices.heard(&device(&format!("d{n}")), "saveeye/telemetry", time);
        }
        assert_eq!(devices.all().len(), DEVICES);
        assert_eq!(devices.find(&device("d0")), None);
        assert!(devices.find(&device("d1")).is_some());
    }
}
