//! The devices of a run, what they publish, and how a message is recognised again.
//!
//! Three kinds, so that every way through the agent is taken: a meter on a topic it shares with others, a plug whose
//! frames are told apart by their content when it reconnects, and a device that sends what cannot be decoded and is too
//! large for one value of the buffer, which becomes a dead letter.

use edge_agent::message::Body;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::{Value, json};

/// What a device publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Energy readings on `saveeye/telemetry`; resends with DUP.
    Meter,
    /// Shelly frames; after a reconnect they are sent as new, with another packet id and without DUP.
    Plug,
    /// 20 to 250 KiB that no decoder takes; resends with DUP.
    Blob,
}

/// A device and the way its client behaves.
#[derive(Clone, Debug)]
pub struct Device {
    /// Device id and client id.
    pub name: String,
    /// What it publishes.
    pub kind: Kind,
    /// 1 or 2.
    pub qos: u8,
    /// Whether it asks for a clean session.
    pub clean: bool,
    /// Publishes sent and not acknowledged, at most.
    pub window: usize,
    /// Packet ids it uses; few ids come back soon.
    pub pkids: u16,
    /// Mean pause between publishes.
    pub pause_ms: u64,
}

/// `count` devices of every kind and manner.
pub fn fleet(count: usize, pause_ms: u64) -> Vec<Device> {
    let device = |n: usize| {
        let kind = match n % 8 {
            3 | 6 => Kind::Plug,
            7 => Kind::Blob,
            _ => Kind::Meter,
        };
        let word = match kind {
            Kind::Meter => "meter",
            Kind::Plug => "plug",
            Kind::Blob => "blob",
        };
        let window = 1 + n % 12;
        Device {
            name: format!("{word}-{n:03}"),
            kind,
            qos: if kind == Kind::Plug || n.is_multiple_of(2) {
                1
            } else {
                2
            },
            clean: kind == Kind::Plug || n.is_multiple_of(3),
            window,
            pkids: if n % 4 < 2 { window as u16 + 1 } else { u16::MAX },
            pause_ms: if kind == Kind::Blob {
                pause_ms * 20
            } else {
                pause_ms
            },
        }
    };
    (0..count).map(device).collect()
}

/// Ties a message's content to its identity: a record with the right name and another's content is an invention.
fn mark(device: &str, n: u64) -> u64 {
    let seed = device.bytes().fold(n, |sum, byte| {
        sum.wrapping_mul(0x0100_0000_01b3).wrapping_add(byte.into())
    });
    (seed ^ (seed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40
}

/// Watts a meter and a plug may report.
const WATTS: u64 = 2_000;

impl Device {
    /// Where it publishes.
    pub fn topic(&self) -> String {
        match self.kind {
            Kind::Meter => "saveeye/telemetry".to_owned(),
            Kind::Plug => format!("{}/events/rpc", self.name),
            Kind::Blob => format!("tele/{}/SENSOR", self.name),
        }
    }

    /// Its message `n`: always the same bytes.
    pub fn payload(&self, n: u64) -> Vec<u8> {
        let mark = mark(&self.name, n);
        let mut random = StdRng::seed_from_u64(mark);
        let mut padding = |bytes: usize| -> String {
            (0..bytes)
                .map(|_| char::from(b'a' + random.random_range(0..26)))
                .collect()
        };
        match self.kind {
            Kind::Meter => {
                let pad = padding((mark % 700) as usize);
                json!({"saveeyeDeviceSerialNumber": self.name, "meterType": "KAIFA",
                    "activeActualConsumption": {"total": mark % WATTS}, "activeTotalConsumption": {"total": n}, "pad": pad})
                .to_string()
                .into_bytes()
            }
            Kind::Plug => {
                json!({"src": self.name, "dst": format!("{}/events", self.name), "method": "NotifyStatus",
                "params": {"ts": 1_767_254_412.5 + n as f64,
                    "switch:0": {"id": 0, "output": true, "apower": mark % WATTS, "aenergy": {"total": n}}}})
                .to_string()
                .into_bytes()
            }
            Kind::Blob => {
                let mut payload = format!("blob {} {n} {mark} ", self.name).into_bytes();
                let bytes = 20 * 1024 + (mark as usize * 997) % (230 * 1024);
                payload.extend((0..bytes).map(|_| random.random::<u8>()));
                payload
            }
        }
    }
}

/// Which message this is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// The device.
    pub device: String,
    /// Its number.
    pub n: u64,
}

/// The identity of a reading in Kafka; an error in words when its content is not what was sent.
pub fn of_record(record: &Value) -> Result<Identity, String> {
    let reading = &record["reading"];
    let fields = (
        record["device_id"].as_str(),
        reading["energy_wh"].as_f64(),
        reading["power_w"].as_f64(),
    );
    let (Some(device), Some(n), Some(power)) = fields else {
        return Err(format!("a record lacks fields: {record}"));
    };
    checked(device, n as u64, power as u64, |mark| mark % WATTS)
}

/// The identity of what a dead letter carries.
pub fn of_blob(payload: &[u8]) -> Result<Identity, String> {
    let unknown = || format!("unknown payload of {} bytes", payload.len());
    let head = String::from_utf8_lossy(&payload[..payload.len().min(80)]).into_owned();
    let words: Vec<&str> = head.split(' ').collect();
    let [_, device, n, mark, ..] = words[..] else {
        return Err(unknown());
    };
    let (Ok(n), Ok(mark)) = (n.parse(), mark.parse()) else {
        return Err(unknown());
    };
    let identity = checked(device, n, mark, |mark| mark)?;
    let device = Device {
        name: identity.device.clone(),
        kind: Kind::Blob,
        qos: 1,
        clean: true,
        window: 1,
        pkids: 1,
        pause_ms: 1,
    };
    if device.payload(n) == payload {
        Ok(identity)
    } else {
        Err(format!(
            "message {n} of {} has other bytes than were sent",
            device.name
        ))
    }
}

/// The identity of a message in the buffer.
pub fn of_message(topic: &str, body: &Body) -> Result<Identity, String> {
    let Body::Payload(payload) = body else {
        return Err(format!("a message on {topic:?} that no client sent"));
    };
    if topic.starts_with("tele/") {
        return of_blob(payload);
    }
    let json: Value = serde_json::from_slice(payload).map_err(|error| error.to_string())?;
    let (device, n, power) = if topic == "saveeye/telemetry" {
        let total = |group: &str| json[group]["total"].as_u64();
        let device = json["saveeyeDeviceSerialNumber"].as_str();
        (
            device,
            total("activeTotalConsumption"),
            total("activeActualConsumption"),
        )
    } else {
        let switch = &json["params"]["switch:0"];
        let n = switch["aenergy"]["total"].as_u64();
        (json["src"].as_str(), n, switch["apower"].as_u64())
    };
    match (device, n, power) {
        (Some(device), Some(n), Some(power)) => checked(device, n, power, |mark| mark % WATTS),
        _ => Err(format!("a message on {topic:?} that no client sent")),
    }
}

fn checked(device: &str, n: u64, found: u64, want: impl Fn(u64) -> u64) -> Result<Identity, String> {
    let want = want(mark(device, n));
    if want == found {
        Ok(Identity {
            device: device.to_owned(),
            n,
        })
    } else {
        Err(format!("message {n} of {device} says {found} and not {want}"))
    }
}
