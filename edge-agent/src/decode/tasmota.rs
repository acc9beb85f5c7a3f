//! Tasmota plugs: `tele/<plug>/STATE`, `tele/<plug>/SENSOR` and `stat/<plug>/POWER`.
//!
//! The device id is the plug's topic level, which the payload cannot choose. Relay 1 is the plug itself,
//! relay n is `:<n - 1>`. The module's own `Time` is ignored; thermometers beside the power meter are `tasmota_climate`'s.

use std::collections::BTreeMap;

use serde_json::Value;
use telemetry::{DeviceId, Plug, Reading};

use super::json::{Object, parse_object, scaled};
use super::{Decoded, DeviceReading, Undecodable, component_id, nothing, tasmota_climate};

/// Relays and meter phases of one device: Tasmota itself stops at 32.
pub const MAX_CHANNELS: u32 = 32;

/// `tele/<plug>/STATE`: whether it is on, with signal and running time.
pub fn decode_state(device: &DeviceId, payload: &[u8]) -> Result<Decoded, Undecodable> {
    let document = parse_object(payload)?;
    let state = Object::root(&document);
    let mut plugs = Plugs::new();
    for key in state.keys() {
        let Some(channel) = channel(key) else { continue };
        let Some(text) = state.text(key)? else { continue };
        let on = on(text).ok_or_else(|| state.bad_value(key, "neither ON nor OFF"))?;
        // A device has POWER or POWER1, never both; if it had, the first would stay.
        plugs.entry(channel).or_default().on.get_or_insert(on);
    }
    if plugs.is_empty() {
        return Ok(Decoded::Nothing(nothing::NO_MEASUREMENT));
    }
    let rssi_dbm = state.object("Wifi")?.number("Signal")?;
    let uptime_seconds = state.number("UptimeSec")?;
    for plug in plugs.values_mut() {
        plug.rssi_dbm = rssi_dbm;
        plug.uptime_seconds = uptime_seconds;
    }
    readings(device, plugs)
}

/// `tele/<plug>/SENSOR`: the power meter under `ENERGY`, and thermometers beside it.
pub fn decode_sensor(device: &DeviceId, payload: &[u8]) -> Result<Decoded, Undecodable> {
    let document = parse_object(payload)?;
    let sensor = Object::root(&document);
    let energy = sensor.object("ENERGY")?;
    let power = Channels::read(&energy, "Power")?;
    let total = Channels::read(&energy, "Total")?;
    let imported = Channels::read(&energy, "ImportActive")?;
    let voltage = Channels::read(&energy, "Voltage")?;
    let current = Channels::read(&energy, "Current")?;
    let count = [&power, &total, &voltage, &current]
        .iter()
        .map(|field| field.count())
        .max()
        .unwrap_or(1);
    // A meter of several phases has one `Total` for all, which is no phase's own, and may count each phase beside it.
    let counter = match &total {
        Channels::One(_) if count > 1 => &imported,
        _ => &total,
    };
    let mut plugs = Plugs::new();
    for channel in 0..count {
        let plug = Plug {
            power_w: power.own(channel, count),
            energy_wh: counter.own(channel, count).map(|kwh| scaled(kwh, 1e3)),
            voltage_v: voltage.shared(channel),
            current_a: current.own(channel, count),
            ..Plug::default()
        };
        if !plug.is_empty() {
            plugs.insert(channel, plug);
        }
    }
    let climate = tasmota_climate::sensors(device, &sensor)?;
    if climate.is_empty() {
        return readings(device, plugs);
    }
    let mut all = match readings(device, plugs)? {
        Decoded::Readings(readings) => readings,
        Decoded::Nothing(_) => Vec::new(),
    };
    all.extend(climate.into_iter().map(|(device_id, reading)| DeviceReading {
        device_id,
        reading: Reading::Temperature(reading),
    }));
    Ok(Decoded::Readings(all))
}

/// `stat/<plug>/POWER` and `POWER<n>`: `ON` or `OFF` as plain text.
pub fn decode_power(device: &DeviceId, topic: &str, payload: &[u8]) -> Result<Decoded, Undecodable> {
    let last = topic.rsplit('/').next().unwrap_or(topic);
    let Some(channel) = channel(last) else {
        return Ok(Decoded::Nothing(nothing::NO_MEASUREMENT));
    };
    let text = payload.trim_ascii();
    if text.is_empty() {
        return Err(Undecodable::Empty);
    }
    let text = std::str::from_utf8(text).map_err(|_| Undecodable::NotText)?;
    let on = on(text).ok_or_else(|| Undecodable::BadValue {
        field: "payload".to_owned(),
        rule: "neither ON nor OFF".to_owned(),
    })?;
    readings(
        device,
        Plugs::from([(
            channel,
            Plug {
                on: Some(on),
                ..Plug::default()
            },
        )]),
    )
}

/// Channels of one device, counted from 0.
type Plugs = BTreeMap<u32, Plug>;

fn readings(device: &DeviceId, plugs: Plugs) -> Result<Decoded, Undecodable> {
    if plugs.is_empty() {
        return Ok(Decoded::Nothing(nothing::NO_MEASUREMENT));
    }
    let reading = |(channel, plug)| {
        Ok(DeviceReading {
            device_id: component_id(device, channel)?,
            reading: Reading::Plug(plug),
        })
    };
    Ok(Decoded::Readings(
        plugs
            .into_iter()
            .map(reading)
            .collect::<Result<_, Undecodable>>()?,
    ))
}

/// The channel of `POWER` (0) or `POWER<n>` (n - 1).
fn channel(name: &str) -> Option<u32> {
    let digits = name.strip_prefix("POWER")?;
    if digits.is_empty() {
        return Some(0);
    }
    let number: u32 = digits.parse().ok()?;
    (number.to_string() == digits && (1..=MAX_CHANNELS).contains(&number)).then(|| number - 1)
}

fn on(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("ON") => Some(true),
        _ if text.eq_ignore_ascii_case("OFF") => Some(false),
        _ => None,
    }
}

/// One field of `ENERGY`: a number, or a list with one number a channel.
enum Channels {
    One(Option<f64>),
    Each(Vec<Option<f64>>),
}

impl Channels {
    fn read(energy: &Object<'_>, key: &str) -> Result<Self, Undecodable> {
        let Some(Value::Array(items)) = energy.value(key) else {
            return Ok(Self::One(energy.number(key)?));
        };
        if items.len() > MAX_CHANNELS as usize {
            return Err(energy.bad_value(key, format!("more than {MAX_CHANNELS} channels")));
        }
        let number = |(index, item): (usize, &Value)| match item {
            Value::Null => Ok(None),
            _ => item
                .as_f64()
                .map(Some)
                .ok_or_else(|| energy.wrong_type(&format!("{key}[{index}]"), item, "a number")),
        };
        Ok(Self::Each(
            items.iter().enumerate().map(number).collect::<Result<_, _>>()?,
        ))
    }

    fn count(&self) -> u32 {
        match self {
            Self::One(_) => 1,
            Self::Each(items) => u32::try_from(items.len()).unwrap_or(MAX_CHANNELS),
        }
    }

    /// The channel's own value. One number on a device of several channels is their sum and nobody's own.
    fn own(&self, channel: u32, count: u32) -> Option<f64> {
        match self {
            Self::One(value) => value.filter(|_| count == 1),
            Self::Each(items) => *items.get(channel as usize)?,
        }
    }

    /// The channel's value of something that channels share when there is only one: the voltage.
    fn shared(&self, channel: u32) -> Option<f64> {
        match self {
            Self::One(value) => *value,
            Self::Each(items) => *items.get(channel as usize)?,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cases::{self, check, nothing, reading, readings, sample_with, undecodable};

    const STATE: &str = "tele/heater/STATE";
    const SENSOR: &str = "tele/heater/SENSOR";

    #[test]
    fn state() {
        let plug = |value| reading("plug", "heater", value);
        check(
            STATE,
            cases::TASMOTA_STATE,
            plug(json!({"on":true,"rssi_dbm":-61.0,"uptime_seconds":273906.0})),
        );
        check(STATE, r#"{"POWER":"OFF"}"#, plug(json!({"on":false})));
        check(
            STATE,
            r#"{"POWER":"off","Wifi":null,"UptimeSec":null}"#,
            plug(json!({"on":false})),
        );
        // The percentage is not the signal.
        check(
            STATE,
            r#"{"POWER":"ON","Wifi":{"RSSI":78}}"#,
            plug(json!({"on":true})),
        );
        check(
            STATE,
            r#"{"POWER1":"ON","POWER2":"OFF","POWER4":"ON","POWER02":"ON","POWERED":"x","Wifi":{"Signal":-50}}"#,
            readings(&[
                ("plug", "heater", json!({"on":true,"rssi_dbm":-50.0})),
                ("plug", "heater:1", json!({"on":false,"rssi_dbm":-50.0})),
                ("plug", "heater:3", json!({"on":true,"rssi_dbm":-50.0})),
            ]),
        );
        check(
            STATE,
            r#"{"Wifi":{"Signal":-50},"UptimeSec":1}"#,
            nothing("no_measurement"),
        );
        check(STATE, r#"{"POWER":null}"#, nothing("no_measurement"));
        check(STATE, "{}", nothing("no_measurement"));
        check(
            STATE,
            r#"{"POWER":true}"#,
            undecodable("wrong type: POWER is true or false, expected a text"),
        );
        check(
            STATE,
            r#"{"POWER":"TOGGLE"}"#,
            undecodable("bad value: POWER: neither ON nor OFF"),
        );
        check(
            STATE,
            r#"{"POWER":"ON","UptimeSec":"1"}"#,
            undecodable("wrong type: UptimeSec"),
        );
        check(
            STATE,
            r#"{"POWER":"ON","Wifi":{"Signal":"-61"}}"#,
            undecodable("wrong type: Wifi.Signal"),
        );
        check(STATE, "ON", undecodable("not json: "));
        check(STATE, "\"ON\"", undecodable("not an object: a text"));
        check(
            "tele//STATE",
            r#"{"POWER":"ON"}"#,
            undecodable("bad value: topic: device id is empty"),
        );
    }

    #[test]
    fn sensor() {
        let plug = |value| reading("plug", "heater", value);
        let expected = json!({"power_w":43.0,"energy_wh":12345.0,"voltage_v":230.0,"current_a":0.221});
        check(SENSOR, cases::TASMOTA_SENSOR, plug(expected));
        check(
            SENSOR,
            r#"{"ENERGY":{"Total":0.001}}"#,
            plug(json!({"energy_wh":1.0})),
        );
        check(
            SENSOR,
            r#"{"Time":"x","COUNTER":{"C1":21}}"#,
            nothing("no_measurement"),
        );
        check(SENSOR, r#"{"ENERGY":null}"#, nothing("no_measurement"));
        check(SENSOR, r#"{"ENERGY":{"Power":null}}"#, nothing("no_measurement"));
        // Several channels: the one voltage is shared, the one counter is the sum of both and left out.
        check(
            SENSOR,
            r#"{"ENERGY":{"Total":1.5,"Power":[43,12.5],"Voltage":230,"Current":[0.2,null]}}"#,
            readings(&[
                (
                    "plug",
                    "heater",
                    json!({"power_w":43.0,"voltage_v":230.0,"current_a":0.2}),
                ),
                ("plug", "heater:1", json!({"power_w":12.5,"voltage_v":230.0})),
            ]),
        );
        check(
            SENSOR,
            r#"{"ENERGY":{"Total":[1.5,2],"Power":[43,12],"Voltage":[230,231]}}"#,
            readings(&[
                (
                    "plug",
                    "heater",
                    json!({"power_w":43.0,"energy_wh":1500.0,"voltage_v":230.0}),
                ),
                (
                    "plug",
                    "heater:1",
                    json!({"power_w":12.0,"energy_wh":2000.0,"voltage_v":231.0}),
                ),
            ]),
        );
        // Phases that are counted apart, as a three-phase meter for import and export does.
        check(
            SENSOR,
            r#"{"ENERGY":{"Total":16647.947,"ExportActive":[1508.37,1929.488],"Power":[-172.594,-8.608],"ImportActive":[4392.588,2795.954]}}"#,
            readings(&[
                (
                    "plug",
                    "heater",
                    json!({"power_w":-172.594,"energy_wh":4392588.0}),
                ),
                (
                    "plug",
                    "heater:1",
                    json!({"power_w":-8.608,"energy_wh":2795954.0}),
                ),
            ]),
        );
        check(
            SENSOR,
            r#"{"ENERGY":{"Power":[43],"Total":1}}"#,
            plug(json!({"power_w":43.0,"energy_wh":1000.0})),
        );
        check(SENSOR, r#"{"ENERGY":{"Power":[]}}"#, nothing("no_measurement"));
        check(
            SENSOR,
            r#"{"ENERGY":7}"#,
            undecodable("wrong type: ENERGY is a number, expected an object"),
        );
        check(
            SENSOR,
            r#"{"ENERGY":{"Power":"43"}}"#,
            undecodable("wrong type: ENERGY.Power is a text"),
        );
        check(
            SENSOR,
            r#"{"ENERGY":{"Power":[1,"2"]}}"#,
            undecodable("wrong type: ENERGY.Power[1] is a text"),
        );
        check(
            SENSOR,
            r#"{"ENERGY":{"Power":[[1]]}}"#,
            undecodable("wrong type: ENERGY.Power[0] is an array"),
        );
        let many = sample_with(cases::TASMOTA_SENSOR, "/ENERGY/Power", json!([1].repeat(33)));
        check(
            SENSOR,
            &many,
            undecodable("bad value: ENERGY.Power: more than 32 channels"),
        );
        let huge = sample_with(cases::TASMOTA_SENSOR, "/ENERGY/Total", json!(1e308));
        check(SENSOR, &huge, undecodable("out of range: energy_wh is inf"));
    }

    #[test]
    fn power() {
        let check = |topic: &str, text: &str, want| check(topic, text, want);
        check(
            "stat/heater/POWER",
            "ON",
            reading("plug", "heater", json!({"on":true})),
        );
        check(
            "stat/heater/POWER",
            "OFF",
            reading("plug", "heater", json!({"on":false})),
        );
        check(
            "stat/heater/POWER",
            "off\n",
            reading("plug", "heater", json!({"on":false})),
        );
        check("stat/heater/POWER", "", undecodable("empty payload"));
        check("stat/heater/POWER", " ", undecodable("empty payload"));
        check(
            "stat/heater/POWER",
            "1",
            undecodable("bad value: payload: neither ON nor OFF"),
        );
        check(
            "stat/heater/POWER",
            "{\"POWER\":\"ON\"}",
            undecodable("bad value: payload"),
        );
        check(
            "stat/strip/POWER1",
            "ON",
            reading("plug", "strip", json!({"on":true})),
        );
        check(
            "stat/strip/POWER2",
            "ON",
            reading("plug", "strip:1", json!({"on":true})),
        );
        check(
            "stat/strip/POWER32",
            "OFF",
            reading("plug", "strip:31", json!({"on":false})),
        );
        check("stat/strip/POWER33", "ON", nothing("no_measurement"));
        check("stat/strip/POWER0", "ON", nothing("no_measurement"));
        check(
            "stat/strip/RESULT",
            "{\"POWER\":\"ON\"}",
            nothing("no_measurement"),
        );
    }
}
