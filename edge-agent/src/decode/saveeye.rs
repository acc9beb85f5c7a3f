//! SaveEye meter reader: one message, one energy record.
//!
//! Currents come in milliamperes and the power factor in thousandths; the rest is in the units of the record.
//! The reader's own `timestamp` is ignored.

use telemetry::{Energy, Reading};

use super::json::{Object, parse_object, scaled};
use super::{Decoded, DeviceReading, Undecodable, nothing};

/// Milliamperes to amperes, thousandths to a factor.
fn thousandths(value: f64) -> f64 {
    scaled(value, 1e-3)
}

/// Decodes one message.
pub fn decode(payload: &[u8]) -> Result<Decoded, Undecodable> {
    let document = parse_object(payload)?;
    let message = Object::root(&document);
    let device_id = message.device_id("saveeyeDeviceSerialNumber")?;
    let drawn = message.object("activeActualConsumption")?;
    let delivered = message.object("activeActualProduction")?;
    let voltage = message.object("rmsVoltage")?;
    let current = message.object("rmsCurrent")?;
    let reading = Energy {
        power_w: drawn.number("total")?,
        power_l1_w: drawn.number("L1")?,
        power_l2_w: drawn.number("L2")?,
        power_l3_w: drawn.number("L3")?,
        export_power_w: delivered.number("total")?,
        energy_wh: message.object("activeTotalConsumption")?.number("total")?,
        export_energy_wh: message.object("activeTotalProduction")?.number("total")?,
        voltage_l1_v: voltage.number("L1")?,
        voltage_l2_v: voltage.number("L2")?,
        voltage_l3_v: voltage.number("L3")?,
        current_l1_a: current.number("L1")?.map(thousandths),
        current_l2_a: current.number("L2")?.map(thousandths),
        current_l3_a: current.number("L3")?.map(thousandths),
        power_factor: message.object("powerFactor")?.number("total")?.map(thousandths),
        ..Energy::default()
    };
    if reading.is_empty() {
        return Ok(Decoded::Nothing(nothing::NO_MEASUREMENT));
    }
    let reading = Energy {
        meter_id: message.short_text("meterSerialNumber")?,
        meter_type: message.short_text("meterType")?,
        rssi_dbm: message.number("wifiRssi")?,
        ..reading
    };
    Ok(Decoded::Readings(vec![DeviceReading {
        device_id,
        reading: Reading::Energy(reading),
    }]))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cases::{self, check, nothing, reading, sample_with, undecodable};

    const TOPIC: &str = "saveeye/telemetry";

    #[test]
    fn messages() {
        let with = |pointer: &str, value| sample_with(cases::SAVEEYE, pointer, value);
        let expected = json!({"power_w":3241.0,"power_l1_w":1012.0,"power_l2_w":1480.0,"power_l3_w":749.0,
            "export_power_w":0.0,"energy_wh":41230187.0,"export_energy_wh":0.0,
            "voltage_l1_v":231.0,"voltage_l2_v":230.0,"voltage_l3_v":232.0,
            "current_l1_a":4.402,"current_l2_a":6.431,"current_l3_a":3.26,"power_factor":0.98,
            "meter_id":"7359992891234567","meter_type":"KAIFA","rssi_dbm":-61.0});
        check(
            TOPIC,
            cases::SAVEEYE,
            reading("energy", "SE1234567", expected.clone()),
        );

        // Above 16 bits: real, and must pass.
        let mut large = expected.clone();
        large["power_w"] = json!(40_000.0);
        check(
            TOPIC,
            &with("/activeActualConsumption/total", json!(40_000)),
            reading("energy", "SE1234567", large),
        );

        // Absent and null both mean not reported, of a value and of a group.
        let mut partial = expected.clone();
        for field in [
            "power_factor",
            "voltage_l1_v",
            "voltage_l2_v",
            "voltage_l3_v",
            "power_l2_w",
            "meter_type",
        ] {
            partial.as_object_mut().unwrap().remove(field);
        }
        let mut text: serde_json::Value = serde_json::from_str(cases::SAVEEYE).unwrap();
        text.as_object_mut().unwrap().remove("powerFactor");
        text["rmsVoltage"] = json!(null);
        text["activeActualConsumption"]["L2"] = json!(null);
        text["meterType"] = json!("");
        check(TOPIC, &text.to_string(), reading("energy", "SE1234567", partial));

        let only = |value| {
            json!({"saveeyeDeviceSerialNumber":"SE1","agent":"x","time":"y","location":"z",
            "activeActualConsumption":{"total":value}})
        };
        check(
            TOPIC,
            &only(json!(1)).to_string(),
            reading("energy", "SE1", json!({"power_w":1.0})),
        );
        check(TOPIC, &only(json!(null)).to_string(), nothing("no_measurement"));
        check(
            TOPIC,
            r#"{"saveeyeDeviceSerialNumber":"SE1","wifiRssi":-60}"#,
            nothing("no_measurement"),
        );
    }

    #[test]
    fn wrong_messages_are_named() {
        let with = |pointer: &str, value| sample_with(cases::SAVEEYE, pointer, value);
        let refused =
            |pointer: &str, value, want: &str| check(TOPIC, &with(pointer, value), undecodable(want));
        refused(
            "/saveeyeDeviceSerialNumber",
            json!(null),
            "missing field: saveeyeDeviceSerialNumber",
        );
        refused(
            "/saveeyeDeviceSerialNumber",
            json!(1_234_567),
            "wrong type: saveeyeDeviceSerialNumber is a number",
        );
        refused(
            "/saveeyeDeviceSerialNumber",
            json!(""),
            "bad value: saveeyeDeviceSerialNumber: device id is empty",
        );
        refused(
            "/saveeyeDeviceSerialNumber",
            json!("x".repeat(200)),
            "bad value: saveeyeDeviceSerialNumber",
        );
        refused(
            "/activeActualConsumption/total",
            json!("3241"),
            "wrong type: activeActualConsumption.total is a text",
        );
        refused(
            "/activeActualConsumption/total",
            json!(true),
            "wrong type: activeActualConsumption.total",
        );
        refused(
            "/activeActualConsumption/total",
            json!([1]),
            "wrong type: activeActualConsumption.total",
        );
        refused(
            "/activeActualConsumption",
            json!(3241),
            "wrong type: activeActualConsumption is a number",
        );
        refused(
            "/powerFactor",
            json!(980),
            "wrong type: powerFactor is a number, expected an object",
        );
        refused("/rmsCurrent/L3", json!("3"), "wrong type: rmsCurrent.L3");
        refused(
            "/meterType",
            json!("KAIFA\u{0}"),
            "bad value: meterType: has a control character",
        );
        refused(
            "/meterSerialNumber",
            json!("7".repeat(129)),
            "bad value: meterSerialNumber: longer than 128 bytes",
        );
        refused(
            "/activeActualConsumption/total",
            json!(1e300),
            "out of range: power_w is",
        );
        refused(
            "/activeTotalConsumption/total",
            json!(-1),
            "out of range: energy_wh is -1",
        );
    }
}
