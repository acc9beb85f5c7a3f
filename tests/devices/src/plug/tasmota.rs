//! A Tasmota plug's topics: `tele/<plug>/...`, `stat/<plug>/...`, `cmnd/<plug>/POWER`.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use telemetry::Plug;
use tokio::time::{MissedTickBehavior, interval};

use super::Socket;
use crate::mqtt::{Input, Link, Will};
use crate::{Behaviour, rounded};

/// One stay online: until the stop, or until it is to be offline.
pub(super) async fn online(plug: &mut Socket) {
    let id = plug.id.clone();
    let lwt = format!("tele/{id}/LWT");
    let command = format!("cmnd/{id}/POWER");
    let mut link = Link::open(
        &plug.setup.broker,
        &id,
        Some(Will {
            topic: &lwt,
            payload: "Offline",
        }),
    );
    let mut ticks = interval(plug.setup.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = plug.setup.stop.cancelled() => break,
            Ok(()) = plug.setup.behaviour.changed() => if *plug.setup.behaviour.borrow_and_update() == Behaviour::Offline {
                // Its connection breaks, and the broker sends the will.
                return;
            },
            input = link.next() => match input {
                Input::Connected => {
                    link.publish_retained(&lwt, "Online");
                    link.subscribe(&command);
                    ticks.reset_immediately();
                }
                Input::Message { topic, payload } if topic == command => {
                    let wanted = match payload.to_ascii_uppercase().as_slice() {
                        b"ON" | b"1" => Some(true),
                        b"OFF" | b"0" => Some(false),
                        b"TOGGLE" | b"2" => Some(!plug.switch.on),
                        _ => None,
                    };
                    // Every command is answered with the state, an empty one is a question.
                    if wanted.is_none_or(|on| plug.told(on)) {
                        let word = word(plug.switch.on);
                        link.publish(&format!("stat/{id}/RESULT"), json!({"POWER": word}).to_string());
                        link.publish(&format!("stat/{id}/POWER"), word);
                    }
                }
                _ => {}
            },
            _ = ticks.tick() => {
                plug.catch_up();
                let reading = plug.reading();
                link.publish(&format!("tele/{id}/STATE"), state(&reading).to_string());
                link.publish(&format!("tele/{id}/SENSOR"), sensor(&reading, Utc::now()).to_string());
            }
        }
    }
    link.publish_retained(&lwt, "Offline");
    link.close().await;
}

fn word(on: bool) -> &'static str {
    if on { "ON" } else { "OFF" }
}

/// `tele/<plug>/STATE`.
pub fn state(reading: &Plug) -> Value {
    let uptime = reading.uptime_seconds.unwrap_or_default() as i64;
    let clock = format!(
        "{}T{:02}:{:02}:{:02}",
        uptime / 86_400,
        uptime / 3_600 % 24,
        uptime / 60 % 60,
        uptime % 60
    );
    json!({"Uptime": clock, "UptimeSec": uptime, "Heap": 25, "SleepMode": "Dynamic", "Sleep": 50, "LoadAvg": 19,
        "MqttCount": 1, "POWER": word(reading.on == Some(true)),
        "Wifi": {"AP": 1, "SSId": "home", "Channel": 6, "Mode": "11n", "RSSI": 90, "Signal": reading.rssi_dbm,
            "LinkCount": 1, "Downtime": "0T00:00:05"}})
}

/// `tele/<plug>/SENSOR`: kilowatt hours with three decimals.
pub fn sensor(reading: &Plug, time: DateTime<Utc>) -> Value {
    let power_w = reading.power_w.unwrap_or_default();
    json!({"Time": (time + TimeDelta::hours(1)).format("%Y-%m-%dT%H:%M:%S").to_string(),
        "ENERGY": {"TotalStartTime": "2025-09-01T00:00:00",
            "Total": reading.energy_wh.map(|wh| rounded(wh / 1_000.0, 3)), "Power": power_w,
            "ApparentPower": power_w, "ReactivePower": 0, "Factor": 1.0, "Voltage": reading.voltage_v,
            "Current": reading.current_a}})
}
