//! `redpanda-sink replay-dead-letters`: a letter whose cause is gone becomes a row, and a look changes nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::json;
use stack::part::eventually;
use telemetry::topic;
use tokio::process::Command;

use crate::world::{WITHIN, World, record, start_of_data, with_own_world, with_world};

/// Runs the command and gives its exit code and what it printed.
async fn replay(world: &World, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let output = Command::new(&world.binary)
        .arg("replay-dead-letters")
        .args(arguments)
        .env_clear()
        .env("KAFKA_BOOTSTRAP", world.kafka.bootstrap())
        .output()
        .await?;
    let text = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(text)?))
}

/// How many records the topic has had, over its partitions.
async fn records_of(world: &World, name: &'static str) -> Result<i64> {
    let bootstrap = world.kafka.bootstrap().to_owned();
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new().set("bootstrap.servers", bootstrap).create()?;
        let mut sum = 0;
        for partition in 0..topic::READING_PARTITIONS {
            sum += consumer
                .fetch_watermarks(name, partition, Duration::from_secs(10))?
                .1;
        }
        anyhow::Ok(sum)
    })
    .await?
}

#[test]
fn a_letter_whose_cause_is_gone_becomes_a_row() -> Result<()> {
    with_world(async |world: &'static World| {
        let database = world.database("sink_replay").await?;
        let good = record(topic::HEATPUMP, "replay-0", "p0/replay/1", start_of_data(), 5.0);
        // What an older version of the sink may have refused: the reason is of this test alone.
        let letter = |stage: &str, origin: &str, offset: i64, truncated: bool| {
            json!({"reason": "replay_test: by an older version", "stage": stage, "truncated": truncated,
                "origin": {"topic": origin, "partition": 0, "offset": offset},
                "payload_base64": BASE64_STANDARD.encode(&good)})
            .to_string()
            .into_bytes()
        };
        let letters = [
            letter("insert", topic::HEATPUMP, 1_000_001, false),
            // At least once: the same origin may be there twice.
            letter("insert", topic::HEATPUMP, 1_000_001, false),
            letter("decode", topic::HEATPUMP, 1_000_002, false),
            letter("insert", topic::PLUG, 1_000_003, false),
            letter("insert", topic::HEATPUMP, 1_000_004, true),
        ];
        let letters = letters.map(|value| (topic::DEAD_LETTER, "replay-0", value));
        let sent = world.produce(&letters).await?;
        let first = sent.first().context("five letters")?.offset;
        let from = first.to_string();
        let asked = [
            "--topic",
            topic::HEATPUMP,
            "--reason",
            "replay_test",
            "--from-offset",
            &from,
        ];

        // Other tests write to the topics as well, so what a dry run sent is told by the rows alone, further down.
        let (code, text) = replay(world, &[&asked[..], &["--dry-run"]].concat()).await?;
        ensure!(
            code == Some(0) && text.contains("would send 1 letters to homelab.heatpump, 1 left alone"),
            "{text}"
        );
        ensure!(text.contains("its bytes were not kept whole"), "{text}");

        let sink = world.sink("replay", &database.sink_url).await?;
        world.caught_up("replay").await?;
        ensure!(
            database.rows("heatpump_status", "replay-").await?.is_empty(),
            "a dry run sends nothing"
        );
        let before = records_of(world, topic::HEATPUMP).await?;
        let (code, text) = replay(world, &asked).await?;
        ensure!(
            code == Some(0) && text.contains("sent 1 letters to homelab.heatpump, 1 left alone"),
            "{text}"
        );
        ensure!(records_of(world, topic::HEATPUMP).await? > before);
        let rows = eventually("the row of the letter", WITHIN, async || {
            let rows = database.rows("heatpump_status", "replay-").await?;
            Ok((!rows.is_empty()).then_some(rows))
        })
        .await?;
        ensure!(
            rows.len() == 1 && rows["p0/replay/1"]["compressor_hours"] == 5.0,
            "{rows:?}"
        );
        sink.part.stop().await;

        let (code, text) = replay(world, &["--help"]).await?;
        ensure!(code == Some(0) && text.contains("--dry-run"), "{text}");
        let (code, text) = replay(world, &["--topic", "homelab.commands"]).await?;
        ensure!(
            code == Some(64) && text.contains("no topic of this sink"),
            "{text}"
        );
        Ok(())
    })
}

#[test]
fn a_letter_that_the_broker_refuses_is_not_called_sent() -> Result<()> {
    with_own_world("replay-refused", async |world: &World| {
        let letter = |id: &str, filler: usize| {
            let mut value: serde_json::Value =
                serde_json::from_slice(&record(topic::PLUG, "replay-1", id, start_of_data(), 1.0))
                    .expect("JSON");
            value["location"] = "x".repeat(filler).into();
            let letter = json!({"reason": "replay_test: large", "stage": "insert", "truncated": false,
                "origin": {"topic": topic::PLUG, "partition": 0, "offset": filler},
                "payload_base64": BASE64_STANDARD.encode(value.to_string())});
            (topic::DEAD_LETTER, "replay-1", letter.to_string().into_bytes())
        };
        world
            .produce(&[letter("p0/replay/2", 1), letter("p0/replay/3", 5_000)])
            .await?;
        world.kafka.set_max_message_bytes(topic::PLUG, 2_000).await?;
        let (code, text) = replay(world, &["--topic", topic::PLUG]).await?;
        ensure!(code == Some(1), "{code:?}: {text}");
        ensure!(
            text.contains("letter 0: sent") && !text.contains("letter 1: sent"),
            "{text}"
        );
        ensure!(
            text.contains("letter 1 was not sent; go on with --from-offset 1"),
            "{text}"
        );
        ensure!(records_of(world, topic::PLUG).await? == 1);
        Ok(())
    })
}
