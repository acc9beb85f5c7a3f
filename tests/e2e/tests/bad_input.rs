//! Bad input stops nothing, and each kind of it ends where it should (DESIGN P5 and 5.2): what cannot be decoded and what
//! is too large as a dead letter with the reason and the original bytes, what is merely odd as a row.
//!
//! Every test publishes a good reading on the same connection afterwards and waits until it is in the database.

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use e2e::{dead_letter, item, row, with_stack};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use stack::mqtt::Publisher;
use stack::{Stack, frames};
use telemetry::{DeadLetter, Origin, Stage};

/// Of a payload that is too large, this much is kept (DESIGN 5.2).
const KEPT_BYTES: usize = 4096;

fn is_from(letter: &DeadLetter, topic: &str) -> bool {
    matches!(&letter.origin, Origin::Mqtt { mqtt_topic, .. } if mqtt_topic == topic)
}

/// Publishes what is bad, then a good reading of `device` on the same connection, and waits for the row of the latter.
async fn bad_then_good(stack: &Stack, device: &str, topic: &str, bad: Vec<u8>) -> Result<()> {
    let mut publisher = Publisher::connect(stack.mqtt(), device).await?;
    publisher
        .publish(topic, bad)
        .await
        .context("what is bad is acknowledged all the same")?;
    let frame = frames::shelly_ht(device, 17.25).to_string();
    publisher
        .publish(&format!("{device}/events/rpc"), frame)
        .await
        .context("the good one")?;
    row(stack, "temperature_sensors", device, |row| {
        row["temperature_c"] == json!(17.25)
    })
    .await?;
    publisher.disconnect().await
}

#[test]
fn a_frame_that_is_not_json() -> Result<()> {
    with_stack(async |stack: &'static Stack| {
        let device = "shellyhtg3-bad000000001";
        let topic = format!("{device}/events/rpc");
        let bad = b"\xff{\"src\":".to_vec();
        bad_then_good(stack, device, &topic, bad.clone()).await?;

        let letter = dead_letter(stack, move |letter| is_from(letter, &topic)).await?;
        ensure!(letter.stage == Stage::Decode && !letter.truncated, "{letter:?}");
        ensure!(!letter.reason.is_empty(), "{letter:?}");
        ensure!(
            STANDARD.decode(&letter.payload_base64)? == bad,
            "the original bytes are kept: {letter:?}"
        );
        let Origin::Mqtt { agent, id, .. } = &letter.origin else {
            unreachable!("is_from has looked")
        };
        ensure!(agent == "p0" && id.starts_with("p0/"), "{letter:?}");
        Ok(())
    })
}

#[test]
fn a_shelly_frame_with_nulls() -> Result<()> {
    with_stack(async |stack: &'static Stack| {
        let device = "shellyhtg3-bad000000002";
        let topic = format!("{device}/events/rpc");
        let mut frame = frames::shelly_ht(device, 0.0);
        let params = &mut frame["params"];
        params["temperature:0"] = json!({"id": 0, "tC": null, "tF": null, "errors": ["read"]});
        params["humidity:0"]["rh"] = json!(51.5);
        for null in ["time", "unixtime", "last_sync_ts", "wakeup_period"] {
            params["sys"][null] = Value::Null;
        }
        params["devicepower:0"]["battery"]["V"] = Value::Null;
        params["wifi"]["rssi"] = Value::Null;

        let mut publisher = Publisher::connect(stack.mqtt(), device).await?;
        publisher.publish(&topic, frame.to_string()).await?;
        let row = row(stack, "temperature_sensors", device, |row| {
            row["humidity_percent"] == json!(51.5)
        })
        .await?;
        for missing in [
            "temperature_c",
            "battery_volts",
            "rssi_dbm",
            "wake_period_seconds",
        ] {
            ensure!(row[missing].is_null(), "{missing} was not reported: {row}");
        }
        ensure!(row["battery_percent"].as_f64() == Some(77.0), "{row}");
        publisher.disconnect().await?;

        bad_then_good(stack, device, &topic, frame.to_string().into_bytes()).await
    })
}

#[test]
fn forty_kilowatts() -> Result<()> {
    with_stack(async |stack: &'static Stack| {
        let device = "SEBAD00003";
        let mut publisher = Publisher::connect(stack.mqtt(), device).await?;
        publisher
            .publish("saveeye/telemetry", frames::saveeye(device, 40_000).to_string())
            .await?;
        let row = row(stack, "energy_consumption", device, |row| {
            !row["power_w"].is_null()
        })
        .await?;
        ensure!(row["power_w"].as_f64() == Some(40_000.0), "{row}");
        let token = stack.token(&["read:energy"]).await?;
        let url = format!("{}/api/v1/energy/latest", stack.api_url());
        let item = item(&url, &token, |item| item["device_id"] == json!(device)).await?;
        ensure!(item["power_w"].as_f64() == Some(40_000.0), "{item}");
        publisher.disconnect().await
    })
}

#[test]
fn two_megabytes() -> Result<()> {
    with_stack(async |stack: &'static Stack| {
        let device = "shellyhtg3-bad000000004";
        let topic = format!("{device}/events/rpc");
        // Valid JSON all through: it is refused for its size alone.
        let bad = format!("{{\"src\":\"{device}\",\"padding\":\"{}\"}}", "x".repeat(2 << 20)).into_bytes();
        bad_then_good(stack, device, &topic, bad.clone()).await?;

        let letter = dead_letter(stack, move |letter| is_from(letter, &topic)).await?;
        ensure!(letter.stage == Stage::Decode && letter.truncated, "{letter:?}");
        ensure!(
            STANDARD.decode(&letter.payload_base64)? == bad[..KEPT_BYTES],
            "the first 4 KiB are kept"
        );
        ensure!(
            letter.payload_bytes == Some(bad.len() as u64),
            "{:?}",
            letter.payload_bytes
        );
        let hash: String = Sha256::digest(&bad)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        ensure!(
            letter.payload_sha256.as_ref() == Some(&hash),
            "{:?}",
            letter.payload_sha256
        );
        Ok(())
    })
}
