//! Parameters of queries: times, ranges, devices, places. Each is checked before the database sees it, and each
//! error names its field.

use chrono::{DateTime, Datelike, TimeDelta, Utc};
use service::Problem;
use telemetry::DeviceId;

/// First and last year a range may touch. Nothing was measured before, and PostgreSQL's calendar functions stay far
/// from their ends.
const YEARS: std::ops::RangeInclusive<i32> = 1970..=2200;
/// Longest location taken; locations are words of a configuration file.
const LOCATION_BYTES: usize = 128;

/// From, included, to, not included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Included.
    pub from: DateTime<Utc>,
    /// Not included.
    pub to: DateTime<Utc>,
}

impl Range {
    /// How long it is.
    pub fn length(&self) -> TimeDelta {
        self.to - self.from
    }
}

/// How long a range is where the caller does not say, and at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Length of the default, which ends now.
    pub default: TimeDelta,
    /// Longest length.
    pub longest: TimeDelta,
    /// The longest length in words, for the error.
    pub longest_words: &'static str,
}

impl Limits {
    /// Limits in days.
    pub const fn days(default: i64, longest: i64, longest_words: &'static str) -> Self {
        Self {
            default: TimeDelta::days(default),
            longest: TimeDelta::days(longest),
            longest_words,
        }
    }
}

/// The range of a request. Without `to` it ends now; without `from` it has the default length.
pub fn range(
    from: Option<&str>,
    to: Option<&str>,
    now: DateTime<Utc>,
    limits: Limits,
) -> Result<Range, Problem> {
    let to = to.map(|text| time("to", text)).transpose()?.unwrap_or(now);
    let from = from
        .map(|text| time("from", text))
        .transpose()?
        .unwrap_or(to - limits.default);
    if from >= to {
        return Err(Problem::field("from", "must be before to"));
    }
    if to - from > limits.longest {
        return Err(Problem::field(
            "from",
            format!("is more than {} before to", limits.longest_words),
        ));
    }
    Ok(Range { from, to })
}

fn time(field: &'static str, text: &str) -> Result<DateTime<Utc>, Problem> {
    // A plus sign that was not escaped in the query has become a blank.
    let time = DateTime::parse_from_rfc3339(text)
        .or_else(|_| DateTime::parse_from_rfc3339(&text.replace(' ', "+")))
        .map_err(|_| Problem::field(field, "is not an RFC 3339 time such as 2026-01-01T08:00:00Z"))?
        .to_utc();
    if YEARS.contains(&time.year()) {
        Ok(time)
    } else {
        Err(Problem::field(
            field,
            format!("is outside the years {} to {}", YEARS.start(), YEARS.end()),
        ))
    }
}

/// A device id, if one is given.
pub fn device_id(text: Option<&str>) -> Result<Option<DeviceId>, Problem> {
    text.map(|text| {
        DeviceId::parse(text).map_err(|error| Problem::field("device_id", format!("is invalid: {error}")))
    })
    .transpose()
}

/// A location, if one is given.
pub fn location(text: Option<&str>) -> Result<Option<&str>, Problem> {
    match text {
        Some(text)
            if text.is_empty() || text.len() > LOCATION_BYTES || text.chars().any(char::is_control) =>
        {
            Err(Problem::field(
                "location",
                format!("must have 1 to {LOCATION_BYTES} bytes and no control characters"),
            ))
        }
        other => Ok(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_have_defaults_and_limits() {
        let now = at("2026-03-01T12:00:00Z");
        let check = |from: Option<&str>, to: Option<&str>, want: Result<(&str, &str), &str>| {
            let got = range(from, to, now, Limits::days(1, 31, "31 days"));
            let want = want.map(|(from, to)| Range {
                from: at(from),
                to: at(to),
            });
            match (got, want) {
                (Ok(got), Ok(want)) => assert_eq!(got, want),
                (Err(got), Err(want)) => assert_eq!(got.detail(), want),
                (got, want) => panic!("{from:?} {to:?}: {got:?}, wanted {want:?}"),
            }
        };
        check(None, None, Ok(("2026-02-28T12:00:00Z", "2026-03-01T12:00:00Z")));
        check(
            Some("2026-02-20T00:00:00Z"),
            None,
            Ok(("2026-02-20T00:00:00Z", "2026-03-01T12:00:00Z")),
        );
        check(
            None,
            Some("2026-01-02T00:00:00Z"),
            Ok(("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z")),
        );
        let offset = Ok(("2025-12-31T23:00:00Z", "2026-01-01T23:00:00Z"));
        check(
            Some("2026-01-01T00:00:00+01:00"),
            Some("2026-01-02T00:00:00+01:00"),
            offset,
        );
        check(
            Some("2026-01-01T00:00:00 01:00"),
            Some("2026-01-02T00:00:00 01:00"),
            offset,
        );
        check(
            Some("2026-01-02T00:00:00Z"),
            Some("2026-01-01T00:00:00Z"),
            Err("from must be before to"),
        );
        check(Some("2026-03-02T00:00:00Z"), None, Err("from must be before to"));
        check(
            Some("2026-01-01T00:00:00Z"),
            None,
            Err("from is more than 31 days before to"),
        );
        check(
            Some("0000-01-01T00:00:00Z"),
            None,
            Err("from is outside the years 1970 to 2200"),
        );
        check(
            None,
            Some("9999-12-31T23:59:59Z"),
            Err("to is outside the years 1970 to 2200"),
        );
        for nonsense in [
            "",
            "yesterday",
            "2026-01-01",
            "NaN",
            "2026-13-01T00:00:00Z",
            "';drop table energy--",
            "\0",
        ] {
            check(
                Some(nonsense),
                None,
                Err("from is not an RFC 3339 time such as 2026-01-01T08:00:00Z"),
            );
        }
    }

    #[test]
    fn devices_and_locations_are_checked() {
        assert_eq!(device_id(None).unwrap(), None);
        assert!(device_id(Some("pump \u{e5}")).unwrap().is_some());
        assert!(device_id(Some("")).is_err() && device_id(Some("a\0b")).is_err());
        assert!(device_id(Some(&"x".repeat(129))).is_err());
        assert_eq!(location(Some("bedroom")).unwrap(), Some("bedroom"));
        assert!(location(Some("")).is_err() && location(Some("a\0")).is_err());
    }
}
