//! The same work by Redpanda Connect: its Kafka input and its `sql_insert` output.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use stack::guardian;
use stack::part::Part;
use stack::port;
use telemetry::topic;
use tokio::process::Command;

use crate::{World, rows};

/// It is measured for at most this long: it need not write a million rows to show its speed.
const WITHIN: Duration = Duration::from_secs(60);
/// How long it may take until its first row.
const START_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(100);
const DATABASE: &str = "bench_connect";

/// Rows a second, from its first rows on.
pub async fn rows_per_s(world: &World, binary: &Path, records: u32) -> Result<f64> {
    world.database(DATABASE).await?;
    let file = guardian::run()?.data("connect")?.join("connect.json");
    // YAML is a superset of JSON.
    std::fs::write(&file, settings(world)?.to_string())?;
    let mut command = Command::new(binary);
    command.arg("-c").arg(&file);
    let part = Part::start("connect", command).await?;
    let started = Instant::now();
    let mut begin: Option<(Instant, u32)> = None;
    let rate = loop {
        let count = world
            .postgres
            .psql(DATABASE, "select count(*) from energy_consumption");
        let count: u32 = count.await?.parse()?;
        match begin {
            None if count > 0 => begin = Some((Instant::now(), count)),
            None => ensure!(
                started.elapsed() < START_WITHIN,
                "Redpanda Connect wrote nothing; see {}",
                part.log().display()
            ),
            Some((begin, before)) if count >= records || begin.elapsed() >= WITHIN => {
                break f64::from(count - before) / begin.elapsed().as_secs_f64();
            }
            Some(_) => {}
        }
        tokio::time::sleep(POLL).await;
    };
    part.stop().await;
    world.drop_database(DATABASE).await?;
    Ok(rate)
}

/// Batches of the size the sink begins with; the other settings are its own defaults.
fn settings(world: &World) -> Result<Value> {
    let arguments: Vec<String> = rows::COLUMNS
        .iter()
        .map(|column| match *column {
            "device_id" | "time" | "id" | "agent" | "clock" | "location" => format!("this.{column}"),
            _ => format!("this.reading.{column}"),
        })
        .collect();
    Ok(json!({
        "http": {"address": port::free()?.to_string()},
        "logger": {"level": "WARN"},
        "input": {"kafka_franz": {
            "seed_brokers": [world.kafka.bootstrap()],
            "topics": [topic::ENERGY],
            "consumer_group": DATABASE,
            "start_from_oldest": true,
        }},
        "output": {"sql_insert": {
            "driver": "postgres",
            "dsn": format!("{}?sslmode=disable", world.postgres.url("sink", DATABASE)),
            "table": "energy_consumption",
            "columns": rows::COLUMNS,
            "args_mapping": format!("root = [ {} ]", arguments.join(", ")),
            "suffix": "on conflict (device_id, time, id) do nothing",
            "batching": {"count": 1_000, "period": "100ms"},
        }},
    }))
}
