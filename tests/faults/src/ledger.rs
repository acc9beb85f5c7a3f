//! What the clients sent and what they were told: the other side of every count.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{SystemTime, UNIX_EPOCH},
};

use crate::fleet::Identity;

/// Of all clients of a run.
#[derive(Debug, Default)]
pub struct Ledger {
    devices: Mutex<BTreeMap<String, Entry>>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    sent: u64,
    /// Number, and microseconds since 1970 at which the client read the acknowledgement.
    acknowledged: BTreeMap<u64, u64>,
}

/// Microseconds since 1970, the clock that strace stamps with.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

impl Ledger {
    /// A device is about to send its message `n`.
    pub fn sending(&self, device: &str, n: u64) {
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = devices.entry(device.to_owned()).or_default();
        entry.sent = entry.sent.max(n);
    }

    /// A device read the PUBACK or PUBREC of its message `n`.
    pub fn acknowledged(&self, device: &str, n: u64) {
        let now = now_us();
        let mut devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = devices.entry(device.to_owned()).or_default();
        entry.acknowledged.entry(n).or_insert(now);
    }

    /// Everything acknowledged until `time_us`.
    pub fn until(&self, time_us: u64) -> Vec<Identity> {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |(device, entry): (&String, &Entry)| -> Vec<Identity> {
            let early = entry.acknowledged.iter().filter(|(_, at)| **at <= time_us);
            early
                .map(|(n, _)| Identity {
                    device: device.clone(),
                    n: *n,
                })
                .collect()
        };
        devices.iter().flat_map(of).collect()
    }

    /// When each acknowledgement was read.
    pub fn times(&self) -> Vec<u64> {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices
            .values()
            .flat_map(|entry| entry.acknowledged.values().copied())
            .collect()
    }

    /// How many messages were acknowledged.
    pub fn count(&self) -> u64 {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices
            .values()
            .map(|entry| entry.acknowledged.len() as u64)
            .sum()
    }

    /// Whether a device sent this.
    pub fn was_sent(&self, identity: &Identity) -> bool {
        let devices = self.devices.lock().unwrap_or_else(PoisonError::into_inner);
        devices
            .get(&identity.device)
            .is_some_and(|entry| (1..=entry.sent).contains(&identity.n))
    }
}
