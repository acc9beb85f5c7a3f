//! From a change of a setting to the message on the device's own topic: homelab-settings-api, PostgreSQL, Kafka and edge-agent,
//! all real, and a heat pump that does what it is told.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use serde_json::{Value, json};
use stack::issuer::{ALL_SCOPES, AUDIENCE};
use stack::part::{Part, eventually};
use stack::postgres::Postgres;
use stack::{guardian, port};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::WITHIN;
use crate::world::World;

const PUMP: &str = "bench-pump";
const WRITE: &str = "thermiq_heatpump/write";
const DATA: &str = "thermiq_heatpump/data";
/// Changes before the ones that count: connections, prepared statements and the agent's place in its consumer group.
const WARM_UP: usize = 10;
/// Between two changes; a person is slower.
const PAUSE: Duration = Duration::from_millis(50);

/// The delays of `count` changes, from sending the PATCH until the device has the message, in microseconds.
pub async fn delays(world: &World, count: usize) -> Result<Vec<u64>> {
    let postgres = Postgres::start(&guardian::run()?.data("postgres")?).await?;
    let (agent, mqtt) = agent(world).await?;
    let (settings, url) = settings_api(world, &postgres).await?;
    let (client, mut written) = pump(mqtt).await?;
    let http = stack::http::client()?;
    let token = world.issuer.good(ALL_SCOPES);
    let path = format!("{url}/api/v1/heatpump/settings/{PUMP}");
    eventually("the pump is known", WITHIN, async || {
        let answer = http.get(&path).bearer_auth(&token).send().await?;
        Ok(answer.status().is_success().then_some(()))
    })
    .await?;

    let mut delays = Vec::with_capacity(count);
    for number in 0..WARM_UP + count {
        // No two that follow each other want the same.
        let wanted = 15 + i64::try_from(number % 15)?;
        let change = http
            .patch(&path)
            .bearer_auth(&token)
            .json(&json!({"indoor_target_c": wanted}));
        let begin = Instant::now();
        let answer = change.send().await?;
        ensure!(answer.status() == 202, "{}", answer.status());
        let (value, at) = timeout(WITHIN, written.recv())
            .await
            .context("no message at the device")?
            .context("the device's connection ended")?;
        ensure!(value == wanted, "{value} instead of {wanted}");
        if number >= WARM_UP {
            delays.push(u64::try_from((at - begin).as_micros())?);
        }
        tokio::time::sleep(PAUSE).await;
    }
    client.disconnect().await?;
    settings.stop().await;
    agent.stop().await;
    postgres.stop().await;
    Ok(delays)
}

async fn agent(world: &World) -> Result<(Part, SocketAddr)> {
    let (mqtt, admin) = (port::free()?, port::free()?);
    let folder = guardian::run()?.data("edge-agent")?;
    let config = folder.join("edge-agent.toml");
    std::fs::write(
        &config,
        format!(
            "agent = \"p0\"\ndata_dir = \"{}\"\n[mqtt]\nlisten = \"{mqtt}\"\n[admin]\nlisten = \"{admin}\"\n\
             [kafka]\nbootstrap = \"{}\"\n[clock]\nsource = \"trusted\"\n",
            folder.join("data").display(),
            world.kafka.bootstrap()
        ),
    )?;
    let mut command = Command::new(world.binary("edge-agent")?);
    command.arg("run").arg("--config").arg(&config);
    let part = Part::start("edge-agent", command).await?;
    part.ready_http(WITHIN, admin, "/readyz").await?;
    Ok((part, mqtt))
}

async fn settings_api(world: &World, postgres: &Postgres) -> Result<(Part, String)> {
    let (public, admin) = (port::free()?, port::free()?);
    let mut command = Command::new(world.binary("homelab-settings-api")?);
    command
        .env("DATABASE_URL", postgres.url("settings", "homelab_settings"))
        .env("KAFKA_BOOTSTRAP", world.kafka.bootstrap())
        .env("OIDC_ISSUERS", world.issuer.url())
        .env("OIDC_AUDIENCES", AUDIENCE)
        .env("LISTEN_ADDRESS", public.to_string())
        .env("METRICS_ADDRESS", admin.to_string());
    let part = Part::start("homelab-settings-api", command).await?;
    part.ready_http(WITHIN, admin, "/readyz").await?;
    Ok((part, format!("http://{public}")))
}

/// A heat pump that reports what was written to it, and what was written with when it came.
async fn pump(mqtt: SocketAddr) -> Result<(AsyncClient, mpsc::UnboundedReceiver<(i64, Instant)>)> {
    let mut options = MqttOptions::new(PUMP, mqtt.ip().to_string(), mqtt.port());
    options.set_keep_alive(Duration::from_secs(30));
    let (client, events) = AsyncClient::new(options, 16);
    client.subscribe(WRITE, QoS::AtLeastOnce).await?;
    let (sender, written) = mpsc::unbounded_channel();
    tokio::spawn(run(client.clone(), events, sender));
    Ok((client, written))
}

async fn run(client: AsyncClient, mut events: EventLoop, written: mpsc::UnboundedSender<(i64, Instant)>) {
    let report = |value: i64| {
        let data = json!({"Client_Name": PUMP, "d0": 1, "d50": value}).to_string();
        client.try_publish(DATA, QoS::AtLeastOnce, false, data)
    };
    while let Ok(event) = events.poll().await {
        let reported = match event {
            Event::Incoming(Packet::SubAck(_)) => report(21),
            Event::Incoming(Packet::Publish(message)) => {
                let at = Instant::now();
                let value = serde_json::from_slice::<Value>(&message.payload)
                    .ok()
                    .and_then(|write| write["d50"].as_i64());
                let Some(value) = value else { return };
                if written.send((value, at)).is_err() {
                    return;
                }
                report(value)
            }
            _ => Ok(()),
        };
        // Its end is seen by who waits for a message.
        if reported.is_err() {
            return;
        }
    }
}
