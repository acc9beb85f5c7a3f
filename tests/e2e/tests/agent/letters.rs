//! `edge-agent dead-letters` against a real Kafka: a look, a replay after the route was mended, and the same once more.

use anyhow::{Context, Result, ensure};
use e2e::WITHIN;
use serde_json::Value;
use stack::mqtt::Publisher;
use stack::part::eventually;
use stack::{binaries, guardian};
use telemetry::topic;
use tokio::process::Command;

use crate::lone::{Lone, Options, record, with_kafka};

const ROUTE: &str =
    "[[generic]]\nfilter = \"letters/+/weather\"\nkind = \"temperature\"\ndevice_id = { topic_level = 1 }\n";

/// What the command answers for the agent of a test.
///
/// # Errors
/// When it fails.
pub async fn letters(name: &str, arguments: &[&str]) -> Result<Value> {
    let output = Command::new(binaries::folder().await?.join("edge-agent"))
        .args(["dead-letters", "--json", "--config"])
        .arg(guardian::run()?.data(name)?.join("edge-agent.toml"))
        .args(arguments)
        .output()
        .await?;
    ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn a_letter_goes_out_under_its_old_id_and_time_once_its_route_is_mended() -> Result<()> {
    with_kafka(async |kafka| {
        let wrong = format!("{ROUTE}fields = {{ temperature_c = {{ pointer = \"/words\" }} }}\n");
        let agent = Lone::start(
            "letters-agent",
            Options {
                agent: Some("letters"),
                kafka: format!("bootstrap = \"{}\"", kafka.kafka.bootstrap()),
                more: &wrong,
                ..Options::default()
            },
        )
        .await?;
        let mut publisher = Publisher::connect(agent.mqtt, "letters-publisher").await?;
        publisher
            .publish(
                "letters/letters-porch/weather",
                r#"{"words":"warm","degrees":21.5}"#,
            )
            .await?;
        publisher.publish("tele/letters-plug/STATE", "garbage").await?;
        agent
            .until("both are dead letters", |s| {
                s["forward"]["dead_letters"] == 2 && s["buffer"]["entries"] == 0
            })
            .await?;

        let before = letters("letters-agent", &[]).await?;
        ensure!(before["found"] == 2, "{before}");
        let verdicts: Vec<_> = before["letters"].as_array().context("a list")?.iter().collect();
        for letter in &verdicts {
            let verdict = letter["verdict"].as_str().unwrap_or_default();
            ensure!(verdict.starts_with("still not decoded"), "{letter}");
        }
        let (id, time) = (verdicts[0]["id"].clone(), verdicts[0]["time"].clone());
        ensure!(
            verdicts[0]["topic"] == "letters/letters-porch/weather",
            "{before}"
        );
        let none = letters("letters-agent", &["--replay"]).await?;
        ensure!(none["replayed"] == 0, "nothing can be decoded yet: {none}");

        // The route is mended while the agent runs.
        let file = guardian::run()?.data("letters-agent")?.join("edge-agent.toml");
        let text = std::fs::read_to_string(&file)?.replace("/words", "/degrees");
        std::fs::write(&file, text)?;
        agent.part.signal(rustix::process::Signal::HUP).await?;
        eventually("it can be decoded", WITHIN, async || {
            let look = letters("letters-agent", &[]).await?;
            let first = &look["letters"][0];
            Ok((first["verdict"] == "can be decoded").then_some(()))
        })
        .await?;
        for _ in 0..2 {
            let replay = letters("letters-agent", &["--replay"]).await?;
            ensure!(replay["replayed"] == 1 && replay["found"] == 2, "{replay}");
        }
        let found = record(kafka, topic::TEMPERATURE, |r| r["device_id"] == "letters-porch").await?;
        ensure!(
            found["id"] == id && found["time"] == time && found["clock"] == "synced",
            "{found} is not letter {id} of {time}"
        );
        ensure!(found["reading"]["temperature_c"] == 21.5, "{found}");
        agent.part.stop().await;
        Ok(())
    })
}
