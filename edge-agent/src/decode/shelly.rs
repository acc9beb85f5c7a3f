//! Shelly Gen2+ and Gen3: notifications on `<prefix>/events/rpc`.
//!
//! A frame holds components, `<type>:<index>`; each kind of record collects the components of one index. The
//! frame's `ts`, `dst` and everything unknown are ignored. Nothing is remembered between frames: a
//! `NotifyStatus` carries only what changed, and so does its record.

use std::collections::BTreeMap;

use telemetry::{Energy, Plug, Reading, Temperature};

use super::json::{Object, parse_object};
use super::{Decoded, DeviceReading, Undecodable, component_id, nothing};

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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::cases::{self, check, nothing, reading, readings, sample_with, undecodable};

    const TOPIC: &str = "any-prefix/events/rpc";
    const HT: &str = "shellyhtg3-e4b32322a0f4";

    /// A `NotifyStatus` frame of `src` with these parameters.
    fn frame(src: &str, params: Value) -> String {
        json!({"src":src,"dst":format!("{src}/events"),"method":"NotifyStatus","params":params}).to_string()
    }

    #[test]
    fn room_sensors() {
        let ht = |text: &str, want| check(TOPIC, text, reading("temperature", HT, want));
        let expected = json!({"temperature_c":21.3,"humidity_percent":44.6,"battery_volts":5.37,"battery_percent":77.0,
            "external_power":false,"rssi_dbm":-58.0,"uptime_seconds":2.0,"wake_period_seconds":7200.0});
        ht(cases::SHELLY_HT, expected.clone());
        let without = |fields: &[&str]| {
            let mut expected = expected.clone();
            for field in fields {
                expected.as_object_mut().unwrap().remove(*field);
            }
            expected
        };
        // No NTP yet; a sensor fault; fed from USB.
        ht(
            &sample_with(cases::SHELLY_HT, "/params/sys/unixtime", json!(null)),
            expected.clone(),
        );
        let fault = json!({"id":0,"tC":null,"tF":null,"errors":["read"]});
        ht(
            &sample_with(cases::SHELLY_HT, "/params/temperature:0", fault),
            without(&["temperature_c"]),
        );
        let mut usb = expected.clone();
        usb["battery_percent"] = json!(0.0);
        usb["external_power"] = json!(true);
        usb.as_object_mut().unwrap().remove("battery_volts");
        let power = json!({"id":0,"battery":{"V":null,"percent":0},"external":{"present":true}});
        ht(
            &sample_with(cases::SHELLY_HT, "/params/devicepower:0", power),
            usb,
        );
        ht(
            &sample_with(cases::SHELLY_HT, "/params/humidity:0", json!(null)),
            without(&["humidity_percent"]),
        );
        ht(
            &sample_with(cases::SHELLY_HT, "/params/sys", json!(null)),
            without(&["uptime_seconds", "wake_period_seconds"]),
        );
        ht(
            &sample_with(cases::SHELLY_HT, "/params/wifi/rssi", json!(0)),
            without(&["rssi_dbm"]),
        );
        // Nothing in the payload chooses agent, id, time or place.
        ht(
            &frame(
                HT,
                json!({"ts":1,"temperature:0":{"tC":-40,"agent":"p9","id":77},"location":"x","time":"y"}),
            ),
            json!({"temperature_c":-40.0}),
        );
        // Changed fields only, one by one.
        ht(
            &frame(HT, json!({"humidity:0":{"id":0,"rh":50}})),
            json!({"humidity_percent":50.0}),
        );
        ht(
            &frame(
                HT,
                json!({"devicepower:0":{"battery":{"V":5.1,"percent":50}},"wifi":{"rssi":-60}}),
            ),
            json!({"battery_volts":5.1,"battery_percent":50.0,"rssi_dbm":-60.0}),
        );
        check(
            TOPIC,
            cases::SHELLY_PLUS_HT,
            reading(
                "temperature",
                "shellyplusht-a8032ab1c2d3",
                json!({"temperature_c":22.0}),
            ),
        );
    }

    #[test]
    fn several_sensors() {
        // An add-on board counts from 100; the same index is one record, every other index its own device.
        check(
            TOPIC,
            &frame(
                "shellyplus1-a8032ab1c2d3",
                json!({
                "humidity:100":{"id":100,"rh":61},"temperature:100":{"id":100,"tC":4.5},"temperature:101":{"id":101,"tC":-18.2},
                "temperature:102":{"id":102,"tC":null},"temperature:007":{"tC":1},"temperature":{"tC":2},"temperature:":{"tC":3},
                "temperature:+1":{"tC":4},"temperature:-1":{"tC":5},"temperature:4294967296":{"tC":6},"temperature:1:2":{"tC":7},
                "switch:0":{"id":0,"output":true},"wifi":{"rssi":-50},"sys":{"uptime":9}}),
            ),
            readings(&[
                (
                    "temperature",
                    "shellyplus1-a8032ab1c2d3:100",
                    json!({"temperature_c":4.5,"humidity_percent":61.0,"rssi_dbm":-50.0,"uptime_seconds":9.0}),
                ),
                (
                    "temperature",
                    "shellyplus1-a8032ab1c2d3:101",
                    json!({"temperature_c":-18.2,"rssi_dbm":-50.0,"uptime_seconds":9.0}),
                ),
                (
                    "plug",
                    "shellyplus1-a8032ab1c2d3",
                    json!({"on":true,"rssi_dbm":-50.0,"uptime_seconds":9.0}),
                ),
            ]),
        );
        check(
            TOPIC,
            &frame("dev", json!({"temperature:0":{"tC":1},"temperature:1":{"tC":2}})),
            readings(&[
                ("temperature", "dev", json!({"temperature_c":1.0})),
                ("temperature", "dev:1", json!({"temperature_c":2.0})),
            ]),
        );
        // The index is added whatever else the frame holds.
        check(
            TOPIC,
            &frame("dev", json!({"temperature:1":{"tC":2}})),
            reading("temperature", "dev:1", json!({"temperature_c":2.0})),
        );
        let many: serde_json::Map<_, _> = (0..65)
            .map(|n| (format!("temperature:{n}"), json!({"tC":1})))
            .collect();
        check(
            TOPIC,
            &frame("dev", Value::Object(many)),
            undecodable("too many readings: 65, at most 64 of one message"),
        );
    }

    #[test]
    fn meters() {
        let id = "shellypro3em-34987a45dc01";
        let meter = |text: &str, want| check(TOPIC, text, reading("energy", id, want));
        let power = json!({"power_w":1059.0,"power_l1_w":198.2,"power_l2_w":912.5,"power_l3_w":-51.7,
            "voltage_l1_v":231.4,"voltage_l2_v":230.2,"voltage_l3_v":232.0,
            "current_l1_a":1.021,"current_l2_a":4.1,"current_l3_a":0.4});
        meter(cases::SHELLY_EM, power.clone());
        meter(
            cases::SHELLY_EMDATA,
            json!({"energy_wh":10416.4,"export_energy_wh":33.4}),
        );
        // Export keeps its sign; 40 kW passes; the meter's own temperature is no room's.
        meter(
            &frame(id, json!({"em:0":{"total_act_power":-5120.5}})),
            json!({"power_w":-5120.5}),
        );
        meter(
            &frame(id, json!({"em:0":{"total_act_power":40000}})),
            json!({"power_w":40000.0}),
        );
        let mut both: Value = serde_json::from_str(cases::SHELLY_EM).unwrap();
        both["params"]["emdata:0"] = json!({"total_act":10416.4,"total_act_ret":33.4});
        both["params"]["temperature:0"] = json!({"id":0,"tC":41.2,"tF":106.2});
        both["params"]["em:0"]["a_errors"] = json!(["out_of_range:current"]);
        both["params"]["wifi"] = json!({"rssi":-66});
        let mut expected = power;
        for (field, value) in [
            ("energy_wh", 10416.4),
            ("export_energy_wh", 33.4),
            ("rssi_dbm", -66.0),
        ] {
            expected[field] = json!(value);
        }
        meter(&both.to_string(), expected);
        check(
            TOPIC,
            &frame(id, json!({"temperature:0":{"id":0,"tC":41.2}})),
            nothing("no_measurement"),
        );
        meter(
            &frame(id, json!({"em:0":{"total_act_power":null,"a_voltage":230}})),
            json!({"voltage_l1_v":230.0}),
        );
        check(
            TOPIC,
            &frame(
                id,
                json!({"em:0":{"total_act_power":null,"errors":["power_meter_failure"]}}),
            ),
            nothing("no_measurement"),
        );
        // Single-phase profile: three meters.
        check(
            TOPIC,
            &frame(
                id,
                json!({
                "em1:0":{"id":0,"current":1.5,"voltage":230.1,"act_power":-345.1,"aprt_power":350,"pf":-0.98,"freq":50},
                "em1data:0":{"id":0,"total_act_energy":100.5,"total_act_ret_energy":7},
                "em1:2":{"id":2,"act_power":12},"em1data:1":{"id":1,"total_act_energy":3}}),
            ),
            readings(&[
                (
                    "energy",
                    id,
                    json!({"power_w":-345.1,"voltage_l1_v":230.1,"current_l1_a":1.5,"power_factor":-0.98,
                    "energy_wh":100.5,"export_energy_wh":7.0}),
                ),
                ("energy", "shellypro3em-34987a45dc01:1", json!({"energy_wh":3.0})),
                ("energy", "shellypro3em-34987a45dc01:2", json!({"power_w":12.0})),
            ]),
        );
    }

    #[test]
    fn plugs() {
        let id = "shellyplugsg3-d0cf13c0ffee";
        let plug = |text: &str, want| check(TOPIC, text, reading("plug", id, want));
        let expected = json!({"on":true,"power_w":8.9,"energy_wh":6532.114,"voltage_v":231.1,"current_a":0.061,
            "rssi_dbm":-49.0,"uptime_seconds":86400.0});
        plug(cases::SHELLY_PLUG, expected.clone());
        let metered = cases::SHELLY_PLUG
            .replace("switch:0", "pm1:0")
            .replace("\"output\":true,", "");
        let mut without_on = expected;
        without_on.as_object_mut().unwrap().remove("on");
        plug(&metered, without_on);
        plug(
            &frame(id, json!({"switch:0":{"id":0,"output":false,"source":"MQTT"}})),
            json!({"on":false}),
        );
        plug(
            &frame(id, json!({"switch:0":{"id":0,"apower":0}})),
            json!({"power_w":0.0}),
        );
        plug(
            &frame(id, json!({"switch:0":{"aenergy":{"total":1.5}}})),
            json!({"energy_wh":1.5}),
        );
        plug(
            &frame(
                id,
                json!({"pm1:0":{"apower":5,"voltage":230},"switch:0":{"output":true,"apower":6}}),
            ),
            json!({"on":true,"power_w":6.0,"voltage_v":230.0}),
        );
        check(
            TOPIC,
            &frame(
                "shellypro2pm-1",
                json!({"switch:0":{"output":true},"switch:1":{"output":false},"sys":{"uptime":3}}),
            ),
            readings(&[
                ("plug", "shellypro2pm-1", json!({"on":true,"uptime_seconds":3.0})),
                (
                    "plug",
                    "shellypro2pm-1:1",
                    json!({"on":false,"uptime_seconds":3.0}),
                ),
            ]),
        );
        check(
            TOPIC,
            &frame(id, json!({"switch:0":{"temperature":{"tC":38.4}}})),
            nothing("no_measurement"),
        );
        check(
            TOPIC,
            &frame(id, json!({"switch:0":{"aenergy":{"by_minute":[1,2,3]}}})),
            nothing("no_measurement"),
        );
    }

    #[test]
    fn frames_with_nothing_to_record() {
        check(TOPIC, cases::SHELLY_EVENT, nothing("event"));
        check(TOPIC, r#"{"src":"a","method":"NotifyEvent"}"#, nothing("event"));
        check(
            TOPIC,
            r#"{"src":"a","method":"NotifySomething","params":1}"#,
            nothing("unknown_method"),
        );
        let empty = |params| check(TOPIC, &frame("shellyx-1", params), nothing("no_measurement"));
        empty(json!({"ts":1}));
        empty(json!({}));
        empty(
            json!({"mqtt":{"connected":true},"cloud":{},"wifi":{"rssi":-50},"sys":{"uptime":5,"wakeup_period":600}}),
        );
        empty(
            json!({"light:0":{"output":true,"apower":5},"cover:0":{"apower":5},"input:0":{"state":true},"script:1":7}),
        );
        empty(json!({"temperature:0":null,"em:0":null,"switch:0":null}));
        empty(json!({"temperature:0":{"tC":null,"errors":["read"]},"wifi":{"rssi":-50},"sys":{"uptime":5}}));
        // A smoke sensor's battery does not make it a thermometer.
        empty(json!({"smoke:0":{"alarm":false},"devicepower:0":{"battery":{"V":3.0,"percent":90}}}));
    }

    #[test]
    fn wrong_frames_are_named() {
        let refused = |text: &str, want: &str| check(TOPIC, text, undecodable(want));
        refused("", "empty payload");
        refused("true", "not an object: true or false");
        refused("[{}]", "not an object: an array");
        refused("{}", "missing field: src");
        refused(r#"{"src":null,"method":"NotifyStatus"}"#, "missing field: src");
        refused(
            r#"{"src":7,"method":"NotifyStatus"}"#,
            "wrong type: src is a number, expected a text",
        );
        refused(
            r#"{"src":"","method":"NotifyStatus"}"#,
            "bad value: src: device id is empty",
        );
        refused(r#"{"src":"a"}"#, "missing field: method");
        refused(r#"{"src":"a","method":["NotifyStatus"]}"#, "wrong type: method");
        refused(r#"{"src":"a","method":"NotifyStatus"}"#, "missing field: params");
        refused(
            r#"{"src":"a","method":"NotifyStatus","params":[]}"#,
            "wrong type: params is an array",
        );
        refused(
            r#"{"src":"a","src":"b","method":"NotifyStatus"}"#,
            "duplicate key: src has two values",
        );
        let wrong =
            |pointer: &str, value, want: &str| refused(&sample_with(cases::SHELLY_HT, pointer, value), want);
        wrong(
            "/params/temperature:0/tC",
            json!("21.3"),
            "wrong type: params.temperature:0.tC is a text, expected a number",
        );
        wrong(
            "/params/temperature:0/tC",
            json!(true),
            "wrong type: params.temperature:0.tC is true or false",
        );
        wrong(
            "/params/temperature:0",
            json!(21.3),
            "wrong type: params.temperature:0 is a number, expected an object",
        );
        wrong(
            "/params/temperature:0",
            json!([]),
            "wrong type: params.temperature:0 is an array",
        );
        wrong(
            "/params/humidity:0/rh",
            json!({}),
            "wrong type: params.humidity:0.rh",
        );
        wrong(
            "/params/devicepower:0/external/present",
            json!(1),
            "wrong type: params.devicepower:0.external.present",
        );
        wrong("/params/wifi/rssi", json!("-58"), "wrong type: params.wifi.rssi");
        wrong("/params/sys/uptime", json!("2"), "wrong type: params.sys.uptime");
        wrong(
            "/params/temperature:0/tC",
            json!(1e30),
            "out of range: temperature_c is",
        );
        wrong(
            "/params/humidity:0/rh",
            json!(250),
            "out of range: humidity_percent is 250, outside 0 to 100",
        );
        refused(
            &frame("p", json!({"switch:0":{"output":"on"}})),
            "wrong type: params.switch:0.output is a text",
        );
        refused(
            &frame("p", json!({"switch:0":{"output":1}})),
            "wrong type: params.switch:0.output is a number",
        );
        refused(
            &frame("p", json!({"switch:0":{"aenergy":5}})),
            "wrong type: params.switch:0.aenergy is a number",
        );
        refused(
            &frame("p", json!({"em:0":{"c_act_power":"1"}})),
            "wrong type: params.em:0.c_act_power",
        );
        refused(
            &frame(&"p".repeat(128), json!({"switch:1":{"output":true}})),
            "bad value: device id: device id has 130 bytes",
        );
    }
}
