//! The whole way of one reading, for each kind of device: MQTT, edge-agent, Kafka, redpanda-sink, PostgreSQL, homelab-api
//! and homelab-settings-api, and energy-ws.

use anyhow::{Result, ensure};
use e2e::{PLACE, PLACED_DEVICE, WITHIN, item, row, with_stack};
use serde_json::{Value, json};
use stack::live::Live;
use stack::mqtt::Publisher;
use stack::{Stack, frames};

/// One kind of device, with one value that has to arrive unaltered.
struct Way {
    device: &'static str,
    topic: String,
    frame: Value,
    stream: &'static str,
    table: &'static str,
    /// `None` where homelab-api only lists the device.
    latest: Option<&'static str>,
    field: &'static str,
    value: f64,
}

const READ: [&str; 5] = [
    "read:energy",
    "read:temperature",
    "read:heatpump",
    "read:plugs",
    "read:settings",
];

async fn check(stack: &Stack, way: Way) -> Result<()> {
    let Way {
        device,
        topic,
        frame,
        stream,
        table,
        latest,
        field,
        value,
    } = way;
    let token = stack.token(&READ).await?;
    let mut live = Live::connect(&stack.ws_url(), &token).await?;
    live.subscribe(&[stream]).await?;

    let mut publisher = Publisher::connect(stack.mqtt(), device).await?;
    publisher.publish(&topic, frame.to_string()).await?;
    publisher.disconnect().await?;

    let data = live
        .data(WITHIN, |data| data["device_id"] == json!(device))
        .await?;
    ensure!(
        data["reading"][field].as_f64() == Some(value),
        "energy-ws delivers {data}"
    );
    ensure!(data["agent"] == json!("p0"), "energy-ws delivers {data}");

    let row = row(stack, table, device, |row| !row[field].is_null()).await?;
    ensure!(row[field].as_f64() == Some(value), "{table} has {row}");

    match latest {
        Some(path) => {
            let url = format!("{}{path}", stack.api_url());
            let item = item(&url, &token, |item| item["device_id"] == json!(device)).await?;
            ensure!(item[field].as_f64() == Some(value), "homelab-api answers {item}");
            ensure!(item["time"].is_string(), "homelab-api answers {item}");
        }
        None => {
            let devices = format!("{}/api/v1/devices", stack.api_url());
            let listed = item(&devices, &token, |item| item["device_id"] == json!(device)).await?;
            ensure!(listed["kind"] == json!(stream), "homelab-api lists {listed}");
        }
    }
    Ok(())
}

#[test]
fn shelly_ht() -> Result<()> {
    let device = PLACED_DEVICE;
    with_stack(async |stack: &'static Stack| {
        check(
            stack,
            Way {
                device,
                topic: format!("{device}/events/rpc"),
                frame: frames::shelly_ht(device, 19.7),
                stream: "temperature",
                table: "temperature_sensors",
                latest: Some("/api/v1/temperature/all-latest"),
                field: "temperature_c",
                value: 19.7,
            },
        )
        .await?;
        let token = stack.token(&["read:temperature"]).await?;
        let there = format!("{}/api/v1/temperature/latest?location={PLACE}", stack.api_url());
        let item = item(&there, &token, |_| true).await?;
        ensure!(
            item["device_id"] == json!(device) && item["location"] == json!(PLACE),
            "{item}"
        );
        Ok(())
    })
}

#[test]
fn shelly_pro3em() -> Result<()> {
    let device = "shellypro3em-e2e000000002";
    with_stack(|stack| {
        check(
            stack,
            Way {
                device,
                // The owner may rename the prefix: identity is in the frame.
                topic: "meter-in-the-cellar/events/rpc".to_owned(),
                frame: frames::shelly_pro3em(device, 1059.5),
                stream: "energy",
                table: "energy_consumption",
                latest: Some("/api/v1/energy/latest"),
                field: "power_w",
                value: 1059.5,
            },
        )
    })
}

#[test]
fn shelly_plug() -> Result<()> {
    let device = "shellyplugsg3-e2e000000003";
    with_stack(async |stack: &'static Stack| {
        check(
            stack,
            Way {
                device,
                topic: format!("{device}/events/rpc"),
                frame: frames::shelly_plug(device, 8.9),
                stream: "plug",
                table: "plug_status",
                latest: None,
                field: "power_w",
                value: 8.9,
            },
        )
        .await?;
        let token = stack.token(&["read:plugs"]).await?;
        let plugs = format!("{}/api/v1/plugs", stack.settings_url());
        let plug = item(&plugs, &token, |plug| plug["plug_id"] == json!(device)).await?;
        ensure!(plug["on"] == json!(true), "homelab-settings-api answers {plug}");
        Ok(())
    })
}

#[test]
fn saveeye() -> Result<()> {
    let device = "SE2E00004";
    with_stack(|stack| {
        check(
            stack,
            Way {
                device,
                topic: "saveeye/telemetry".to_owned(),
                frame: frames::saveeye(device, 3241),
                stream: "energy",
                table: "energy_consumption",
                latest: Some("/api/v1/energy/latest"),
                field: "energy_wh",
                value: 41_230_187.0,
            },
        )
    })
}

#[test]
fn thermiq() -> Result<()> {
    let device = "ivt-e2e-5";
    with_stack(async |stack: &'static Stack| {
        check(
            stack,
            Way {
                device,
                topic: "thermiq_heatpump/data".to_owned(),
                frame: frames::thermiq(device, 38),
                stream: "heatpump",
                table: "heatpump_status",
                latest: Some("/api/v1/heatpump/latest"),
                field: "supply_c",
                value: 38.0,
            },
        )
        .await?;
        let token = stack.token(&["read:settings"]).await?;
        let settings = format!("{}/api/v1/heatpump/settings", stack.settings_url());
        let reported = item(&settings, &token, |item| item["device_id"] == json!(device)).await?;
        ensure!(
            reported["reported"]["curve"].as_f64() == Some(38.0),
            "homelab-settings-api answers {reported}"
        );
        Ok(())
    })
}

#[test]
fn tasmota() -> Result<()> {
    let device = "plug-e2e-6";
    with_stack(|stack| {
        check(
            stack,
            Way {
                device,
                topic: format!("tele/{device}/SENSOR"),
                frame: frames::tasmota_sensor(43),
                stream: "plug",
                table: "plug_status",
                latest: None,
                field: "energy_wh",
                value: 12_345.0,
            },
        )
    })
}
