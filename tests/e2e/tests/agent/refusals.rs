//! What Redpanda refuses, and topics that are not there: the rest of the readings goes on, and nothing is lost.
//!
//! Topics of the shared broker are changed here, so each test has one that no other test of this program writes to.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD_NO_PAD};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use stack::mqtt::Publisher;
use stack::secured::Secured;
use stack::{frames, port};
use telemetry::topic;

use crate::lone::{Lone, Options, record, records, with_kafka};

/// Kafka's own.
const USUAL_BYTES: u32 = 1_048_588;

/// Text that no codec makes much shorter; another for each name.
fn noise(name: &str, letters: usize) -> String {
    let mut text = String::new();
    while text.len() < letters {
        text += &BASE64_STANDARD_NO_PAD.encode(Sha256::digest(format!("{name}{}", text.len())));
    }
    text.truncate(letters);
    text
}

fn section(bootstrap: impl std::fmt::Display) -> String {
    format!("bootstrap = \"{bootstrap}\"")
}

/// An agent of that name which forwards to this Kafka.
async fn agent(kafka: &Secured, name: &str, more: &str) -> Result<Lone> {
    let options = Options {
        agent: Some(name),
        kafka: section(kafka.kafka.bootstrap()),
        more,
        ..Options::default()
    };
    Lone::start(name, options).await
}

/// Publishes while no broker is there, so that all of it waits and then goes out in batches.
async fn buffered(name: &str, agent: &str, more: &str, messages: &[(String, Value)]) -> Result<()> {
    let nobody = section(port::free()?);
    let lone = Lone::start(
        name,
        Options {
            agent: Some(agent),
            kafka: nobody,
            more,
            ..Options::default()
        },
    )
    .await?;
    let mut publisher = Publisher::connect(lone.mqtt, agent).await?;
    for (topic, payload) in messages {
        publisher.publish(topic, payload.to_string()).await?;
    }
    publisher.disconnect().await?;
    lone.part.stop().await;
    Ok(())
}

/// Batches of twelve devices are larger than the topic takes, each reading alone is not, and one reading is.
#[test]
fn a_batch_refused_whole_costs_only_the_record_that_is_refused_alone() -> Result<()> {
    with_kafka(async |kafka| {
        const ROUNDS: u32 = 6;
        kafka
            .kafka
            .set_max_message_bytes(topic::TEMPERATURE, 1_200)
            .await?;
        let devices: Vec<String> = (0..12).map(|n| format!("refused-{n}")).collect();
        // Text that does not compress makes a record as large as it is.
        let mut locations = format!("[locations]\nrefused-large = \"{}\"\n", noise("large", 4_000));
        for device in &devices {
            locations += &format!("{device} = \"{}\"\n", noise(device, 300));
        }
        let mut messages = Vec::new();
        for round in 0..ROUNDS {
            for device in &devices {
                let frame = frames::shelly_ht(device, f64::from(round));
                messages.push((format!("{device}/events/rpc"), frame));
            }
            if round == 2 {
                let frame = frames::shelly_ht("refused-large", 7.0);
                messages.push(("refused-large/events/rpc".to_owned(), frame));
            }
        }
        let name = "refused-batch";
        buffered(name, name, &locations, &messages).await?;
        let agent = agent(kafka, name, &locations).await?;
        let status = agent
            .until("an empty buffer", |status| status["buffer"]["entries"] == 0)
            .await?;
        ensure!(
            status["forward"]["refused_batches"].as_u64() > Some(0)
                && status["forward"]["dead_letters"] == 1
                && status["forward"]["blocked"].is_null()
                && status["buffer"]["lost"]["refused"] == 0,
            "{status}"
        );
        let found = records(kafka, topic::TEMPERATURE).await?;
        for device in &devices {
            let mut readings: Vec<(&str, f64)> = Vec::new();
            for record in found.iter().filter(|record| record["device_id"] == *device) {
                let id = record["id"].as_str().context("an id")?;
                // A batch that was delivered before the refused one is sent again: a repeated prefix.
                if !readings.iter().any(|(known, _)| *known == id) {
                    readings.push((
                        id,
                        record["reading"]["temperature_c"].as_f64().context("a reading")?,
                    ));
                }
            }
            let values: Vec<f64> = readings.into_iter().map(|(_, value)| value).collect();
            let want: Vec<f64> = (0..ROUNDS).map(f64::from).collect();
            ensure!(values == want, "{device}: {values:?}");
        }
        let letters = records(kafka, topic::DEAD_LETTER).await?;
        let ours: Vec<&Value> = letters
            .iter()
            .filter(|letter| letter["origin"]["agent"] == name)
            .collect();
        ensure!(
            ours.len() == 1 && ours[0]["origin"]["mqtt_topic"] == "refused-large/events/rpc",
            "{ours:?}"
        );
        ensure!(
            ours[0]["reason"]
                .as_str()
                .is_some_and(|reason| reason.contains("too large")),
            "{}",
            ours[0]
        );
        agent.part.stop().await;
        kafka
            .kafka
            .set_max_message_bytes(topic::TEMPERATURE, USUAL_BYTES)
            .await
    })
}

/// The whole dead letter of a large payload is refused as well: its beginning is kept, with length and hash.
#[test]
fn a_dead_letter_that_is_too_large_is_cut() -> Result<()> {
    with_kafka(async |kafka| {
        kafka
            .kafka
            .set_max_message_bytes(topic::DEAD_LETTER, 9_000)
            .await?;
        let payload = noise("letter", 40_000);
        let name = "cut-letter";
        let agent = agent(kafka, name, "").await?;
        let mut publisher = Publisher::connect(agent.mqtt, name).await?;
        publisher
            .publish("tele/cut-letter/SENSOR", payload.clone())
            .await?;
        publisher
            .publish("tele/cut-letter/STATE", r#"{"POWER":"ON"}"#)
            .await?;
        let letter = record(kafka, topic::DEAD_LETTER, move |letter| {
            letter["origin"]["agent"] == name
        })
        .await?;
        ensure!(
            letter["truncated"] == true && letter["payload_bytes"] == payload.len(),
            "{letter}"
        );
        record(kafka, topic::PLUG, |record| record["device_id"] == "cut-letter").await?;
        agent
            .until("an empty buffer", |status| status["buffer"]["entries"] == 0)
            .await?;
        agent.part.stop().await;
        kafka
            .kafka
            .set_max_message_bytes(topic::DEAD_LETTER, USUAL_BYTES)
            .await
    })
}

#[test]
fn a_topic_that_is_missing_is_waited_for_and_named() -> Result<()> {
    with_kafka(async |kafka| {
        kafka.kafka.delete_topic(topic::HEATPUMP).await?;
        let name = "missing-topic";
        let agent = agent(kafka, name, "").await?;
        let mut publisher = Publisher::connect(agent.mqtt, name).await?;
        for supply_c in [41, 42, 43] {
            let frame = frames::thermiq("missing-pump", supply_c);
            publisher
                .publish("thermiq_heatpump/data", frame.to_string())
                .await?;
        }
        let status = agent
            .until_within(
                "the missing topic in the status",
                Duration::from_secs(90),
                |status| {
                    status["forward"]["blocked"]
                        .as_str()
                        .is_some_and(|why| why.contains(topic::HEATPUMP))
                },
            )
            .await?;
        ensure!(
            status["buffer"]["entries"] == 3 && status["forward"]["dead_letters"] == 0,
            "{status}"
        );
        // What comes meanwhile is kept as well.
        publisher
            .publish("tele/missing-topic/STATE", r#"{"POWER":"ON"}"#)
            .await?;
        kafka.kafka.create_topics(&topic::ALL).await?;
        agent
            .until_within("an empty buffer", Duration::from_secs(120), |status| {
                status["buffer"]["entries"] == 0 && status["forward"]["blocked"].is_null()
            })
            .await?;
        let found = records(kafka, topic::HEATPUMP).await?;
        let mut supply: Vec<i64> = found
            .iter()
            .filter_map(|record| record["reading"]["supply_c"].as_f64())
            .map(|supply| supply as i64)
            .collect();
        supply.dedup();
        ensure!(supply == [41, 42, 43], "{supply:?}");
        record(kafka, topic::PLUG, |record| {
            record["device_id"] == "missing-topic"
        })
        .await?;
        agent.part.stop().await;
        Ok(())
    })
}
