//! One record of every malformed kind in the middle of good ones: a dead letter each, and the rest is written.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use sha2::Digest;
use telemetry::{Origin, Stage, topic};

use crate::world::{Ids, TABLES, World, record, start_of_data, with_world};

#[test]
fn poison_becomes_dead_letters_and_the_rest_is_written() -> Result<()> {
    with_world(async |world: &'static World| {
        let prefix = "poison";
        let database = world.database("sink_poison").await?;
        let start = start_of_data();
        let good = |name: &str, id: &str| record(name, "poison-0", id, start, 1.0);
        let with = |pointer: &str, value: Value| {
            let mut record: Value =
                serde_json::from_slice(&good(topic::ENERGY, "p0/poison/bad")).expect("JSON");
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
            record.pointer_mut(parent).expect("a parent")[key] = value;
            record.to_string().into_bytes()
        };
        // What no version of the sink can know: a rule that the owner gave the table.
        let rule = "alter table energy_consumption add constraint of_the_owner check (power_w <> 1313)";
        world.postgres.psql("sink_poison", rule).await?;
        let large = vec![b'x'; 600 * 1024];
        let event = |change: Value| {
            let mut event = json!({"id": "p0/poison/e", "agent": "p0", "time": start, "type": "device_online",
                "online": true});
            event
                .as_object_mut()
                .expect("an object")
                .extend(change.as_object().expect("an object").clone());
            event.to_string().into_bytes()
        };
        let poison: Vec<(&str, &str, Vec<u8>)> = vec![
            ("malformed", topic::ENERGY, b"hello".to_vec()),
            ("malformed", topic::ENERGY, Vec::new()),
            ("malformed", topic::TEMPERATURE, b"\xff\xfe\x00".to_vec()),
            ("malformed", topic::HEATPUMP, b"{\"id\":".to_vec()),
            ("malformed", topic::PLUG, large),
            (
                "malformed",
                topic::ENERGY,
                with("/reading/power_w", json!("many")),
            ),
            ("malformed", topic::ENERGY, with("/kind", json!("water"))),
            ("malformed", topic::ENERGY, with("/device_id", json!("a\u{0}b"))),
            ("wrong_kind", topic::PLUG, good(topic::ENERGY, "p0/poison/bad")),
            (
                "out_of_range",
                topic::ENERGY,
                with("/reading/power_w", json!(5e9)),
            ),
            (
                "nul_character",
                topic::ENERGY,
                with("/location", json!("cel\u{0}lar")),
            ),
            (
                "nul_character",
                topic::ENERGY,
                with("/reading/meter_id", json!("\u{0}")),
            ),
            (
                "time_out_of_range",
                topic::ENERGY,
                with("/time", json!(Utc::now() + TimeDelta::minutes(90))),
            ),
            (
                "time_out_of_range",
                topic::ENERGY,
                with("/time", json!("2019-12-31T23:59:59Z")),
            ),
            (
                "out_of_range",
                topic::ENERGY,
                with("/id", json!("9".repeat(3_000))),
            ),
            (
                "refused_by_database",
                topic::ENERGY,
                with("/reading/power_w", json!(1313)),
            ),
            ("malformed", topic::EVENTS, event(json!({"type": "unheard_of"}))),
            ("nul_character", topic::EVENTS, event(json!({"agent": "p\u{0}"}))),
            (
                "time_out_of_range",
                topic::EVENTS,
                event(json!({"time": "1970-01-01T00:00:00Z"})),
            ),
        ];
        // Good records stand before, between and after, with one key, so that they share batches and partitions.
        let mut records = Vec::new();
        let mut wanted = Ids::new();
        let mut at = Vec::new();
        for (number, (_, topic_name, value)) in poison.iter().enumerate() {
            for (name, _) in TABLES {
                let id = format!("p0/poison/{number}-{name}");
                records.push((name, "poison-0", record(name, "poison-0", &id, start, 1.0)));
                wanted.entry(name).or_default().insert(id);
            }
            at.push(records.len());
            records.push((topic_name, "poison-0", value.clone()));
        }
        records.push((topic::EVENTS, "p0", event(json!({"device_id": "poison-0"}))));
        let deliveries = world.produce(&records).await?;

        let sink = world.sink("poison", &database.sink_url).await?;
        world.caught_up("poison").await?;
        for (name, table) in TABLES {
            let rows: BTreeSet<String> = database.rows(table, prefix).await?.into_keys().collect();
            ensure!(rows == wanted[name], "{table}: {rows:?}");
        }
        ensure!(database.rows("events", prefix).await?.len() == 1);

        let letters = world.letters().await?;
        for ((reason, topic_name, value), at) in poison.iter().zip(at) {
            let delivery = &deliveries[at];
            let origin = Origin::Kafka {
                topic: (*topic_name).to_owned(),
                partition: delivery.partition,
                offset: delivery.offset,
            };
            let found = letters.iter().find(|(_, letter)| letter.origin == origin);
            let (key, letter) =
                found.with_context(|| format!("no dead letter of {reason} from {origin:?}"))?;
            ensure!(
                letter.reason.starts_with(&format!("{reason}: ")),
                "{origin:?}: {}",
                letter.reason
            );
            ensure!(letter.reason.len() < 600, "{}", letter.reason.len());
            ensure!(letter.stage == Stage::Insert);
            ensure!(key.as_deref() == Some(b"poison-0".as_slice()), "{key:?}");
            let bytes = BASE64_STANDARD.decode(&letter.payload_base64)?;
            if letter.truncated {
                ensure!(
                    value.len() > 512 * 1024 && bytes == value[..4_096],
                    "only what is too large is cut"
                );
                ensure!(letter.payload_bytes == Some(value.len() as u64));
                let hash: String = sha2::Sha256::digest(value)
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                ensure!(letter.payload_sha256.as_deref() == Some(hash.as_str()));
            } else {
                ensure!(bytes == *value, "the whole original is kept");
            }
        }
        for (reason, at_least) in [
            ("malformed", 9.0),
            ("nul_character", 3.0),
            ("refused_by_database", 1.0),
        ] {
            let line = format!("redpanda_sink_dead_letters_total{{reason=\"{reason}\"}}");
            let counted = sink.metric(&line).await?;
            ensure!(counted >= at_least, "{line} {counted}");
        }
        sink.part.stop().await;
        Ok(())
    })
}
