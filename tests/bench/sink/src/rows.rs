//! The rows of the benchmark: energy readings of four meters, as records for Kafka and as lines for `\copy`.
//!
//! Row n is the same whichever way it goes. Nothing is random, so that two runs do the same work.

use std::io::{BufWriter, Write as _};
use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use chrono::{DateTime, SecondsFormat, TimeDelta, Utc};
use serde_json::{Value, json};
use stack::kafka::Kafka;
use telemetry::topic;

/// Meters: enough for every partition to have one.
const DEVICES: u32 = 4;
/// One record in a hundred is poison.
const POISON_EVERY: u32 = 100;

/// The columns of a row, in the order of [`line`].
pub const COLUMNS: [&str; 23] = [
    "device_id",
    "time",
    "id",
    "agent",
    "clock",
    "location",
    "power_w",
    "power_l1_w",
    "power_l2_w",
    "power_l3_w",
    "export_power_w",
    "energy_wh",
    "export_energy_wh",
    "voltage_l1_v",
    "voltage_l2_v",
    "voltage_l3_v",
    "current_l1_a",
    "current_l2_a",
    "current_l3_a",
    "power_factor",
    "meter_id",
    "meter_type",
    "rssi_dbm",
];

/// A power that no good record has.
pub const FORBIDDEN_POWER_W: f64 = 131_313.0;

/// Which records are bad.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Poison {
    /// None.
    None,
    /// One in a hundred, every kind in turn.
    Mixed,
    /// One in a hundred, of a power that a constraint of the database's forbids: only the database can say so.
    Refused,
}

/// Meter `device` of [`DEVICES`].
pub fn device(number: u32) -> String {
    format!("bench-{}", number % DEVICES)
}

/// Row `number` as the record's JSON: a second apart for each meter, in the past. All seventeen fields are there.
pub fn record(number: u32) -> Value {
    let start: DateTime<Utc> = "2025-03-01T00:00:00.000001Z".parse().expect("a fixed time");
    let time = start + TimeDelta::seconds(i64::from(number / DEVICES));
    record_at(number, time)
}

/// Row `number` with a time of its own.
pub fn record_at(number: u32, time: DateTime<Utc>) -> Value {
    let wave = f64::from(number % 997);
    json!({"id": format!("p0/0be2c4aa/{number}"), "agent": "p0", "device_id": device(number),
        "time": time.to_rfc3339_opts(SecondsFormat::Micros, true), "clock": "synced", "location": "cellar",
        "kind": "energy", "reading": {
            "power_w": 3_000.5 + wave, "power_l1_w": 1_000.25 + wave, "power_l2_w": 1_480.0 + wave,
            "power_l3_w": 749.0 + wave, "export_power_w": 0.0, "energy_wh": 41_000_000.0 + f64::from(number / DEVICES),
            "export_energy_wh": 12.0, "voltage_l1_v": 231.1, "voltage_l2_v": 230.4, "voltage_l3_v": 232.0,
            "current_l1_a": 4.402, "current_l2_a": 6.431, "current_l3_a": 3.26, "power_factor": 0.98,
            "meter_id": "7359992891234567", "meter_type": "KAIFA", "rssi_dbm": -61.0}})
}

/// The bytes of record `number`, bad where `poison` says so; answers whether they are.
fn bytes(number: u32, poison: Poison) -> (String, bool) {
    let mut record = record(number);
    if poison == Poison::None || number % POISON_EVERY != POISON_EVERY / 2 {
        return (record.to_string(), false);
    }
    match (poison, number / POISON_EVERY % 8) {
        (Poison::Refused, _) | (_, 0) => record["reading"]["power_w"] = FORBIDDEN_POWER_W.into(),
        (_, 1) => return ("hello".to_owned(), true),
        (_, 2) => record["reading"]["power_w"] = json!("many"),
        (_, 3) => record["reading"]["power_w"] = json!(5e9),
        (_, 4) => record["kind"] = json!("plug"),
        (_, 5) => record["location"] = json!("cel\u{0}lar"),
        (_, 6) => record["time"] = json!("2019-12-31T23:59:59Z"),
        (_, _) => record["kind"] = json!("water"),
    }
    (record.to_string(), true)
}

/// Produces the records of `numbers` and answers how many of them are bad. Blocks.
pub fn produce(kafka: &Kafka, numbers: Range<u32>, poison: Poison) -> Result<u32> {
    let mut bad = 0;
    kafka.produce(numbers.map(|number| {
        let (value, is_bad) = bytes(number, poison);
        bad += u32::from(is_bad);
        (topic::ENERGY, device(number), value)
    }))?;
    Ok(bad)
}

/// Writes the first `records` rows for `\copy`.
pub fn write_copy_file(file: &Path, records: u32) -> Result<()> {
    let mut file = BufWriter::new(std::fs::File::create(file)?);
    for number in 0..records {
        writeln!(file, "{}", line(&record(number)))?;
    }
    file.flush()?;
    Ok(())
}

/// A row in the text form of COPY; nothing in it needs escaping.
fn line(record: &Value) -> String {
    let fields = COLUMNS.map(|column| {
        let value = record.get(column).unwrap_or(&record["reading"][column]);
        value.as_str().map_or_else(|| value.to_string(), str::to_owned)
    });
    fields.join("\t")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_carry_the_same_row() {
        let line = line(&record(9));
        let fields: Vec<&str> = line.split('\t').collect();
        assert_eq!(fields.len(), COLUMNS.len());
        assert_eq!(
            &fields[..3],
            ["bench-1", "2025-03-01T00:00:02.000001Z", "p0/0be2c4aa/9"]
        );
        assert_eq!(fields[11], "41000002.0");
        assert!(fields.iter().all(|field| *field != "null"));
        let parsed = telemetry::Record::from_json(record(9).to_string().as_bytes());
        assert!(parsed.is_ok_and(|record| record.reading.out_of_range().is_none()));
    }

    #[test]
    fn one_in_a_hundred_is_bad() {
        for (poison, want) in [(Poison::None, 0), (Poison::Mixed, 10), (Poison::Refused, 10)] {
            let bad = (0..1_000).filter(|&number| bytes(number, poison).1).count();
            assert_eq!(bad, want);
        }
    }
}
