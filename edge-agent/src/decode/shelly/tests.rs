//! Frames of Shelly devices and what they give.

use serde_json::{Value, json};

use super::super::cases::{self, check, nothing, reading, readings, sample_with, undecodable};

const TOPIC: &str = "any-prefix/events/rpc";
const ANSWERS: &str = "homelab/p0/rpc";
const HT: &str = "shellyhtg3-e4b32322a0f4";

/// A `NotifyStatus` frame of `src` with these parameters.
fn frame(src: &str, params: Value) -> String {
    json!({"src":src,"dst":format!("{src}/events"),"method":"NotifyStatus","params":params}).to_string()
}

#[test]
fn room_sensors() {
    let ht = |text: &str, want| check(TOPIC, text, reading("temperature", HT, want));
    let expected = json!({"temperature_c":21.3,"humidity_percent":44.6,"battery_volts":5.37,"battery_percent":77.0,
        "external_power":false,"rssi_dbm":-58.0,"uptime_seconds":2.0,"wake_period_seconds":7200.0});
    ht(cases::SHELLY_HT, expected.clone());
    let without = |fields: &[&str]| {
        let mut expected = expected.clone();
        for field in fields {
            expected.as_object_mut().unwrap().remove(*field);
        }
        expected
    };
    // No NTP yet; a sensor fault; fed from USB.
    ht(
        &sample_with(cases::SHELLY_HT, "/params/sys/unixtime", json!(null)),
        expected.clone(),
    );
    let fault = json!({"id":0,"tC":null,"tF":null,"errors":["read"]});
    ht(
        &sample_with(cases::SHELLY_HT, "/params/temperature:0", fault),
        without(&["temperature_c"]),
    );
    let mut usb = expected.clone();
    usb["battery_percent"] = json!(0.0);
    usb["external_power"] = json!(true);
    usb.as_object_mut().unwrap().remove("battery_volts");
    let power = json!({"id":0,"battery":{"V":null,"percent":0},"external":{"present":true}});
    ht(
        &sample_with(cases::SHELLY_HT, "/params/devicepower:0", power),
        usb,
    );
    ht(
        &sample_with(cases::SHELLY_HT, "/params/humidity:0", json!(null)),
        without(&["humidity_percent"]),
    );
    ht(
        &sample_with(cases::SHELLY_HT, "/params/sys", json!(null)),
        without(&["uptime_seconds", "wake_period_seconds"]),
    );
    ht(
        &sample_with(cases::SHELLY_HT, "/params/wifi/rssi", json!(0)),
        without(&["rssi_dbm"]),
    );
    // Nothing in the payload chooses agent, id, time or place.
    ht(
        &frame(
            HT,
            json!({"ts":1,"temperature:0":{"tC":-40,"agent":"p9","id":77},"location":"x","time":"y"}),
        ),
        json!({"temperature_c":-40.0}),
    );
    // Changed fields only, one by one.
    ht(
        &frame(HT, json!({"humidity:0":{"id":0,"rh":50}})),
        json!({"humidity_percent":50.0}),
    );
    ht(
        &frame(
            HT,
            json!({"devicepower:0":{"battery":{"V":5.1,"percent":50}},"wifi":{"rssi":-60}}),
        ),
        json!({"battery_volts":5.1,"battery_percent":50.0,"rssi_dbm":-60.0}),
    );
    check(
        TOPIC,
        cases::SHELLY_PLUS_HT,
        reading(
            "temperature",
            "shellyplusht-a8032ab1c2d3",
            json!({"temperature_c":22.0}),
        ),
    );
}

#[test]
fn several_sensors() {
    // An add-on board counts from 100; the same index is one record, every other index its own device.
    check(
        TOPIC,
        &frame(
            "shellyplus1-a8032ab1c2d3",
            json!({
            "humidity:100":{"id":100,"rh":61},"temperature:100":{"id":100,"tC":4.5},"temperature:101":{"id":101,"tC":-18.2},
            "temperature:102":{"id":102,"tC":null},"temperature:007":{"tC":1},"temperature":{"tC":2},"temperature:":{"tC":3},
            "temperature:+1":{"tC":4},"temperature:-1":{"tC":5},"temperature:4294967296":{"tC":6},"temperature:1:2":{"tC":7},
            "switch:0":{"id":0,"output":true},"wifi":{"rssi":-50},"sys":{"uptime":9}}),
        ),
        readings(&[
            (
                "temperature",
                "shellyplus1-a8032ab1c2d3:100",
                json!({"temperature_c":4.5,"humidity_percent":61.0,"rssi_dbm":-50.0,"uptime_seconds":9.0}),
            ),
            (
                "temperature",
                "shellyplus1-a8032ab1c2d3:101",
                json!({"temperature_c":-18.2,"rssi_dbm":-50.0,"uptime_seconds":9.0}),
            ),
            (
                "plug",
                "shellyplus1-a8032ab1c2d3",
                json!({"on":true,"rssi_dbm":-50.0,"uptime_seconds":9.0}),
            ),
        ]),
    );
    check(
        TOPIC,
        &frame("dev", json!({"temperature:0":{"tC":1},"temperature:1":{"tC":2}})),
        readings(&[
            ("temperature", "dev", json!({"temperature_c":1.0})),
            ("temperature", "dev:1", json!({"temperature_c":2.0})),
        ]),
    );
    // The index is added whatever else the frame holds.
    check(
        TOPIC,
        &frame("dev", json!({"temperature:1":{"tC":2}})),
        reading("temperature", "dev:1", json!({"temperature_c":2.0})),
    );
    let many: serde_json::Map<_, _> = (0..65)
        .map(|n| (format!("temperature:{n}"), json!({"tC":1})))
        .collect();
    check(
        TOPIC,
        &frame("dev", Value::Object(many)),
        undecodable("too many readings: 65, at most 64 of one message"),
    );
}

#[test]
fn meters() {
    let id = "shellypro3em-34987a45dc01";
    let meter = |text: &str, want| check(TOPIC, text, reading("energy", id, want));
    let power = json!({"power_w":1059.0,"power_l1_w":198.2,"power_l2_w":912.5,"power_l3_w":-51.7,
        "voltage_l1_v":231.4,"voltage_l2_v":230.2,"voltage_l3_v":232.0,
        "current_l1_a":1.021,"current_l2_a":4.1,"current_l3_a":0.4});
    meter(cases::SHELLY_EM, power.clone());
    meter(
        cases::SHELLY_EMDATA,
        json!({"energy_wh":10416.4,"export_energy_wh":33.4}),
    );
    // Export keeps its sign; 40 kW passes; the meter's own temperature is no room's.
    meter(
        &frame(id, json!({"em:0":{"total_act_power":-5120.5}})),
        json!({"power_w":-5120.5}),
    );
    meter(
        &frame(id, json!({"em:0":{"total_act_power":40000}})),
        json!({"power_w":40000.0}),
    );
    let mut both: Value = serde_json::from_str(cases::SHELLY_EM).unwrap();
    both["params"]["emdata:0"] = json!({"total_act":10416.4,"total_act_ret":33.4});
    both["params"]["temperature:0"] = json!({"id":0,"tC":41.2,"tF":106.2});
    both["params"]["em:0"]["a_errors"] = json!(["out_of_range:current"]);
    both["params"]["wifi"] = json!({"rssi":-66});
    let mut expected = power;
    for (field, value) in [
        ("energy_wh", 10416.4),
        ("export_energy_wh", 33.4),
        ("rssi_dbm", -66.0),
    ] {
        expected[field] = json!(value);
    }
    meter(&both.to_string(), expected);
    check(
        TOPIC,
        &frame(id, json!({"temperature:0":{"id":0,"tC":41.2}})),
        nothing("no_measurement"),
    );
    meter(
        &frame(id, json!({"em:0":{"total_act_power":null,"a_voltage":230}})),
        json!({"voltage_l1_v":230.0}),
    );
    check(
        TOPIC,
        &frame(
            id,
            json!({"em:0":{"total_act_power":null,"errors":["power_meter_failure"]}}),
        ),
        nothing("no_measurement"),
    );
    // Single-phase profile: three meters.
    check(
        TOPIC,
        &frame(
            id,
            json!({
            "em1:0":{"id":0,"current":1.5,"voltage":230.1,"act_power":-345.1,"aprt_power":350,"pf":-0.98,"freq":50},
            "em1data:0":{"id":0,"total_act_energy":100.5,"total_act_ret_energy":7},
            "em1:2":{"id":2,"act_power":12},"em1data:1":{"id":1,"total_act_energy":3}}),
        ),
        readings(&[
            (
                "energy",
                id,
                json!({"power_w":-345.1,"voltage_l1_v":230.1,"current_l1_a":1.5,"power_factor":-0.98,
                "energy_wh":100.5,"export_energy_wh":7.0}),
            ),
            ("energy", "shellypro3em-34987a45dc01:1", json!({"energy_wh":3.0})),
            ("energy", "shellypro3em-34987a45dc01:2", json!({"power_w":12.0})),
        ]),
    );
}

#[test]
fn plugs() {
    let id = "shellyplugsg3-d0cf13c0ffee";
    let plug = |text: &str, want| check(TOPIC, text, reading("plug", id, want));
    let expected = json!({"on":true,"power_w":8.9,"energy_wh":6532.114,"voltage_v":231.1,"current_a":0.061,
        "rssi_dbm":-49.0,"uptime_seconds":86400.0});
    plug(cases::SHELLY_PLUG, expected.clone());
    let metered = cases::SHELLY_PLUG
        .replace("switch:0", "pm1:0")
        .replace("\"output\":true,", "");
    let mut without_on = expected;
    without_on.as_object_mut().unwrap().remove("on");
    plug(&metered, without_on);
    plug(
        &frame(id, json!({"switch:0":{"id":0,"output":false,"source":"MQTT"}})),
        json!({"on":false}),
    );
    plug(
        &frame(id, json!({"switch:0":{"id":0,"apower":0}})),
        json!({"power_w":0.0}),
    );
    plug(
        &frame(id, json!({"switch:0":{"aenergy":{"total":1.5}}})),
        json!({"energy_wh":1.5}),
    );
    plug(
        &frame(
            id,
            json!({"pm1:0":{"apower":5,"voltage":230},"switch:0":{"output":true,"apower":6}}),
        ),
        json!({"on":true,"power_w":6.0,"voltage_v":230.0}),
    );
    check(
        TOPIC,
        &frame(
            "shellypro2pm-1",
            json!({"switch:0":{"output":true},"switch:1":{"output":false},"sys":{"uptime":3}}),
        ),
        readings(&[
            ("plug", "shellypro2pm-1", json!({"on":true,"uptime_seconds":3.0})),
            (
                "plug",
                "shellypro2pm-1:1",
                json!({"on":false,"uptime_seconds":3.0}),
            ),
        ]),
    );
    check(
        TOPIC,
        &frame(id, json!({"switch:0":{"temperature":{"tC":38.4}}})),
        nothing("no_measurement"),
    );
    check(
        TOPIC,
        &frame(id, json!({"switch:0":{"aenergy":{"by_minute":[1,2,3]}}})),
        nothing("no_measurement"),
    );
}

#[test]
fn answers_to_commands() {
    let id = "shellypro2pm-1";
    let answer = |what: Value| {
        let mut answer = json!({"id": 42, "src": id, "dst": "homelab/p0"});
        answer
            .as_object_mut()
            .unwrap()
            .extend(what.as_object().unwrap().clone());
        answer.to_string()
    };
    let status = json!({"id":0,"source":"MQTT","output":true,"apower":8.9,"voltage":231.1,"freq":50.0,"current":0.061,
        "aenergy":{"total":6532.114,"by_minute":[0,0,0],"minute_ts":1767254400},"temperature":{"tC":38.4,"tF":101.1}});
    check(
        ANSWERS,
        &answer(json!({"result": status})),
        reading(
            "plug",
            id,
            json!({"on":true,"power_w":8.9,"energy_wh":6532.114,"voltage_v":231.1,"current_a":0.061}),
        ),
    );
    // A relay without a meter, the second of two.
    check(
        ANSWERS,
        &answer(json!({"result": {"id":1,"output":false}})),
        reading("plug", "shellypro2pm-1:1", json!({"on":false})),
    );
    check(
        ANSWERS,
        &answer(json!({"result": {"was_on":true}})),
        nothing("answer"),
    );
    check(
        ANSWERS,
        &answer(json!({"result": null, "error": {"code":-103,"message":"x"}})),
        nothing("answer"),
    );
    check(ANSWERS, &answer(json!({})), undecodable("missing field: method"));
    check(
        ANSWERS,
        &answer(json!({"result": {"id":0.5,"output":true}})),
        undecodable("bad value: result.id"),
    );
    check(
        ANSWERS,
        &answer(json!({"result": {"id":0,"output":"on"}})),
        undecodable("wrong type: "),
    );
    check(
        ANSWERS,
        &answer(json!({"result": "on"})),
        undecodable("wrong type: result"),
    );
}

#[test]
fn frames_with_nothing_to_record() {
    check(TOPIC, cases::SHELLY_EVENT, nothing("event"));
    check(TOPIC, r#"{"src":"a","method":"NotifyEvent"}"#, nothing("event"));
    check(
        TOPIC,
        r#"{"src":"a","method":"NotifySomething","params":1}"#,
        nothing("unknown_method"),
    );
    let empty = |params| check(TOPIC, &frame("shellyx-1", params), nothing("no_measurement"));
    empty(json!({"ts":1}));
    empty(json!({}));
    empty(
        json!({"mqtt":{"connected":true},"cloud":{},"wifi":{"rssi":-50},"sys":{"uptime":5,"wakeup_period":600}}),
    );
    empty(
        json!({"light:0":{"output":true,"apower":5},"cover:0":{"apower":5},"input:0":{"state":true},"script:1":7}),
    );
    empty(json!({"temperature:0":null,"em:0":null,"switch:0":null}));
    empty(json!({"temperature:0":{"tC":null,"errors":["read"]},"wifi":{"rssi":-50},"sys":{"uptime":5}}));
    // A smoke sensor's battery does not make it a thermometer.
    empty(json!({"smoke:0":{"alarm":false},"devicepower:0":{"battery":{"V":3.0,"percent":90}}}));
}

#[test]
fn wrong_frames_are_named() {
    let refused = |text: &str, want: &str| check(TOPIC, text, undecodable(want));
    refused("", "empty payload");
    refused("true", "not an object: true or false");
    refused("[{}]", "not an object: an array");
    refused("{}", "missing field: src");
    refused(r#"{"src":null,"method":"NotifyStatus"}"#, "missing field: src");
    refused(
        r#"{"src":7,"method":"NotifyStatus"}"#,
        "wrong type: src is a number, expected a text",
    );
    refused(
        r#"{"src":"","method":"NotifyStatus"}"#,
        "bad value: src: device id is empty",
    );
    refused(r#"{"src":"a"}"#, "missing field: method");
    refused(r#"{"src":"a","method":["NotifyStatus"]}"#, "wrong type: method");
    refused(r#"{"src":"a","method":"NotifyStatus"}"#, "missing field: params");
    refused(
        r#"{"src":"a","method":"NotifyStatus","params":[]}"#,
        "wrong type: params is an array",
    );
    refused(
        r#"{"src":"a","src":"b","method":"NotifyStatus"}"#,
        "duplicate key: src has two values",
    );
    let wrong =
        |pointer: &str, value, want: &str| refused(&sample_with(cases::SHELLY_HT, pointer, value), want);
    wrong(
        "/params/temperature:0/tC",
        json!("21.3"),
        "wrong type: params.temperature:0.tC is a text, expected a number",
    );
    wrong(
        "/params/temperature:0/tC",
        json!(true),
        "wrong type: params.temperature:0.tC is true or false",
    );
    wrong(
        "/params/temperature:0",
        json!(21.3),
        "wrong type: params.temperature:0 is a number, expected an object",
    );
    wrong(
        "/params/temperature:0",
        json!([]),
        "wrong type: params.temperature:0 is an array",
    );
    wrong(
        "/params/humidity:0/rh",
        json!({}),
        "wrong type: params.humidity:0.rh",
    );
    wrong(
        "/params/devicepower:0/external/present",
        json!(1),
        "wrong type: params.devicepower:0.external.present",
    );
    wrong("/params/wifi/rssi", json!("-58"), "wrong type: params.wifi.rssi");
    wrong("/params/sys/uptime", json!("2"), "wrong type: params.sys.uptime");
    wrong(
        "/params/temperature:0/tC",
        json!(1e30),
        "out of range: temperature_c is",
    );
    wrong(
        "/params/humidity:0/rh",
        json!(250),
        "out of range: humidity_percent is 250, outside 0 to 100",
    );
    refused(
        &frame("p", json!({"switch:0":{"output":"on"}})),
        "wrong type: params.switch:0.output is a text",
    );
    refused(
        &frame("p", json!({"switch:0":{"output":1}})),
        "wrong type: params.switch:0.output is a number",
    );
    refused(
        &frame("p", json!({"switch:0":{"aenergy":5}})),
        "wrong type: params.switch:0.aenergy is a number",
    );
    refused(
        &frame("p", json!({"em:0":{"c_act_power":"1"}})),
        "wrong type: params.em:0.c_act_power",
    );
    refused(
        &frame(&"p".repeat(128), json!({"switch:1":{"output":true}})),
        "bad value: device id: device id has 130 bytes",
    );
}
