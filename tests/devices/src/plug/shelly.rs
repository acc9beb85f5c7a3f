//! A Shelly plug's topics: `<id>/online`, `<id>/events/rpc`, `<id>/rpc`.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use telemetry::Plug;
use tokio::time::{MissedTickBehavior, interval};

use super::Socket;
use crate::mqtt::{Input, Link, Will};
use crate::{Behaviour, rounded};

/// One stay online: until the stop, or until it is to be offline.
pub(super) async fn online(plug: &mut Socket) {
    let id = plug.id.clone();
    let online = format!("{id}/online");
    let events = format!("{id}/events/rpc");
    let rpc = format!("{id}/rpc");
    let mut link = Link::open(
        &plug.setup.broker,
        &id,
        Some(Will {
            topic: &online,
            payload: "false",
        }),
    );
    let mut ticks = interval(plug.setup.period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    // The state it has reported. Like a real one, it reports it when it connects and when it changes, and not again.
    let mut said = plug.switch.on;
    loop {
        tokio::select! {
            () = plug.setup.stop.cancelled() => break,
            Ok(()) = plug.setup.behaviour.changed() => if *plug.setup.behaviour.borrow_and_update() == Behaviour::Offline {
                // Its connection breaks, and the broker sends the will.
                return;
            },
            input = link.next() => match input {
                Input::Connected => {
                    link.publish_retained(&online, "true");
                    link.subscribe(&rpc);
                    plug.catch_up();
                    link.publish(&events, status(&id, &plug.reading(), Utc::now()).to_string());
                    said = plug.switch.on;
                }
                Input::Message { topic, payload } if topic == rpc => {
                    if let Some((reply_topic, reply)) = answer(plug, &payload) {
                        link.publish(&reply_topic, reply.to_string());
                    }
                    if plug.switch.on != said {
                        said = plug.switch.on;
                        link.publish(&events, switched(&id, &plug.reading()).to_string());
                    }
                }
                _ => {}
            },
            _ = ticks.tick() => {
                plug.catch_up();
                if plug.switch.on != said {
                    said = plug.switch.on;
                    link.publish(&events, switched(&id, &plug.reading()).to_string());
                }
                link.publish(&events, measured(&id, &plug.reading()).to_string());
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

/// That it was switched.
fn switched(id: &str, reading: &Plug) -> Value {
    let changed =
        json!({"switch:0": {"id": 0, "output": reading.on, "apower": reading.power_w, "source": "MQTT"}});
    frame(id, "NotifyStatus", Utc::now(), changed)
}

/// What it measures from time to time, without the state.
fn measured(id: &str, reading: &Plug) -> Value {
    let mut switch = switch(reading, Utc::now());
    for constant in ["output", "source", "temperature"] {
        switch.as_object_mut().expect("an object").remove(constant);
    }
    frame(id, "NotifyStatus", Utc::now(), json!({"switch:0": switch}))
}

/// The status of its only switch.
fn switch(reading: &Plug, time: DateTime<Utc>) -> Value {
    json!({"id": 0, "source": "init", "output": reading.on, "apower": reading.power_w,
        "voltage": reading.voltage_v, "freq": 50.0, "current": reading.current_a,
        "aenergy": {"total": reading.energy_wh, "by_minute": [0.0, 0.0, 0.0], "minute_ts": time.timestamp() / 60 * 60},
        "ret_aenergy": {"total": 0.0}, "temperature": {"tC": 38.4, "tF": 101.1}})
}

/// The plug's whole status.
pub fn status(id: &str, reading: &Plug, time: DateTime<Utc>) -> Value {
    let params = json!({
        "switch:0": switch(reading, time),
        "sys": {"uptime": reading.uptime_seconds, "unixtime": time.timestamp()},
        "wifi": {"rssi": reading.rssi_dbm}});
    frame(id, "NotifyFullStatus", time, params)
}

/// Carries out an RPC request; the topic and text of the reply, none when the request asks for none
/// or is ignored.
fn answer(plug: &mut Socket, payload: &[u8]) -> Option<(String, Value)> {
    let request: Value = serde_json::from_slice(payload).ok()?;
    let outcome = match (request["method"].as_str()?, request["params"]["on"].as_bool()) {
        ("Switch.Set", Some(on)) if request["params"]["id"] == 0 => {
            let was_on = plug.switch.on;
            if !plug.told(on) {
                return None;
            }
            ("result", json!({"was_on": was_on}))
        }
        ("Switch.GetStatus", _) if request["params"]["id"] == 0 => {
            ("result", switch(&plug.reading(), Utc::now()))
        }
        ("Switch.Set" | "Switch.GetStatus", _) => {
            ("error", json!({"code": -103, "message": "Invalid argument"}))
        }
        (method, _) => (
            "error",
            json!({"code": 404, "message": format!("No handler for {method}")}),
        ),
    };
    let asker = request["src"]
        .as_str()
        .filter(|src| !src.is_empty() && !src.contains(['+', '#', '\0']))?;
    request.get("id")?;
    let mut reply = json!({"id": request["id"], "src": plug.id, "dst": asker});
    reply[outcome.0] = outcome.1;
    Some((format!("{asker}/rpc"), reply))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::watch;
    use tokio_util::sync::CancellationToken;

    use super::super::Setup;
    use super::*;
    use crate::mqtt::Broker;
    use crate::{Appliance, House};

    #[test]
    fn requests_are_answered() {
        let house = Arc::new(House::new(1));
        let with = |behaviour, request: &str, on: bool, want: Option<Value>| {
            let (_sender, behaviour) = watch::channel(behaviour);
            let setup = Setup {
                broker: Broker::new("127.0.0.1:1", None).unwrap(),
                house: house.clone(),
                period: Duration::from_secs(1),
                behaviour,
                stop: CancellationToken::new(),
            };
            let mut plug = Socket::new(setup, "plug".into(), Appliance::Fridge);
            let got = answer(&mut plug, request.as_bytes());
            assert_eq!(plug.switch.on, on, "{request}");
            assert_eq!(
                got,
                want.map(|reply| ("agent/rpc".to_owned(), reply)),
                "{request}"
            );
        };
        let check = |request: &str, on, want| with(Behaviour::Applies, request, on, want);
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
        with(Behaviour::Ignores, &set("false"), true, None);
        with(
            Behaviour::Other,
            &set("true"),
            false,
            reply("result", json!({"was_on":true})),
        );
    }
}
