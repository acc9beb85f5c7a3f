//! Shelly H&T Gen3: wakes, connects, sends one frame, waits for the PUBACK, disconnects, sleeps.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use telemetry::Temperature;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use crate::mqtt::{Broker, Input, Link, Will};
use crate::{House, Room, rounded};

/// A sensor that gets no CONNACK or PUBACK for this long sleeps again with its reading unsent.
const PATIENCE: Duration = Duration::from_secs(10);

/// Wakes every `period`, the first time after `first`, until `stop`.
pub async fn run(
    broker: Broker,
    house: Arc<House>,
    room: Room,
    period: Duration,
    first: Duration,
    stop: CancellationToken,
) {
    let mut wake = Instant::now() + first;
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep_until(wake) => {}
        }
        wake += period;
        tokio::select! {
            () = stop.cancelled() => return,
            sent = timeout(PATIENCE, send(&broker, &house, &room, period)) => {
                if sent.is_err() {
                    warn!(device_id = room.device_id, "went to sleep with its reading unsent");
                }
            }
        }
    }
}

async fn send(broker: &Broker, house: &House, room: &Room, period: Duration) {
    let online = format!("{}/online", room.device_id);
    let will = Will {
        topic: &online,
        payload: "false",
    };
    let mut link = Link::open(broker, &room.device_id, Some(will));
    let mut unacknowledged = 0;
    loop {
        match link.next().await {
            Input::Connected => {
                link.publish_retained(&online, "true");
                let frame = frame(house, room, Utc::now(), period);
                link.publish(&format!("{}/events/rpc", room.device_id), frame.to_string());
                unacknowledged = 2;
            }
            Input::Acknowledged => unacknowledged -= 1,
            Input::Message { .. } => {}
        }
        if unacknowledged == 0 {
            return link.close().await;
        }
    }
}

/// The frame a sensor sends at `time`.
pub fn frame(house: &House, room: &Room, time: DateTime<Utc>, period: Duration) -> Value {
    let reading = reading(house, room, time, period);
    let id = &room.device_id;
    let celsius = reading.temperature_c.unwrap_or_default();
    let unixtime = time.timestamp();
    json!({"src": id, "dst": format!("{id}/events"), "method": "NotifyFullStatus", "params": {
        "ts": rounded(time.timestamp_micros() as f64 / 1e6, 2), "ble": {}, "cloud": {"connected": false},
        "devicepower:0": {"id": 0,
            "battery": {"V": reading.battery_volts, "percent": reading.battery_percent},
            "external": {"present": reading.external_power}},
        "ht_ui": {}, "humidity:0": {"id": 0, "rh": reading.humidity_percent}, "mqtt": {"connected": true},
        "sys": {"mac": id.rsplit('-').next().unwrap_or(id).to_uppercase(), "restart_required": false,
            "time": time.format("%H:%M").to_string(), "unixtime": unixtime, "last_sync_ts": unixtime,
            "uptime": reading.uptime_seconds, "ram_size": 255_892, "ram_free": 166_676, "fs_size": 1_048_576,
            "fs_free": 757_760, "cfg_rev": 15, "kvs_rev": 1, "webhook_rev": 0, "available_updates": {},
            "wakeup_reason": {"boot": "deepsleep_wake", "cause": "periodic"},
            "wakeup_period": reading.wake_period_seconds, "reset_reason": 8, "utc_offset": 3_600},
        "temperature:0": {"id": 0, "tC": celsius, "tF": rounded(celsius * 1.8 + 32.0, 1)},
        "wifi": {"sta_ip": "192.0.2.10", "status": "got ip", "ssid": "home", "rssi": reading.rssi_dbm},
        "ws": {"connected": false}}})
}

/// What an agent makes of that frame.
pub fn reading(house: &House, room: &Room, time: DateTime<Utc>, period: Duration) -> Temperature {
    let (temperature, humidity) = house.room(room.number, time);
    // A set of batteries lasts a year from a day of its own.
    let worn = ((time.timestamp() / 86_400 + (house.hash(130, room.number as i64) % 365) as i64) % 365)
        as f64
        / 365.0;
    let signal = house.hash(131, time.timestamp() / 600) % 5 + house.hash(132, room.number as i64) % 15;
    Temperature {
        temperature_c: Some(rounded(temperature, 1)),
        humidity_percent: Some(rounded(humidity, 1)),
        battery_volts: Some(rounded(6.0 - 1.3 * worn, 2)),
        battery_percent: Some((100.0 * (1.0 - worn)).round()),
        external_power: Some(false),
        rssi_dbm: Some(-50.0 - signal as f64),
        uptime_seconds: Some(2.0),
        wake_period_seconds: Some(period.as_secs().max(1) as f64),
        ..Temperature::default()
    }
}
