//! The Kafka producer: idempotent, patient, and telling of every record what became of it.
//!
//! It holds a small bounded queue and never gives up on a record by itself.

use std::sync::{Arc, atomic::Ordering};

use anyhow::Context as _;
use rdkafka::{
    ClientConfig, ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, ProducerContext, ThreadedProducer},
};
use tokio::sync::mpsc;

use super::Progress;
use crate::buffer::Sequence;

/// The producer's own queue, kilobytes.
const QUEUE_KB: &str = "8192";

/// Comes back with every delivery report.
pub struct Ticket {
    /// The lane's round it was sent in.
    pub round: u64,
    /// The entry it belongs to.
    pub sequence: Sequence,
    /// A dead letter that is refused as well is given up: there is no third place to put it.
    pub is_dead_letter: bool,
}

/// What became of a record.
pub struct Report {
    /// The record.
    pub ticket: Ticket,
    /// Why it was not delivered.
    pub error: Option<KafkaError>,
    /// Its value, when it was not delivered.
    pub value: Vec<u8>,
}

/// Receives what librdkafka has to tell.
pub struct Reports {
    sender: mpsc::UnboundedSender<Report>,
    progress: Arc<Progress>,
}

impl ClientContext for Reports {
    /// librdkafka repeats every failed connection at its own pace; what matters of it is reported by us, once.
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::AllBrokersDown)
            && !self.progress.unreachable.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                reason,
                "Redpanda cannot be reached; readings are kept in the buffer"
            );
        }
        self.progress.note_error(&format!("{error}: {reason}"));
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Self::DeliveryOpaque) {
        let report = match result {
            Ok(_) => Report {
                ticket: *ticket,
                error: None,
                value: Vec::new(),
            },
            Err((error, message)) => {
                let value = message.payload().map(<[u8]>::to_vec).unwrap_or_default();
                Report {
                    ticket: *ticket,
                    error: Some(error.clone()),
                    value,
                }
            }
        };
        // The lane is gone only at a stop; then the record is simply sent again after the start.
        let _ = self.sender.send(report);
    }
}

/// A producer whose delivery reports go to `sender`. Errors only on settings librdkafka refuses.
pub fn create(
    agent: &str,
    bootstrap: &str,
    progress: Arc<Progress>,
    sender: mpsc::UnboundedSender<Report>,
) -> anyhow::Result<ThreadedProducer<Reports>> {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("client.id", format!("edge-agent/{agent}"))
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Retry for ever: with a limit, record n could be sent again after n+1 was delivered.
        .set("message.timeout.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", "2")
        .set("queue.buffering.max.kbytes", QUEUE_KB)
        .set("reconnect.backoff.max.ms", "5000")
        .set("log.connection.close", "false")
        .create_with_context(Reports { sender, progress })
        .context("creating the Kafka producer")
}

/// Errors that are the record's own: no retry can help.
pub fn refused_for_good(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
        )
    )
}
