//! One frame of each device kind, as docs/DEVICES.md describes them, with the device's name and one value filled in.

use chrono::Utc;
use serde_json::{Value, json};

/// Seconds with a fraction, as Shelly stamps its frames. No two frames of one device carry the same.
fn shelly_seconds() -> f64 {
    #[expect(
        clippy::cast_precision_loss,
        reason = "microseconds since 1970 are exact in a double until 2255"
    )]
    let micros = Utc::now().timestamp_micros() as f64;
    micros / 1e6
}

/// A Shelly H&T Gen3 that woke up; topic `<device>/events/rpc`.
pub fn shelly_ht(device: &str, temperature_c: f64) -> Value {
    let seconds = shelly_seconds();
    json!({"src": device, "dst": format!("{device}/events"), "method": "NotifyFullStatus", "params": {
        "ts": seconds, "ble": {}, "cloud": {"connected": false},
        "devicepower:0": {"id": 0, "battery": {"V": 5.37, "percent": 77}, "external": {"present": false}},
        "ht_ui": {}, "humidity:0": {"id": 0, "rh": 44.6}, "mqtt": {"connected": true},
        "sys": {"mac": "E4B32322A0F4", "restart_required": false, "time": "09:00", "unixtime": seconds.trunc(),
            "last_sync_ts": seconds.trunc(), "uptime": 2, "ram_size": 255_892, "ram_free": 166_676, "fs_size": 1_048_576,
            "fs_free": 757_760, "cfg_rev": 15, "kvs_rev": 1, "webhook_rev": 0, "available_updates": {},
            "wakeup_reason": {"boot": "deepsleep_wake", "cause": "periodic"}, "wakeup_period": 7200,
            "reset_reason": 8, "utc_offset": 3600},
        "temperature:0": {"id": 0, "tC": temperature_c, "tF": temperature_c * 1.8 + 32.0},
        "wifi": {"sta_ip": "192.0.2.10", "status": "got ip", "ssid": "home", "rssi": -58}, "ws": {"connected": false}}})
}

/// A Shelly Pro 3EM; topic `<device>/events/rpc`.
pub fn shelly_pro3em(device: &str, power_w: f64) -> Value {
    json!({"src": device, "dst": format!("{device}/events"), "method": "NotifyStatus", "params": {"ts": shelly_seconds(),
        "em:0": {"id": 0, "a_current": 1.021, "a_voltage": 231.4, "a_act_power": 198.2, "a_aprt_power": 236.1, "a_pf": 0.84,
            "a_freq": 50.0, "b_current": 4.1, "b_voltage": 230.2, "b_act_power": 912.5, "b_aprt_power": 943.8, "b_pf": 0.97,
            "b_freq": 50.0, "c_current": 0.4, "c_voltage": 232.0, "c_act_power": -51.7, "c_aprt_power": 92.8,
            "c_pf": -0.56, "c_freq": 50.0, "n_current": null, "total_current": 5.521, "total_act_power": power_w,
            "total_aprt_power": 1272.7, "user_calibrated_phase": []}}})
}

/// A Shelly plug; topic `<device>/events/rpc`.
pub fn shelly_plug(device: &str, power_w: f64) -> Value {
    let seconds = shelly_seconds();
    json!({"src": device, "dst": format!("{device}/events"), "method": "NotifyFullStatus", "params": {"ts": seconds,
        "switch:0": {"id": 0, "source": "init", "output": true, "apower": power_w, "voltage": 231.1, "freq": 50.0,
            "current": 0.061, "aenergy": {"total": 6532.114, "by_minute": [148.2, 147.9, 148.0],
            "minute_ts": seconds.trunc()}, "ret_aenergy": {"total": 0.0}, "temperature": {"tC": 38.4, "tF": 101.1}},
        "sys": {"mac": "D0CF13C0FFEE", "uptime": 86_400, "unixtime": seconds.trunc()}, "wifi": {"rssi": -49}}})
}

/// A SaveEye meter reader; topic `saveeye/telemetry`.
pub fn saveeye(device: &str, power_w: i64) -> Value {
    json!({"saveeyeDeviceSerialNumber": device, "meterType": "KAIFA", "meterSerialNumber": "7359992891234567",
        "timestamp": Utc::now().format("%FT%TZ").to_string(), "wifiRssi": -61,
        "activeActualConsumption": {"total": power_w, "L1": 1012, "L2": 1480, "L3": 749},
        "activeActualProduction": {"total": 0, "L1": 0, "L2": 0, "L3": 0},
        "activeTotalConsumption": {"total": 41_230_187}, "activeTotalProduction": {"total": 0},
        "rmsVoltage": {"L1": 231, "L2": 230, "L3": 232}, "rmsCurrent": {"L1": 4402, "L2": 6431, "L3": 3260},
        "powerFactor": {"total": 980}})
}

/// A ThermIQ heat pump; topic `thermiq_heatpump/data`.
pub fn thermiq(device: &str, supply_c: i64) -> Value {
    let now = Utc::now();
    json!({"Client_Name": device, "app_info": "ThermIQ-room2 2.62", "time": now.format("%F %T").to_string(),
        "timestamp": now.timestamp(), "rssi": -70, "d0": -4, "d1": 21, "d2": 3, "d3": 21, "d4": 0, "d5": supply_c, "d6": 33,
        "d7": 51, "d8": -1, "d9": 3, "d13": 0, "d16": 7, "d25": -182, "d30": 62, "d50": 21, "d51": 1, "d52": 38, "d53": 22,
        "d54": 55, "d55": 1, "d56": 0, "d57": -1, "d58": 17, "d73": 60, "d104": 41_231, "d106": 120, "d108": 8123,
        "d114": 14, "INDR_T": 21.3})
}

/// A Tasmota plug's meter; topic `tele/<plug>/SENSOR`.
pub fn tasmota_sensor(power_w: i64) -> Value {
    json!({"Time": Utc::now().format("%FT%T").to_string(), "ENERGY": {"TotalStartTime": "2025-09-01T00:00:00",
        "Total": 12.345, "Yesterday": 0.412, "Today": 0.103, "Power": power_w, "ApparentPower": 51, "ReactivePower": 27,
        "Factor": 0.84, "Voltage": 230, "Current": 0.221}})
}
