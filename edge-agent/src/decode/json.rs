//! JSON as devices send it, read strictly: a field is there with the type we expect, or not reported, or the
//! message is undecodable with the field named. Nothing is ever converted: `"21.3"` is no number and `1` is
//! not `true`, because a guess would store a wrong value where a dead letter can be replayed.
//!
//! Never keeps the payload and never puts a value into an error, only names of fields.

use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value, map::Entry};
use telemetry::DeviceId;

use super::Undecodable;

/// Longest text that is kept of a payload (a meter's serial, its type): as long as a device id may be.
const MAX_TEXT_BYTES: usize = 128;

/// How much of a key from the payload may stand in a reason.
const MAX_NAME_CHARS: usize = 64;

/// Reads any JSON document. Refuses what is not UTF-8, text after the document, nesting beyond 128 levels,
/// numbers beyond `f64` (serde_json's own rules), and a key that stands twice in an object with two values:
/// which one the device meant cannot be known. The same value twice is harmless and passes.
pub fn parse(payload: &[u8]) -> Result<Value, Undecodable> {
    if payload.is_empty() {
        return Err(Undecodable::Empty);
    }
    match serde_json::from_slice::<Strict>(payload) {
        Ok(Strict(value)) => Ok(value),
        // The only data error our visitor raises is that of the key with two values.
        Err(error) if error.is_data() => Err(Undecodable::DuplicateKey(error.to_string())),
        Err(error) => Err(Undecodable::NotJson(error.to_string())),
    }
}

/// Reads a JSON document that must be an object.
pub fn parse_object(payload: &[u8]) -> Result<Map<String, Value>, Undecodable> {
    match parse(payload)? {
        Value::Object(map) => Ok(map),
        other => Err(Undecodable::NotAnObject(type_name(&other))),
    }
}

/// A JSON value in which no object has a key with two values.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Strict(item)) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some((key, Strict(value))) = access.next_entry::<String, Strict>()? {
            match map.entry(key) {
                Entry::Vacant(slot) => {
                    slot.insert(value);
                }
                Entry::Occupied(slot) if *slot.get() == value => {}
                Entry::Occupied(slot) => {
                    return Err(A::Error::custom(format!("{} has two values", shown(slot.key()))));
                }
            }
        }
        Ok(Value::Object(map))
    }
}

/// An object of the payload with its place in it. An object that is absent or null has no fields.
pub struct Object<'a> {
    map: Option<&'a Map<String, Value>>,
    /// Where it stands, with a full stop at the end; empty for the document itself.
    path: String,
}

impl<'a> Object<'a> {
    /// The document itself.
    pub fn root(map: &'a Map<String, Value>) -> Self {
        Self {
            map: Some(map),
            path: String::new(),
        }
    }

    /// Names of the fields that are there, null or not, in alphabetical order.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.map
            .into_iter()
            .flat_map(|map| map.keys().map(String::as_str))
    }

    /// The value of a field; `None` when it is absent or null.
    pub fn value(&self, key: &str) -> Option<&'a Value> {
        self.map?.get(key).filter(|value| !value.is_null())
    }

    /// True when the field is absent or null.
    pub fn lacks(&self, key: &str) -> bool {
        self.value(key).is_none()
    }

    /// An object inside this one; one without fields when it is absent or null.
    pub fn object(&self, key: &str) -> Result<Object<'a>, Undecodable> {
        let path = format!("{}{}.", self.path, shown(key));
        match self.value(key) {
            None => Ok(Object { map: None, path }),
            Some(Value::Object(map)) => Ok(Object { map: Some(map), path }),
            Some(other) => Err(self.wrong_type(key, other, "an object")),
        }
    }

    /// A number, whole or not. Always finite.
    pub fn number(&self, key: &str) -> Result<Option<f64>, Undecodable> {
        match self.value(key) {
            None => Ok(None),
            Some(value) => value
                .as_f64()
                .map(Some)
                .ok_or_else(|| self.wrong_type(key, value, "a number")),
        }
    }

    /// True or false.
    pub fn bool(&self, key: &str) -> Result<Option<bool>, Undecodable> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(self.wrong_type(key, other, "true or false")),
        }
    }

    /// A text, not checked further.
    pub fn text(&self, key: &str) -> Result<Option<&'a str>, Undecodable> {
        match self.value(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.wrong_type(key, other, "a text")),
        }
    }

    /// A text to keep: at most 128 bytes without control characters (a database refuses NUL). Empty is not
    /// reported.
    pub fn short_text(&self, key: &str) -> Result<Option<String>, Undecodable> {
        match self.text(key)? {
            None | Some("") => Ok(None),
            Some(text) => match checked_text(text) {
                Ok(text) => Ok(Some(text)),
                Err(rule) => Err(self.bad_value(key, rule)),
            },
        }
    }

    /// The text that names the device.
    pub fn device_id(&self, key: &str) -> Result<DeviceId, Undecodable> {
        let text = self.text(key)?.ok_or_else(|| self.missing(key))?;
        DeviceId::parse(text).map_err(|error| self.bad_value(key, error))
    }

    /// The field is needed and not there.
    pub fn missing(&self, key: &str) -> Undecodable {
        Undecodable::Missing(self.place(key))
    }

    /// The field is there with a value that cannot be.
    pub fn bad_value(&self, key: &str, rule: impl fmt::Display) -> Undecodable {
        Undecodable::BadValue {
            field: self.place(key),
            rule: rule.to_string(),
        }
    }

    /// The field is there with a type that cannot be.
    pub fn wrong_type(&self, key: &str, found: &Value, expected: &'static str) -> Undecodable {
        Undecodable::WrongType {
            field: self.place(key),
            found: type_name(found),
            expected,
        }
    }

    fn place(&self, key: &str) -> String {
        format!("{}{}", self.path, shown(key))
    }
}

/// Checks a text to keep; the error is the rule it breaks.
pub fn checked_text(text: &str) -> Result<String, &'static str> {
    match text {
        _ if text.len() > MAX_TEXT_BYTES => Err("longer than 128 bytes"),
        _ if text.chars().any(char::is_control) => Err("has a control character"),
        _ => Ok(text.to_owned()),
    }
}

/// What a value is, in words for a person.
pub fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

/// A key of the payload as it may stand in a reason: short, and without anything that could break a log line.
fn shown(key: &str) -> String {
    key.chars()
        .take(MAX_NAME_CHARS)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

/// A value in another unit. Rounded to the 15 digits every `f64` carries, so that the binary fraction of the
/// value or the factor does not show: 4.35 kWh is 4350 Wh, not 4349.999999999999.
pub fn scaled(value: f64, factor: f64) -> f64 {
    format!("{:.14e}", value * factor)
        .parse()
        .expect("a formatted f64 is an f64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_strictly() {
        let check = |text: &[u8], want: &str| {
            let got = parse(text).expect_err("must be refused").to_string();
            assert!(
                got.starts_with(want),
                "{} gave {got}",
                String::from_utf8_lossy(text)
            );
        };
        check(b"", "empty payload");
        check(b" ", "not json: ");
        check(b"{", "not json: ");
        check(b"{} {}", "not json: ");
        check(b"{\"a\":NaN}", "not json: ");
        check(b"{\"a\":Infinity}", "not json: ");
        check(b"{\"a\":1e999}", "not json: ");
        check(b"{\"a\":01}", "not json: ");
        check(b"{'a':1}", "not json: ");
        check(b"{\"a\":\"\xff\"}", "not json: ");
        check(b"\xef\xbb\xbf{}", "not json: ");
        check("[".repeat(100_000).as_bytes(), "not json: ");
        check("{\"a\":".repeat(100_000).as_bytes(), "not json: ");
        check(b"{\"a\":1,\"a\":2}", "duplicate key: a has two values");
        check(
            b"{\"x\":{\"a\":1,\"b\":0,\"a\":null}}",
            "duplicate key: a has two values",
        );
        assert!(parse(b"{\"a\":1,\"a\":1}").is_ok());
        assert!(parse(b" {\"a\":[1,-2,3.5,true,null,\"x\",{}]} ").is_ok());
        assert_eq!(
            parse_object(b"true").unwrap_err().to_string(),
            "not an object: true or false"
        );
        assert_eq!(
            parse_object(b"[]").unwrap_err().to_string(),
            "not an object: an array"
        );
    }

    #[test]
    fn a_reason_stays_short_whatever_the_key() {
        let key = "k\\n\u{e5}".repeat(50_000);
        let reason = parse(format!("{{\"{key}\":1,\"{key}\":2}}").as_bytes())
            .unwrap_err()
            .to_string();
        assert!(reason.len() < 300 && !reason.contains('\n'), "{reason}");
    }

    #[test]
    fn units_are_converted_without_a_trace_of_binary_fractions() {
        let check = |value, factor, want: f64| assert_eq!(scaled(value, factor), want, "{value} * {factor}");
        check(4402.0, 1e-3, 4.402);
        check(980.0, 1e-3, 0.98);
        check(12.345, 1e3, 12_345.0);
        check(4.35, 1e3, 4_350.0);
        check(1.005, 1e3, 1_005.0);
        check(0.00001, 1e3, 0.01);
        check(41_230.187, 1e3, 41_230_187.0);
        check(3.0, 0.1, 0.3);
        check(-0.0, 1e3, 0.0);
        check(1e308, 1e3, f64::INFINITY);
    }
}
