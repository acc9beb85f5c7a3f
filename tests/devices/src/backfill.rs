//! The hours before: records as an agent would have made them of the devices' messages.
//!
//! An agent stamps times itself, so history cannot go through MQTT; whoever sets up a demo or a test produces
//! these records into the topics. The values are those the live devices go on from.

use std::time::Duration;

use chrono::{DateTime, Utc};
use telemetry::{Clock, DeviceId, Reading, Record};

use crate::plug::Switch;
use crate::{Appliance, House, Inventory, meter, pump, sensor};

/// Seconds between two records of a device.
const METER_SECONDS: i64 = 10;
const PUMP_SECONDS: i64 = 60;
const PLUG_SECONDS: i64 = 300;
const ROOM_SECONDS: i64 = 600;

/// When the plugs were last without power: 2025-12-01.
const PLUGGED_IN: i64 = 1_764_547_200;

/// Devices a house may have, so that the numbers in two instants' ids never meet.
const DEVICES: i64 = 64;

/// Records of all devices from `from` (included) to `to` (not), in order of time: the meter every 10 s, the
/// heat pump every minute, plugs every 5 minutes, rooms every 10. The same instant gives the same record with
/// the same id, `p0/backfill-<seed>/<n>`, whatever the range, so that a repeated back-fill changes nothing.
pub fn backfill(house: &House, from: DateTime<Utc>, to: DateTime<Utc>) -> impl Iterator<Item = Record> {
    sparse(house, from, to, Duration::from_secs(METER_SECONDS as u64))
}

/// Of the same records those whose time is a multiple of `step`, itself a multiple of 10 s: a year of a house in few of them. Beyond
/// 15 minutes the energy between two of them counts as estimated.
pub fn sparse(
    house: &House,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    step: Duration,
) -> impl Iterator<Item = Record> {
    let step = step.as_secs().max(METER_SECONDS as u64).cast_signed();
    let inventory = Inventory::of(house);
    // One start for every range: a record must not depend on where the range begins.
    let started = DateTime::from_timestamp(PLUGGED_IN, 0).expect("a valid time");
    let (tasmota, shelly) = (
        Switch::new(Appliance::Television, started),
        Switch::new(Appliance::Fridge, started),
    );
    let settings = pump::factory_settings();
    let locations = inventory.locations();
    let first = (from.timestamp() + step - 1).div_euclid(step) * step;
    let last = to.timestamp() + i64::from(to.timestamp_subsec_nanos() > 0);
    (first..last).step_by(step as usize).flat_map(move |seconds| {
        let time = DateTime::from_timestamp(seconds, 0).expect("between two valid times");
        let mut readings = Vec::new();
        let mut add = |id: &str, reading| readings.push((id.to_owned(), reading));
        add(
            meter::meter_id(house, &inventory),
            Reading::Energy(meter::reading(house, &inventory, time)),
        );
        if seconds % PUMP_SECONDS == 0 {
            add(
                &inventory.pump,
                Reading::Heatpump(Box::new(pump::reading(house, &settings, time))),
            );
        }
        if seconds % PLUG_SECONDS == 0 {
            add(&inventory.tasmota, Reading::Plug(tasmota.reading(house, time)));
            add(&inventory.shelly_plug, Reading::Plug(shelly.reading(house, time)));
        }
        for room in inventory.rooms.iter().filter(|_| seconds % ROOM_SECONDS == 0) {
            let period = Duration::from_secs(ROOM_SECONDS as u64);
            add(
                &room.device_id,
                Reading::Temperature(sensor::reading(house, room, time, period)),
            );
        }
        let location = |id: &str| {
            locations
                .iter()
                .find(|(known, _)| known == id)
                .map(|(_, l)| (*l).to_owned())
        };
        let records = (0..).zip(readings).map(|(ordinal, (id, reading))| Record {
            id: format!("p0/backfill-{}/{}", house.seed(), seconds * DEVICES + ordinal),
            agent: "p0".to_owned(),
            location: location(&id),
            device_id: DeviceId::parse(id).expect("the inventory's ids are device ids"),
            time,
            clock: Clock::Synced,
            reading,
        });
        records.collect::<Vec<_>>()
    })
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use chrono::TimeDelta;
    use edge_agent::decode::{Decoded, Decoders, Route};
    use serde_json::Value;
    use telemetry::{Energy, Heatpump, Plug, Temperature};

    use super::*;
    use crate::{MeterKind, Pace, plug};

    fn time(text: &str) -> DateTime<Utc> {
        text.parse().unwrap()
    }

    /// What the agent decodes from the live message is the record a back-fill has for the same instant.
    #[test]
    fn history_and_live_messages_say_the_same() {
        let decoders = Decoders::new(&Route::defaults(), &[]).unwrap();
        let decode = |topic: &str, message: Value| {
            let payload = message.to_string();
            match decoders.decode(topic, payload.as_bytes()) {
                Ok(Decoded::Readings(mut readings)) if readings.len() == 1 => {
                    let reading = readings.remove(0);
                    (reading.device_id.to_string(), reading.reading)
                }
                other => panic!("{topic} {payload}: {other:?}"),
            }
        };
        for meter in [MeterKind::Saveeye, MeterKind::Pro3em] {
            let house = House::new(5).with_solar().with_meter(meter);
            let inventory = Inventory::of(&house);
            for hour in 0..48 {
                let now = time("2026-06-01T00:00:07.25Z") + TimeDelta::minutes(hour * 61);
                let message = match meter {
                    MeterKind::Saveeye => ("saveeye/telemetry", meter::saveeye(&house, &inventory, now)),
                    MeterKind::Pro3em => ("x/events/rpc", meter::pro3em(&house, &inventory, now)),
                };
                let want = Reading::Energy(meter::reading(&house, &inventory, now));
                assert_eq!(
                    decode(message.0, message.1),
                    (meter::meter_id(&house, &inventory).to_owned(), want)
                );

                let settings = pump::factory_settings();
                let want = Reading::Heatpump(Box::new(pump::reading(&house, &settings, now)));
                let message = pump::message(&house, &inventory, &settings, now);
                assert_eq!(
                    decode("thermiq_heatpump/data", message),
                    (inventory.pump.clone(), want)
                );

                let room = &inventory.rooms[0];
                let want = Reading::Temperature(sensor::reading(&house, room, now, Pace::REAL.room));
                let message = sensor::frame(&house, room, now, Pace::REAL.room);
                assert_eq!(decode("x/events/rpc", message), (room.device_id.clone(), want));

                let fridge = Switch::new(Appliance::Fridge, now - TimeDelta::hours(3)).reading(&house, now);
                let message = plug::shelly::status(&inventory.shelly_plug, &fridge, now);
                assert_eq!(
                    decode("x/events/rpc", message),
                    (inventory.shelly_plug.clone(), Reading::Plug(fridge))
                );

                // Two messages of a Tasmota plug make up what a back-fill says in one record.
                let television =
                    Switch::new(Appliance::Television, now - TimeDelta::hours(3)).reading(&house, now);
                let Plug {
                    on,
                    rssi_dbm,
                    uptime_seconds,
                    ..
                } = television;
                let state = Plug {
                    on,
                    rssi_dbm,
                    uptime_seconds,
                    ..Plug::default()
                };
                let sensor = Plug {
                    on: None,
                    rssi_dbm: None,
                    uptime_seconds: None,
                    ..television.clone()
                };
                let message = plug::tasmota::state(&television);
                assert_eq!(
                    decode("tele/tv/STATE", message),
                    ("tv".to_owned(), Reading::Plug(state))
                );
                let message = plug::tasmota::sensor(&television, now);
                assert_eq!(
                    decode("tele/tv/SENSOR", message),
                    ("tv".to_owned(), Reading::Plug(sensor))
                );
            }
        }
    }

    #[test]
    fn a_day_has_every_device_in_order_and_joins_the_live_counters() {
        let house = House::new(1);
        let inventory = Inventory::of(&house);
        let (from, to) = (time("2026-02-27T11:59:55Z"), time("2026-02-28T12:00:00Z"));
        let records: Vec<Record> = backfill(&house, from, to).collect();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        let mut counters: BTreeMap<&str, f64> = BTreeMap::new();
        let mut ids = HashSet::new();
        let mut last = from;
        for record in &records {
            assert!(
                record.time >= last && record.time < to && record.reading.out_of_range().is_none(),
                "{record:?}"
            );
            assert!(
                ids.insert(&record.id)
                    && record.id.starts_with("p0/backfill-1/")
                    && record.location.is_some()
            );
            last = record.time;
            *counts.entry(record.device_id.as_str()).or_default() += 1;
            let counter = match &record.reading {
                Reading::Energy(Energy { energy_wh, .. }) | Reading::Plug(Plug { energy_wh, .. }) => {
                    *energy_wh
                }
                Reading::Heatpump(pump) => {
                    let Heatpump { compressor_hours, .. } = **pump;
                    compressor_hours
                }
                Reading::Temperature(Temperature { .. }) => None,
            };
            if let Some(counter) = counter {
                let before = counters.insert(record.device_id.as_str(), counter);
                assert!(before.is_none_or(|before| counter >= before), "{record:?}");
            }
        }
        assert_eq!(counts[inventory.saveeye.as_str()], 8_640);
        assert_eq!(counts[inventory.pump.as_str()], 1_440);
        assert_eq!(counts[inventory.tasmota.as_str()], 288);
        assert_eq!(counts[inventory.rooms[3].device_id.as_str()], 144);
        assert_eq!(counts.len(), 8);
        // Ten seconds later the live meter goes on where the history ends.
        let live = meter::reading(&House::new(1), &inventory, to).energy_wh.unwrap();
        let gained = live - counters[inventory.saveeye.as_str()];
        assert!((0.0..60.0).contains(&gained), "{gained}");
        // Another range gives the same records for the instants both have.
        let later: Vec<Record> = backfill(&House::new(1), time("2026-02-28T11:00:00Z"), to).collect();
        assert_eq!(later.len(), 360 + 60 + 2 * 12 + 4 * 6);
        for (again, first) in later.iter().zip(&records[records.len() - later.len()..]) {
            assert_eq!(again, first);
        }
        // So does a sparser one.
        let few: Vec<Record> = sparse(&House::new(1), from, to, Duration::from_secs(900)).collect();
        assert_eq!(few.len(), 96 + 96 + 2 * 96 + 4 * 48);
        assert!(few.iter().all(|record| records.contains(record)));
    }
}
