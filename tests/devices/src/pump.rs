//! ThermIQ heat pump: reports its registers, applies what is written to it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use telemetry::{Heatpump, HeatpumpSettings};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::behaviour::{Late, until_online};
use crate::mqtt::{Broker, Input, Link};
use crate::{Behaviour, House, Inventory, rounded};

const DATA: &str = "thermiq_heatpump/data";
const WRITE: &str = "thermiq_heatpump/write";

/// Writable registers: number, value at the start, lowest and highest value that is applied. The pump keeps
/// what it has when another is written.
const SETTINGS: [(u16, i64, i64, i64); 10] = [
    (50, 21, 15, 30),
    (51, 1, 0, 4),
    (52, 38, 10, 70),
    (53, 22, 10, 50),
    (54, 55, 20, 75),
    (55, 1, -10, 10),
    (56, 0, -10, 10),
    (57, -1, -10, 10),
    (58, 17, 0, 40),
    (73, 60, 1, 200),
];

/// The writable registers and what they hold.
pub type Settings = BTreeMap<u16, i64>;

/// The settings a pump starts with.
pub fn factory_settings() -> Settings {
    SETTINGS
        .iter()
        .map(|(register, value, ..)| (*register, *value))
        .collect()
}

/// Sends until `stop`. The settings are kept while the house runs and are those of the factory again after a
/// restart of the process.
pub async fn run(
    broker: Broker,
    house: Arc<House>,
    period: Duration,
    mut behaviour: watch::Receiver<Behaviour>,
    stop: CancellationToken,
) {
    let mut settings = factory_settings();
    let mut late = Late::default();
    while until_online(&mut behaviour, &stop).await {
        if online(
            &broker,
            &house,
            period,
            &mut behaviour,
            &mut settings,
            &mut late,
            &stop,
        )
        .await
        {
            return;
        }
    }
}

/// One stay online; true when the devices stop.
async fn online(
    broker: &Broker,
    house: &House,
    period: Duration,
    behaviour: &mut watch::Receiver<Behaviour>,
    settings: &mut Settings,
    late: &mut Late<(u16, i64)>,
    stop: &CancellationToken,
) -> bool {
    let inventory = Inventory::of(house);
    let mut link = Link::open(broker, &inventory.pump, None);
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let stopped = loop {
        tokio::select! {
            () = stop.cancelled() => break true,
            Ok(()) = behaviour.changed() => if *behaviour.borrow_and_update() == Behaviour::Offline {
                break false;
            },
            input = link.next() => match input {
                Input::Connected => {
                    link.subscribe(WRITE);
                    ticks.reset_immediately();
                }
                Input::Message { topic, payload } if topic == WRITE => {
                    let now = *behaviour.borrow();
                    for (register, value) in writes(&payload) {
                        info!(register, value, behaviour = ?now, "written to the heat pump");
                        match now {
                            Behaviour::Applies => apply(settings, register, value),
                            Behaviour::Other => apply(settings, register, value + 1),
                            Behaviour::Late(by) => late.push(by, (register, value)),
                            Behaviour::Ignores | Behaviour::Offline => {}
                        }
                    }
                }
                _ => {}
            },
            _ = ticks.tick() => {
                for (register, value) in late.due() {
                    apply(settings, register, value);
                }
                link.publish(DATA, message(house, &inventory, settings, Utc::now()).to_string());
            }
        }
    };
    link.close().await;
    stopped
}

/// Registers in a write, `{"d50":22}`; everything else is ignored, as the pump does.
fn writes(payload: &[u8]) -> Vec<(u16, i64)> {
    let Ok(Value::Object(fields)) = serde_json::from_slice(payload) else {
        return Vec::new();
    };
    let write =
        |(key, value): (&String, &Value)| Some((key.strip_prefix('d')?.parse().ok()?, value.as_i64()?));
    fields.iter().filter_map(write).collect()
}

fn apply(settings: &mut Settings, register: u16, value: i64) {
    let allowed = SETTINGS
        .iter()
        .any(|&(known, _, low, high)| known == register && (low..=high).contains(&value));
    if allowed {
        settings.insert(register, value);
    }
}

/// The message the pump sends at `time`.
pub fn message(house: &House, inventory: &Inventory, settings: &Settings, time: DateTime<Utc>) -> Value {
    let r = reading(house, settings, time);
    let whole = |value: Option<f64>| value.map(|value| value as i64);
    let bits = |bits: &[Option<bool>]| -> u8 {
        bits.iter()
            .enumerate()
            .map(|(bit, on)| u8::from(*on == Some(true)) << bit)
            .sum()
    };
    let mut message = json!({
        "Client_Name": inventory.pump, "app_info": "ThermIQ-room2 2.62",
        "time": (time + TimeDelta::hours(1)).format("%Y-%m-%d %H:%M:%S").to_string(),
        "timestamp": time.timestamp(), "rssi": -70, "vp_read": "ok",
        "d0": whole(r.outdoor_c), "d5": whole(r.supply_c), "d6": whole(r.return_c), "d7": whole(r.hot_water_c),
        "d8": whole(r.brine_out_c), "d9": whole(r.brine_in_c), "d13": bits(&[r.aux_3kw_on, r.aux_6kw_on]),
        "d16": bits(&[r.brine_pump_on, r.compressor_on, r.flow_pump_on, r.hot_water_on]),
        "d25": whole(r.integral), "d30": whole(r.flow_pump_percent),
        "d104": whole(r.compressor_hours), "d106": whole(r.aux_3kw_hours), "d108": whole(r.hot_water_hours),
        "d114": whole(r.aux_6kw_hours), "INDR_T": r.indoor_c,
    });
    for (register, value) in settings {
        message[format!("d{register}")] = json!(value);
    }
    message
}

/// What an agent makes of that message. Registers hold whole numbers; `INDR_T` has a decimal.
pub fn reading(house: &House, settings: &Settings, time: DateTime<Utc>) -> Heatpump {
    let pump = house.pump(time);
    let whole = |value: f64| Some(value.round() + 0.0);
    let hours = |seconds: f64| Some((seconds / 3_600.0).floor());
    let setting = |register: u16| settings.get(&register).copied();
    Heatpump {
        outdoor_c: whole(house.outdoor_c(time)),
        indoor_c: Some(rounded(house.room(2, time).0, 1)),
        supply_c: whole(pump.supply_c),
        return_c: whole(pump.return_c),
        hot_water_c: whole(pump.hot_water_c),
        brine_in_c: whole(pump.brine_in_c),
        brine_out_c: whole(pump.brine_out_c),
        integral: whole(pump.integral),
        flow_pump_percent: whole(pump.flow_pump_percent),
        compressor_on: Some(pump.compressor_on),
        brine_pump_on: Some(pump.compressor_on),
        flow_pump_on: Some(true),
        hot_water_on: Some(pump.hot_water_on),
        aux_3kw_on: Some(pump.aux_3kw_on),
        aux_6kw_on: Some(false),
        compressor_hours: hours(pump.counters.compressor_seconds),
        hot_water_hours: hours(pump.counters.hot_water_seconds),
        aux_3kw_hours: hours(pump.counters.aux_3kw_seconds),
        aux_6kw_hours: Some(14.0),
        settings: Some(HeatpumpSettings {
            indoor_target_c: setting(50),
            mode: setting(51),
            curve: setting(52),
            curve_min: setting(53),
            curve_max: setting(54),
            curve_plus_5: setting(55),
            curve_zero: setting(56),
            curve_minus_5: setting(57),
            heat_stop_c: setting(58),
            integral: setting(73),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_applied_within_limits_and_only_to_settings() {
        let check = |payload: &str, register: u16, want: Option<i64>| {
            let mut settings = factory_settings();
            for (register, value) in writes(payload.as_bytes()) {
                apply(&mut settings, register, value);
            }
            assert_eq!(settings.get(&register).copied(), want, "{payload}");
        };
        check(r#"{"d50":22}"#, 50, Some(22));
        check(r#"{"d50":31}"#, 50, Some(21));
        check(r#"{"d50":"22"}"#, 50, Some(21));
        check(r#"{"d50":22.5}"#, 50, Some(21));
        check(r#"{"d57":-5}"#, 57, Some(-5));
        check(r#"{"d0":5}"#, 0, None);
        check(r#"{"x":5}"#, 50, Some(21));
        check("nonsense", 50, Some(21));
    }
}
