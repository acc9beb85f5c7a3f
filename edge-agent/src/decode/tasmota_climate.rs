//! Thermometers and hygrometers on a Tasmota module, as they stand in `tele/<plug>/SENSOR` beside `ENERGY`.
//!
//! Any object with `Temperature`, `Humidity` or `Pressure` is a sensor, whatever its name, but for the processor's own. Units are what
//! the message says they are (`TempUnit`, `PressureUnit`). What else a sensor reports has no place in a record.

use std::collections::BTreeMap;

use serde_json::Value;
use telemetry::{DeviceId, Temperature};

use super::json::{Object, scaled};
use super::{Undecodable, component_id};

/// The temperature of the module's own electronics is no room's.
const INTERNAL: [&str; 2] = ["ESP32", "MCU"];
/// What Tasmota puts between a sensor's type and its number, by `SetOption4` and build.
const SEPARATORS: [char; 2] = ['-', '_'];
/// hPa in a millimetre and in an inch of mercury.
const HPA_OF_MMHG: f64 = 1.333_223_874_15;
const HPA_OF_INHG: f64 = 33.863_886_666_67;

/// What a hygrometer in the fog may show beyond what there is; more is a fault.
const HUMIDITY_BEYOND_PERCENT: f64 = 10.0;

/// The sensors of a message, by the device id of each. A DS18B20 goes by the module's name, the second of them (`DS18B20-2`)
/// with `:1`; every other sensor by its own, `<plug>:<sensor>`. The id depends on nothing else in the message: Tasmota leaves out
/// a sensor that it could not read, and no other may take its place then.
pub fn sensors(
    device: &DeviceId,
    message: &Object<'_>,
) -> Result<BTreeMap<DeviceId, Temperature>, Undecodable> {
    let is_sensor = |key: &&str| {
        let value = message.value(key).and_then(Value::as_object);
        *key != "ENERGY"
            && !INTERNAL.contains(key)
            && value.is_some_and(|map| {
                ["Temperature", "Humidity", "Pressure"]
                    .iter()
                    .any(|f| map.contains_key(*f))
            })
    };
    let keys: Vec<&str> = message.keys().filter(is_sensor).collect();
    let mut found = BTreeMap::new();
    for key in keys {
        let sensor = message.object(key)?;
        let mut reading = Temperature {
            temperature_c: celsius(message, sensor.number("Temperature")?)?,
            humidity_percent: sensor.number("Humidity")?.map(within_the_scale),
            pressure_hpa: hectopascal(message, sensor.number("Pressure")?)?,
            ..Temperature::default()
        };
        if reading.is_empty() {
            continue;
        }
        reading.battery_percent = sensor.number("Battery")?;
        let id = match numbered(key) {
            ("DS18B20", index) => component_id(device, index)?,
            _ => DeviceId::parse(format!("{device}:{key}")).map_err(|error| Undecodable::BadValue {
                field: "device id".to_owned(),
                rule: error.to_string(),
            })?,
        };
        found.insert(id, reading);
    }
    Ok(found)
}

/// Splits `DS18B20-2` into its type and the index counted from 0. A number is written one way only, so that no two sensors of a
/// message have one index.
fn numbered(key: &str) -> (&str, u32) {
    let split = key.rsplit_once(SEPARATORS).and_then(|(name, digits)| {
        let number: u32 = digits.parse().ok()?;
        (number.to_string() == digits && number > 0).then(|| (name, number - 1))
    });
    split.unwrap_or((key, 0))
}

fn within_the_scale(humidity: f64) -> f64 {
    if (0.0..=100.0 + HUMIDITY_BEYOND_PERCENT).contains(&humidity) {
        humidity.min(100.0)
    } else {
        humidity
    }
}

fn celsius(message: &Object<'_>, value: Option<f64>) -> Result<Option<f64>, Undecodable> {
    let Some(value) = value else { return Ok(None) };
    match message.text("TempUnit")? {
        None | Some("C") => Ok(Some(value)),
        // Two decimals more than any sensor has, so that the fraction does not show.
        Some("F") => Ok(Some(((value - 32.0) / 1.8 * 1e4).round() / 1e4)),
        Some(_) => Err(message.bad_value("TempUnit", "neither C nor F")),
    }
}

fn hectopascal(message: &Object<'_>, value: Option<f64>) -> Result<Option<f64>, Undecodable> {
    let Some(value) = value else { return Ok(None) };
    match message.text("PressureUnit")? {
        None | Some("hPa") => Ok(Some(value)),
        Some("mmHg") => Ok(Some((scaled(value, HPA_OF_MMHG) * 1e2).round() / 1e2)),
        Some("inHg") => Ok(Some((scaled(value, HPA_OF_INHG) * 1e2).round() / 1e2)),
        Some(_) => Err(message.bad_value("PressureUnit", "neither hPa, mmHg nor inHg")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::cases::{check, nothing, reading, readings, undecodable};

    const TOPIC: &str = "tele/heater/SENSOR";

    #[test]
    fn a_sensor_goes_by_its_name_and_a_probe_by_the_modules() {
        let one = |sensor: &str, text: &str, want| {
            check(
                TOPIC,
                text,
                reading("temperature", &format!("heater{sensor}"), want),
            );
        };
        one(
            "",
            r#"{"Time":"2026-01-01T09:00:00","DS18B20":{"Id":"0316A2799A9F","Temperature":21.5},"TempUnit":"C"}"#,
            json!({"temperature_c":21.5}),
        );
        one(
            ":AM2301",
            r#"{"AM2301":{"Temperature":21.3,"Humidity":44.6,"DewPoint":8.7}}"#,
            json!({"temperature_c":21.3,"humidity_percent":44.6}),
        );
        one(
            ":SI7021",
            r#"{"SI7021":{"Temperature":-4,"Humidity":80},"TempUnit":"C"}"#,
            json!({"temperature_c":-4.0,"humidity_percent":80.0}),
        );
        one(
            ":BME280",
            r#"{"BME280":{"Temperature":20.1,"Humidity":40.2,"DewPoint":6,"Pressure":1013.2},"PressureUnit":"hPa","TempUnit":"C"}"#,
            json!({"temperature_c":20.1,"humidity_percent":40.2,"pressure_hpa":1013.2}),
        );
        // Degrees Fahrenheit, millimetres and inches of mercury.
        one(
            ":BME280",
            r#"{"BME280":{"Temperature":70.7,"Pressure":760.0},"PressureUnit":"mmHg","TempUnit":"F"}"#,
            json!({"temperature_c":21.5,"pressure_hpa":1013.25}),
        );
        one(
            ":BMP280",
            r#"{"BMP280":{"Temperature":32,"Pressure":29.92},"PressureUnit":"inHg","TempUnit":"F"}"#,
            json!({"temperature_c":0.0,"pressure_hpa":1013.21}),
        );
        // In the fog; and a sensor by radio, which has a battery.
        one(
            ":SI7021",
            r#"{"SI7021":{"Temperature":4,"Humidity":101.7}}"#,
            json!({"temperature_c":4.0,"humidity_percent":100.0}),
        );
        one(
            ":LYWSD038bb3af",
            r#"{"LYWSD038bb3af":{"mac":"a4c1388bb3af","Temperature":18.8,"Humidity":53.7,"DewPoint":9.1,"Battery":83,"RSSI":-85}}"#,
            json!({"temperature_c":18.8,"humidity_percent":53.7,"battery_percent":83.0}),
        );
        one(
            ":LYWSD03a8e3c4",
            r#"{"LYWSD03a8e3c4":{"mac":"a4c138a8e3c4","Temperature":18.8,"Battery":null}}"#,
            json!({"temperature_c":18.8}),
        );
        // A sensor that could not be read says null; the rest of it counts.
        one(
            ":AM2301",
            r#"{"AM2301":{"Temperature":null,"Humidity":44.6}}"#,
            json!({"humidity_percent":44.6}),
        );
        check(
            TOPIC,
            r#"{"DS18B20":{"Temperature":null}}"#,
            nothing("no_measurement"),
        );
        check(
            TOPIC,
            r#"{"DS18B20":null,"TempUnit":"C"}"#,
            nothing("no_measurement"),
        );
        // The processor's own temperature is no room's, and a counter no thermometer.
        check(
            TOPIC,
            r#"{"ESP32":{"Temperature":53.3},"COUNTER":{"C1":5},"ANALOG":{"A0":17},"TempUnit":"C"}"#,
            nothing("no_measurement"),
        );
    }

    #[test]
    fn several_sensors_keep_their_places() {
        check(
            TOPIC,
            r#"{"DS18B20-1":{"Id":"1","Temperature":1},"DS18B20-2":{"Id":"2","Temperature":2},"DS18B20-11":{"Id":"3","Temperature":3}}"#,
            readings(&[
                ("temperature", "heater", json!({"temperature_c":1.0})),
                ("temperature", "heater:1", json!({"temperature_c":2.0})),
                ("temperature", "heater:10", json!({"temperature_c":3.0})),
            ]),
        );
        // The first one is missing: the second does not take its place.
        check(
            TOPIC,
            r#"{"DS18B20_2":{"Temperature":2}}"#,
            reading("temperature", "heater:1", json!({"temperature_c":2.0})),
        );
        check(
            TOPIC,
            r#"{"AM2301":{"Temperature":1,"Humidity":50},"DS18B20":{"Temperature":2}}"#,
            readings(&[
                ("temperature", "heater", json!({"temperature_c":2.0})),
                (
                    "temperature",
                    "heater:AM2301",
                    json!({"temperature_c":1.0,"humidity_percent":50.0}),
                ),
            ]),
        );
        // The probe is missing: the other does not take its place.
        check(
            TOPIC,
            r#"{"AM2301":{"Temperature":1,"Humidity":50}}"#,
            reading(
                "temperature",
                "heater:AM2301",
                json!({"temperature_c":1.0,"humidity_percent":50.0}),
            ),
        );
        // A plug with a probe: both.
        check(
            TOPIC,
            r#"{"ENERGY":{"Power":43},"DS18B20":{"Temperature":21.5},"ESP32":{"Temperature":50}}"#,
            readings(&[
                ("plug", "heater", json!({"power_w":43.0})),
                ("temperature", "heater", json!({"temperature_c":21.5})),
            ]),
        );
    }

    #[test]
    fn what_cannot_be_right_is_kept_for_a_person() {
        let bad = |text: &str, want: &str| check(TOPIC, text, undecodable(want));
        bad(
            r#"{"DS18B20":{"Temperature":"21.5"}}"#,
            "wrong type: DS18B20.Temperature is a text",
        );
        bad(r#"{"DS18B20":{"Temperature":nan}}"#, "not json: ");
        bad(r#"{"DS18B20":{"Temperature":"NaN"}}"#, "wrong type: ");
        bad(
            r#"{"DS18B20":{"Temperature":1e9}}"#,
            "out of range: temperature_c",
        );
        bad(
            r#"{"DS18B20":{"Temperature":21},"TempUnit":"K"}"#,
            "bad value: TempUnit: neither C nor F",
        );
        bad(
            r#"{"BMP280":{"Pressure":1013},"PressureUnit":"bar"}"#,
            "bad value: PressureUnit",
        );
        bad(
            r#"{"AM2301":{"Temperature":21,"Humidity":400}}"#,
            "out of range: humidity_percent",
        );
        let long = format!(
            r#"{{"A{}":{{"Temperature":1}},"B":{{"Temperature":1}}}}"#,
            "x".repeat(200)
        );
        bad(&long, "bad value: device id");
    }
}
