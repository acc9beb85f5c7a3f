//! The table of cases: the payloads of docs/DEVICES.md, one helper every decoder's cases go through, and what
//! must hold for any bytes at all.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;

use super::{Decoded, DecoderKind, Decoders, Route, nothing};

pub const SHELLY_HT: &str = r#"{"src":"shellyhtg3-e4b32322a0f4","dst":"shellyhtg3-e4b32322a0f4/events","method":"NotifyFullStatus","params":{
 "ts":1767254412.61,"ble":{},"cloud":{"connected":false},
 "devicepower:0":{"id":0,"battery":{"V":5.37,"percent":77},"external":{"present":false}},
 "ht_ui":{},"humidity:0":{"id":0,"rh":44.6},"mqtt":{"connected":true},
 "sys":{"mac":"E4B32322A0F4","restart_required":false,"time":"09:00","unixtime":1767254412,"last_sync_ts":1767254412,"uptime":2,
  "ram_size":255892,"ram_free":166676,"fs_size":1048576,"fs_free":757760,"cfg_rev":15,"kvs_rev":1,"webhook_rev":0,"available_updates":{},
  "wakeup_reason":{"boot":"deepsleep_wake","cause":"periodic"},"wakeup_period":7200,"reset_reason":8,"utc_offset":3600},
 "temperature:0":{"id":0,"tC":21.3,"tF":70.3},
 "wifi":{"sta_ip":"192.0.2.10","status":"got ip","ssid":"home","rssi":-58},"ws":{"connected":false}}}"#;
pub const SHELLY_PLUS_HT: &str = r#"{"src":"shellyplusht-a8032ab1c2d3","dst":"...","method":"NotifyStatus","params":{"ts":1767254500.02,"temperature:0":{"id":0,"tC":22.0,"tF":71.6}}}"#;
pub const SHELLY_EVENT: &str = r#"{"src":"shellyhtg3-e4b32322a0f4","dst":"...","method":"NotifyEvent","params":{"ts":1767254413.1,"events":[{"component":"sys","event":"sleep","ts":1767254413.1}]}}"#;
pub const SHELLY_EM: &str = r#"{"src":"shellypro3em-34987a45dc01","dst":"...","method":"NotifyStatus","params":{"ts":1767254412.10,
 "em:0":{"id":0,"a_current":1.021,"a_voltage":231.4,"a_act_power":198.2,"a_aprt_power":236.1,"a_pf":0.84,"a_freq":50.0,
  "b_current":4.1,"b_voltage":230.2,"b_act_power":912.5,"b_aprt_power":943.8,"b_pf":0.97,"b_freq":50.0,
  "c_current":0.4,"c_voltage":232.0,"c_act_power":-51.7,"c_aprt_power":92.8,"c_pf":-0.56,"c_freq":50.0,
  "n_current":null,"total_current":5.521,"total_act_power":1059.0,"total_aprt_power":1272.7,"user_calibrated_phase":[]}}}"#;
pub const SHELLY_EMDATA: &str = r#"{"src":"shellypro3em-34987a45dc01","dst":"...","method":"NotifyStatus","params":{"ts":1767254460.00,
 "emdata:0":{"id":0,"a_total_act_energy":1201.5,"a_total_act_ret_energy":0.0,"b_total_act_energy":8812.2,"b_total_act_ret_energy":0.1,
  "c_total_act_energy":402.7,"c_total_act_ret_energy":33.3,"total_act":10416.4,"total_act_ret":33.4}}}"#;
pub const SHELLY_PLUG: &str = r#"{"src":"shellyplugsg3-d0cf13c0ffee","dst":"...","method":"NotifyFullStatus","params":{"ts":1767254412.2,
 "switch:0":{"id":0,"source":"init","output":true,"apower":8.9,"voltage":231.1,"freq":50.0,"current":0.061,
  "aenergy":{"total":6532.114,"by_minute":[148.2,147.9,148.0],"minute_ts":1767254400},"ret_aenergy":{"total":0.0},
  "temperature":{"tC":38.4,"tF":101.1}},"sys":{"mac":"D0CF13C0FFEE","uptime":86400,"unixtime":1767254412},"wifi":{"rssi":-49}}}"#;
pub const SAVEEYE: &str = r#"{"saveeyeDeviceSerialNumber":"SE1234567","meterType":"KAIFA","meterSerialNumber":"7359992891234567","timestamp":"2026-01-01T08:00:12Z","wifiRssi":-61,
 "activeActualConsumption":{"total":3241,"L1":1012,"L2":1480,"L3":749},"activeActualProduction":{"total":0,"L1":0,"L2":0,"L3":0},
 "activeTotalConsumption":{"total":41230187},"activeTotalProduction":{"total":0},
 "rmsVoltage":{"L1":231,"L2":230,"L3":232},"rmsCurrent":{"L1":4402,"L2":6431,"L3":3260},"powerFactor":{"total":980}}"#;
pub const THERMIQ: &str = r#"{"Client_Name":"ivt-495","app_info":"ThermIQ-room2 2.62","time":"2026-01-01 09:00:12","timestamp":1767254412,"rssi":-70,
 "d0":-4,"d1":21,"d2":3,"d3":21,"d4":0,"d5":38,"d6":33,"d7":51,"d8":-1,"d9":3,"d13":0,"d16":7,"d25":-182,"d30":62,
 "d50":21,"d51":1,"d52":38,"d53":22,"d54":55,"d55":1,"d56":0,"d57":-1,"d58":17,"d73":60,
 "d104":41231,"d106":120,"d108":8123,"d114":14,"INDR_T":21.3}"#;
pub const TASMOTA_STATE: &str = r#"{"Time":"2026-01-01T09:00:00","Uptime":"3T04:05:06","UptimeSec":273906,"Heap":25,"SleepMode":"Dynamic","Sleep":50,"LoadAvg":19,"MqttCount":1,"POWER":"ON",
 "Wifi":{"AP":1,"SSId":"home","BSSId":"00:00:5E:00:53:01","Channel":6,"Mode":"11n","RSSI":78,"Signal":-61,"LinkCount":1,"Downtime":"0T00:00:05"}}"#;
pub const TASMOTA_SENSOR: &str = r#"{"Time":"2026-01-01T09:00:00","ENERGY":{"TotalStartTime":"2025-09-01T00:00:00","Total":12.345,"Yesterday":0.412,"Today":0.103,"Power":43,"ApparentPower":51,
 "ReactivePower":27,"Factor":0.84,"Voltage":230,"Current":0.221}}"#;

/// What a message gives, in order: kind, device id, and the reading as it stands in a record.
type Given = Vec<(&'static str, String, Value)>;

/// What a case expects.
pub enum Expected {
    /// Readings, at least one.
    Readings(Given),
    /// Nothing to record, for this reason.
    Nothing(&'static str),
    /// Undecodable; the reason starts like this.
    Undecodable(String),
}

pub fn reading(kind: &'static str, device: &str, reading: Value) -> Expected {
    Expected::Readings(vec![(kind, device.to_owned(), reading)])
}

pub fn readings(all: &[(&'static str, &str, Value)]) -> Expected {
    Expected::Readings(
        all.iter()
            .map(|(kind, device, reading)| (*kind, (*device).to_owned(), reading.clone()))
            .collect(),
    )
}

pub fn nothing(why: &'static str) -> Expected {
    Expected::Nothing(why)
}

pub fn undecodable(reason: &str) -> Expected {
    Expected::Undecodable(reason.to_owned())
}

/// A sample with the value at a JSON pointer replaced or added.
pub fn sample_with(sample: &str, pointer: &str, value: Value) -> String {
    let mut json: Value = serde_json::from_str(sample).unwrap();
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    json.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"))[key] = value;
    json.to_string()
}

/// The default routes, and one that also takes `POWER1`, `POWER2`, ...
fn decoders() -> Decoders {
    let mut routes = Route::defaults();
    routes.push(Route {
        filter: "stat/+/+".to_owned(),
        decoder: DecoderKind::TasmotaPower,
    });
    Decoders::new(&routes, &[]).unwrap()
}

pub fn check(topic: &str, payload: &str, want: Expected) {
    check_with(&decoders(), topic, payload.as_bytes(), want);
}

pub fn check_with(decoders: &Decoders, topic: &str, payload: &[u8], want: Expected) {
    let payload_text = String::from_utf8_lossy(payload);
    let got = decoders.decode(topic, payload);
    match (&got, want) {
        (Ok(Decoded::Readings(got)), Expected::Readings(want)) => {
            let got: Vec<_> = got
                .iter()
                .map(|r| {
                    let reading = serde_json::to_value(&r.reading).unwrap();
                    (
                        r.reading.kind().as_str(),
                        r.device_id.as_str().to_owned(),
                        reading,
                    )
                })
                .collect();
            assert_eq!(got, want, "{topic} {payload_text}");
        }
        (Ok(Decoded::Nothing(got)), Expected::Nothing(want)) => {
            assert_eq!(*got, want, "{topic} {payload_text}")
        }
        (Err(got), Expected::Undecodable(want)) => {
            let got = got.to_string();
            assert!(
                got.starts_with(&want),
                "{topic} {payload_text}\n  got  {got}\n  want {want}"
            );
        }
        (got, _) => panic!("{topic} {payload_text}\n  gave {got:?}"),
    }
}

#[test]
fn topics_find_their_decoder() {
    let defaults = Decoders::new(&Route::defaults(), &[]).unwrap();
    let captured = |topic: &str, want: bool| assert_eq!(defaults.captures(topic), want, "{topic}");
    captured("shellyhtg3-e4b32322a0f4/events/rpc", true);
    captured("kitchen/events/rpc", true);
    captured("home/kitchen/events/rpc", false);
    captured("$SYS/events/rpc", false);
    captured("homelab/p0/rpc", true);
    captured("kitchen/rpc", false);
    captured("saveeye/telemetry", true);
    captured("thermiq_heatpump/data", true);
    captured("thermiq_heatpump/write", false);
    captured("tele/plug/STATE", true);
    captured("tele/plug/LWT", false);
    captured("stat/plug/POWER", true);
    captured("stat/plug/POWER1", true);
    captured("stat/plug/POWER32", true);
    captured("stat/plug/POWER33", false);
    captured("stat/plug/RESULT", false);
    captured("cmnd/plug/POWER", false);
    captured("shellyhtg3-e4b32322a0f4/online", false);
    captured("shellyhtg3-e4b32322a0f4/status/temperature:0", false);
    check_with(&defaults, "stat/plug/RESULT", b"{}", undecodable("no decoder: "));
    check_with(&defaults, "a/events/rpc", b"\xff\xfe", undecodable("not json: "));
    check_with(&defaults, "stat/plug/POWER", b"\xff", undecodable("not text: "));

    // The level the first + stands for, else the one before the last, names a Tasmota device.
    let own = |filter: &str, topic: &str, want: &str| {
        let routes = [Route {
            filter: filter.to_owned(),
            decoder: DecoderKind::TasmotaState,
        }];
        let decoders = Decoders::new(&routes, &[]).unwrap();
        check_with(
            &decoders,
            topic,
            br#"{"POWER":"ON"}"#,
            reading("plug", want, serde_json::json!({"on":true})),
        );
    };
    own("home/tele/+/STATE", "home/tele/lamp/STATE", "lamp");
    own("+/tele/STATE", "lamp/tele/STATE", "lamp");
    own("tele/lamp/STATE", "tele/lamp/STATE", "lamp");
    own("tele/#", "tele/lamp/STATE", "lamp");

    let bad = [Route {
        filter: "a#".to_owned(),
        decoder: DecoderKind::Shelly,
    }];
    let error = Decoders::new(&bad, &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        "route \"a#\": # must be the whole last level of a topic filter"
    );
}

#[test]
fn routes_are_read_from_configuration() {
    let route: Route = toml::from_str("filter = \"x/+/STATE\"\ndecoder = \"tasmota_state\"").unwrap();
    assert_eq!(
        route,
        Route {
            filter: "x/+/STATE".to_owned(),
            decoder: DecoderKind::TasmotaState
        }
    );
    assert!(toml::from_str::<Route>("filter = \"x\"\ndecoder = \"zigbee\"").is_err());
}

/// The examples of docs/DEVICES.md: a fence `json <topic>` (or `text`) is a message, the fences `json <kind> <device>` after it
/// are what it gives, and the routes in its `toml` fences are configured.
#[test]
fn documented_examples_hold() {
    #[derive(serde::Deserialize)]
    struct Configuration {
        #[serde(default)]
        routes: Vec<Route>,
        #[serde(default)]
        generic: Vec<super::GenericRoute>,
    }
    let page = include_str!("../../../docs/DEVICES.md");
    // Fences stand in turns: text, fence, text, fence.
    let fences = page
        .split("\n```")
        .skip(1)
        .step_by(2)
        .filter_map(|fence| fence.split_once('\n'));
    let (mut routes, mut generic) = (Vec::new(), Vec::new());
    let mut examples: Vec<(&str, &str, Given)> = Vec::new();
    for (info, text) in fences {
        match info.split(' ').collect::<Vec<_>>()[..] {
            ["toml"] => {
                let configuration: Configuration =
                    toml::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
                routes.extend(configuration.routes);
                generic.extend(configuration.generic);
            }
            ["json" | "text", topic] => examples.push((topic, text, Vec::new())),
            ["json", kind, device] => {
                let kind = telemetry::Kind::ALL
                    .map(telemetry::Kind::as_str)
                    .into_iter()
                    .find(|k| *k == kind);
                let reading = serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
                let last = examples.last_mut().expect("a message comes first");
                last.2.push((kind.expect("a kind"), device.to_owned(), reading));
            }
            _ => panic!("unknown fence {info:?}"),
        }
    }
    assert!(examples.len() >= 12, "{} examples", examples.len());
    routes.extend(Route::defaults());
    let decoders = Decoders::new(&routes, &generic).unwrap();
    for (topic, text, readings) in examples {
        check_with(&decoders, topic, text.as_bytes(), Expected::Readings(readings));
    }
}

/// Whatever the bytes: no panic, a reason of bounded length on one line, at most one record per kind and
/// device, every value inside its limits. 20,000 damaged samples from a fixed seed: half with damaged bytes,
/// half still JSON with other values and names.
#[test]
fn damaged_samples_never_break_a_decoder() {
    let samples = [
        ("a/events/rpc", SHELLY_HT),
        ("a/events/rpc", SHELLY_EM),
        ("a/events/rpc", SHELLY_EMDATA),
        ("a/events/rpc", SHELLY_PLUG),
        ("saveeye/telemetry", SAVEEYE),
        ("thermiq_heatpump/data", THERMIQ),
        ("tele/plug/STATE", TASMOTA_STATE),
        ("tele/plug/SENSOR", TASMOTA_SENSOR),
        ("stat/plug/POWER", "\"ON\""),
    ];
    let decoders = decoders();
    let mut rng = StdRng::seed_from_u64(20_260_101);
    let (mut decoded, mut empty, mut refused) = (0_u32, 0_u32, 0_u32);
    for round in 0..20_000 {
        let (topic, sample) = samples[rng.random_range(0..samples.len())];
        let bytes = if round % 2 == 0 {
            damaged_bytes(sample, &mut rng)
        } else {
            other_values(sample, &mut rng)
        };
        match decoders.decode(topic, &bytes) {
            Ok(Decoded::Readings(readings)) => {
                decoded += 1;
                assert!(!readings.is_empty());
                let identities: HashSet<_> = readings
                    .iter()
                    .map(|r| (r.reading.kind(), r.device_id.clone()))
                    .collect();
                assert_eq!(
                    identities.len(),
                    readings.len(),
                    "{}",
                    String::from_utf8_lossy(&bytes)
                );
                assert!(readings.iter().all(|r| r.reading.out_of_range().is_none()));
            }
            Ok(Decoded::Nothing(why)) => {
                empty += 1;
                assert!(nothing::ALL.contains(&why));
            }
            Err(reason) => {
                refused += 1;
                let reason = reason.to_string();
                assert!(
                    reason.len() < 500 && !reason.chars().any(char::is_control),
                    "{reason:?}"
                );
            }
        }
    }
    // The damage reaches all three outcomes, so that the assertions above are not empty.
    assert!(
        decoded > 1_000 && empty > 250 && refused > 1_000,
        "{decoded} {empty} {refused}"
    );
}

/// One to three places cut off, overwritten or filled with something JSON gives a meaning.
fn damaged_bytes(sample: &str, rng: &mut StdRng) -> Vec<u8> {
    const TOKENS: [&str; 8] = ["null", "1e999", "\"", "{", "}", "[", "]", "\\u0000"];
    let mut bytes = sample.as_bytes().to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        let end = rng.random_range(at..=bytes.len().min(at + 12));
        match rng.random_range(0..6) {
            0 => bytes.truncate(at),
            1 | 2 => drop(bytes.splice(at..end, [rng.random::<u8>()])),
            _ => drop(bytes.splice(at..end, TOKENS[rng.random_range(0..TOKENS.len())].bytes())),
        }
    }
    bytes
}

/// One to three values of the document replaced or moved to another name.
fn other_values(sample: &str, rng: &mut StdRng) -> Vec<u8> {
    let mut document: Value = serde_json::from_str(sample).unwrap();
    for _ in 0..rng.random_range(1..4) {
        change(&mut document, rng);
    }
    serde_json::to_vec(&document).unwrap()
}

fn change(value: &mut Value, rng: &mut StdRng) {
    const NAMES: [&str; 8] = [
        "temperature:0",
        "temperature:1",
        "switch:1",
        "pm1:0",
        "em1:0",
        "POWER1",
        "POWER2",
        "total",
    ];
    let others = [
        Value::Null,
        true.into(),
        (-1).into(),
        0.into(),
        1e308.into(),
        u64::MAX.into(),
        "1".into(),
        Value::Array(vec![1.into(), Value::Null]),
        serde_json::json!({"id": 1, "tC": 5, "output": true}),
    ];
    match value {
        Value::Object(map) if !map.is_empty() && rng.random_ratio(9, 10) => {
            let key = map.keys().nth(rng.random_range(0..map.len())).unwrap().clone();
            if rng.random_ratio(1, 4) {
                let moved = map.remove(&key).unwrap();
                map.insert(NAMES[rng.random_range(0..NAMES.len())].to_owned(), moved);
            } else {
                change(&mut map[&key], rng);
            }
        }
        Value::Array(items) if !items.is_empty() && rng.random_ratio(1, 2) => {
            let index = rng.random_range(0..items.len());
            change(&mut items[index], rng);
        }
        _ => *value = others[rng.random_range(0..others.len())].clone(),
    }
}
