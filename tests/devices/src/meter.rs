//! The electricity meter: a SaveEye on the grid company's meter, or a Shelly Pro 3EM.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};
use telemetry::Energy;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::house::POWER_FACTOR;
use crate::mqtt::{Broker, Input, Link, Will};
use crate::{House, Inventory, MeterKind, rounded};

/// A Pro 3EM reports power at once and its counters once a minute.
const COUNTERS: Duration = Duration::from_secs(60);

/// Sends until `stop`.
pub async fn run(broker: Broker, house: Arc<House>, period: Duration, stop: CancellationToken) {
    let inventory = Inventory::of(&house);
    let id = meter_id(&house, &inventory);
    let (topic, online) = match house.meter() {
        MeterKind::Saveeye => ("saveeye/telemetry".to_owned(), None),
        MeterKind::Pro3em => (format!("{id}/events/rpc"), Some(format!("{id}/online"))),
    };
    let will = online.as_deref().map(|topic| Will {
        topic,
        payload: "false",
    });
    let mut link = Link::open(&broker, id, will);
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut counters_due = Utc::now();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            input = link.next() => if let Input::Connected = input {
                if let Some(online) = &online {
                    link.publish_retained(online, "true");
                }
                counters_due = Utc::now();
                ticks.reset_immediately();
            },
            _ = ticks.tick() => {
                let now = Utc::now();
                link.publish(&topic, match house.meter() {
                    MeterKind::Saveeye => saveeye(&house, &inventory, now),
                    MeterKind::Pro3em if now >= counters_due => {
                        counters_due = now + COUNTERS;
                        pro3em(&house, &inventory, now)
                    }
                    MeterKind::Pro3em => power_only(pro3em(&house, &inventory, now)),
                }.to_string());
            }
        }
    }
    if let Some(online) = &online {
        link.publish_retained(online, "false");
    }
    link.close().await;
}

/// The device id of the house's meter.
pub fn meter_id<'a>(house: &House, inventory: &'a Inventory) -> &'a str {
    match house.meter() {
        MeterKind::Saveeye => &inventory.saveeye,
        MeterKind::Pro3em => &inventory.pro3em,
    }
}

/// What an agent makes of a message of the house's meter at `time`.
pub fn reading(house: &House, inventory: &Inventory, time: DateTime<Utc>) -> Energy {
    let grid = house.grid(time);
    let [l1, l2, l3] = grid.phase_w;
    let [v1, v2, v3] = grid.voltage_v;
    let [a1, a2, a3] = grid.current_a();
    let rssi_dbm = Some(-58.0 - (house.hash(133, time.timestamp() / 60) % 6) as f64);
    match house.meter() {
        MeterKind::Saveeye => {
            // Drawn and delivered are reported apart, of the house and of each phase; the counters count the house.
            let power_w = grid.power_w();
            let drawn = |watts: f64| Some(watts.max(0.0).round());
            Energy {
                power_w: drawn(power_w),
                power_l1_w: drawn(l1),
                power_l2_w: drawn(l2),
                power_l3_w: drawn(l3),
                export_power_w: Some((-power_w).max(0.0).round()),
                energy_wh: Some(grid.counters.import_wh.floor()),
                export_energy_wh: Some(grid.counters.export_wh.floor()),
                voltage_l1_v: Some(v1.round()),
                voltage_l2_v: Some(v2.round()),
                voltage_l3_v: Some(v3.round()),
                current_l1_a: Some(rounded(a1, 3)),
                current_l2_a: Some(rounded(a2, 3)),
                current_l3_a: Some(rounded(a3, 3)),
                power_factor: Some(POWER_FACTOR),
                meter_id: Some(inventory.meter_serial.clone()),
                meter_type: Some("KAIFA".to_owned()),
                rssi_dbm,
            }
        }
        MeterKind::Pro3em => Energy {
            power_w: Some(rounded(grid.power_w(), 1)),
            power_l1_w: Some(rounded(l1, 1)),
            power_l2_w: Some(rounded(l2, 1)),
            power_l3_w: Some(rounded(l3, 1)),
            energy_wh: Some((grid.counters.import_wh * 10.0).floor() / 10.0),
            export_energy_wh: Some((grid.counters.export_wh * 10.0).floor() / 10.0),
            voltage_l1_v: Some(rounded(v1, 1)),
            voltage_l2_v: Some(rounded(v2, 1)),
            voltage_l3_v: Some(rounded(v3, 1)),
            current_l1_a: Some(rounded(a1, 3)),
            current_l2_a: Some(rounded(a2, 3)),
            current_l3_a: Some(rounded(a3, 3)),
            rssi_dbm,
            ..Energy::default()
        },
    }
}

/// A SaveEye message: watts, watt hours and volts are whole, currents milliamperes.
pub fn saveeye(house: &House, inventory: &Inventory, time: DateTime<Utc>) -> Value {
    let reading = reading(house, inventory, time);
    let whole = |value: Option<f64>| value.map(|value| value.round() as i64);
    let thousandths = |value: Option<f64>| whole(value.map(|value| value * 1_000.0));
    json!({
        "saveeyeDeviceSerialNumber": inventory.saveeye, "meterType": reading.meter_type,
        "meterSerialNumber": inventory.meter_serial, "timestamp": time.to_rfc3339_opts(SecondsFormat::Secs, true),
        "wifiRssi": whole(reading.rssi_dbm),
        "activeActualConsumption": {"total": whole(reading.power_w), "L1": whole(reading.power_l1_w),
            "L2": whole(reading.power_l2_w), "L3": whole(reading.power_l3_w)},
        "activeActualProduction": {"total": whole(reading.export_power_w)},
        "activeTotalConsumption": {"total": whole(reading.energy_wh)},
        "activeTotalProduction": {"total": whole(reading.export_energy_wh)},
        "rmsVoltage": {"L1": whole(reading.voltage_l1_v), "L2": whole(reading.voltage_l2_v),
            "L3": whole(reading.voltage_l3_v)},
        "rmsCurrent": {"L1": thousandths(reading.current_l1_a), "L2": thousandths(reading.current_l2_a),
            "L3": thousandths(reading.current_l3_a)},
        "powerFactor": {"total": thousandths(reading.power_factor)},
    })
}

/// A Pro 3EM's frame with power and counters.
pub fn pro3em(house: &House, inventory: &Inventory, time: DateTime<Utc>) -> Value {
    let reading = reading(house, inventory, time);
    let id = &inventory.pro3em;
    json!({"src": id, "dst": format!("{id}/events"), "method": "NotifyFullStatus", "params": {
        "ts": rounded(time.timestamp_micros() as f64 / 1e6, 2),
        "em:0": {"id": 0,
            "a_current": reading.current_l1_a, "a_voltage": reading.voltage_l1_v, "a_act_power": reading.power_l1_w,
            "a_pf": POWER_FACTOR, "a_freq": 50.0,
            "b_current": reading.current_l2_a, "b_voltage": reading.voltage_l2_v, "b_act_power": reading.power_l2_w,
            "b_pf": POWER_FACTOR, "b_freq": 50.0,
            "c_current": reading.current_l3_a, "c_voltage": reading.voltage_l3_v, "c_act_power": reading.power_l3_w,
            "c_pf": POWER_FACTOR, "c_freq": 50.0,
            "n_current": null, "total_act_power": reading.power_w, "user_calibrated_phase": []},
        "emdata:0": {"id": 0, "total_act": reading.energy_wh, "total_act_ret": reading.export_energy_wh},
        "temperature:0": {"id": 0, "tC": 41.2, "tF": 106.2},
        "wifi": {"rssi": reading.rssi_dbm}}})
}

/// The frame between two reports of the counters: only what changes every second.
fn power_only(mut frame: Value) -> Value {
    frame["method"] = json!("NotifyStatus");
    if let Some(params) = frame["params"].as_object_mut() {
        params.retain(|component, _| component == "ts" || component == "em:0");
    }
    frame
}
