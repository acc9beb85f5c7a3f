//! What Kafka has in the end, counted by identity.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};
use serde_json::Value;
use telemetry::topic;

use crate::{
    Report,
    fleet::{self, Identity},
    ledger::Ledger,
};

/// A topic of a test is read in seconds.
const READ_WITHIN: Duration = Duration::from_secs(120);

/// One record in the order of its partition.
#[derive(Clone, Debug)]
pub struct Found {
    /// The record's id.
    pub id: String,
    /// What it is.
    pub identity: Result<Identity, String>,
    /// Hash of its bytes.
    pub content: u64,
    /// When Kafka appended it, milliseconds since 1970.
    pub appended_ms: i64,
}

/// Everything in the topics devices end in. Blocks.
///
/// # Errors
/// When Kafka does not give it in time.
pub fn read(bootstrap: &str) -> Result<Vec<Found>> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "faults")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "false")
        .set("log_level", "0")
        .create()?;
    let mut wanted = TopicPartitionList::new();
    let mut missing: HashMap<(String, i32), i64> = HashMap::new();
    for (name, partitions) in topic::ALL {
        if ![topic::ENERGY, topic::PLUG, topic::DEAD_LETTER].contains(&name) {
            continue;
        }
        for partition in 0..partitions {
            let (_, end) = consumer
                .fetch_watermarks(name, partition, READ_WITHIN)
                .with_context(|| format!("asking for the end of {name}"))?;
            if end > 0 {
                wanted.add_partition_offset(name, partition, Offset::Beginning)?;
                missing.insert((name.to_owned(), partition), end);
            }
        }
    }
    consumer.assign(&wanted)?;
    let mut found = Vec::new();
    let begin = Instant::now();
    while !missing.is_empty() {
        ensure!(
            begin.elapsed() < READ_WITHIN,
            "Kafka does not give what it has: {missing:?}"
        );
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(500)) else {
            continue;
        };
        let payload = record.payload().unwrap_or_default();
        found.push(one(
            record.topic(),
            payload,
            record.timestamp().to_millis().unwrap_or(0),
        ));
        let place = (record.topic().to_owned(), record.partition());
        if missing.get(&place).is_some_and(|end| record.offset() + 1 >= *end) {
            missing.remove(&place);
        }
    }
    Ok(found)
}

fn one(topic: &str, payload: &[u8], appended_ms: i64) -> Found {
    let mut hasher = DefaultHasher::new();
    payload.hash(&mut hasher);
    let json: Value = serde_json::from_slice(payload).unwrap_or_default();
    let (id, identity) = if topic == topic::DEAD_LETTER {
        let encoded = json["payload_base64"].as_str().unwrap_or_default();
        let payload = BASE64_STANDARD.decode(encoded).unwrap_or_default();
        let identity = fleet::of_blob(&payload).map_err(|what| format!("{what}; reason {}", json["reason"]));
        (&json["origin"]["id"], identity)
    } else {
        (&json["id"], fleet::of_record(&json))
    };
    Found {
        id: id.as_str().unwrap_or_default().to_owned(),
        identity,
        content: hasher.finish(),
        appended_ms,
    }
}

/// Compares what Kafka has with what clients were told.
pub fn judge(found: &[Found], ledger: &Ledger) -> Report {
    let acknowledged = ledger.until(u64::MAX);
    let mut report = Report {
        acknowledged: acknowledged.len() as u64,
        ..Report::default()
    };
    let mut contents: HashMap<&str, u64> = HashMap::new();
    let mut places: BTreeMap<&Identity, &str> = BTreeMap::new();
    let mut last: HashMap<&str, u64> = HashMap::new();
    for record in found {
        let identity = match &record.identity {
            Ok(identity) if ledger.was_sent(identity) => identity,
            other => {
                report.invented += 1;
                report.example(|| format!("{}: never sent: {other:?}", record.id));
                continue;
            }
        };
        match contents.insert(&record.id, record.content) {
            None => {}
            Some(content) if content == record.content => continue,
            Some(_) => {
                report.duplicates += 1;
                report.example(|| format!("{}: twice, with different content ({identity:?})", record.id));
                continue;
            }
        }
        if let Some(other) = places.insert(identity, &record.id) {
            report.duplicates += 1;
            report.example(|| format!("{identity:?} is there as {other} and as {}", record.id));
            continue;
        }
        let last = last.entry(&identity.device).or_default();
        if identity.n < *last {
            report.reordered += 1;
            report.example(|| format!("{identity:?} ({}) comes after {last}", record.id));
        }
        *last = identity.n.max(*last);
    }
    for lost in acknowledged
        .iter()
        .filter(|identity| !places.contains_key(identity))
    {
        report.missing += 1;
        report.example(|| format!("{lost:?} was acknowledged and is nowhere"));
    }
    report
}

/// The identities Kafka had at `time_us`.
pub fn until(found: &[Found], time_us: u64) -> HashSet<Identity> {
    let early = |record: &&Found| u64::try_from(record.appended_ms).is_ok_and(|ms| ms * 1_000 <= time_us);
    let found = found.iter().filter(early);
    found.filter_map(|record| record.identity.clone().ok()).collect()
}
