//! The points of one sensor, from the database's arrays to JSON.
//!
//! A day of minutes is 1,440 points. As a row a point they cost the driver and the serialiser several times what the
//! database needs to find them, so the database gives one row a sensor with an array a column, the arrays are read from
//! their binary form, and what repeats from point to point is written once and copied. What is written is byte for byte
//! what serde writes of [`TemperaturePoint`], which a test holds it to. Never reorders or drops a point.

use chrono::{DateTime, Utc};
use sqlx::error::BoxDynError;
use sqlx::postgres::{PgTypeInfo, PgValueFormat, PgValueRef};
use sqlx::{Decode, FromRow, Postgres, Type};

use super::TemperaturePoint;

/// PostgreSQL counts from the year 2000.
const EPOCH_MICROSECONDS: i64 = 946_684_800_000_000;
const DAY_MICROSECONDS: i64 = 86_400_000_000;
/// Bytes of a point's JSON, to have room for all of them at once.
const POINT_BYTES: usize = 160;

/// The points of one sensor in order of time, a column each.
#[derive(FromRow)]
pub(super) struct Sensor {
    device_id: String,
    locations: Places,
    times: Times,
    temperatures_c: Numbers,
    humidities_percent: Numbers,
}

impl Sensor {
    pub(super) fn len(&self) -> usize {
        self.times.0.len()
    }

    pub(super) fn first_time(&self) -> Option<DateTime<Utc>> {
        self.times.0.first().and_then(|&time| instant(time))
    }

    /// The points one by one.
    pub(super) fn points(&self) -> impl Iterator<Item = TemperaturePoint<'_>> {
        let values = self.temperatures_c.0.iter().zip(&self.humidities_percent.0);
        let places = self.times.0.iter().zip(self.locations.each());
        places.zip(values).map(
            |((&time, location), (&temperature_c, &humidity_percent))| TemperaturePoint {
                device_id: &self.device_id,
                location,
                time: instant(time).unwrap_or_default(),
                temperature_c,
                humidity_percent,
            },
        )
    }

    /// Writes the points as elements of a JSON array, each but the array's first after a comma.
    pub(super) fn write_json(&self, json: &mut Vec<u8>) {
        json.reserve(self.len() * POINT_BYTES);
        let mut clock = Clock::default();
        let values = self.temperatures_c.0.iter().zip(&self.humidities_percent.0);
        let mut points = self.times.0.iter().zip(values);
        for (count, location) in &self.locations.0 {
            let mut head = b"{\"device_id\":".to_vec();
            write(&mut head, &self.device_id);
            head.extend_from_slice(b",\"location\":");
            write(&mut head, location);
            head.extend_from_slice(b",\"time\":\"");
            for (&time, (temperature_c, humidity_percent)) in points.by_ref().take(*count) {
                if json.last() != Some(&b'[') {
                    json.push(b',');
                }
                json.extend_from_slice(&head);
                clock.write(time, json);
                json.extend_from_slice(b"\",\"temperature_c\":");
                write(json, temperature_c);
                json.extend_from_slice(b",\"humidity_percent\":");
                write(json, humidity_percent);
                json.push(b'}');
            }
        }
    }
}

fn write(json: &mut Vec<u8>, value: &impl serde::Serialize) {
    serde_json::to_writer(json, value).expect("text and numbers can be written to memory");
}

fn instant(microseconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp_micros(microseconds)
}

/// Writes times as RFC 3339 in UTC; the date is put together once a day.
#[derive(Default)]
struct Clock {
    day: Option<i64>,
    date: String,
}

impl Clock {
    /// The fraction has no digit, three or six, as chrono writes it.
    fn write(&mut self, time: i64, text: &mut Vec<u8>) {
        let (day, within) = (
            time.div_euclid(DAY_MICROSECONDS),
            time.rem_euclid(DAY_MICROSECONDS),
        );
        if self.day != Some(day) {
            let date = instant(day * DAY_MICROSECONDS).unwrap_or_default();
            self.date = date.format("%Y-%m-%dT").to_string();
            self.day = Some(day);
        }
        text.extend_from_slice(self.date.as_bytes());
        let (seconds, fraction) = (within / 1_000_000, within % 1_000_000);
        digits::<2>(text, seconds / 3_600);
        text.push(b':');
        digits::<2>(text, seconds / 60 % 60);
        text.push(b':');
        digits::<2>(text, seconds % 60);
        if fraction > 0 {
            text.push(b'.');
            if fraction % 1_000 == 0 {
                digits::<3>(text, fraction / 1_000);
            } else {
                digits::<6>(text, fraction);
            }
        }
        text.push(b'Z');
    }
}

/// `number` in `N` digits, zeros in front.
fn digits<const N: usize>(text: &mut Vec<u8>, mut number: i64) {
    let mut out = [b'0'; N];
    for digit in out.iter_mut().rev() {
        *digit += (number % 10) as u8;
        number /= 10;
    }
    text.extend_from_slice(&out);
}

/// `timestamptz[]` without nulls, in microseconds since 1970.
#[derive(Debug, PartialEq)]
struct Times(Vec<i64>);

/// `float8[]`.
#[derive(Debug, PartialEq)]
struct Numbers(Vec<Option<f64>>);

/// `text[]`, where neighbours are mostly the same: how many, and which.
#[derive(Debug, PartialEq)]
struct Places(Vec<(usize, Option<String>)>);

impl Places {
    fn each(&self) -> impl Iterator<Item = Option<&str>> {
        let runs = self.0.iter();
        runs.flat_map(|(count, place)| std::iter::repeat_n(place.as_deref(), *count))
    }
}

macro_rules! array_type {
    ($name:ident, $of:ty) => {
        impl Type<Postgres> for $name {
            fn type_info() -> PgTypeInfo {
                <$of as Type<Postgres>>::type_info()
            }

            fn compatible(found: &PgTypeInfo) -> bool {
                <$of as Type<Postgres>>::compatible(found)
            }
        }
    };
}
array_type!(Times, Vec<DateTime<Utc>>);
array_type!(Numbers, Vec<f64>);
array_type!(Places, Vec<String>);

impl Decode<'_, Postgres> for Times {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let mut times = Vec::new();
        elements(bytes(&value)?, |element| {
            let time = i64::from_be_bytes(element.ok_or("a time is null")?.try_into()?);
            times.push(time.checked_add(EPOCH_MICROSECONDS).ok_or("a time is infinite")?);
            Ok(())
        })?;
        Ok(Self(times))
    }
}

impl Decode<'_, Postgres> for Numbers {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let mut numbers = Vec::new();
        elements(bytes(&value)?, |element| {
            let number = element.map(|bytes| bytes.try_into().map(f64::from_be_bytes));
            numbers.push(number.transpose()?);
            Ok(())
        })?;
        Ok(Self(numbers))
    }
}

impl Decode<'_, Postgres> for Places {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        let mut runs: Vec<(usize, Option<String>)> = Vec::new();
        elements(bytes(&value)?, |element| {
            match runs.last_mut() {
                Some((count, place)) if place.as_deref().map(str::as_bytes) == element => *count += 1,
                _ => {
                    let place = element.map(std::str::from_utf8).transpose()?;
                    runs.push((1, place.map(str::to_owned)));
                }
            }
            Ok(())
        })?;
        Ok(Self(runs))
    }
}

fn bytes<'r>(value: &PgValueRef<'r>) -> Result<&'r [u8], BoxDynError> {
    match value.format() {
        PgValueFormat::Binary => value.as_bytes(),
        PgValueFormat::Text => Err("an array came as text".into()),
    }
}

/// Reads an array in PostgreSQL's binary form: dimensions, whether there are nulls, the type; for the one dimension its
/// length and first index; then each element with its length, all in 4 bytes, big-endian.
fn elements<'r>(
    mut bytes: &'r [u8],
    mut each: impl FnMut(Option<&'r [u8]>) -> Result<(), BoxDynError>,
) -> Result<(), BoxDynError> {
    let mut number = || -> Result<i32, BoxDynError> {
        let (four, rest) = bytes.split_first_chunk().ok_or("an array ends early")?;
        bytes = rest;
        Ok(i32::from_be_bytes(*four))
    };
    let dimensions = number()?;
    let (_has_nulls, _type) = (number()?, number()?);
    if dimensions == 0 {
        return Ok(());
    }
    if dimensions != 1 {
        return Err("an array has more than one dimension".into());
    }
    let (length, _first_index) = (number()?, number()?);
    for _ in 0..length {
        let (four, rest) = bytes.split_first_chunk().ok_or("an array ends early")?;
        let element = i32::from_be_bytes(*four);
        bytes = rest;
        match usize::try_from(element) {
            Ok(length) => {
                let (element, rest) = bytes.split_at_checked(length).ok_or("an array ends early")?;
                bytes = rest;
                each(Some(element))?;
            }
            // A negative length is null.
            Err(_) => each(None)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn array(elements: &[Option<&[u8]>]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for number in [1, 1, 701, elements.len() as i32, 1] {
            bytes.extend(i32::to_be_bytes(number));
        }
        for element in elements {
            match element {
                Some(element) => {
                    bytes.extend(i32::to_be_bytes(element.len() as i32));
                    bytes.extend(*element);
                }
                None => bytes.extend(i32::to_be_bytes(-1)),
            }
        }
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Option<Vec<u8>>>, String> {
        let mut found = Vec::new();
        elements(bytes, |element| {
            found.push(element.map(<[u8]>::to_vec));
            Ok(())
        })
        .map_err(|error| error.to_string())?;
        Ok(found)
    }

    #[test]
    fn arrays_are_read_as_postgresql_writes_them() {
        let there = [Some(&b"ab"[..]), None, Some(&b""[..])];
        let want: Vec<_> = there.iter().map(|e| e.map(<[u8]>::to_vec)).collect();
        assert_eq!(read(&array(&there)), Ok(want));
        let empty: Vec<u8> = [0_i32, 0, 701].into_iter().flat_map(i32::to_be_bytes).collect();
        assert_eq!(read(&empty), Ok(vec![]));
        let whole = array(&there);
        for end in 0..whole.len() {
            assert!(read(&whole[..end]).is_err(), "{end} bytes of {}", whole.len());
        }
        let mut deep = whole;
        deep[3] = 2;
        assert_eq!(
            read(&deep),
            Err("an array has more than one dimension".to_owned())
        );
    }

    #[test]
    fn what_is_written_is_what_serde_writes() {
        let micros = |text: &str| text.parse::<DateTime<Utc>>().unwrap().timestamp_micros();
        let sensor = Sensor {
            device_id: "a\"b\u{e5}\n".to_owned(),
            locations: Places(vec![
                (2, Some("attic \\".to_owned())),
                (3, None),
                (1, Some("attic \\".to_owned())),
            ]),
            times: Times(vec![
                micros("2020-02-29T23:59:59.999999Z"),
                micros("2026-01-01T00:00:00Z"),
                micros("2026-01-01T08:00:12.610123Z"),
                micros("2026-01-01T08:00:12.610Z"),
                micros("1969-12-31T23:59:59.000001Z"),
                micros("9999-12-31T09:08:07.000010Z"),
            ]),
            temperatures_c: Numbers(vec![
                Some(-0.0),
                Some(21.3),
                None,
                Some(1e-7),
                Some(f64::NAN),
                Some(1e21),
            ]),
            humidities_percent: Numbers(vec![
                None,
                Some(44.6),
                Some(45.0),
                Some(100.0),
                Some(0.1 + 0.2),
                None,
            ]),
        };
        let mut written = b"[".to_vec();
        sensor.write_json(&mut written);
        written.push(b']');
        let points: Vec<_> = sensor.points().collect();
        assert_eq!(points.len(), 6);
        assert_eq!(
            String::from_utf8(written).unwrap(),
            serde_json::to_string(&points).unwrap()
        );
    }
}
