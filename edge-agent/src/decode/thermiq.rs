//! ThermIQ interface of Thermia and IVT heat pumps: one message, one heat-pump record.
//!
//! Registers are decimal (`d50`, `d050`) or, from firmware 1, hexadecimal (`r32`): the same numbers. Whole
//! degrees only; no register outside docs/DEVICES.md is interpreted, and the module's clock is ignored.

use telemetry::{Heatpump, HeatpumpSettings, Reading};

use super::json::{Object, parse_object};
use super::{Decoded, DeviceReading, Undecodable, nothing};

/// A setting is one byte in the pump and the integral two; beyond that the message is damaged.
const SETTINGS: std::ops::RangeInclusive<f64> = -32_768.0..=65_535.0;

/// Bits of a status register: two bytes at most.
const STATUS: std::ops::RangeInclusive<f64> = 0.0..=65_535.0;

/// Decodes one message.
pub fn decode(payload: &[u8]) -> Result<Decoded, Undecodable> {
    let document = parse_object(payload)?;
    let message = Object::root(&document);
    let device_id = message.device_id("Client_Name")?;
    let registers = Registers(&message);
    let pumps = registers.status(16)?;
    let heaters = registers.status(13)?;
    let bit = |status: Option<u16>, bit: u16| status.map(|status| status & (1 << bit) != 0);
    let settings = HeatpumpSettings {
        indoor_target_c: registers.setting(50)?,
        mode: registers.setting(51)?,
        curve: registers.setting(52)?,
        curve_min: registers.setting(53)?,
        curve_max: registers.setting(54)?,
        curve_plus_5: registers.setting(55)?,
        curve_zero: registers.setting(56)?,
        curve_minus_5: registers.setting(57)?,
        heat_stop_c: registers.setting(58)?,
        integral: registers.setting(73)?,
    };
    let reading = Heatpump {
        outdoor_c: registers.number(0)?,
        indoor_c: message.number("INDR_T")?,
        supply_c: registers.number(5)?,
        return_c: registers.number(6)?,
        hot_water_c: registers.number(7)?,
        brine_out_c: registers.number(8)?,
        brine_in_c: registers.number(9)?,
        integral: registers.number(25)?,
        flow_pump_percent: registers.number(30)?,
        brine_pump_on: bit(pumps, 0),
        compressor_on: bit(pumps, 1),
        flow_pump_on: bit(pumps, 2),
        hot_water_on: bit(pumps, 3),
        aux_3kw_on: bit(heaters, 0),
        aux_6kw_on: bit(heaters, 1),
        compressor_hours: registers.number(104)?,
        aux_3kw_hours: registers.number(106)?,
        hot_water_hours: registers.number(108)?,
        aux_6kw_hours: registers.number(114)?,
        settings: (!settings.is_empty()).then_some(settings),
    };
    if reading.is_empty() {
        return Ok(Decoded::Nothing(nothing::NO_MEASUREMENT));
    }
    Ok(Decoded::Readings(vec![DeviceReading {
        device_id,
        reading: Reading::Heatpump(Box::new(reading)),
    }]))
}

/// The registers of one message.
struct Registers<'a>(&'a Object<'a>);

impl Registers<'_> {
    /// The key a register stands under in this message; the plain decimal one when it is not reported.
    fn key(&self, register: u16) -> String {
        let spellings = [
            format!("d{register}"),
            format!("d{register:03}"),
            format!("r{register:02x}"),
            format!("r{register:02X}"),
        ];
        let present = spellings.iter().position(|key| !self.0.lacks(key)).unwrap_or(0);
        let [decimal, padded, lower, upper] = spellings;
        match present {
            1 => padded,
            2 => lower,
            3 => upper,
            _ => decimal,
        }
    }

    fn number(&self, register: u16) -> Result<Option<f64>, Undecodable> {
        self.0.number(&self.key(register))
    }

    fn whole(&self, register: u16, range: std::ops::RangeInclusive<f64>) -> Result<Option<i64>, Undecodable> {
        let key = self.key(register);
        match self.0.number(&key)? {
            None => Ok(None),
            Some(value) if value.fract() == 0.0 && range.contains(&value) => Ok(Some(value as i64)),
            Some(_) => {
                let rule = format!("not a whole number from {} to {}", range.start(), range.end());
                Err(self.0.bad_value(&key, rule))
            }
        }
    }

    /// A setting: a whole number.
    fn setting(&self, register: u16) -> Result<Option<i64>, Undecodable> {
        self.whole(register, SETTINGS)
    }

    /// A register of bits.
    fn status(&self, register: u16) -> Result<Option<u16>, Undecodable> {
        let status = self.whole(register, STATUS)?;
        Ok(status.map(|bits| u16::try_from(bits).expect("the range of a status register is that of u16")))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::cases::{self, check, nothing, reading, sample_with, undecodable};

    const TOPIC: &str = "thermiq_heatpump/data";

    fn sample() -> Value {
        json!({"outdoor_c":-4.0,"indoor_c":21.3,"supply_c":38.0,"return_c":33.0,"hot_water_c":51.0,
            "brine_out_c":-1.0,"brine_in_c":3.0,"integral":-182.0,"flow_pump_percent":62.0,
            "compressor_on":true,"brine_pump_on":true,"flow_pump_on":true,"hot_water_on":false,
            "aux_3kw_on":false,"aux_6kw_on":false,"compressor_hours":41231.0,"hot_water_hours":8123.0,
            "aux_3kw_hours":120.0,"aux_6kw_hours":14.0,
            "settings":{"indoor_target_c":21,"mode":1,"curve":38,"curve_min":22,"curve_max":55,"curve_plus_5":1,
                "curve_zero":0,"curve_minus_5":-1,"heat_stop_c":17,"integral":60}})
    }

    #[test]
    fn messages() {
        check(TOPIC, cases::THERMIQ, reading("heatpump", "ivt-495", sample()));

        let bits = |register: &str, value: i64, want: &[(&str, bool)]| {
            let mut expected = sample();
            for (field, on) in want {
                expected[*field] = json!(on);
            }
            let text = sample_with(cases::THERMIQ, &format!("/{register}"), json!(value));
            check(TOPIC, &text, reading("heatpump", "ivt-495", expected));
        };
        let pumps = |brine, compressor, flow, water| {
            [
                ("brine_pump_on", brine),
                ("compressor_on", compressor),
                ("flow_pump_on", flow),
                ("hot_water_on", water),
            ]
        };
        bits("d16", 0, &pumps(false, false, false, false));
        bits("d16", 1, &pumps(true, false, false, false));
        bits("d16", 2, &pumps(false, true, false, false));
        bits("d16", 4, &pumps(false, false, true, false));
        bits("d16", 8, &pumps(false, false, false, true));
        bits("d16", 0xf0 | 15, &pumps(true, true, true, true));
        bits("d13", 1, &[("aux_3kw_on", true), ("aux_6kw_on", false)]);
        bits("d13", 2, &[("aux_3kw_on", false), ("aux_6kw_on", true)]);
        bits("d13", 3, &[("aux_3kw_on", true), ("aux_6kw_on", true)]);

        let only = |text: &str, want| check(TOPIC, text, reading("heatpump", "ivt-495", want));
        only(
            r#"{"Client_Name":"ivt-495","d25":-400,"d8":-11.5}"#,
            json!({"integral":-400.0,"brine_out_c":-11.5}),
        );
        only(
            r#"{"Client_Name":"ivt-495","d50":22,"INDR_T":null}"#,
            json!({"settings":{"indoor_target_c":22}}),
        );
        // d1 is not documented as the measured indoor temperature, so it is not taken for INDR_T.
        only(
            r#"{"Client_Name":"ivt-495","d0":3,"d1":21,"d3":20,"r1":5,"d":1,"dx":2}"#,
            json!({"outdoor_c":3.0}),
        );
        // Other spellings of the same registers: d000, and hexadecimal in firmware 1 (r05 d5, r0d d13, r32 d50).
        only(r#"{"Client_Name":"ivt-495","d005":38}"#, json!({"supply_c":38.0}));
        only(
            r#"{"Client_Name":"ivt-495","r05":38,"r0D":2,"r32":21,"r68":41231}"#,
            json!({"supply_c":38.0,"aux_3kw_on":false,"aux_6kw_on":true,"compressor_hours":41231.0,
                "settings":{"indoor_target_c":21}}),
        );
        check(
            TOPIC,
            r#"{"Client_Name":"ivt-495","rssi":-70,"d1":21}"#,
            nothing("no_measurement"),
        );
        check(
            TOPIC,
            r#"{"Client_Name":"ivt-495","d0":null,"INDR_T":null}"#,
            nothing("no_measurement"),
        );
    }

    #[test]
    fn wrong_messages_are_named() {
        let refused = |pointer: &str, value, want: &str| {
            check(
                TOPIC,
                &sample_with(cases::THERMIQ, pointer, value),
                undecodable(want),
            );
        };
        refused("/Client_Name", json!(null), "missing field: Client_Name");
        refused(
            "/Client_Name",
            json!("a\u{7}"),
            "bad value: Client_Name: device id has a control character",
        );
        refused("/d0", json!("-4"), "wrong type: d0 is a text, expected a number");
        refused("/INDR_T", json!("21.3"), "wrong type: INDR_T");
        refused(
            "/d50",
            json!(21.5),
            "bad value: d50: not a whole number from -32768 to 65535",
        );
        refused("/d73", json!(1e30), "bad value: d73");
        refused(
            "/d16",
            json!(-1),
            "bad value: d16: not a whole number from 0 to 65535",
        );
        refused("/d16", json!(7.5), "bad value: d16");
        refused("/d13", json!(true), "wrong type: d13");
        refused("/d0", json!(451), "out of range: outdoor_c is 451");
        refused("/d30", json!(101), "out of range: flow_pump_percent is 101");
    }
}
