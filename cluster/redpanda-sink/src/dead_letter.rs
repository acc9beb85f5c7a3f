//! Records that no table takes, to `homelab.dead-letter` with the reason, the origin and the bytes.
//!
//! At least once: a letter may be written twice, identified by its origin, but its offset is never stored before
//! the broker has it.

use std::time::Duration;

use base64::{Engine, prelude::BASE64_STANDARD};
use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::KafkaError,
    producer::{FutureProducer, FutureRecord},
    util::Timeout,
};
use service::KafkaSettings;
use sha2::{Digest, Sha256};
use telemetry::{DeadLetter, Origin, Stage, topic};

use crate::batch::Item;
use crate::classify::Poison;

/// Largest value kept whole. In base64 it is 700 kB, which a broker with the default limit of 1 MiB takes; more
/// would be refused for ever and stop the sink.
const MAX_WHOLE_BYTES: usize = 512 * 1024;
/// What is kept of a larger value, beside its length and hash.
const TRUNCATED_BYTES: usize = 4 * 1024;
/// Largest key kept. Keys are device ids of at most 128 bytes; what is far longer is garbage and must not make
/// the letter too large to send.
const MAX_KEY_BYTES: usize = 4 * 1024;
/// How long one letter may be under way before the attempt counts as failed and is repeated by the caller.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(30);

/// Writes dead letters.
#[derive(Clone)]
pub struct DeadLetters {
    producer: FutureProducer<Quiet>,
}

/// librdkafka repeats itself at every attempt; what matters to the sink comes with the failed delivery.
struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(?level, facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!("librdkafka: {error}: {reason}");
    }
}

impl DeadLetters {
    /// Creates the producer. Errors only on a wrong configuration; the broker may be away.
    pub fn new(kafka: &KafkaSettings) -> Result<Self, KafkaError> {
        let producer = ClientConfig::from_iter(kafka.properties())
            .set("client.id", "redpanda-sink")
            .set("acks", "all")
            .set("partitioner", "murmur2_random")
            // The letters of a batch are queued together, and the batch waits for them.
            .set("linger.ms", "1")
            .set("message.timeout.ms", DELIVERY_TIMEOUT.as_millis().to_string())
            // A batch of nothing but poison: its bytes in base64, twice over.
            .set("queue.buffering.max.kbytes", "4096")
            .create_with_context(Quiet)?;
        Ok(Self { producer })
    }

    /// Sends the letters and waits until the broker has every one.
    pub async fn send(&self, letters: &[(&Item, &Poison)]) -> Result<(), KafkaError> {
        try_join_all(letters.iter().map(|(item, poison)| async move {
            let value = serde_json::to_vec(&letter(item, poison)).expect("a letter has only text keys");
            let mut record = FutureRecord::<[u8], [u8]>::to(topic::DEAD_LETTER).payload(&value);
            if let Some(key) = item.key.as_deref().filter(|key| key.len() <= MAX_KEY_BYTES) {
                record = record.key(key);
            }
            let queued = Timeout::After(DELIVERY_TIMEOUT);
            self.producer
                .send(record, queued)
                .await
                .map_err(|(error, _)| error)
        }))
        .await?;
        Ok(())
    }
}

fn letter(item: &Item, poison: &Poison) -> DeadLetter {
    let truncated = item.payload.len() > MAX_WHOLE_BYTES;
    let kept = if truncated {
        &item.payload[..TRUNCATED_BYTES]
    } else {
        &item.payload[..]
    };
    DeadLetter {
        reason: poison.to_string(),
        stage: Stage::Insert,
        origin: Origin::Kafka {
            topic: item.source.topic().to_owned(),
            partition: item.partition,
            offset: item.offset,
        },
        payload_base64: BASE64_STANDARD.encode(kept),
        truncated,
        payload_bytes: truncated.then_some(item.payload.len() as u64),
        payload_sha256: truncated.then(|| hexadecimal(&Sha256::digest(&item.payload))),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::classify::{Reason, Source};

    fn item(payload: Vec<u8>) -> (Item, Poison) {
        let poison = Poison::new(Reason::Malformed, "record is malformed");
        let verdict = Err(poison.clone());
        let item = Item {
            source: Source::Energy,
            partition: 2,
            offset: 41,
            key: None,
            payload,
            verdict,
        };
        (item, poison)
    }

    #[test]
    fn letters_carry_reason_origin_and_bytes() {
        let (item, poison) = item(b"hello".to_vec());
        assert_eq!(
            serde_json::to_value(letter(&item, &poison)).unwrap(),
            serde_json::json!({"reason": "malformed: record is malformed", "stage": "insert",
                "origin": {"topic": "homelab.energy", "partition": 2, "offset": 41},
                "payload_base64": "aGVsbG8=", "truncated": false})
        );
    }

    #[test]
    fn only_what_the_broker_would_refuse_is_cut() {
        let (whole, poison) = item(vec![b'x'; MAX_WHOLE_BYTES]);
        assert!(!letter(&whole, &poison).truncated);
        let (large, poison) = item(vec![b'x'; MAX_WHOLE_BYTES + 1]);
        let letter = letter(&large, &poison);
        assert!(letter.truncated);
        assert_eq!(letter.payload_bytes, Some(524_289));
        assert_eq!(
            BASE64_STANDARD.decode(letter.payload_base64).unwrap().len(),
            TRUNCATED_BYTES
        );
        assert_eq!(letter.payload_sha256.map(|hash| hash.len()), Some(64));
    }
}
