//! Every record once: read twice, killed in the middle of a batch, shared between replicas, caught up by COPY.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::json;
use sha2::Digest;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use stack::part::eventually;
use telemetry::topic;

use crate::world::{TABLES, WITHIN, World, load, record, start_of_data, with_world};

#[test]
fn the_same_topic_consumed_twice_gives_the_same_rows() -> Result<()> {
    with_world(async |world: &'static World| {
        let prefix = "twice";
        let database = world.database("sink_twice").await?;
        let (records, ids) = load(prefix, 2_000);
        world.produce(&records).await?;
        let event = json!({"id": "p0/twice/e1", "agent": "p0", "device_id": "twice-0", "time": start_of_data(),
            "type": "buffer_loss", "from": start_of_data(), "to": start_of_data(), "count": 3, "reason": "full"});
        let event = event.to_string().into_bytes();
        world
            .produce(&[(topic::EVENTS, "p0", event.clone()), (topic::EVENTS, "p0", event)])
            .await?;

        let snapshot = async || {
            let mut rows = Vec::new();
            for (_, table) in TABLES {
                rows.push(database.rows(table, prefix).await?);
            }
            rows.push(database.rows("events", prefix).await?);
            anyhow::Ok(rows)
        };
        let first = world.sink("twice-first", &database.sink_url).await?;
        world.caught_up("twice-first").await?;
        database.holds_exactly(prefix, &ids).await?;
        let before = snapshot().await?;
        ensure!(before[4].len() == 1, "{:?}", before[4]);
        let stored = before[4].values().next().context("one event")?;
        ensure!(
            stored["type"] == "buffer_loss" && stored["details"]["count"] == 3,
            "{stored}"
        );
        ensure!(
            before[2].values().all(|row| row["settings_curve"] == 38),
            "settings have columns of their own"
        );
        first.part.stop().await;

        let second = world.sink("twice-second", &database.sink_url).await?;
        world.caught_up("twice-second").await?;
        ensure!(snapshot().await? == before, "the second time changed the rows");
        let ignored = second.metric("redpanda_sink_rows_ignored_total").await?;
        ensure!(ignored >= 2_201.0, "the second sink ignored {ignored} rows");
        ensure!(second.metric("redpanda_sink_database_up").await? == 1.0);
        eventually("lag zero", WITHIN, async || {
            let lag = second
                .metric("redpanda_sink_lag_records{topic=\"homelab.energy\"}")
                .await?;
            Ok((lag == 0.0).then_some(()))
        })
        .await?;
        second.part.stop().await;
        Ok(())
    })
}

#[test]
fn a_kill_while_the_database_holds_the_batch_loses_nothing() -> Result<()> {
    with_world(async |world: &'static World| {
        let (prefix, group) = ("held", "held");
        let database = world.database("sink_held").await?;
        let (records, ids) = load(prefix, 400);
        // The table is held by another session, so that the batch stays in the middle of its transaction.
        let mut holder = PgConnection::connect(&world.postgres.url("postgres", "sink_held")).await?;
        sqlx::query("begin").execute(&mut holder).await?;
        sqlx::query("lock table plug_status in access exclusive mode")
            .execute(&mut holder)
            .await?;
        world.produce(&records).await?;
        let sink = world.sink(group, &database.sink_url).await?;
        let waiting = "select 1 from pg_locks where not granted and relation = 'plug_status'::regclass";
        eventually("the batch to be held", WITHIN, async || {
            Ok((!world.postgres.psql("sink_held", waiting).await?.is_empty()).then_some(()))
        })
        .await?;
        // Offsets go to the broker every second: those of the held batch must not be among them.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(3) {
            let committed = world.committed(group, topic::PLUG).await?;
            ensure!(
                committed.is_empty(),
                "committed before the rows were: {committed:?}"
            );
        }
        sink.part.kill().await;
        sqlx::query("rollback").execute(&mut holder).await?;
        sink.part.restart().await?;
        world.caught_up(group).await?;
        database.holds_exactly(prefix, &ids).await?;
        sink.part.stop().await;
        Ok(())
    })
}

#[test]
fn kills_and_rebalances_lose_nothing_and_double_nothing() -> Result<()> {
    with_world(async |world: &'static World| {
        let (prefix, group) = ("kill", "kill");
        let database = world.database("sink_kill").await?;
        let (records, ids) = load(prefix, 20_000);
        let (early, late) = records.split_at(records.len() / 2);
        world.produce(early).await?;
        let sink = world.sink(group, &database.sink_url).await?;
        let count = async || {
            let mut connection = PgConnection::connect(&database.api_url).await?;
            let row =
                sqlx::query("select count(*) as n from energy_consumption where device_id like 'kill-%'")
                    .fetch_one(&mut connection)
                    .await?;
            Ok::<i64, anyhow::Error>(row.try_get("n")?)
        };
        // Each kill comes in the middle of the work: rows have come, and more are to come.
        for at_least in [1, 600, 1_500] {
            eventually("rows before a kill", WITHIN, async || {
                Ok((count().await? >= at_least).then_some(()))
            })
            .await?;
            sink.part.kill().await;
            sink.part.restart().await?;
        }
        // A second replica takes a share, and the first leaves while there is work.
        let second = world.sink(group, &database.sink_url).await?;
        world.produce(late).await?;
        let rebalances = "redpanda_sink_rebalances_total";
        eventually("a share for the second replica", WITHIN, async || {
            Ok((second.metric(rebalances).await? > 0.0).then_some(()))
        })
        .await?;
        sink.part.stop().await;
        world.caught_up(group).await?;
        database.holds_exactly(prefix, &ids).await?;
        second.part.stop().await;
        Ok(())
    })
}

#[test]
fn a_backlog_goes_by_copy_with_the_same_rows() -> Result<()> {
    with_world(async |world: &'static World| {
        let prefix = "backlog";
        let database = world.database("sink_backlog").await?;
        let start = start_of_data();
        let mut records = Vec::new();
        let mut wanted = BTreeSet::new();
        // An index of the owner's, which takes no text without a pattern that is longer than a page holds.
        let index = "create index of_the_owner on energy_consumption (location)";
        world.postgres.psql("sink_backlog", index).await?;
        let bad: String = (0..200_u32)
            .map(|number| format!("{:x}", sha2::Sha256::digest(number.to_be_bytes())))
            .collect();
        for number in 0..30_000_u32 {
            let id = format!("p0/backlog/{number}");
            let time = start + TimeDelta::milliseconds(number.into());
            let value = record(topic::ENERGY, "backlog-0", &id, time, f64::from(number));
            for _ in 0..1 + u32::from(number % 10 == 0) {
                records.push((topic::ENERGY, "backlog-0", value.clone()));
            }
            wanted.insert(id);
            // Refused by the database alone, so that a batch that came by COPY is halved.
            if number % 9_000 == 4_500 {
                let id = format!("p0/backlog/bad-{number}");
                let mut value: serde_json::Value =
                    serde_json::from_slice(&record(topic::ENERGY, "backlog-0", &id, time, 1.0))?;
                value["location"] = format!("{bad}{number}").into();
                records.push((topic::ENERGY, "backlog-0", value.to_string().into_bytes()));
            }
        }
        world.produce(&records).await?;
        let sink = world.sink("backlog", &database.sink_url).await?;
        world.caught_up("backlog").await?;
        let rows = database.rows("energy_consumption", prefix).await?;
        ensure!(rows.keys().cloned().collect::<BTreeSet<_>>() == wanted);
        for (id, row) in &rows {
            let number: i64 = id.rsplit('/').next().context("a number")?.parse()?;
            let time: DateTime<Utc> = row["time"].as_str().context("a time")?.parse()?;
            ensure!(
                row["power_w"].as_f64() == Some(number as f64)
                    && row["meter_id"] == "m\u{e9}"
                    && row["power_l1_w"].is_null()
                    && time == start + TimeDelta::milliseconds(number),
                "{row}"
            );
        }
        ensure!(sink.metric("redpanda_sink_copied_rows_total").await? >= 2_000.0);
        let refused = "redpanda_sink_dead_letters_total{reason=\"refused_by_database\"}";
        ensure!(sink.metric(refused).await? >= 3.0);
        sink.part.stop().await;
        Ok(())
    })
}
