//! The agent's own dead letters, read back from `homelab.dead-letter`: shown, or put into the buffer again.
//!
//! A letter that can be decoded now, because a route, a decoder or a version came since, goes into the buffer under the
//! identity and the time it had when it went out first. It takes the way of every reading from there, so one that is put in twice
//! is one row. The letter stays in the topic, whatever becomes of it: nothing here deletes, and nothing is answered
//! for as replayed before it is on disk.
//!
//! Never touches a letter of another agent, or of the sink (stage `insert`, which `redpanda-sink` replays), and never reads
//! on for ever: it stops at the end the topic had when it began.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use futures_util::future::join_all;
use rdkafka::{
    ClientContext, Message as _, Offset, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::KafkaError,
};
use serde::Serialize;
use telemetry::{Clock, DeadLetter, Origin, Stage, topic};
use tokio::sync::mpsc;

use crate::{
    buffer::{AppendError, Buffer},
    clock::{self, Resolved},
    decode::Decoded,
    kafka::Kafka,
    message::{Body, Identity, Message},
    rules::Rules,
};

/// Letters shown unless asked otherwise: what a person looks through.
pub const DEFAULT_LIMIT: u32 = 50;
/// The most that may be asked for.
pub const MAX_LIMIT: u32 = 1_000;
/// Bytes of letters kept for an answer, whatever the limit: the agent has a machine of 1 GB.
const SHOWN_BYTES: usize = 8 << 20;
/// The whole topic is read within this.
pub const READ_LIMIT: Duration = Duration::from_secs(60);
/// How long Redpanda may take to answer, or to give the next letter.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// The topic has one partition.
const PARTITION: i32 = 0;
/// Letters between the thread that reads and the one that decodes.
const QUEUE: usize = 64;
/// Letters that share group commits.
const TOGETHER: usize = 64;
/// Ids remembered to tell a letter that was written twice: a month of many. Beyond it one may be shown twice.
const IDS: usize = 100_000;

/// What the letters need.
pub struct DeadLetters {
    /// Name of this agent.
    pub agent: String,
    /// How Redpanda is reached.
    pub kafka: Kafka,
    /// How payloads are decoded.
    pub rules: Arc<Rules>,
    /// Where letters go again.
    pub buffer: Buffer,
    /// Stamps them.
    pub clock: Arc<clock::Clock>,
}

/// A letter for a person.
#[derive(Clone, Debug, Serialize)]
pub struct Shown {
    /// Its id.
    pub id: String,
    /// When the agent received it.
    #[serde(with = "telemetry::micros")]
    pub time: chrono::DateTime<chrono::Utc>,
    /// MQTT topic; empty for a record that Redpanda refused.
    pub topic: String,
    /// Bytes of the original.
    pub bytes: u64,
    /// Why it was written.
    pub reason: String,
    /// What would become of it, or became, now.
    pub verdict: String,
    /// What is kept of its bytes.
    pub payload_base64: String,
}

/// The answer.
#[derive(Debug, Serialize)]
pub struct Answer {
    /// Letters of this agent in the topic.
    pub found: u64,
    /// Put into the buffer again, and on disk there; absent where nobody asked for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replayed: Option<u64>,
    /// Why it ended before its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stopped: Option<String>,
    /// The newest.
    pub letters: VecDeque<Shown>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum LettersError {
    /// Redpanda does not answer, or refuses the agent.
    #[error("the dead letters cannot be read from Redpanda: {0}")]
    Redpanda(String),
    /// The topic is longer than can be read in the time.
    #[error("the dead letters could not be read within {} s", READ_LIMIT.as_secs())]
    TooLong,
    /// The thread that reads ended.
    #[error("the dead letters could not be read: {0}")]
    Ended(String),
}

/// What is done with what can be decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Nothing.
    Look,
    /// It goes into the buffer.
    Replay,
}

impl DeadLetters {
    /// Reads the topic once; `limit` bounds what is shown, not what is replayed.
    pub async fn read(&self, purpose: Purpose, limit: u32) -> Result<Answer, LettersError> {
        let (sender, mut letters) = mpsc::channel(QUEUE);
        let (kafka, agent) = (self.kafka.clone(), self.agent.clone());
        // librdkafka's consumer blocks while it polls.
        let reader = tokio::task::spawn_blocking(move || read_topic(&kafka, &agent, &sender));
        let limit = usize::try_from(limit.min(MAX_LIMIT)).unwrap_or(usize::MAX);
        let mut answer = Answer {
            found: 0,
            replayed: (purpose == Purpose::Replay).then_some(0),
            stopped: None,
            letters: VecDeque::new(),
        };
        let (mut shown_bytes, mut ids) = (0, HashSet::new());
        let mut together = Vec::with_capacity(TOGETHER);
        while let Some(first) = letters.recv().await {
            together.push(first);
            while together.len() < TOGETHER
                && let Ok(letter) = letters.try_recv()
            {
                together.push(letter);
            }
            together.retain(|letter: &DeadLetter| {
                let Origin::Mqtt { agent, id, .. } = &letter.origin else {
                    return false;
                };
                let ours = *agent == self.agent && letter.stage == Stage::Decode;
                ours && (ids.len() >= IDS || ids.insert(id.clone()))
            });
            let verdicts = together.drain(..).map(|letter| self.judge(letter, purpose));
            let verdicts = join_all(verdicts).await;
            for (shown, outcome) in verdicts {
                answer.found += 1;
                match outcome {
                    Outcome::Left => {}
                    Outcome::Replayed => {
                        answer.replayed = answer.replayed.map(|count| count + 1);
                    }
                    Outcome::Refused(error) => {
                        let advice = "what is not replayed stays in the topic; run it again later";
                        answer.stopped.get_or_insert_with(|| format!("{error}; {advice}"));
                    }
                }
                shown_bytes += shown.payload_base64.len();
                answer.letters.push_back(shown);
                while answer.letters.len() > limit || shown_bytes > SHOWN_BYTES {
                    let Some(gone) = answer.letters.pop_front() else {
                        break;
                    };
                    shown_bytes -= gone.payload_base64.len();
                }
            }
            if answer.stopped.is_some() {
                // The reader ends when it finds nobody listening.
                letters.close();
            }
        }
        let read = reader
            .await
            .map_err(|error| LettersError::Ended(error.to_string()))?;
        if answer.stopped.is_none() {
            read?;
        }
        Ok(answer)
    }

    async fn judge(&self, letter: DeadLetter, purpose: Purpose) -> (Shown, Outcome) {
        let (verdict, outcome) = match self.again(&letter) {
            Err(why) => (why, Outcome::Left),
            Ok(_) if purpose == Purpose::Look => ("can be decoded".into(), Outcome::Left),
            Ok(message) => match self.buffer.append(message.encode()).await {
                Ok(_) => ("replayed".into(), Outcome::Replayed),
                Err(error) => (format!("not replayed: {error}"), Outcome::Refused(error)),
            },
        };
        let DeadLetter {
            reason,
            origin,
            payload_base64,
            payload_bytes,
            ..
        } = letter;
        let (id, time, topic) = match origin {
            Origin::Mqtt {
                id, time, mqtt_topic, ..
            } => (id, time, mqtt_topic),
            Origin::Kafka { .. } => Default::default(),
        };
        let shown = Shown {
            id,
            time,
            topic,
            bytes: payload_bytes.unwrap_or(payload_base64.len() as u64 / 4 * 3),
            reason,
            verdict,
            payload_base64,
        };
        (shown, outcome)
    }

    /// The message a letter becomes again, or why it does not.
    fn again(&self, letter: &DeadLetter) -> Result<Message, String> {
        let Origin::Mqtt {
            agent,
            id,
            mqtt_topic,
            time,
            clock,
        } = &letter.origin
        else {
            return Err("not a message of a device".into());
        };
        if letter.truncated {
            return Err("not kept whole".into());
        }
        if mqtt_topic.is_empty() {
            return Err("not a message of a device".into());
        }
        let identity = identity(agent, id).ok_or("its id is not one of this agent")?;
        let payload = BASE64_STANDARD
            .decode(&letter.payload_base64)
            .map_err(|error| format!("its bytes are not base64: {error}"))?;
        match self.rules.current().decoders.decode(mqtt_topic, &payload) {
            Ok(Decoded::Readings(_)) => {}
            Ok(Decoded::Nothing(_)) => return Err("nothing to record".into()),
            Err(error) => return Err(format!("still not decoded: {error}")),
        }
        // A letter that does not say how far its time can be trusted is not trusted.
        let settled = Resolved {
            time: *time,
            clock: clock.unwrap_or(Clock::Unsynced),
        };
        Ok(Message {
            identity: Some(identity),
            stamp: self.clock.stamp(),
            topic: mqtt_topic.clone(),
            body: Body::Again {
                payload: payload.into(),
                settled,
            },
        })
    }
}

enum Outcome {
    Left,
    Replayed,
    Refused(AppendError),
}

/// `<agent>/<epoch>/<sequence>`; a letter of one record that Redpanda refused has its number behind that.
fn identity(agent: &str, id: &str) -> Option<Identity> {
    let (epoch, place) = id.strip_prefix(agent)?.strip_prefix('/')?.split_once('/')?;
    let sequence = place.split_once('/').map_or(place, |(sequence, _)| sequence);
    Some(Identity {
        epoch: u32::from_str_radix(epoch, 16).ok()?,
        sequence: sequence.parse().ok()?,
    })
}

struct Quiet;

impl ClientContext for Quiet {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the reader of dead letters");
    }
}

impl ConsumerContext for Quiet {}

fn passes(error: &KafkaError) -> bool {
    use rdkafka::types::RDKafkaErrorCode::{BrokerTransportFailure, OperationTimedOut, Resolve};
    let code = error.rdkafka_error_code();
    code.is_some_and(|code| [BrokerTransportFailure, OperationTimedOut, Resolve].contains(&code))
}

/// Every letter of the topic up to the end it has now. Blocks.
fn read_topic(kafka: &Kafka, agent: &str, letters: &mpsc::Sender<DeadLetter>) -> Result<(), LettersError> {
    let failed = |error: KafkaError| LettersError::Redpanda(error.to_string());
    let begun = Instant::now();
    let consumer: BaseConsumer<Quiet> = kafka
        .client(agent)
        .map_err(|error| LettersError::Redpanda(error.to_string()))?
        // Nothing is committed under it, and it joins no group: the group of the commands is not disturbed.
        .set("group.id", format!("edge-agent-{agent}"))
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", "2048")
        .set("allow.auto.create.topics", "false")
        .create_with_context(Quiet)
        .map_err(failed)?;
    let (low, high) = consumer
        .fetch_watermarks(topic::DEAD_LETTER, PARTITION, ANSWER_LIMIT)
        .map_err(failed)?;
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic::DEAD_LETTER, PARTITION, Offset::Offset(low))
        .map_err(failed)?;
    consumer.assign(&from).map_err(failed)?;
    let mut next = low;
    while next < high {
        if begun.elapsed() > READ_LIMIT {
            return Err(LettersError::TooLong);
        }
        let record = match consumer.poll(ANSWER_LIMIT) {
            Some(Ok(record)) => record,
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            // One address of several that does not answer, or a connection that broke: the client goes on by itself.
            Some(Err(error)) if passes(&error) => {
                tracing::debug!(%error, "reading the dead letters is tried again");
                continue;
            }
            Some(Err(error)) => return Err(failed(error)),
            None => return Err(LettersError::Redpanda("no answer".into())),
        };
        next = record.offset() + 1;
        if next > high {
            return Ok(());
        }
        // What is no letter of a form this version knows is not this agent's to replay.
        let Ok(letter) = serde_json::from_slice::<DeadLetter>(record.payload().unwrap_or_default()) else {
            continue;
        };
        if letters.blocking_send(letter).is_err() {
            return Ok(());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        buffer::Limits,
        clock::SegmentId,
        decode::{Decoders, Route},
    };

    fn letters(dir: &std::path::Path) -> DeadLetters {
        DeadLetters {
            agent: "p0".into(),
            kafka: Kafka::check(toml::from_str("bootstrap = \"127.0.0.1:1\"").unwrap(), None).unwrap(),
            rules: Arc::new(Rules::new(
                Decoders::new(&Route::defaults(), &[]).unwrap(),
                std::collections::HashMap::new(),
            )),
            buffer: Buffer::open(
                dir,
                Limits {
                    max_bytes: 16 << 20,
                    commit_interval: Duration::from_millis(1),
                    commit_bytes: 4_096,
                    when_full: crate::buffer::WhenFull::Reject,
                },
            )
            .unwrap(),
            clock: Arc::new(clock::Clock::new(SegmentId(1))),
        }
    }

    fn letter(id: &str, topic: &str, payload: &str) -> DeadLetter {
        DeadLetter {
            reason: "no decoder".into(),
            stage: Stage::Decode,
            origin: Origin::Mqtt {
                agent: "p0".into(),
                id: id.into(),
                mqtt_topic: topic.into(),
                time: "2026-01-01T08:00:12.610123Z".parse().unwrap(),
                clock: Some(Clock::Corrected),
            },
            payload_base64: BASE64_STANDARD.encode(payload),
            truncated: false,
            payload_bytes: None,
            payload_sha256: None,
        }
    }

    #[tokio::test]
    async fn a_letter_that_can_be_decoded_now_is_in_the_buffer_under_its_old_identity_and_time() {
        let dir = tempfile::tempdir().unwrap();
        let letters = letters(dir.path());
        let good = letter("p0/9c41f02b/77", "tele/plug/STATE", r#"{"POWER":"ON"}"#);
        let (shown, _) = letters.judge(good.clone(), Purpose::Look).await;
        assert_eq!(shown.verdict, "can be decoded");
        assert_eq!(letters.buffer.stats().entries, 0, "a look changes nothing");
        let (shown, _) = letters.judge(good, Purpose::Replay).await;
        assert_eq!(shown.verdict, "replayed");
        let batch = letters.buffer.read(letters.buffer.head(), 1 << 20).unwrap();
        let message = Message::decode(batch.entries[0].bytes.clone()).unwrap();
        let want = Identity {
            epoch: 0x9c41_f02b,
            sequence: 77,
        };
        assert_eq!(message.identity, Some(want));
        let settled = message.settled().unwrap();
        assert_eq!(settled.time.to_rfc3339(), "2026-01-01T08:00:12.610123+00:00");
        assert_eq!(settled.clock, Clock::Corrected);
        letters.buffer.close();
    }

    #[tokio::test]
    async fn what_cannot_be_replayed_says_why_and_stays_out_of_the_buffer() {
        let dir = tempfile::tempdir().unwrap();
        let letters = letters(dir.path());
        let truncated = DeadLetter {
            truncated: true,
            payload_bytes: Some(300_000),
            ..letter("p0/9c41f02b/1", "tele/plug/STATE", "{}")
        };
        for (letter, want) in [
            (truncated, "not kept whole"),
            (letter("p0/9c41f02b/1", "", "{}"), "not a message of a device"),
            (letter("p1/9c41f02b/1", "tele/plug/STATE", "{}"), "its id is not"),
            (letter("p0/9c41f02b/x", "tele/plug/STATE", "{}"), "its id is not"),
            (
                letter("p0/9c41f02b/1", "tele/plug/STATE", "garbage"),
                "still not decoded",
            ),
            (
                letter("p0/9c41f02b/1", "tele/plug/STATE", "{}"),
                "nothing to record",
            ),
        ] {
            let (shown, _) = letters.judge(letter, Purpose::Replay).await;
            assert!(shown.verdict.starts_with(want), "{} for {want}", shown.verdict);
        }
        assert_eq!(letters.buffer.stats().entries, 0);
        letters.buffer.close();
    }

    #[tokio::test]
    async fn without_redpanda_there_is_an_error_and_no_waiting_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let letters = letters(dir.path());
        let error = letters.read(Purpose::Look, 10).await.unwrap_err();
        assert!(error.to_string().contains("Redpanda"), "{error}");
        letters.buffer.close();
    }
}
