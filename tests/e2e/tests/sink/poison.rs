//! One record of every malformed kind in the middle of good ones: a dead letter each, and the rest is written.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use chrono::{TimeDelta, Utc};
use serde_json::{Value, json};
use sha2::Digest;
use stack::part::eventually;
use telemetry::{Origin, Stage, topic};

use crate::world::{Ids, TABLES, WITHIN, World, record, start_of_data, with_world};

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
        // What no version of the sink can know: a rule that the owner gave the table. Each test refuses a power of its own, for
        // every sink of this program reads the same topics and writes its letters to the same one.
        let rule = "alter table energy_consumption add constraint of_the_owner check (power_w <> 1515)";
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
                with("/reading/power_w", json!(1515)),
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

/// A rule that looks at each row, as a constraint does, and one that looks once a statement is done, when no row is at fault for
/// the database any more.
#[test]
fn what_the_database_alone_refuses_is_found_among_thousands() -> Result<()> {
    with_world(async |world: &'static World| {
        let (prefix, count) = ("refusals", 6_000_u32);
        let database = world.database("sink_refusals").await?;
        let rules = "alter table energy_consumption add constraint of_the_owner check (power_w <> 1313);
            create function of_the_owner() returns trigger language plpgsql as
                $$ begin if new.power_w = 1414 then raise exception 'fourteen'; end if; return null; end $$;
            create trigger of_the_owner after insert on energy_consumption for each row execute function of_the_owner();";
        world.postgres.psql("sink_refusals", rules).await?;
        let start = start_of_data();
        let (mut records, mut wanted, mut refused) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
        for number in 0..count {
            let id = format!("p0/refusals/{number}");
            let time = start + TimeDelta::milliseconds(number.into());
            let power_w = match number {
                // One in a hundred, with neighbours, the first of all and the last.
                number if number % 100 == 0 || number % 1_000 == 1 || number == count - 1 => 1313.0,
                3_333 | 3_334 | 4_444 => 1414.0,
                _ => 1.0,
            };
            let set = if power_w > 1.0 { &mut refused } else { &mut wanted };
            set.insert(id.clone());
            let value = record(topic::ENERGY, "refusals-0", &id, time, power_w);
            for _ in 0..1 + u32::from(number % 50 == 7) {
                records.push((topic::ENERGY, "refusals-0", value.clone()));
            }
        }
        world.produce(&records).await?;
        let sink = world.sink("refusals", &database.sink_url).await?;
        world.caught_up("refusals").await?;
        let rows = database.rows("energy_consumption", prefix).await?;
        ensure!(rows.into_keys().collect::<BTreeSet<_>>() == wanted);

        let mut found = Vec::new();
        for (_, letter) in world.letters().await? {
            if !letter.reason.starts_with("refused_by_database: ") {
                continue;
            }
            let value: Value = serde_json::from_slice(&BASE64_STANDARD.decode(&letter.payload_base64)?)?;
            let id = value["id"].as_str().context("an id")?.to_owned();
            if id.starts_with("p0/refusals/") {
                let rule = if value["reading"]["power_w"] == 1414.0 {
                    "fourteen"
                } else {
                    "of_the_owner"
                };
                ensure!(letter.reason.contains(rule), "{id}: {}", letter.reason);
                found.push(id);
            }
        }
        ensure!(found.len() == refused.len(), "{} letters", found.len());
        ensure!(found.into_iter().collect::<BTreeSet<_>>() == refused);

        // The other tests' records keep coming.
        eventually("as many rows counted as there are", WITHIN, async || {
            let mut rows = 0;
            for table in TABLES.map(|(_, table)| table).into_iter().chain(["events"]) {
                rows += database.rows(table, "").await?.len();
            }
            let counted = sink.metric("redpanda_sink_rows_inserted_total").await?;
            Ok((counted == rows as f64).then_some(()))
        })
        .await?;
        sink.part.stop().await;
        Ok(())
    })
}
