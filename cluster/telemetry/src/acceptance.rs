//! Which records and events may become rows, apart from what the database itself may refuse: the sink makes dead letters of
//! the others, and energy-ws does not show them. Pure: the time comes in as an argument.

use chrono::{DateTime, TimeDelta, TimeZone, Utc};

use crate::{Event, EventBody, OutOfRange, Reading, Record};

/// How far ahead of the reader's clock a time may be. An agent that is synchronised is within milliseconds; an hour
/// forgives a household whose cluster lost its time server for a while.
pub const MAX_AHEAD: TimeDelta = TimeDelta::hours(1);

/// Longest id and meter id in bytes. Both are part of keys, and an index takes no key that does not fit a page; agents' ids have
/// some twenty bytes.
pub const MAX_KEY_BYTES: usize = 256;

/// Why a record or an event is not accepted.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Refusal {
    /// The id is the identity of a row: an empty one would make every such record the same.
    #[error("id is empty")]
    NoId,
    /// Longer than [`MAX_KEY_BYTES`].
    #[error("{field} has {bytes} bytes, {MAX_KEY_BYTES} are allowed")]
    LongKey {
        /// Name of the field.
        field: &'static str,
        /// Its length.
        bytes: usize,
    },
    /// PostgreSQL stores no text with this character.
    #[error("{0} has the character U+0000")]
    NulCharacter(&'static str),
    /// A physical value no device can have measured.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// Nothing of this software existed before 2020: such a time comes from a clock that was never set.
    #[error("{0} is before 2020")]
    BeforeAll(DateTime<Utc>),
    /// More than [`MAX_AHEAD`] ahead.
    #[error("{time} is more than an hour ahead of the clock here, {now}")]
    Ahead {
        /// The time of the record.
        time: DateTime<Utc>,
        /// The time of the reader.
        now: DateTime<Utc>,
    },
}

impl Record {
    /// Whether the record may become a row, as of `now`; its kind is not looked at.
    pub fn acceptable(&self, now: DateTime<Utc>) -> Result<(), Refusal> {
        check_id(&self.id)?;
        check_text("agent", Some(&self.agent))?;
        check_text("location", self.location.as_deref())?;
        if let Reading::Energy(energy) = &self.reading {
            check_text("meter_id", energy.meter_id.as_deref())?;
            check_key("meter_id", energy.meter_id.as_deref().unwrap_or_default())?;
            check_text("meter_type", energy.meter_type.as_deref())?;
        }
        if let Some(error) = self.reading.out_of_range() {
            return Err(error.into());
        }
        check_time(self.time, now)
    }
}

impl Event {
    /// Whether the event may become a row, as of `now`.
    pub fn acceptable(&self, now: DateTime<Utc>) -> Result<(), Refusal> {
        check_id(&self.id)?;
        check_text("agent", self.agent.as_deref())?;
        match &self.body {
            EventBody::BufferLoss { reason, .. } => check_text("reason", Some(reason))?,
            EventBody::OutboxChanged { status, .. } => check_text("status", Some(status))?,
            EventBody::ClockStep { .. }
            | EventBody::DeviceOnline { .. }
            | EventBody::CommandOutcome { .. } => {}
        }
        check_time(self.time, now)
    }
}

fn check_id(id: &str) -> Result<(), Refusal> {
    if id.is_empty() {
        return Err(Refusal::NoId);
    }
    check_key("id", id)?;
    check_text("id", Some(id))
}

fn check_key(field: &'static str, text: &str) -> Result<(), Refusal> {
    if text.len() > MAX_KEY_BYTES {
        let bytes = text.len();
        return Err(Refusal::LongKey { field, bytes });
    }
    Ok(())
}

fn check_text(field: &'static str, text: Option<&str>) -> Result<(), Refusal> {
    match text {
        Some(text) if text.contains('\0') => Err(Refusal::NulCharacter(field)),
        _ => Ok(()),
    }
}

fn check_time(time: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), Refusal> {
    let earliest = Utc
        .with_ymd_and_hms(2020, 1, 1, 0, 0, 0)
        .single()
        .expect("a fixed, unambiguous date");
    if time < earliest {
        return Err(Refusal::BeforeAll(time));
    }
    if time > now + MAX_AHEAD {
        return Err(Refusal::Ahead { time, now });
    }
    Ok(())
}
