//! Devices coming and going: what they say on `<prefix>/online` (Shelly) and `tele/<plug>/LWT` (Tasmota), their last
//! wills included.
//!
//! These messages go the way of readings, so an event never overtakes the reading before it. Pure functions; the
//! device is named by its topic level, because these messages carry nothing else.

use telemetry::DeviceId;

use crate::topic_filter::TopicFilter;

/// Filter, level of the device, words for "came" and "went".
const FORMS: [(&str, usize, &str, &str); 2] = [
    ("+/online", 0, "true", "false"),
    ("tele/+/LWT", 1, "Online", "Offline"),
];

/// Recognises such messages.
#[derive(Debug)]
pub struct Presence {
    forms: Vec<(TopicFilter, usize, &'static str, &'static str)>,
}

impl Default for Presence {
    fn default() -> Self {
        let form = |(filter, level, came, went): (&str, _, _, _)| {
            (
                TopicFilter::parse(filter).expect("the constants are valid filters"),
                level,
                came,
                went,
            )
        };
        Self {
            forms: FORMS.map(form).into(),
        }
    }
}

impl Presence {
    /// True for a topic on which devices say that they come and go.
    pub fn covers(&self, topic: &str) -> bool {
        self.forms.iter().any(|(filter, ..)| filter.matches(topic))
    }

    /// Who came (true) or went. `None` for other topics and for words that mean neither.
    pub fn read(&self, topic: &str, payload: &[u8]) -> Option<(DeviceId, bool)> {
        let (_, level, came, went) = self.forms.iter().find(|(filter, ..)| filter.matches(topic))?;
        let online = if payload == came.as_bytes() {
            true
        } else if payload == went.as_bytes() {
            false
        } else {
            return None;
        };
        let device = DeviceId::parse(topic.split('/').nth(*level)?).ok()?;
        Some((device, online))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_come_and_go() {
        let presence = Presence::default();
        let check = |topic: &str, payload: &str, want: Option<(&str, bool)>| {
            let found = presence.read(topic, payload.as_bytes());
            assert_eq!(
                found.as_ref().map(|(d, o)| (d.as_str(), *o)),
                want,
                "{topic} {payload}"
            );
        };
        check(
            "shellyhtg3-e4b32322a0f4/online",
            "true",
            Some(("shellyhtg3-e4b32322a0f4", true)),
        );
        check(
            "shellyhtg3-e4b32322a0f4/online",
            "false",
            Some(("shellyhtg3-e4b32322a0f4", false)),
        );
        check("shellyhtg3-e4b32322a0f4/online", "", None);
        check("tele/plug/LWT", "Offline", Some(("plug", false)));
        check("tele/plug/LWT", "true", None);
        check("tele/plug/STATE", "Online", None);
        check("/online", "true", None);
    }
}
