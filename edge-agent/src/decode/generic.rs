//! Devices described in the configuration: which topics, what kind, where each field stands in the payload.
//!
//! Everything that can be wrong in a description is found when it is read, not when a message comes. One
//! message gives at most one record.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use telemetry::{DeviceId, Kind, Reading};

use super::json::{checked_text, parse, scaled, type_name};
use super::{ConfigError, Decoded, DeviceReading, Undecodable, nothing};
use crate::topic_filter::TopicFilter;

/// One device or family of devices, as it stands in the configuration.
///
/// ```toml
/// [[generic]]
/// filter = "weather/+/data"
/// kind = "temperature"
/// device_id = { topic_level = 1 }        # counted from 0; or { pointer = "/id" }
/// [generic.fields]
/// temperature_c = { pointer = "/outdoor/temp" }
/// wind_speed_ms = { pointer = "/wind_kmh", factor = 0.2777777778 }
/// ```
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GenericRoute {
    /// MQTT topic filter of the messages.
    pub filter: String,
    /// Kind of the record.
    pub kind: Kind,
    /// Where the device's name is.
    pub device_id: DeviceIdSource,
    /// Field of the record (docs/DEVICES.md has them all; `settings` of a heat pump cannot be mapped) to its
    /// place in the payload.
    pub fields: BTreeMap<String, FieldSource>,
}

/// Where a device's name is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DeviceIdSource {
    /// A level of the topic, counted from 0.
    TopicLevel(usize),
    /// A text or whole number in the payload: a JSON pointer (RFC 6901).
    Pointer(String),
}

/// Where a field's value is.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldSource {
    /// JSON pointer (RFC 6901). Empty is the whole payload, for topics that carry one bare value.
    pub pointer: String,
    /// The value is multiplied with it; for numbers only.
    #[serde(default)]
    pub factor: Option<f64>,
}

/// A checked description.
#[derive(Debug)]
pub struct Generic {
    kind: Kind,
    device_id: DeviceIdSource,
    fields: Vec<Field>,
}

#[derive(Debug)]
struct Field {
    name: String,
    ty: FieldType,
    pointer: String,
    factor: Option<f64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FieldType {
    Number,
    Bool,
    Text,
}

impl Generic {
    /// Checks a description; `filter` is its checked filter.
    pub fn new(route: &GenericRoute, filter: &TopicFilter) -> Result<Self, ConfigError> {
        let wrong = |what: String| ConfigError::Generic {
            filter: route.filter.clone(),
            what,
        };
        if route.fields.is_empty() {
            return Err(wrong("no field is mapped".to_owned()));
        }
        match &route.device_id {
            DeviceIdSource::Pointer(pointer) => check_pointer(pointer).map_err(wrong)?,
            DeviceIdSource::TopicLevel(level) => {
                let levels = filter.as_str().split('/').count();
                // Topics that `#` covers may have more levels than the filter, others have exactly as many.
                if *level >= levels && !filter.as_str().ends_with('#') {
                    return Err(wrong(format!(
                        "topic_level {level} is beyond its {levels} levels, counted from 0"
                    )));
                }
            }
        }
        let fields = route
            .fields
            .iter()
            .map(|(name, source)| {
                let ty = field_type(route.kind, name).ok_or_else(|| {
                    wrong(format!("kind {} has no field {name} to map", route.kind.as_str()))
                })?;
                check_pointer(&source.pointer).map_err(wrong)?;
                match source.factor {
                    Some(_) if ty != FieldType::Number => {
                        return Err(wrong(format!(
                            "field {name} is no number, it cannot have a factor"
                        )));
                    }
                    Some(factor) if !factor.is_finite() || factor == 0.0 => {
                        return Err(wrong(format!(
                            "the factor of field {name} must be a number other than 0"
                        )));
                    }
                    _ => {}
                }
                Ok(Field {
                    name: name.clone(),
                    ty,
                    pointer: source.pointer.clone(),
                    factor: source.factor,
                })
            })
            .collect::<Result<_, ConfigError>>()?;
        Ok(Self {
            kind: route.kind,
            device_id: route.device_id.clone(),
            fields,
        })
    }

    /// Decodes one message.
    pub fn decode(&self, topic: &str, payload: &[u8]) -> Result<Decoded, Undecodable> {
        let document = parse(payload)?;
        let device_id = self.device_id(topic, &document)?;
        let mut fields = Map::new();
        for field in &self.fields {
            if let Some(value) = field.read(&document)? {
                fields.insert(field.name.clone(), value);
            }
        }
        if fields.is_empty() {
            return Ok(Decoded::Nothing(nothing::NO_MEASUREMENT));
        }
        let reading = reading(self.kind, Value::Object(fields)).map_err(|error| Undecodable::BadValue {
            field: "reading".to_owned(),
            rule: error.to_string(),
        })?;
        Ok(Decoded::Readings(vec![DeviceReading { device_id, reading }]))
    }

    fn device_id(&self, topic: &str, document: &Value) -> Result<DeviceId, Undecodable> {
        let (place, text) = match &self.device_id {
            DeviceIdSource::TopicLevel(level) => {
                let place = format!("topic level {level}");
                let text = topic
                    .split('/')
                    .nth(*level)
                    .ok_or_else(|| Undecodable::Missing(place.clone()))?;
                (place, text.to_owned())
            }
            DeviceIdSource::Pointer(pointer) => match document.pointer(pointer) {
                None | Some(Value::Null) => return Err(Undecodable::Missing(shown(pointer))),
                Some(Value::String(text)) => (shown(pointer), text.clone()),
                // Radio sensors are often numbered.
                Some(Value::Number(number)) if number.is_u64() => (shown(pointer), number.to_string()),
                Some(other) => {
                    return Err(Undecodable::WrongType {
                        field: shown(pointer),
                        found: type_name(other),
                        expected: "a text or a whole number",
                    });
                }
            },
        };
        DeviceId::parse(text).map_err(|error| Undecodable::BadValue {
            field: place,
            rule: error.to_string(),
        })
    }
}

impl Field {
    fn read(&self, document: &Value) -> Result<Option<Value>, Undecodable> {
        let value = match document.pointer(&self.pointer) {
            None | Some(Value::Null) => return Ok(None),
            Some(value) => value,
        };
        let wrong = |expected| Undecodable::WrongType {
            field: shown(&self.pointer),
            found: type_name(value),
            expected,
        };
        match (self.ty, value) {
            (FieldType::Number, Value::Number(number)) => {
                let number = number.as_f64().ok_or_else(|| wrong("a number"))?;
                let number = self.factor.map_or(number, |factor| scaled(number, factor));
                if !number.is_finite() {
                    let rule = "too large for its factor".to_owned();
                    return Err(Undecodable::BadValue {
                        field: shown(&self.pointer),
                        rule,
                    });
                }
                Ok(Some(json!(number)))
            }
            (FieldType::Number, _) => Err(wrong("a number")),
            (FieldType::Bool, Value::Bool(_)) => Ok(Some(value.clone())),
            (FieldType::Bool, _) => Err(wrong("true or false")),
            (FieldType::Text, Value::String(text)) if text.is_empty() => Ok(None),
            (FieldType::Text, Value::String(text)) => match checked_text(text) {
                Ok(text) => Ok(Some(Value::String(text))),
                Err(rule) => Err(Undecodable::BadValue {
                    field: shown(&self.pointer),
                    rule: rule.to_owned(),
                }),
            },
            (FieldType::Text, _) => Err(wrong("a text")),
        }
    }
}

/// A pointer as it stands in a reason.
fn shown(pointer: &str) -> String {
    if pointer.is_empty() {
        "payload".to_owned()
    } else {
        pointer.to_owned()
    }
}

fn check_pointer(pointer: &str) -> Result<(), String> {
    let escapes_hold = pointer
        .split('~')
        .skip(1)
        .all(|rest| rest.starts_with(['0', '1']));
    if escapes_hold && (pointer.is_empty() || pointer.starts_with('/')) {
        Ok(())
    } else {
        Err(format!(
            "{pointer:?} is no JSON pointer: it starts with / and ~ is written ~0 in it"
        ))
    }
}

fn reading(kind: Kind, fields: Value) -> serde_json::Result<Reading> {
    match kind {
        Kind::Temperature => serde_json::from_value(fields).map(Reading::Temperature),
        Kind::Energy => serde_json::from_value(fields).map(Reading::Energy),
        Kind::Heatpump => serde_json::from_value(fields).map(|fields| Reading::Heatpump(Box::new(fields))),
        Kind::Plug => serde_json::from_value(fields).map(Reading::Plug),
    }
}

/// The type of a field of a kind, asked of the record types themselves: the sample value that survives being
/// read into a record and written again. So a field added there can be mapped here without another list.
fn field_type(kind: Kind, name: &str) -> Option<FieldType> {
    let samples = [
        (FieldType::Number, json!(1.0)),
        (FieldType::Bool, json!(true)),
        (FieldType::Text, json!("x")),
    ];
    samples.into_iter().find_map(|(ty, sample)| {
        let read = reading(kind, json!({ name: sample })).ok()?;
        let written = serde_json::to_value(read).ok()?;
        (written.get(name) == Some(&sample)).then_some(ty)
    })
}

#[cfg(test)]
mod tests {
    use super::super::Decoders;
    use super::super::cases::{check_with, nothing, reading as expected, undecodable};
    use super::*;

    fn route(toml: &str) -> GenericRoute {
        toml::from_str(toml).unwrap_or_else(|e| panic!("{e}\n{toml}"))
    }

    #[test]
    fn messages() {
        let weather = route(
            r#"filter = "weather/+/data"
               kind = "temperature"
               device_id = { topic_level = 1 }
               [fields]
               temperature_c = { pointer = "/outdoor/temp", factor = 0.1 }
               wind_speed_ms = { pointer = "/wind/0" }
               external_power = { pointer = "/usb" }"#,
        );
        let radio = route(
            r#"filter = "rtl_433/#"
               kind = "energy"
               device_id = { pointer = "/id" }
               [fields]
               energy_wh = { pointer = "/kwh", factor = 1000 }
               meter_id = { pointer = "/serial~1no" }"#,
        );
        let bare = route(
            r#"filter = "sensors/+/temperature"
               kind = "temperature"
               device_id = { topic_level = 1 }
               [fields]
               temperature_c = { pointer = "" }"#,
        );
        // Stands before the decoders for whole families, so that one device of a family can be described.
        let outdoor = route(
            r#"filter = "tele/outdoor/SENSOR"
               kind = "temperature"
               device_id = { topic_level = 1 }
               [fields]
               temperature_c = { pointer = "/DS18B20/Temperature" }"#,
        );
        let decoders =
            Decoders::new(&super::super::Route::defaults(), &[weather, radio, bare, outdoor]).unwrap();
        let check = |topic: &str, payload: &str, want| check_with(&decoders, topic, payload.as_bytes(), want);

        let roof = "weather/roof/data";
        check(
            roof,
            r#"{"outdoor":{"temp":213},"wind":[3.5,9],"usb":true,"x":1}"#,
            expected(
                "temperature",
                "roof",
                json!({"temperature_c":21.3,"wind_speed_ms":3.5,"external_power":true}),
            ),
        );
        check(
            roof,
            r#"{"outdoor":{"temp":null},"wind":[0]}"#,
            expected("temperature", "roof", json!({"wind_speed_ms":0.0})),
        );
        check(roof, r#"{"outdoor":5}"#, nothing("no_measurement"));
        check(roof, "{}", nothing("no_measurement"));
        check(
            roof,
            r#"{"outdoor":{"temp":"213"}}"#,
            undecodable("wrong type: /outdoor/temp is a text, expected a number"),
        );
        check(
            roof,
            r#"{"usb":1}"#,
            undecodable("wrong type: /usb is a number, expected true or false"),
        );
        check(
            roof,
            r#"{"outdoor":{"temp":1e5}}"#,
            undecodable("out of range: temperature_c is 10000"),
        );
        check(roof, "{", undecodable("not json: "));
        check(
            "weather//data",
            r#"{"usb":true}"#,
            undecodable("bad value: topic level 1: device id is empty"),
        );

        let radio = "rtl_433/a/b";
        check(
            radio,
            r#"{"id":4711,"kwh":12.345,"serial/no":"A1"}"#,
            expected("energy", "4711", json!({"energy_wh":12345.0,"meter_id":"A1"})),
        );
        check(
            radio,
            r#"{"id":"x","kwh":1,"serial/no":""}"#,
            expected("energy", "x", json!({"energy_wh":1000.0})),
        );
        check(radio, r#"{"kwh":1}"#, undecodable("missing field: /id"));
        check(
            radio,
            r#"{"id":-1,"kwh":1}"#,
            undecodable("wrong type: /id is a number"),
        );
        check(
            radio,
            r#"{"id":1.5,"kwh":1}"#,
            undecodable("wrong type: /id is a number"),
        );
        check(
            radio,
            r#"{"id":"x","kwh":1e306}"#,
            undecodable("bad value: /kwh: too large for its factor"),
        );
        check(
            radio,
            r#"{"id":"x","serial/no":"a\u0000"}"#,
            undecodable("bad value: /serial~1no: has a control character"),
        );
        check(
            radio,
            r#"{"id":"x","serial/no":5}"#,
            undecodable("wrong type: /serial~1no is a number, expected a text"),
        );

        check(
            "sensors/attic/temperature",
            "-3.5",
            expected("temperature", "attic", json!({"temperature_c":-3.5})),
        );
        check("sensors/attic/temperature", "null", nothing("no_measurement"));
        check(
            "sensors/attic/temperature",
            "\"warm\"",
            undecodable("wrong type: payload is a text"),
        );

        check(
            "tele/outdoor/SENSOR",
            r#"{"DS18B20":{"Temperature":-8.1}}"#,
            expected("temperature", "outdoor", json!({"temperature_c":-8.1})),
        );
        check(
            "tele/other/SENSOR",
            r#"{"COUNTER":{"C1":5}}"#,
            nothing("no_measurement"),
        );
    }

    #[test]
    fn every_field_of_every_kind_can_be_mapped_but_settings() {
        use FieldType::{Bool, Number, Text};
        let check = |kind, name: &str, want| assert_eq!(field_type(kind, name), want, "{kind:?} {name}");
        check(Kind::Temperature, "temperature_c", Some(Number));
        check(Kind::Temperature, "external_power", Some(Bool));
        check(Kind::Energy, "meter_type", Some(Text));
        check(Kind::Heatpump, "compressor_on", Some(Bool));
        check(Kind::Heatpump, "settings", None);
        check(Kind::Plug, "on", Some(Bool));
        check(Kind::Plug, "temperature_c", None);
        check(Kind::Plug, "agent", None);
        check(Kind::Plug, "", None);
    }

    #[test]
    fn wrong_descriptions_are_named() {
        let check = |filter: &str, device_id: &str, field: &str, want: &str| {
            let text = format!(
                "filter = {filter:?}\nkind = \"plug\"\ndevice_id = {device_id}\nfields = {{ {field} }}"
            );
            let error = Decoders::new(&[], &[route(&text)]).expect_err(want).to_string();
            assert!(error.contains(want), "{error}");
        };
        let level = "{ topic_level = 1 }";
        check(
            "a/+/#/b",
            level,
            "on = { pointer = \"/on\" }",
            "# must be the whole last level",
        );
        check(
            "a/+",
            "{ topic_level = 2 }",
            "on = { pointer = \"/on\" }",
            "topic_level 2 is beyond its 2 levels",
        );
        check(
            "a/+",
            "{ pointer = \"id\" }",
            "on = { pointer = \"/on\" }",
            "\"id\" is no JSON pointer",
        );
        check(
            "a/+",
            level,
            "on = { pointer = \"/o~n\" }",
            "\"/o~n\" is no JSON pointer",
        );
        check(
            "a/+",
            level,
            "on = { pointer = \"/on\", factor = 2 }",
            "field on is no number",
        );
        check(
            "a/+",
            level,
            "power_w = { pointer = \"/p\", factor = 0 }",
            "factor of field power_w",
        );
        check(
            "a/+",
            level,
            "power_w = { pointer = \"/p\", factor = nan }",
            "factor of field power_w",
        );
        check(
            "a/+",
            level,
            "power = { pointer = \"/p\" }",
            "kind plug has no field power to map",
        );
        check("a/+", level, "", "no field is mapped");
        let unknown =
            "filter = \"a\"\nkind = \"plug\"\ndevice_id = { topic_level = 0 }\nfields = {}\nlocation = \"x\"";
        assert!(toml::from_str::<GenericRoute>(unknown).is_err());
    }
}
