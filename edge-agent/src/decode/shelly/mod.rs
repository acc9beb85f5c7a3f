//! Shelly Gen2+ and Gen3: notifications on `<prefix>/events/rpc`, and answers to the agent's commands on
//! `homelab/<agent>/rpc`.
//!
//! A frame holds components, `<type>:<index>`; each kind of record collects the components of one index. The
//! frame's `ts`, `dst` and everything unknown are ignored. Nothing is remembered between frames: a
//! `NotifyStatus` carries only what changed, and so does its record.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use telemetry::{DeviceId, Energy, Plug, Reading, Temperature};

use super::json::{Object, parse_object};
use super::{Decoded, DeviceReading, Undecodable, component_id, nothing};

/// Highest index of a switch in an answer; the largest device has a hundred components.
const MAX_INDEX: u32 = 999;

/// Models whose `temperature:<n>` is the temperature of their own electronics: the energy meters.
const INTERNAL_TEMPERATURE: [&str; 4] = ["shellypro3em", "shellyproem", "shelly3em", "shellyem"];

/// Models that measure a room. Of a frame with the battery alone only theirs is recorded: smoke and flood
/// sensors have the same component and are no thermometers.
const ROOM_SENSORS: [&str; 2] = ["shellyplusht", "shellyht"];

/// Decodes one frame.
pub fn decode(payload: &[u8]) -> Result<Decoded, Undecodable> {
    let document = parse_object(payload)?;
    let frame = Object::root(&document);
    let src = frame.device_id("src")?;
    if frame.lacks("method") && !(frame.lacks("result") && frame.lacks("error")) {
        return answer(&src, &frame);
    }
    match frame.text("method")?.ok_or_else(|| frame.missing("method"))? {
        "NotifyStatus" | "NotifyFullStatus" => {}
        "NotifyEvent" => return Ok(Decoded::Nothing(nothing::EVENT)),
        _ => return Ok(Decoded::Nothing(nothing::UNKNOWN_METHOD)),
    }
    if frame.lacks("params") {
        return Err(frame.missing("params"));
    }
    let params = frame.object("params")?;
    let is_model = |models: &[&str]| models.iter().any(|model| src.as_str().starts_with(model));

    let mut temperatures: BTreeMap<u32, Temperature> = BTreeMap::new();
    let mut meters: BTreeMap<u32, Energy> = BTreeMap::new();
    let mut plugs: BTreeMap<u32, Plug> = BTreeMap::new();
    for key in params.keys() {
        let Some((component, index)) = component(key) else {
            continue;
        };
        let status = params.object(key);
        match component {
            "temperature" if !is_model(&INTERNAL_TEMPERATURE) => {
                temperatures.entry(index).or_default().temperature_c = status?.number("tC")?;
            }
            "humidity" => temperatures.entry(index).or_default().humidity_percent = status?.number("rh")?,
            "em" => three_phase(&status?, meters.entry(index).or_default())?,
            "em1" => single_phase(&status?, meters.entry(index).or_default())?,
            "emdata" => counters(
                &status?,
                ["total_act", "total_act_ret"],
                meters.entry(index).or_default(),
            )?,
            "em1data" => counters(
                &status?,
                ["total_act_energy", "total_act_ret_energy"],
                meters.entry(index).or_default(),
            )?,
            "switch" | "pm1" => plug(&status?, plugs.entry(index).or_default())?,
            // Lights, covers, inputs, smoke and whatever comes later: nothing we have a place for.
            _ => {}
        }
    }
    if is_model(&ROOM_SENSORS) && temperatures.is_empty() {
        temperatures.entry(0).or_default();
    }
    if !temperatures.is_empty() {
        let battery = battery(&params)?;
        for reading in temperatures.values_mut() {
            reading.battery_volts = battery.battery_volts;
            reading.battery_percent = battery.battery_percent;
            reading.external_power = battery.external_power;
        }
    }

    // Up to here a record holds what its own components measured. Signal and running time are the device's:
    // they join every record of the frame but never make one.
    temperatures.retain(|_, reading| !reading.is_empty());
    meters.retain(|_, reading| !reading.is_empty());
    plugs.retain(|_, reading| !reading.is_empty());
    if temperatures.is_empty() && meters.is_empty() && plugs.is_empty() {
        return Ok(Decoded::Nothing(nothing::NO_MEASUREMENT));
    }
    let rssi_dbm = rssi(&params)?;
    let sys = params.object("sys")?;
    let uptime_seconds = sys.number("uptime")?;
    let wake_period_seconds = sys.number("wakeup_period")?;

    let mut readings = Vec::new();
    let mut add = |index, reading| -> Result<(), Undecodable> {
        readings.push(DeviceReading {
            device_id: component_id(&src, index)?,
            reading,
        });
        Ok(())
    };
    for (index, reading) in temperatures {
        let reading = Temperature {
            rssi_dbm,
            uptime_seconds,
            wake_period_seconds,
            ..reading
        };
        add(index, Reading::Temperature(reading))?;
    }
    for (index, reading) in meters {
        add(index, Reading::Energy(Energy { rssi_dbm, ..reading }))?;
    }
    for (index, reading) in plugs {
        add(
            index,
            Reading::Plug(Plug {
                rssi_dbm,
                uptime_seconds,
                ..reading
            }),
        )?;
    }
    Ok(Decoded::Readings(readings))
}

/// The answer to `Switch.GetStatus` is a switch's status with its index in `id`. Every other answer, that to `Switch.Set` and
/// errors among them, holds no state.
fn answer(src: &DeviceId, frame: &Object<'_>) -> Result<Decoded, Undecodable> {
    let status = frame.object("result")?;
    let Some(on) = status.bool("output")? else {
        return Ok(Decoded::Nothing(nothing::ANSWER));
    };
    let index = status.number("id")?.unwrap_or_default();
    if !(0.0..=f64::from(MAX_INDEX)).contains(&index) || index.fract() != 0.0 {
        return Err(Undecodable::BadValue {
            field: "result.id".to_owned(),
            rule: format!("must be a whole number up to {MAX_INDEX}"),
        });
    }
    let mut reading = Plug::default();
    plug(&status, &mut reading)?;
    Ok(Decoded::Readings(vec![DeviceReading {
        device_id: component_id(src, index as u32)?,
        reading: Reading::Plug(Plug {
            on: Some(on),
            ..reading
        }),
    }]))
}

/// Splits `switch:1`. An index is written one way only, so that `switch:1` and `switch:01` cannot be two
/// components with one device id.
fn component(key: &str) -> Option<(&str, u32)> {
    let (name, digits) = key.split_once(':')?;
    let index: u32 = digits.parse().ok()?;
    (index.to_string() == digits).then_some((name, index))
}

/// `em:<n>`: power keeps its sign. Power factor is reported per phase only, so there is none of the whole.
fn three_phase(em: &Object<'_>, reading: &mut Energy) -> Result<(), Undecodable> {
    reading.power_w = em.number("total_act_power")?;
    reading.power_l1_w = em.number("a_act_power")?;
    reading.power_l2_w = em.number("b_act_power")?;
    reading.power_l3_w = em.number("c_act_power")?;
    reading.voltage_l1_v = em.number("a_voltage")?;
    reading.voltage_l2_v = em.number("b_voltage")?;
    reading.voltage_l3_v = em.number("c_voltage")?;
    reading.current_l1_a = em.number("a_current")?;
    reading.current_l2_a = em.number("b_current")?;
    reading.current_l3_a = em.number("c_current")?;
    Ok(())
}

/// `em1:<n>`: a meter of its own; its only phase is phase 1 of its record. A device is set to one profile,
/// so `em:0` and `em1:0` do not meet; if they did, the three-phase values would stay.
fn single_phase(em1: &Object<'_>, reading: &mut Energy) -> Result<(), Undecodable> {
    reading.power_w = em1.number("act_power")?;
    reading.voltage_l1_v = em1.number("voltage")?;
    reading.current_l1_a = em1.number("current")?;
    reading.power_factor = em1.number("pf")?;
    Ok(())
}

/// `emdata:<n>` and `em1data:<n>`: counters in watt hours, drawn and delivered.
fn counters(
    data: &Object<'_>,
    [drawn, delivered]: [&str; 2],
    reading: &mut Energy,
) -> Result<(), Undecodable> {
    reading.energy_wh = data.number(drawn)?;
    reading.export_energy_wh = data.number(delivered)?;
    Ok(())
}

/// `switch:<n>` and `pm1:<n>`, which is the same without `output`. `temperature` in it is the relay's own.
fn plug(status: &Object<'_>, reading: &mut Plug) -> Result<(), Undecodable> {
    let fresh = Plug {
        on: status.bool("output")?,
        power_w: status.number("apower")?,
        energy_wh: status.object("aenergy")?.number("total")?,
        voltage_v: status.number("voltage")?,
        current_a: status.number("current")?,
        ..Plug::default()
    };
    // A frame with `pm1:0` and `switch:0` is one device: the relay's own values win, the rest is filled in.
    let earlier = std::mem::replace(reading, fresh);
    reading.on = reading.on.or(earlier.on);
    reading.power_w = reading.power_w.or(earlier.power_w);
    reading.energy_wh = reading.energy_wh.or(earlier.energy_wh);
    reading.voltage_v = reading.voltage_v.or(earlier.voltage_v);
    reading.current_a = reading.current_a.or(earlier.current_a);
    Ok(())
}

fn battery(params: &Object<'_>) -> Result<Temperature, Undecodable> {
    let power = params.object("devicepower:0")?;
    let battery = power.object("battery")?;
    Ok(Temperature {
        battery_volts: battery.number("V")?,
        battery_percent: battery.number("percent")?,
        external_power: power.object("external")?.bool("present")?,
        ..Temperature::default()
    })
}

/// Signal strength. A device on Ethernet or off Wi-Fi reports 0, which no antenna ever receives.
fn rssi(params: &Object<'_>) -> Result<Option<f64>, Undecodable> {
    Ok(params.object("wifi")?.number("rssi")?.filter(|rssi| *rssi != 0.0))
}
