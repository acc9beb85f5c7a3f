//! The Kafka producer: idempotent, patient, and telling of every record what became of it.
//!
//! It holds a small bounded queue and never gives up on a record by itself. Redpanda takes or refuses whole batches, so a
//! refusal is a record's own fault only where it was alone in its batch ([`Batches::OneByOne`]).

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::Context as _;
use rdkafka::{
    ClientContext, Message as _,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
    producer::{DeliveryResult, Producer as _, ProducerContext, ThreadedProducer},
};
use tokio::sync::{Notify, mpsc};

use super::Progress;
use crate::{buffer::Sequence, kafka::Kafka};

/// The producer's own queue, kilobytes.
const QUEUE_KB: &str = "8192";
/// A topic the broker does not know is waited for inside the producer for this long; then the lane says so and tries again.
const UNKNOWN_TOPIC_MS: &str = "5000";
/// Largest batch, before compression, where nothing smaller was found to be needed: librdkafka's own.
pub const BATCH_BYTES: usize = 1_000_000;

/// How records travel together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Batches {
    /// In batches of up to this many bytes. When one is refused nothing behind it goes out any more: the producer is at its
    /// end, so that no record overtakes those of the batch.
    UpTo(usize),
    /// Each alone, so that the one that is refused is known. The others go on.
    OneByOne,
}

/// Comes back with every delivery report.
pub struct Ticket {
    /// The lane's round it was sent in.
    pub round: u64,
    /// The entry it belongs to.
    pub sequence: Sequence,
    /// Its place among the records of that entry.
    pub part: usize,
    /// What it is.
    pub kind: Kind,
}

/// What a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A reading or an event.
    Record,
    /// A dead letter.
    Letter,
    /// A dead letter with the beginning of the payload only. When it is refused as well the message is given up: there is
    /// no fourth form to put it into.
    CutLetter,
}

/// What became of a record.
pub struct Report {
    /// The record.
    pub ticket: Ticket,
    /// Why it was not delivered, and to which topic.
    pub error: Option<(KafkaError, String)>,
}

/// Receives what librdkafka has to tell.
pub struct Reports {
    sender: mpsc::UnboundedSender<Report>,
    progress: Arc<Progress>,
    refused: Arc<Notify>,
    /// It was refused: what follows from that, no broker being left to ask, does not hide why.
    was_refused: AtomicBool,
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
        let is_refusal = matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)
        );
        if is_refusal || !self.was_refused.load(Ordering::Relaxed) {
            self.progress.note_error(&format!("{error}: {reason}"));
        }
        // librdkafka would try the same login and the same certificates for ever; a new producer reads them again.
        if is_refusal {
            self.was_refused.store(true, Ordering::Relaxed);
            self.progress.unreachable.store(true, Ordering::Relaxed);
            self.refused.notify_one();
        }
    }
}

impl ProducerContext for Reports {
    type DeliveryOpaque = Box<Ticket>;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: Self::DeliveryOpaque) {
        let error = match result {
            Ok(_) => None,
            Err((error, message)) => Some((error.clone(), message.topic().to_owned())),
        };
        let report = Report {
            ticket: *ticket,
            error,
        };
        // The lane is gone only at a stop; then the record is simply sent again after the start.
        let _ = self.sender.send(report);
    }
}

/// A producer whose delivery reports go to `sender`; `refused` is notified when Redpanda refuses the login or one side the
/// other's certificate. Errors only on settings librdkafka refuses, an unreadable password among them.
pub fn create(
    agent: &str,
    kafka: &Kafka,
    batches: Batches,
    progress: Arc<Progress>,
    sender: mpsc::UnboundedSender<Report>,
    refused: Arc<Notify>,
) -> anyhow::Result<ThreadedProducer<Reports>> {
    let mut settings = kafka.client(agent)?;
    settings
        .set("enable.idempotence", "true")
        .set("acks", "all")
        // Retry for ever: with a limit, record n could be sent again after n+1 was delivered.
        .set("message.timeout.ms", "0")
        .set("topic.metadata.propagation.max.ms", UNKNOWN_TOPIC_MS)
        .set("partitioner", "murmur2_random")
        .set("compression.type", "lz4")
        .set("linger.ms", "2")
        .set("queue.buffering.max.kbytes", QUEUE_KB);
    match batches {
        Batches::UpTo(bytes) => settings
            .set("batch.size", bytes.to_string())
            // A batch refused for good ends the producer; without this it would go on with the next one.
            .set("enable.gapless.guarantee", "true"),
        Batches::OneByOne => settings.set("batch.num.messages", "1").set("linger.ms", "0"),
    };
    settings
        .create_with_context(Reports {
            sender,
            progress,
            refused,
            was_refused: AtomicBool::new(false),
        })
        .context("creating the Kafka producer")
}

/// Errors that are the record's own, or one's of its batch: no retry can help.
pub fn refused_for_good(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::MessageSizeTooLarge
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::InvalidRecord
                | RDKafkaErrorCode::InvalidDifferentRecord
        )
    )
}

/// Why a batch was refused for good, when that has ended the producer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusedBatch {
    /// It, or a record of it, is larger than the topic takes.
    TooLarge,
    /// Another reason.
    Other,
}

/// Whether the producer is at its end because a batch was refused.
pub fn ended_by_a_batch(producer: &ThreadedProducer<Reports>) -> Option<RefusedBatch> {
    match producer.client().fatal_error() {
        // Only the text has the broker's own word.
        Some((RDKafkaErrorCode::GaplessGuarantee, text)) if text.contains("Message size too large") => {
            Some(RefusedBatch::TooLarge)
        }
        Some((RDKafkaErrorCode::GaplessGuarantee, _)) => Some(RefusedBatch::Other),
        _ => None,
    }
}
