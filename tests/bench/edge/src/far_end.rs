//! What has arrived in Kafka: how much, and which frames.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message as _;
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use serde_json::Value;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);
const READ_WITHIN: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(50);

/// A topic that is watched.
pub struct Topic {
    consumer: BaseConsumer,
    name: String,
    partitions: i32,
}

impl Topic {
    /// # Errors
    /// When no client can be made.
    pub fn new(bootstrap: &str, name: &str, partitions: i32) -> Result<Topic> {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", bootstrap)
            .set("group.id", "bench-edge")
            .set("enable.auto.commit", "false")
            .set("log_level", "0")
            .create()?;
        Ok(Topic {
            consumer,
            name: name.to_owned(),
            partitions,
        })
    }

    /// Ends of the partitions. Blocks.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub fn ends(&self) -> Result<Vec<i64>> {
        (0..self.partitions)
            .map(|partition| {
                let marks = self
                    .consumer
                    .fetch_watermarks(&self.name, partition, ANSWER_WITHIN);
                Ok(marks
                    .with_context(|| format!("asking for the end of {}", self.name))?
                    .1)
            })
            .collect()
    }

    /// Waits until `count` records came after `from`, or none has come for `quiet`. Answers how many came, and when the
    /// last did.
    ///
    /// # Errors
    /// When Kafka does not answer.
    pub async fn arrived(&self, from: &[i64], count: u64, quiet: Duration) -> Result<(u64, Instant)> {
        let (mut last, mut at) = (0, Instant::now());
        loop {
            let ends = tokio::task::block_in_place(|| self.ends())?;
            let came = ends.iter().zip(from).map(|(end, from)| end - from).sum::<i64>() as u64;
            if came != last {
                (last, at) = (came, Instant::now());
            }
            if came >= count || at.elapsed() > quiet {
                return Ok((came, at));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// The frames that came after `from`: device and number. Blocks.
    ///
    /// # Errors
    /// When Kafka does not give them.
    pub fn frames(&self, from: &[i64]) -> Result<HashSet<(String, u64)>> {
        let ends = self.ends()?;
        let mut wanted = TopicPartitionList::new();
        let mut missing = 0;
        for (partition, (from, end)) in from.iter().zip(&ends).enumerate() {
            missing += end - from;
            wanted.add_partition_offset(&self.name, i32::try_from(partition)?, Offset::Offset(*from))?;
        }
        self.consumer.assign(&wanted)?;
        let mut found = HashSet::new();
        let begin = Instant::now();
        while missing > 0 {
            ensure!(begin.elapsed() < READ_WITHIN, "Kafka does not give what it has");
            let Some(record) = self.consumer.poll(POLL) else {
                continue;
            };
            missing -= 1;
            if let Some(frame) = identity(record?.payload().unwrap_or_default()) {
                found.insert(frame);
            }
        }
        self.consumer.unassign()?;
        Ok(found)
    }
}

/// Of a record of ours, or of a frame as the device sent it.
fn identity(payload: &[u8]) -> Option<(String, u64)> {
    let json: Value = serde_json::from_slice(payload).ok()?;
    let (device, number) = match json.get("device_id") {
        Some(device) => (device, &json["reading"]["energy_wh"]),
        None => (&json["src"], &json["params"]["emdata:0"]["total_act"]),
    };
    Some((device.as_str()?.to_owned(), number.as_f64()? as u64))
}
