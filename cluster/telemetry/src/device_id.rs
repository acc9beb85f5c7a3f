//! The identity of a sensor, checked once where it enters.

use serde::{Deserialize, Serialize};

/// Longest device id in bytes: the longest vendor id seen is 33; the rest is room for `:<index>` and for
/// ids taken from topic levels. It bounds index rows and metric labels.
const MAX_BYTES: usize = 128;

/// Names one sensor: a Shelly `src`, a meter reader's serial, a pump's `Client_Name`, a plug's topic level.
/// Not empty, at most 128 bytes, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(String);

/// Why a text is no device id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum InvalidDeviceId {
    /// The text is empty.
    #[error("device id is empty")]
    Empty,
    /// The text is longer than the limit.
    #[error("device id has {0} bytes, at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// The text has a control character.
    #[error("device id has a control character")]
    ControlCharacter,
}

impl DeviceId {
    /// Checks `text`. Errors name the rule that is broken.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidDeviceId> {
        let text = text.into();
        match text.len() {
            0 => Err(InvalidDeviceId::Empty),
            n if n > MAX_BYTES => Err(InvalidDeviceId::TooLong(n)),
            _ if text.chars().any(char::is_control) => Err(InvalidDeviceId::ControlCharacter),
            _ => Ok(Self(text)),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for DeviceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for DeviceId {
    type Error = InvalidDeviceId;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(text)
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        let check = |text: &str, want: Option<InvalidDeviceId>| {
            assert_eq!(DeviceId::parse(text).err(), want, "{text:?}");
        };
        check("shellyhtg3-e4b32322a0f4", None);
        check("shellypro4pm-1:2", None);
        check("pump \u{e5}", None);
        check("", Some(InvalidDeviceId::Empty));
        check(&"x".repeat(128), None);
        check(&"x".repeat(129), Some(InvalidDeviceId::TooLong(129)));
        check("a\u{0}b", Some(InvalidDeviceId::ControlCharacter));
    }
}
