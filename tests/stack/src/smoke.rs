//! One reading, all the way: published over MQTT by an ordinary client, waited for on energy-ws and in homelab-api.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::live::Live;
use crate::mqtt::Publisher;
use crate::stack::Stack;
use crate::{frames, http};

/// Far beyond any promise: a smoke run that takes longer has failed.
const WITHIN: Duration = Duration::from_secs(30);
/// How often homelab-api is asked; it bounds what the figure can tell.
const POLL: Duration = Duration::from_millis(5);

/// What a smoke run found.
#[derive(Clone, Debug, Serialize)]
pub struct Smoke {
    /// Always `ok`; a run that is not is an error.
    pub smoke: &'static str,
    /// From handing the frame to the MQTT client until energy-ws delivered the reading, in milliseconds.
    pub device_to_ws_ms: f64,
    /// The same until homelab-api returned it.
    pub device_to_api_ms: f64,
}

/// Follows one Shelly frame through `stack`.
///
/// # Errors
/// When the reading does not arrive at either end in time, or arrives altered.
pub async fn run(stack: &Stack) -> Result<Smoke> {
    let token = stack.token(&["read:temperature"]).await?;
    let device = format!("shellyhtg3-{:012x}", rand::random::<u64>() & 0xffff_ffff_ffff);
    let temperature = 21.3;
    let frame = frames::shelly_ht(&device, temperature);

    let mut live = Live::connect(&stack.ws_url(), &token).await?;
    live.subscribe(&["temperature"]).await?;
    let mut publisher = Publisher::connect(stack.mqtt(), &device).await?;

    let begin = Instant::now();
    publisher
        .publish(&format!("{device}/events/rpc"), frame.to_string().into_bytes())
        .await?;
    let over_ws = async {
        let data = live
            .data(WITHIN, |data| data["device_id"] == json!(device))
            .await?;
        check_temperature(&data["reading"], temperature).map(|()| begin.elapsed())
    };
    let over_api = async {
        let item = in_api(stack, &token, &device).await?;
        check_temperature(&item, temperature).map(|()| begin.elapsed())
    };
    let (over_ws, over_api) = tokio::try_join!(over_ws, over_api)?;
    publisher.disconnect().await?;
    Ok(Smoke {
        smoke: "ok",
        device_to_ws_ms: milliseconds(over_ws),
        device_to_api_ms: milliseconds(over_api),
    })
}

fn check_temperature(reading: &Value, wanted: f64) -> Result<()> {
    if reading["temperature_c"].as_f64() != Some(wanted) {
        bail!("published {wanted} C and got {reading}");
    }
    Ok(())
}

async fn in_api(stack: &Stack, token: &str, device: &str) -> Result<Value> {
    let client = http::client()?;
    let url = format!("{}/api/v1/temperature/all-latest", stack.api_url());
    let asked = timeout(WITHIN, async {
        loop {
            let answer = client
                .get(&url)
                .bearer_auth(token)
                .send()
                .await?
                .error_for_status()?;
            let body: Value = answer.json().await?;
            let items = body["items"].as_array().context("no items in the answer")?;
            if let Some(item) = items.iter().find(|item| item["device_id"] == json!(device)) {
                return anyhow::Ok(item.clone());
            }
            sleep(POLL).await;
        }
    });
    asked.await.with_context(|| {
        format!(
            "homelab-api does not return the reading within {} s",
            WITHIN.as_secs()
        )
    })?
}

fn milliseconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
