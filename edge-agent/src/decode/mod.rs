//! What devices say, turned into readings: pure functions from topic and payload.
//!
//! A decoder never reads a clock, a file or an earlier message, never panics, and never lets a payload choose
//! agent, id, time or location of a record. A message is decoded as a whole or not at all: one field of the
//! wrong type, or outside its physical limits, makes all of it undecodable, because the dead letter keeps
//! every byte of it and can be replayed, while a part of it stored would hide the rest.
//!
//! docs/DEVICES.md says which field of which device becomes what.

mod generic;
mod json;
mod saveeye;
mod shelly;
mod tasmota;
mod tasmota_climate;
mod thermiq;

#[cfg(test)]
mod cases;

use serde::Deserialize;
use telemetry::{DeviceId, OutOfRange, Reading};

pub use generic::{DeviceIdSource, FieldSource, GenericRoute};

use crate::topic_filter::{InvalidFilter, TopicFilter};
use generic::Generic;

/// Most readings one message may give. The largest real device has about twenty components; a hostile frame
/// of 256 KiB could name thousands.
const MAX_READINGS: usize = 64;

/// What a message gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Decoded {
    /// At least one reading, at most one per (kind, device).
    Readings(Vec<DeviceReading>),
    /// Well-formed, but nothing to record. The word says why; it is one of [`nothing::ALL`].
    Nothing(&'static str),
}

/// A reading and the device it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceReading {
    /// The sensor.
    pub device_id: DeviceId,
    /// What it measured.
    pub reading: Reading,
}

/// Why a well-formed message gives nothing to record: labels of a metric.
pub mod nothing {
    /// A `NotifyEvent` frame: a button, a device going to sleep.
    pub const EVENT: &str = "event";
    /// A frame with a method that did not exist when this was written.
    pub const UNKNOWN_METHOD: &str = "unknown_method";
    /// An answer to a request, without a state.
    pub const ANSWER: &str = "answer";
    /// No field that is recorded, or all of them null.
    pub const NO_MEASUREMENT: &str = "no_measurement";
    /// All of them.
    pub const ALL: [&str; 4] = [EVENT, UNKNOWN_METHOD, ANSWER, NO_MEASUREMENT];
}

/// Why a message cannot be decoded. As text it is the reason in the dead letter: stable first words, then
/// details that name fields and never repeat values of unbounded length.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Undecodable {
    /// No route takes the topic.
    #[error("no decoder: no route takes this topic")]
    NoDecoder,
    /// The payload has no bytes.
    #[error("empty payload: no bytes to decode")]
    Empty,
    /// A plain-text payload is not UTF-8.
    #[error("not text: the payload is not UTF-8")]
    NotText,
    /// The payload is not JSON.
    #[error("not json: {0}")]
    NotJson(String),
    /// An object has a key with two different values.
    #[error("duplicate key: {0}")]
    DuplicateKey(String),
    /// The payload is JSON, but no object.
    #[error("not an object: {0}")]
    NotAnObject(&'static str),
    /// A field nothing can be said without.
    #[error("missing field: {0}")]
    Missing(String),
    /// A field has a type that cannot be read without guessing.
    #[error("wrong type: {field} is {found}, expected {expected}")]
    WrongType {
        /// The field and its place.
        field: String,
        /// What it is.
        found: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A field has a value it cannot have.
    #[error("bad value: {field}: {rule}")]
    BadValue {
        /// The field and its place.
        field: String,
        /// The rule it breaks.
        rule: String,
    },
    /// A reading is outside physical limits.
    #[error("out of range: {0}")]
    OutOfRange(#[from] OutOfRange),
    /// More readings than any real device gives.
    #[error("too many readings: {0}, at most {MAX_READINGS} of one message")]
    TooManyReadings(usize),
}

/// What is wrong with the configured routes.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum ConfigError {
    /// A topic filter is not valid.
    #[error("route {filter:?}: {source}")]
    Filter {
        /// The filter as configured.
        filter: String,
        /// The rule it breaks.
        source: InvalidFilter,
    },
    /// A description of a generic device is not valid.
    #[error("generic route {filter:?}: {what}")]
    Generic {
        /// The filter that names the route.
        filter: String,
        /// What is wrong.
        what: String,
    },
}

/// Which messages go to which decoder.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// MQTT topic filter of the messages; they are captured.
    pub filter: String,
    /// What decodes them.
    pub decoder: DecoderKind,
}

/// The decoders of known devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecoderKind {
    /// Notifications of Shelly Gen2+ devices.
    Shelly,
    /// SaveEye meter reader.
    Saveeye,
    /// ThermIQ heat-pump interface.
    Thermiq,
    /// `tele/<plug>/STATE`.
    TasmotaState,
    /// `tele/<plug>/SENSOR`.
    TasmotaSensor,
    /// `stat/<plug>/POWER`.
    TasmotaPower,
}

impl Route {
    /// What is captured when the configuration names no routes.
    pub fn defaults() -> Vec<Route> {
        [
            ("+/events/rpc", DecoderKind::Shelly),
            // Their answers to the agent's own commands.
            ("homelab/+/rpc", DecoderKind::Shelly),
            ("saveeye/telemetry", DecoderKind::Saveeye),
            ("thermiq_heatpump/data", DecoderKind::Thermiq),
            ("tele/+/STATE", DecoderKind::TasmotaState),
            ("tele/+/SENSOR", DecoderKind::TasmotaSensor),
            ("stat/+/POWER", DecoderKind::TasmotaPower),
        ]
        .map(|(filter, decoder)| (filter.to_owned(), decoder))
        .into_iter()
        // A strip says `POWER1`, `POWER2`, ... when it is switched; Tasmota stops at 32.
        .chain((1..=tasmota::MAX_CHANNELS).map(|n| (format!("stat/+/POWER{n}"), DecoderKind::TasmotaPower)))
        .map(|(filter, decoder)| Route { filter, decoder })
        .collect()
    }
}

/// All routes, checked. Built once; decoding changes nothing in it.
#[derive(Debug)]
pub struct Decoders {
    routes: Vec<(TopicFilter, Decoder)>,
}

#[derive(Debug)]
enum Decoder {
    Known(DecoderKind),
    Generic(Generic),
}

impl Decoders {
    /// Checks the routes. The first that matches a topic takes it: `generic` before `routes`, because a
    /// description of one device is narrower than the family it may belong to; each in the order given.
    pub fn new(routes: &[Route], generic: &[GenericRoute]) -> Result<Self, ConfigError> {
        let filter = |text: &str| {
            TopicFilter::parse(text).map_err(|source| ConfigError::Filter {
                filter: text.to_owned(),
                source,
            })
        };
        let mut all = Vec::with_capacity(routes.len() + generic.len());
        for route in generic {
            let filter = filter(&route.filter)?;
            let decoder = Generic::new(route, &filter)?;
            all.push((filter, Decoder::Generic(decoder)));
        }
        for route in routes {
            all.push((filter(&route.filter)?, Decoder::Known(route.decoder)));
        }
        Ok(Self { routes: all })
    }

    /// Decodes one message. Every reading it gives is inside physical limits.
    pub fn decode(&self, topic: &str, payload: &[u8]) -> Result<Decoded, Undecodable> {
        let (filter, decoder) = self.route(topic).ok_or(Undecodable::NoDecoder)?;
        let decoded = match decoder {
            Decoder::Generic(generic) => generic.decode(topic, payload)?,
            Decoder::Known(DecoderKind::Shelly) => shelly::decode(payload)?,
            Decoder::Known(DecoderKind::Saveeye) => saveeye::decode(payload)?,
            Decoder::Known(DecoderKind::Thermiq) => thermiq::decode(payload)?,
            Decoder::Known(DecoderKind::TasmotaState) => {
                tasmota::decode_state(&device_level(filter, topic)?, payload)?
            }
            Decoder::Known(DecoderKind::TasmotaSensor) => {
                tasmota::decode_sensor(&device_level(filter, topic)?, payload)?
            }
            Decoder::Known(DecoderKind::TasmotaPower) => {
                tasmota::decode_power(&device_level(filter, topic)?, topic, payload)?
            }
        };
        if let Decoded::Readings(readings) = &decoded {
            if readings.len() > MAX_READINGS {
                return Err(Undecodable::TooManyReadings(readings.len()));
            }
            if let Some(out) = readings.iter().find_map(|reading| reading.reading.out_of_range()) {
                return Err(out.into());
            }
        }
        Ok(decoded)
    }

    /// True when a topic is captured at all.
    pub fn captures(&self, topic: &str) -> bool {
        self.route(topic).is_some()
    }

    fn route(&self, topic: &str) -> Option<&(TopicFilter, Decoder)> {
        self.routes.iter().find(|(filter, _)| filter.matches(topic))
    }
}

/// The topic level that names the device: the one the filter's first `+` stands for; in a filter without `+`
/// the one before the last.
fn device_level(filter: &TopicFilter, topic: &str) -> Result<DeviceId, Undecodable> {
    let level = match filter.as_str().split('/').position(|level| level == "+") {
        Some(position) => topic.split('/').nth(position),
        None => topic.rsplit('/').nth(1),
    };
    DeviceId::parse(level.unwrap_or_default()).map_err(|error| Undecodable::BadValue {
        field: "topic".to_owned(),
        rule: error.to_string(),
    })
}

/// The device id of a component: `:<index>` is added for every index but 0.
fn component_id(device: &DeviceId, index: u32) -> Result<DeviceId, Undecodable> {
    if index == 0 {
        return Ok(device.clone());
    }
    DeviceId::parse(format!("{device}:{index}")).map_err(|error| Undecodable::BadValue {
        field: "device id".to_owned(),
        rule: error.to_string(),
    })
}
