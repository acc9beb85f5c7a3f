//! Which devices were heard, when, in which language, whether they are there, and what of theirs could not be decoded:
//! for commands, `edge-agent devices`, `/status` and metrics.
//!
//! Filled from messages on their way to Redpanda. Kept in memory and bounded; a device that was never heard
//! since the start is not known. Holds no readings and no payloads.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard},
};

use chrono::{DateTime, Utc};
use telemetry::DeviceId;

/// Devices remembered; the one heard longest ago makes room. Also bounds the labels of a metric.
const DEVICES: usize = 500;
/// Topics remembered on which something could not be decoded.
const UNDECODED: usize = 200;

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

/// Whether a device is there, by its own word or its last will.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Presence {
    /// It came, and did not go.
    pub online: bool,
    /// Since when.
    pub since: DateTime<Utc>,
}

/// One device, for a person.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Known {
    /// Its id; of one that only ever came or went, the topic level it did so on.
    pub device_id: DeviceId,
    /// Its language.
    pub family: Family,
    /// When a reading of it was decoded last; absent when there was none.
    pub last_seen: Option<DateTime<Utc>>,
    /// Whether it is there; absent when it never said so.
    pub presence: Option<Presence>,
}

/// What came on a topic and could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Undecoded {
    /// How often.
    pub count: u64,
    /// When last.
    pub time: DateTime<Utc>,
    /// Why, last.
    pub reason: String,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Devices {
    seen: Mutex<HashMap<DeviceId, Seen>>,
    /// By the topic level on which they come and go.
    presence: Mutex<HashMap<DeviceId, (Family, Presence)>>,
    undecoded: Mutex<HashMap<String, Undecoded>>,
}

impl Devices {
    /// Notes that a device was heard on a topic.
    pub fn heard(&self, device: &DeviceId, topic: &str, time: DateTime<Utc>) {
        let mut seen = lock(&self.seen);
        if let Some(known) = seen.get_mut(device) {
            known.last_seen = known.last_seen.max(time);
            // An answer to a command tells nothing of where the device listens.
            if known.matches(topic) || language(topic).0 == Family::Other {
                return;
            }
        } else {
            make_room(&mut seen, DEVICES, |s| s.last_seen);
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
        lock(&self.seen).get(device).cloned()
    }

    /// Notes that a device came or went. `name` is the level of the topic that it did so on.
    pub fn came_or_went(&self, name: &DeviceId, topic: &str, online: bool, time: DateTime<Utc>) {
        let mut presence = lock(&self.presence);
        let family = language(topic).0;
        match presence.get_mut(name) {
            // Said again: it is there since the first time.
            Some((_, known)) if known.online == online => {}
            Some((_, known)) => *known = Presence { online, since: time },
            None => {
                make_room(&mut presence, DEVICES, |(_, p)| p.since);
                let since = Presence { online, since: time };
                presence.insert(name.clone(), (family, since));
            }
        }
    }

    /// Notes that a message could not be decoded.
    pub fn not_decoded(&self, topic: &str, reason: &str, time: DateTime<Utc>) {
        let mut undecoded = lock(&self.undecoded);
        let topic = crate::broker::shown(topic);
        let count = undecoded.get(&topic).map_or(0, |known| known.count) + 1;
        if count == 1 {
            make_room(&mut undecoded, UNDECODED, |known| known.time);
        }
        let reason = crate::broker::shown(reason);
        undecoded.insert(topic, Undecoded { count, time, reason });
    }

    /// All of them, by id.
    pub fn all(&self) -> Vec<Known> {
        let mut presence = lock(&self.presence).clone();
        let mut all = BTreeMap::new();
        let seen = lock(&self.seen).clone();
        let here: HashMap<_, _> = seen
            .iter()
            .filter_map(|(device, seen)| {
                let level = DeviceId::parse(seen.prefix.as_str()).ok()?;
                let (family, presence) = presence.get(&level)?;
                (*family == seen.family).then(|| (device.clone(), (level, *presence)))
            })
            .collect();
        for (level, _) in here.values() {
            presence.remove(level);
        }
        for (device, seen) in seen {
            let known = Known {
                device_id: device.clone(),
                family: seen.family,
                last_seen: Some(seen.last_seen),
                presence: here.get(&device).map(|(_, presence)| *presence),
            };
            all.insert(device, known);
        }
        for (device, (family, here)) in presence {
            let known = all.entry(device.clone()).or_insert(Known {
                device_id: device,
                family,
                last_seen: None,
                presence: None,
            });
            known.presence = Some(here);
        }
        all.into_values().take(DEVICES).collect()
    }

    /// Topics on which something could not be decoded, by name.
    pub fn undecoded(&self) -> BTreeMap<String, Undecoded> {
        lock(&self.undecoded).clone().into_iter().collect()
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing between lock and unlock can panic.
    of.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Forgets the oldest where there are as many as may be.
fn make_room<K: Clone + Eq + std::hash::Hash, V>(
    map: &mut HashMap<K, V>,
    most: usize,
    age: impl Fn(&V) -> DateTime<Utc>,
) {
    if map.len() >= most
        && let Some(oldest) = map.iter().min_by_key(|(_, v)| age(v)).map(|(k, _)| k.clone())
    {
        map.remove(&oldest);
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
    if let Some(prefix) = topic
        .strip_suffix("/events/rpc")
        .or(topic.strip_suffix("/online"))
    {
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
        // Its answer to a command does not make it another.
        let plug = device("shellyplugsg3-d0cf13c0ffee");
        devices.heard(&plug, "homelab/p0/rpc", now);
        assert_eq!(devices.find(&plug).unwrap().family, Family::Shelly);
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
        for n in 0..=2 * DEVICES {
            let time = start + chrono::TimeDelta::seconds(n as i64);
            devices.came_or_went(&device(&format!("p{n}")), "p/online", true, time);
            devices.not_decoded(&format!("t/{n}"), "no decoder", time);
        }
        assert_eq!(devices.all().len(), DEVICES);
        assert_eq!(devices.undecoded().len(), UNDECODED);
        assert!(devices.undecoded().contains_key(&format!("t/{}", 2 * DEVICES)));
    }

    #[test]
    fn a_device_is_there_from_its_word_to_its_last_will_whatever_its_topic_is_called() {
        let devices = Devices::default();
        let at = |n| DateTime::from_timestamp(n, 0).unwrap();
        devices.heard(&device("shellyplugsg3-d0cf13c0ffee"), "kitchen/events/rpc", at(1));
        devices.heard(
            &device("shellyplugsg3-d0cf13c0ffee:1"),
            "kitchen/events/rpc",
            at(1),
        );
        devices.heard(&device("plug"), "tele/plug/STATE", at(1));
        devices.came_or_went(&device("kitchen"), "kitchen/online", true, at(2));
        devices.came_or_went(&device("kitchen"), "kitchen/online", true, at(3));
        devices.came_or_went(&device("plug"), "tele/plug/LWT", true, at(2));
        devices.came_or_went(&device("plug"), "tele/plug/LWT", false, at(4));
        devices.came_or_went(&device("silent"), "silent/online", true, at(5));
        let check = |id: &str, seen: Option<i64>, online: bool, since: i64| {
            let all = devices.all();
            let known = all.iter().find(|known| known.device_id == device(id)).unwrap();
            assert_eq!(known.last_seen, seen.map(at), "{id}");
            let since = Presence {
                online,
                since: at(since),
            };
            assert_eq!(known.presence, Some(since), "{id}");
        };
        check("shellyplugsg3-d0cf13c0ffee", Some(1), true, 2);
        check("shellyplugsg3-d0cf13c0ffee:1", Some(1), true, 2);
        check("plug", Some(1), false, 4);
        check("silent", None, true, 5);
        assert_eq!(devices.all().len(), 4, "the topic's name is no device of its own");
        // Coming is no reading: no command goes to a device that was not heard.
        assert_eq!(devices.find(&device("silent")), None);
    }

    #[test]
    fn what_could_not_be_decoded_is_counted_by_topic() {
        let devices = Devices::default();
        let now = Utc::now();
        devices.not_decoded("x/events/rpc", "not json", now);
        devices.not_decoded("x/events/rpc", "no field \n tC", now);
        let all = devices.undecoded();
        assert_eq!(all.len(), 1);
        assert_eq!(
            (all["x/events/rpc"].count, all["x/events/rpc"].reason.as_str()),
            (2, "no field   tC")
        );
    }
}
