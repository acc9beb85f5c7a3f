//! MQTT topic filters (`+` and `#`) and topic names, by the rules that MQTT 3.1.1 and 5 share (section 4.7).
//!
//! Pure text matching. It knows nothing of sessions, access lists or shared subscriptions: whoever accepts
//! `$share/<group>/<filter>` takes the prefix off first.

use std::fmt;

/// Longest topic or filter: its length is sent as two bytes (section 1.5.3).
const MAX_BYTES: usize = 65_535;

/// A checked topic filter. Matching allocates nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicFilter(String);

/// Why a text is no topic filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// The text is empty.
    #[error("topic filter is empty")]
    Empty,
    /// The text is longer than the protocol can carry.
    #[error("topic filter has {0} bytes, at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// The text has a NUL character.
    #[error("topic filter has a NUL character")]
    Nul,
    /// `#` is not the whole last level.
    #[error("# must be the whole last level of a topic filter")]
    MisplacedHash,
    /// `+` is not a whole level.
    #[error("+ must be a whole level of a topic filter")]
    MisplacedPlus,
}

impl TopicFilter {
    /// Checks `text`. Errors name the rule that is broken.
    pub fn parse(text: impl Into<String>) -> Result<Self, InvalidFilter> {
        let text = text.into();
        match text.len() {
            0 => return Err(InvalidFilter::Empty),
            n if n > MAX_BYTES => return Err(InvalidFilter::TooLong(n)),
            _ if text.contains('\0') => return Err(InvalidFilter::Nul),
            _ => {}
        }
        let mut levels = text.split('/').peekable();
        while let Some(level) = levels.next() {
            if level.contains('#') && (level != "#" || levels.peek().is_some()) {
                return Err(InvalidFilter::MisplacedHash);
            }
            if level.contains('+') && level != "+" {
                return Err(InvalidFilter::MisplacedPlus);
            }
        }
        Ok(Self(text))
    }

    /// True when `topic` is covered. `topic` is a topic name: wildcards in it have no meaning. A topic that
    /// starts with `$` is never covered by a filter that starts with a wildcard.
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for wanted in self.0.split('/') {
            // `#` also stands for no level at all: `a/#` covers `a`.
            if wanted == "#" {
                return true;
            }
            match levels.next() {
                Some(level) if wanted == "+" || wanted == level => {}
                _ => return false,
            }
        }
        levels.next().is_none()
    }

    /// The filter as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// True when `text` can be published to: not empty, no wildcard, no NUL, at most 65,535 bytes.
pub fn valid_topic_name(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_BYTES && !text.contains(['+', '#', '\0'])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of section 4.7 of the standard, and the edges around them.
    #[test]
    fn filters_match_as_the_standard_says() {
        let check = |filter: &str, topic: &str, want: bool| {
            let parsed = TopicFilter::parse(filter).unwrap_or_else(|e| panic!("{filter}: {e}"));
            assert_eq!(parsed.matches(topic), want, "{filter} on {topic}");
            assert_eq!(parsed.to_string(), filter);
        };
        check("sport/tennis/player1/#", "sport/tennis/player1", true);
        check("sport/tennis/player1/#", "sport/tennis/player1/ranking", true);
        check(
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
            true,
        );
        check("sport/tennis/player1/#", "sport/tennis/player12", false);
        check("sport/#", "sport", true);
        check("sport/#", "sports", false);
        check("sport/#", "sport/", true);
        check("#", "a", true);
        check("#", "/", true);
        check("#", "a/b/c", true);
        check("sport/tennis/+", "sport/tennis/player1", true);
        check("sport/tennis/+", "sport/tennis/player1/ranking", false);
        check("sport/+", "sport", false);
        check("sport/+", "sport/", true);
        check("+/+", "/finance", true);
        check("/+", "/finance", true);
        check("+", "/finance", false);
        check("+", "a", true);
        check("+", "a/b", false);
        check("+/tennis/#", "sport/tennis", true);
        check("+/tennis/#", "tennis", false);
        check("#", "$SYS/broker", false);
        check("+/monitor/Clients", "$SYS/monitor/Clients", false);
        check("+", "$SYS", false);
        check("$SYS/#", "$SYS/monitor/Clients", true);
        check("$SYS/monitor/+", "$SYS/monitor/Clients", true);
        check("a/#", "a/$SYS", true);
        check("a/+", "a/$b", true);
        check("a/b", "a/b", true);
        check("a/b", "a/B", false);
        check("a/b", "a/b/", false);
        check("a/b/", "a/b", false);
        check("/", "/", true);
        check("//", "//", true);
        check("//", "/", false);
        check("+//+", "a//b", true);
        check("+/events/rpc", "shellyhtg3-e4b32322a0f4/events/rpc", true);
        check("+/events/rpc", "home/shellyhtg3-e4b32322a0f4/events/rpc", false);
        check("+/events/rpc", "events/rpc", false);
        check("+/events/rpc", "/events/rpc", true);
        check("b\u{e5}d/+", "b\u{e5}d/g\u{f6}lv", true);
        // A wildcard in a topic is an ordinary character there.
        check("a/b", "a/+", false);
        check("a/b", "#", false);
        check("a", "", false);
    }

    #[test]
    fn filters_are_checked() {
        let check = |text: &str, want: InvalidFilter| {
            assert_eq!(TopicFilter::parse(text), Err(want), "{text:?}");
        };
        check("", InvalidFilter::Empty);
        check("a\0b", InvalidFilter::Nul);
        check("sport/tennis#", InvalidFilter::MisplacedHash);
        check("sport/tennis/#/ranking", InvalidFilter::MisplacedHash);
        check("#/", InvalidFilter::MisplacedHash);
        check("##", InvalidFilter::MisplacedHash);
        check("+#", InvalidFilter::MisplacedHash);
        check("sport+", InvalidFilter::MisplacedPlus);
        check("a/+b/c", InvalidFilter::MisplacedPlus);
        check("++", InvalidFilter::MisplacedPlus);
        check(&"a".repeat(65_536), InvalidFilter::TooLong(65_536));
        assert!(TopicFilter::parse("a".repeat(65_535)).is_ok());
    }

    #[test]
    fn topic_names_are_checked() {
        let check = |text: &str, want: bool| assert_eq!(valid_topic_name(text), want, "{text:?}");
        check("a", true);
        check("/", true);
        check("a b/\u{e5}", true);
        check("$SYS/x", true);
        check("", false);
        check("a/+", false);
        check("a/#", false);
        check("a+b", false);
        check("a\0", false);
        check(&"a".repeat(65_535), true);
        check(&"a".repeat(65_536), false);
    }
}
