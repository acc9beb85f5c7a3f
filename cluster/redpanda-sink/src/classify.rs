//! Bytes from a topic to a row, or to the reason why they are none. Pure: the time comes in as an argument.

use chrono::{DateTime, Utc};
use telemetry::{Event, Kind, Record, Refusal, topic};

/// Longest detail of a reason in bytes: parsers quote what they did not understand, and that may be a megabyte.
const MAX_DETAIL_BYTES: usize = 512;

/// The topics this sink reads; each has its own table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    /// `homelab.energy`, to `energy_consumption`.
    Energy,
    /// `homelab.temperature`, to `temperature_sensors`.
    Temperature,
    /// `homelab.heatpump`, to `heatpump_status`.
    Heatpump,
    /// `homelab.plug`, to `plug_status`.
    Plug,
    /// `homelab.events`, to `events`.
    Events,
}

impl Source {
    /// Every source, in the order in which a batch writes its tables.
    pub const ALL: [Source; 5] = [
        Source::Energy,
        Source::Temperature,
        Source::Heatpump,
        Source::Plug,
        Source::Events,
    ];

    /// The Kafka topic.
    pub const fn topic(self) -> &'static str {
        match self {
            Source::Energy => topic::ENERGY,
            Source::Temperature => topic::TEMPERATURE,
            Source::Heatpump => topic::HEATPUMP,
            Source::Plug => topic::PLUG,
            Source::Events => topic::EVENTS,
        }
    }

    /// The source a topic belongs to; none for a topic that is not ours.
    pub fn of_topic(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|source| source.topic() == name)
    }

    /// The only kind of reading the topic may carry; none for events.
    pub const fn kind(self) -> Option<Kind> {
        match self {
            Source::Energy => Some(Kind::Energy),
            Source::Temperature => Some(Kind::Temperature),
            Source::Heatpump => Some(Kind::Heatpump),
            Source::Plug => Some(Kind::Plug),
            Source::Events => None,
        }
    }
}

/// What goes into a table.
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every row is a reading; a box would cost an allocation each"
)]
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// A reading, of the kind its topic carries.
    Reading(Record),
    /// An event.
    Event(Event),
}

/// Why a record is a dead letter; the stable first word of its reason and the label of its metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// No JSON, or a field is missing, of the wrong type, or of a value this version does not know.
    Malformed,
    /// A reading in the topic of another kind.
    WrongKind,
    /// A physical value no device can have measured, or a key longer than any index takes.
    OutOfRange,
    /// More than [`telemetry::MAX_AHEAD`] ahead of the sink's clock, or before 2020.
    TimeOutOfRange,
    /// A text with U+0000, which PostgreSQL cannot store.
    NulCharacter,
    /// The database refused the row for itself: a constraint or a value it cannot hold.
    RefusedByDatabase,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 6] = [
        Reason::Malformed,
        Reason::WrongKind,
        Reason::OutOfRange,
        Reason::TimeOutOfRange,
        Reason::NulCharacter,
        Reason::RefusedByDatabase,
    ];

    /// The stable word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Reason::Malformed => "malformed",
            Reason::WrongKind => "wrong_kind",
            Reason::OutOfRange => "out_of_range",
            Reason::TimeOutOfRange => "time_out_of_range",
            Reason::NulCharacter => "nul_character",
            Reason::RefusedByDatabase => "refused_by_database",
        }
    }
}

/// A record that becomes a dead letter, with the details for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Poison {
    /// The stable word.
    pub reason: Reason,
    /// Details, at most 512 bytes.
    pub detail: String,
}

impl Poison {
    /// Joins reason and detail; the detail is shortened to its limit.
    pub fn new(reason: Reason, detail: impl std::fmt::Display) -> Self {
        let mut detail = detail.to_string();
        if detail.len() > MAX_DETAIL_BYTES {
            let end = (0..=MAX_DETAIL_BYTES)
                .rev()
                .find(|&at| detail.is_char_boundary(at))
                .expect("zero is always a boundary");
            detail.truncate(end);
        }
        Self { reason, detail }
    }
}

impl From<Refusal> for Poison {
    fn from(refusal: Refusal) -> Self {
        let reason = match refusal {
            Refusal::NoId => Reason::Malformed,
            Refusal::LongKey { .. } | Refusal::OutOfRange(_) => Reason::OutOfRange,
            Refusal::NulCharacter(_) => Reason::NulCharacter,
            Refusal::BeforeAll(_) | Refusal::Ahead { .. } => Reason::TimeOutOfRange,
        };
        Self::new(reason, refusal)
    }
}

impl std::fmt::Display for Poison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.reason.as_str(), self.detail)
    }
}

/// Reads one record of `source` as of `now`. An absent value (a tombstone) is as malformed as an empty one.
pub fn classify(source: Source, payload: Option<&[u8]>, now: DateTime<Utc>) -> Result<Row, Poison> {
    let Some(payload) = payload else {
        return Err(Poison::new(Reason::Malformed, "the record has no value"));
    };
    match source.kind() {
        Some(kind) => reading(kind, payload, now).map(Row::Reading),
        None => event(payload, now).map(Row::Event),
    }
}

fn reading(kind: Kind, payload: &[u8], now: DateTime<Utc>) -> Result<Record, Poison> {
    let record = Record::from_json(payload).map_err(|error| Poison::new(Reason::Malformed, error))?;
    let found = record.reading.kind();
    if found != kind {
        let detail = format!("kind {} in the topic of {}", found.as_str(), kind.as_str());
        return Err(Poison::new(Reason::WrongKind, detail));
    }
    record.acceptable(now)?;
    Ok(record)
}

fn event(payload: &[u8], now: DateTime<Utc>) -> Result<Event, Poison> {
    let event: Event =
        serde_json::from_slice(payload).map_err(|error| Poison::new(Reason::Malformed, error))?;
    event.acceptable(now)?;
    Ok(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: &str = "2026-01-01T09:00:00Z";

    fn sample(kind: Kind) -> serde_json::Value {
        let text = match kind {
            Kind::Energy => include_str!("../../telemetry/samples/energy.json"),
            Kind::Temperature => include_str!("../../telemetry/samples/temperature.json"),
            Kind::Heatpump => include_str!("../../telemetry/samples/heatpump.json"),
            Kind::Plug => include_str!("../../telemetry/samples/plug.json"),
        };
        serde_json::from_str(text).unwrap()
    }

    fn of(source: Source, payload: &[u8]) -> Result<Row, Poison> {
        classify(source, Some(payload), NOW.parse().unwrap())
    }

    /// The reason for a sample whose `pointer` is replaced by `value`; none when it is a row.
    fn changed(source: Source, pointer: &str, value: serde_json::Value) -> Option<Reason> {
        let mut json = sample(source.kind().unwrap());
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        json.pointer_mut(parent).unwrap()[key] = value;
        of(source, json.to_string().as_bytes())
            .err()
            .map(|poison| poison.reason)
    }

    #[test]
    fn samples_are_rows_in_their_own_topic_only() {
        for source in Source::ALL {
            for kind in Kind::ALL {
                let got = of(source, sample(kind).to_string().as_bytes()).map_err(|poison| poison.reason);
                match source.kind() {
                    Some(own) if own == kind => assert!(matches!(got, Ok(Row::Reading(_))), "{source:?}"),
                    Some(_) => assert_eq!(got.err(), Some(Reason::WrongKind), "{source:?} {kind:?}"),
                    None => assert_eq!(got.err(), Some(Reason::Malformed), "{source:?} {kind:?}"),
                }
            }
        }
    }

    #[test]
    fn what_is_no_record_is_malformed() {
        let check = |payload: &[u8]| {
            for source in Source::ALL {
                let got = of(source, payload).map_err(|poison| poison.reason);
                assert_eq!(got, Err(Reason::Malformed), "{source:?} {payload:?}");
            }
        };
        check(b"");
        check(b"null");
        check(b"[]");
        check(b"{}");
        check(b"hello");
        check(b"\xff\xfe");
        check(b"{\"id\":\"a\",\"id\":\"b\"}");
        check(&[b'['; 100_000]);
        let tombstone = classify(Source::Energy, None, NOW.parse().unwrap());
        assert_eq!(tombstone.map_err(|poison| poison.reason), Err(Reason::Malformed));
    }

    #[test]
    fn fields_are_checked() {
        use serde_json::json;
        let check = |source, pointer: &str, value: serde_json::Value, want: Option<Reason>| {
            assert_eq!(
                changed(source, pointer, value.clone()),
                want,
                "{source:?} {pointer} {value}"
            );
        };
        let energy = Source::Energy;
        check(energy, "/reading/power_w", json!(40_000), None);
        check(energy, "/reading/power_w", json!(null), None);
        check(energy, "/reading/new_field", json!({"a": [1]}), None);
        check(energy, "/reading/power_w", json!("3241"), Some(Reason::Malformed));
        check(energy, "/reading/power_w", json!(2e6), Some(Reason::OutOfRange));
        check(energy, "/reading/energy_wh", json!(-1), Some(Reason::OutOfRange));
        check(
            energy,
            "/reading/meter_id",
            json!("a\u{0}b"),
            Some(Reason::NulCharacter),
        );
        check(
            energy,
            "/reading/meter_type",
            json!("\u{0}"),
            Some(Reason::NulCharacter),
        );
        check(energy, "/id", json!("p0/\u{0}/1"), Some(Reason::NulCharacter));
        check(energy, "/id", json!(""), Some(Reason::Malformed));
        check(energy, "/id", json!("x".repeat(256)), None);
        check(energy, "/id", json!("x".repeat(257)), Some(Reason::OutOfRange));
        check(
            energy,
            "/reading/meter_id",
            json!("x".repeat(257)),
            Some(Reason::OutOfRange),
        );
        check(energy, "/id", json!(7), Some(Reason::Malformed));
        check(energy, "/agent", json!("p\u{0}"), Some(Reason::NulCharacter));
        check(energy, "/location", json!("\u{0}"), Some(Reason::NulCharacter));
        check(energy, "/location", json!("caf\u{e9} \u{1f3e0}"), None);
        check(energy, "/device_id", json!("a\u{0}b"), Some(Reason::Malformed));
        check(energy, "/kind", json!("water"), Some(Reason::Malformed));
        check(energy, "/clock", json!("guessed"), Some(Reason::Malformed));
        check(energy, "/clock", json!("unsynced"), None);
        check(
            Source::Temperature,
            "/reading/temperature_c",
            json!(451),
            Some(Reason::OutOfRange),
        );
        check(
            Source::Heatpump,
            "/reading/settings/mode",
            json!(1.5),
            Some(Reason::Malformed),
        );
        check(Source::Plug, "/reading/on", json!("ON"), Some(Reason::Malformed));
    }

    #[test]
    fn times_are_kept_within_2020_and_an_hour_ahead() {
        let check = |time: &str, want: Option<Reason>| {
            assert_eq!(changed(Source::Energy, "/time", time.into()), want, "{time}");
        };
        check("2020-01-01T00:00:00Z", None);
        check("2019-12-31T23:59:59.999999Z", Some(Reason::TimeOutOfRange));
        check("2020-01-01T00:59:59+01:00", Some(Reason::TimeOutOfRange));
        check("1970-01-01T00:00:00Z", Some(Reason::TimeOutOfRange));
        check("2026-01-01T10:00:00Z", None);
        check("2026-01-01T10:00:00.000001Z", Some(Reason::TimeOutOfRange));
        check("9999-12-31T23:59:59Z", Some(Reason::TimeOutOfRange));
        check("+262142-12-31T23:59:59Z", Some(Reason::TimeOutOfRange));
        check("-262143-01-01T00:00:00Z", Some(Reason::TimeOutOfRange));
        check("yesterday", Some(Reason::Malformed));
    }

    #[test]
    fn events_are_checked_as_readings_are() {
        use serde_json::json;
        let check = |change: serde_json::Value, want: Option<Reason>| {
            let mut event = json!({"id": "p0/9c41f02b/77", "agent": "p0", "time": "2026-01-01T08:00:00.000000Z",
                "type": "buffer_loss", "from": "2026-01-01T07:00:00Z", "to": "2026-01-01T08:00:00Z", "count": 3,
                "reason": "full"});
            event
                .as_object_mut()
                .unwrap()
                .extend(change.as_object().unwrap().clone());
            let got = of(Source::Events, event.to_string().as_bytes())
                .err()
                .map(|poison| poison.reason);
            assert_eq!(got, want, "{event}");
        };
        check(json!({}), None);
        check(json!({"agent": null}), None);
        check(json!({"later": "field"}), None);
        check(json!({"type": "later"}), Some(Reason::Malformed));
        check(json!({"id": ""}), Some(Reason::Malformed));
        check(json!({"reason": "fu\u{0}ll"}), Some(Reason::NulCharacter));
        check(json!({"agent": "\u{0}"}), Some(Reason::NulCharacter));
        check(
            json!({"time": "2019-01-01T00:00:00Z"}),
            Some(Reason::TimeOutOfRange),
        );
        check(
            json!({"type": "outbox_changed", "outbox_id": 1, "status": "\u{0}"}),
            Some(Reason::NulCharacter),
        );
    }

    #[test]
    fn reasons_start_with_their_word_and_stay_short() {
        let long = of(
            Source::Energy,
            format!("{{\"kind\":\"{}\"}}", "\u{e9}".repeat(100_000)).as_bytes(),
        );
        let poison = long.unwrap_err();
        assert!(poison.detail.len() <= MAX_DETAIL_BYTES);
        assert!(poison.to_string().starts_with("malformed: "), "{poison}");
    }
}
