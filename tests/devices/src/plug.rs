//! Two plugs that obey: Tasmota with the television, Shelly with the fridge.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use telemetry::Plug;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::mqtt::{Broker, Input, Link, Will};
use crate::{Appliance, House, Inventory, rounded};

/// Voltage at the sockets: both are on phases with little load.
const VOLTAGE_V: f64 = 230.0;

/// A plug's switch, and what its counter has missed while it was off. Both are forgotten with the process: a
/// restarted plug is on and has the counter of one that was never off.
pub struct Switch {
    appliance: Appliance,
    on: bool,
    missed_wh: f64,
    /// The counter when it was switched off.
    off_at_wh: f64,
    started: DateTime<Utc>,
}

impl Switch {
    /// A plug that is on.
    pub fn new(appliance: Appliance, started: DateTime<Utc>) -> Self {
        Self {
            appliance,
            on: true,
            missed_wh: 0.0,
            off_at_wh: 0.0,
            started,
        }
    }

    /// Switches; false when it was so already.
    fn set(&mut self, on: bool, house: &House, time: DateTime<Utc>) -> bool {
        if on == self.on {
            return false;
        }
        let (_, counter_wh) = house.appliance(self.appliance, time);
        if on {
            self.missed_wh += counter_wh - self.off_at_wh;
        } else {
            self.off_at_wh = counter_wh;
        }
        self.on = on;
        true
    }

    /// What an agent makes of the plug's messages at `time`, all fields together.
    pub fn reading(&self, house: &House, time: DateTime<Utc>) -> Plug {
        let (watts, counter_wh) = house.appliance(self.appliance, time);
        let power_w = if self.on { watts } else { 0.0 };
        let energy_wh = if self.on { counter_wh } else { self.off_at_wh } - self.missed_wh;
        let tasmota = self.appliance == Appliance::Television;
        Plug {
            on: Some(self.on),
            power_w: Some(rounded(power_w, if tasmota { 0 } else { 1 })),
            energy_wh: Some(energy_wh.floor()),
            voltage_v: Some(VOLTAGE_V),
            current_a: Some(rounded(power_w / VOLTAGE_V, 3)),
            rssi_dbm: Some(-55.0),
            uptime_seconds: Some((time - self.started).num_seconds().max(0) as f64),
        }
    }
}

/// The Tasmota plug, until `stop`.
pub async fn run_tasmota(broker: Broker, house: Arc<House>, period: Duration, stop: CancellationToken) {
    let id = Inventory::of(&house).tasmota;
    let lwt = format!("tele/{id}/LWT");
    let command = format!("cmnd/{id}/POWER");
    let mut link = Link::open(
        &broker,
        &id,
        Some(Will {
            topic: &lwt,
            payload: "Offline",
        }),
    );
    let mut switch = Switch::new(Appliance::Television, Utc::now());
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
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
                        b"TOGGLE" | b"2" => Some(!switch.on),
                        _ => None,
                    };
                    if let Some(on) = wanted {
                        switch.set(on, &house, Utc::now());
                        info!(device_id = id, on, "switched");
                    }
                    // Every command is answered with the state, an empty one is a question.
                    let word = if switch.on { "ON" } else { "OFF" };
                    link.publish(&format!("stat/{id}/RESULT"), json!({"POWER": word}).to_string());
                    link.publish(&format!("stat/{id}/POWER"), word);
                }
                _ => {}
            },
            _ = ticks.tick() => {
                let reading = switch.reading(&house, Utc::now());
                link.publish(&format!("tele/{id}/STATE"), state(&reading).to_string());
                link.publish(&format!("tele/{id}/SENSOR"), sensor(&reading, Utc::now()).to_string());
            }
        }
    }
    link.publish_retained(&lwt, "Offline");
    link.close().await;
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
        "MqttCount": 1, "POWER": if reading.on == Some(true) { "ON" } else { "OFF" },
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

/// The Shelly plug, until `stop`.
pub async fn run_shelly(broker: Broker, house: Arc<House>, period: Duration, stop: CancellationToken) {
    let id = Inventory::of(&house).shelly_plug;
    let online = format!("{id}/online");
    let events = format!("{id}/events/rpc");
    let rpc = format!("{id}/rpc");
    let mut link = Link::open(
        &broker,
        &id,
        Some(Will {
            topic: &online,
            payload: "false",
        }),
    );
    let mut switch = Switch::new(Appliance::Fridge, Utc::now());
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            input = link.next() => match input {
                Input::Connected => {
                    link.publish_retained(&online, "true");
                    link.subscribe(&rpc);
                    ticks.reset_immediately();
                }
                Input::Message { topic, payload } if topic == rpc => {
                    let now = Utc::now();
                    let was_on = switch.on;
                    if let Some((reply_topic, reply)) = answer(&id, &payload, &mut switch, &house, now) {
                        link.publish(&reply_topic, reply.to_string());
                    }
                    if switch.on != was_on {
                        info!(device_id = id, on = switch.on, "switched");
                        let reading = switch.reading(&house, now);
                        let changed = json!({"switch:0": {"id": 0, "output": reading.on, "apower": reading.power_w,
                            "source": "MQTT"}});
                        link.publish(&events, frame(&id, "NotifyStatus", now, changed).to_string());
                    }
                }
                _ => {}
            },
            _ = ticks.tick() => {
                let now = Utc::now();
                link.publish(&events, status(&id, &switch.reading(&house, now), now).to_string());
            }
        }
    }
    link.publish_retained(&online, "false");
    link.close().await;
}

fn frame(id: &str, method: &str, time: DateTime<Utc>, mut params: Value) -> Value {
    params["ts"] = json!(rounded(time.timestamp_micros() as f64 / 1e6, 2));
    json!({"src": id, "dst": format!("{id}/events"), "method": method, "params": params})
}

/// The plug's whole status.
pub fn status(id: &str, reading: &Plug, time: DateTime<Utc>) -> Value {
    let params = json!({
        "switch:0": {"id": 0, "source": "init", "output": reading.on, "apower": reading.power_w,
            "voltage": reading.voltage_v, "freq": 50.0, "current": reading.current_a,
            "aenergy": {"total": reading.energy_wh, "by_minute": [0.0, 0.0, 0.0], "minute_ts": time.timestamp() / 60 * 60},
            "ret_aenergy": {"total": 0.0}, "temperature": {"tC": 38.4, "tF": 101.1}},
        "sys": {"uptime": reading.uptime_seconds, "unixtime": time.timestamp()},
        "wifi": {"rssi": reading.rssi_dbm}});
    frame(id, "NotifyFullStatus", time, params)
}

/// Carries out an RPC request; the topic and text of the reply, none when the request asks for none.
fn answer(
    id: &str,
    payload: &[u8],
    switch: &mut Switch,
    house: &House,
    time: DateTime<Utc>,
) -> Option<(String, Value)> {
    let request: Value = serde_json::from_slice(payload).ok()?;
    let outcome = match (request["method"].as_str()?, request["params"]["on"].as_bool()) {
        ("Switch.Set", Some(on)) if request["params"]["id"] == 0 => {
            let was_on = switch.on;
            switch.set(on, house, time);
            ("result", json!({"was_on": was_on}))
        }
        ("Switch.Set", _) => ("error", json!({"code": -103, "message": "Invalid argument"})),
        (method, _) => (
            "error",
            json!({"code": 404, "message": format!("No handler for {method}")}),
        ),
    };
    let asker = request["src"]
        .as_str()
        .filter(|src| !src.is_empty() && !src.contains(['+', '#', '\0']))?;
    request.get("id")?;
    let mut reply = json!({"id": request["id"], "src": id, "dst": asker});
    reply[outcome.0] = outcome.1;
    Some((format!("{asker}/rpc"), reply))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_stands_still_while_the_plug_is_off() {
        let house = House::new(1);
        let start: DateTime<Utc> = "2026-05-01T12:00:00Z".parse().unwrap();
        let at = |hours| start + TimeDelta::hours(hours);
        let mut switch = Switch::new(Appliance::Fridge, start);
        let energy = |switch: &Switch, hours| switch.reading(&house, at(hours)).energy_wh.unwrap();
        let before = energy(&switch, 5);
        assert!(before > energy(&switch, 0));
        assert!(switch.set(false, &house, at(5)) && !switch.set(false, &house, at(6)));
        assert_eq!(energy(&switch, 9), before);
        assert_eq!(switch.reading(&house, at(9)).power_w, Some(0.0));
        switch.set(true, &house, at(10));
        assert!((energy(&switch, 10) - before).abs() <= 1.0);
        assert!(energy(&switch, 15) > before + 50.0);
    }

    #[test]
    fn requests_are_answered() {
        let house = House::new(1);
        let now = Utc::now();
        let check = |request: &str, on: bool, want: Option<Value>| {
            let mut switch = Switch::new(Appliance::Fridge, now);
            let got = answer("plug", request.as_bytes(), &mut switch, &house, now);
            assert_eq!(switch.on, on, "{request}");
            assert_eq!(
                got,
                want.map(|reply| ("agent/rpc".to_owned(), reply)),
                "{request}"
            );
        };
        let set = |on: &str| {
            format!(r#"{{"id":7,"src":"agent","method":"Switch.Set","params":{{"id":0,"on":{on}}}}}"#)
        };
        let reply =
            |outcome: &str, what: Value| Some(json!({"id":7,"src":"plug","dst":"agent",outcome:what}));
        check(&set("false"), false, reply("result", json!({"was_on":true})));
        check(&set("true"), true, reply("result", json!({"was_on":true})));
        check(
            &set("\"x\""),
            true,
            reply("error", json!({"code":-103,"message":"Invalid argument"})),
        );
        check(
            r#"{"id":7,"src":"agent","method":"X"}"#,
            true,
            reply("error", json!({"code":404,"message":"No handler for X"})),
        );
        check(
            r#"{"method":"Switch.Set","params":{"id":0,"on":false}}"#,
            false,
            None,
        );
        check("x", true, None);
    }
}
