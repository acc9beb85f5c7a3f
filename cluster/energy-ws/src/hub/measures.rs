//! What each device measures, as its readings have shown: an event of a device is for those who may read that.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use crate::stream::Stream;

/// Devices remembered. Those beyond it stay unknown, and their events are for those who may read everything.
const DEVICES: usize = 4_096;

/// Streams one device has been seen in; shared with the events of it, which may be read before its first reading.
#[derive(Debug, Default)]
pub struct Measures(AtomicU8);

impl Measures {
    /// Whether the device has been seen in `stream`.
    pub fn includes(&self, stream: Stream) -> bool {
        self.0.load(Ordering::Relaxed) & bit(stream) != 0
    }
}

/// Every device that was heard or spoken of.
#[derive(Debug, Default)]
pub(super) struct Devices(HashMap<Box<str>, Arc<Measures>>);

impl Devices {
    /// What is known of `device`; a record of `stream` was read about it.
    pub fn heard(&mut self, device: &str, stream: Stream) -> Arc<Measures> {
        let known = match self.0.get(device) {
            Some(known) => known.clone(),
            None => {
                let new = Arc::<Measures>::default();
                if self.0.len() < DEVICES {
                    self.0.insert(device.into(), new.clone());
                }
                new
            }
        };
        if stream != Stream::Events {
            known.0.fetch_or(bit(stream), Ordering::Relaxed);
        }
        known
    }
}

const fn bit(stream: Stream) -> u8 {
    1 << stream as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_what_its_readings_are() {
        let mut devices = Devices::default();
        let event = devices.heard("plug", Stream::Events);
        assert!(!event.includes(Stream::Plug));
        devices.heard("plug", Stream::Plug);
        assert!(event.includes(Stream::Plug) && !event.includes(Stream::Energy));
        for n in 0..DEVICES {
            devices.heard(&n.to_string(), Stream::Energy);
        }
        assert_eq!(devices.0.len(), DEVICES);
        assert!(devices.heard("one more", Stream::Energy).includes(Stream::Energy));
    }
}
