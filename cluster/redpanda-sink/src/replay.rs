//! `redpanda-sink replay-dead-letters`: letters of this sink back into the topic they came from.
//!
//! For a person who has removed the cause: a constraint that was wrong, a clock that was ahead, a version that did not
//! know a field. The original bytes go out again under their key, as a new record; what was written meanwhile is
//! recognised by the sink like any record that comes twice. A record that is still bad becomes a new letter, so the
//! run ends by printing where the next one should begin.
//!
//! It never removes a letter (the topic's retention does), never sends an agent's letter (stage `decode`, which
//! `edge-agent` replays) or one whose bytes were not kept whole, and never reads on for ever: it stops at the end the
//! topic had when it began, and after its limit of letters.

use std::collections::HashSet;
use std::io::Write;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use base64::{Engine, prelude::BASE64_STANDARD};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Message, Offset, TopicPartitionList};
use service::KafkaSettings;
use telemetry::{DeadLetter, Origin, Stage, topic};

use crate::classify::Source;

/// Letters of one run unless asked otherwise: what a person can look through. Also the memory of one run, by origin.
pub const DEFAULT_LIMIT: u32 = 1_000;
/// The most that may be asked for: some megabytes of origins.
pub const MAX_LIMIT: u32 = 100_000;
/// The topic has one partition.
const PARTITION: i32 = 0;
/// How long the broker may take to answer, to give the next letter, or to take one.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// Bytes read ahead; a letter is at most 1 MiB.
const QUEUED_KBYTES: &str = "4096";
/// Longest reason that is printed.
const SHOWN_CHARS: usize = 160;

/// What to replay.
#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// The topic the letters came from, and go back to, such as homelab.energy
    #[arg(long, value_parser = source)]
    topic: Source,
    /// Only print what would be sent
    #[arg(long)]
    dry_run: bool,
    /// Only letters whose reason begins with this word, such as time_out_of_range
    #[arg(long)]
    reason: Option<String>,
    /// Begin at this offset of the dead-letter topic instead of its oldest letter
    #[arg(long, value_parser = clap::value_parser!(i64).range(0..))]
    from_offset: Option<i64>,
    /// Stop after this many letters
    #[arg(long, default_value_t = DEFAULT_LIMIT, value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_LIMIT)))]
    limit: u32,
}

fn source(name: &str) -> Result<Source, String> {
    Source::of_topic(name).ok_or_else(|| {
        let known = Source::ALL.map(Source::topic).join(", ");
        format!("no topic of this sink; there are {known}")
    })
}

/// What becomes of a letter.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// Of another topic, stage or reason; or there already was one of the same origin.
    NotAsked,
    /// Its bytes were not kept whole, or cannot be read.
    Incomplete(&'static str),
    /// To be sent.
    Send(Vec<u8>),
}

/// Replays and prints a line for each letter to `out`. Blocks.
pub fn run(kafka: &KafkaSettings, arguments: &Arguments, out: &mut impl Write) -> anyhow::Result<()> {
    let consumer: BaseConsumer = ClientConfig::from_iter(kafka.properties())
        .set("client.id", "redpanda-sink-replay")
        // librdkafka wants a name; nothing is ever committed under it.
        .set("group.id", "redpanda-sink-replay")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("queued.max.messages.kbytes", QUEUED_KBYTES)
        .create()
        .context("cannot create the consumer")?;
    let producer: BaseProducer<Report> = ClientConfig::from_iter(kafka.properties())
        .set("client.id", "redpanda-sink-replay")
        .set("enable.idempotence", "true")
        .set("partitioner", "murmur2_random")
        .set("message.timeout.ms", ANSWER_LIMIT.as_millis().to_string())
        .set("linger.ms", "0")
        .create_with_context(Report::default())
        .context("cannot create the producer")?;

    let name = arguments.topic.topic();
    let (low, high) = consumer
        .fetch_watermarks(topic::DEAD_LETTER, PARTITION, ANSWER_LIMIT)
        .with_context(|| format!("{} cannot be read", topic::DEAD_LETTER))?;
    let mut next = arguments.from_offset.unwrap_or(low).max(low);
    let mut from = TopicPartitionList::new();
    from.add_partition_offset(topic::DEAD_LETTER, PARTITION, Offset::Offset(next))?;
    consumer.assign(&from)?;

    let verb = if arguments.dry_run { "would send" } else { "sent" };
    let (mut sent, mut incomplete) = (0_u32, 0_u32);
    let mut origins = HashSet::new();
    while next < high && sent < arguments.limit {
        let message = match consumer.poll(ANSWER_LIMIT) {
            Some(Ok(message)) => message,
            Some(Err(KafkaError::PartitionEOF(_))) => break,
            Some(Err(error)) => return Err(error).context("a letter cannot be read"),
            None => bail!("no letter came within {} s", ANSWER_LIMIT.as_secs()),
        };
        if message.offset() >= high {
            break;
        }
        let at = message.offset();
        let Ok(letter) = serde_json::from_slice::<DeadLetter>(message.payload().unwrap_or_default()) else {
            writeln!(
                out,
                "letter {at}: left alone, not a dead letter this version can read"
            )?;
            next = at + 1;
            continue;
        };
        match verdict(&letter, arguments, &mut origins) {
            Verdict::NotAsked => {}
            Verdict::Incomplete(why) => {
                incomplete += 1;
                writeln!(out, "letter {at}: left alone, {why}: {}", shown(&letter.reason))?;
            }
            Verdict::Send(payload) => {
                if !arguments.dry_run {
                    send(&producer, name, message.key(), &payload).with_context(|| {
                        format!("letter {at} was not sent; go on with --from-offset {at}")
                    })?;
                }
                sent += 1;
                let bytes = payload.len();
                writeln!(
                    out,
                    "letter {at}: {verb} {bytes} bytes to {name}: {}",
                    shown(&letter.reason)
                )?;
            }
        }
        next = at + 1;
    }
    writeln!(
        out,
        "{verb} {sent} letters to {name}, {incomplete} left alone; the next run begins at --from-offset {next}"
    )?;
    Ok(())
}

fn verdict(letter: &DeadLetter, arguments: &Arguments, origins: &mut HashSet<(i32, i64)>) -> Verdict {
    let Origin::Kafka {
        topic,
        partition,
        offset,
    } = &letter.origin
    else {
        return Verdict::NotAsked;
    };
    let word = letter.reason.split(':').next().unwrap_or_default();
    let asked = letter.stage == Stage::Insert
        && topic == arguments.topic.topic()
        && arguments.reason.as_deref().is_none_or(|reason| reason == word);
    // A letter is written at least once; its origin tells that it is the same.
    if !asked || !origins.insert((*partition, *offset)) {
        return Verdict::NotAsked;
    }
    if letter.truncated {
        return Verdict::Incomplete("its bytes were not kept whole");
    }
    match BASE64_STANDARD.decode(&letter.payload_base64) {
        Ok(payload) => Verdict::Send(payload),
        Err(_) => Verdict::Incomplete("its bytes are not base64"),
    }
}

/// Why the record that was sent last was not taken: a flush ends well for those as well.
#[derive(Default)]
struct Report(Mutex<Option<KafkaError>>);

impl ClientContext for Report {}

impl ProducerContext for Report {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let refusal = result.as_ref().err().map(|(error, _)| error.clone());
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = refusal;
    }
}

/// Sends one record and waits until the broker has it.
fn send(
    producer: &BaseProducer<Report>,
    topic: &str,
    key: Option<&[u8]>,
    payload: &[u8],
) -> anyhow::Result<()> {
    let mut record = BaseRecord::<[u8], [u8]>::to(topic).payload(payload);
    if let Some(key) = key {
        record = record.key(key);
    }
    producer.send(record).map_err(|(error, _)| error)?;
    producer.flush(ANSWER_LIMIT)?;
    let refusal = &producer.context().0;
    match refusal.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

/// A reason on one line: it may quote what a device sent.
fn shown(reason: &str) -> String {
    let printable = reason.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(SHOWN_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn arguments(text: &str) -> Result<Arguments, clap::Error> {
        let words = std::iter::once("replay").chain(text.split_whitespace());
        Cli::try_parse_from(words).map(|cli| cli.arguments)
    }

    fn letter(stage: Stage, topic: &str, offset: i64) -> DeadLetter {
        DeadLetter {
            reason: "time_out_of_range: too early".to_owned(),
            stage,
            origin: Origin::Kafka {
                topic: topic.to_owned(),
                partition: 1,
                offset,
            },
            payload_base64: "aGVsbG8=".to_owned(),
            truncated: false,
            payload_bytes: None,
            payload_sha256: None,
        }
    }

    #[test]
    fn arguments_are_bounded_and_topics_are_the_sinks() {
        assert!(arguments("--topic homelab.energy --dry-run --limit 5").is_ok());
        for wrong in [
            "",
            "--topic homelab.commands",
            "--topic homelab.dead-letter",
            "--topic homelab.energy --limit 0",
            "--topic homelab.energy --limit 100001",
            "--topic homelab.energy --from-offset=-1",
        ] {
            assert!(arguments(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_whole_letters_of_the_topic_are_sent_and_each_once() {
        let asked = arguments("--topic homelab.energy --reason time_out_of_range").unwrap();
        let mut origins = HashSet::new();
        let mut check = |letter: DeadLetter, want: Verdict| {
            assert_eq!(verdict(&letter, &asked, &mut origins), want, "{letter:?}");
        };
        let insert = |offset| letter(Stage::Insert, topic::ENERGY, offset);
        check(insert(7), Verdict::Send(b"hello".to_vec()));
        check(insert(7), Verdict::NotAsked);
        check(letter(Stage::Decode, topic::ENERGY, 8), Verdict::NotAsked);
        check(letter(Stage::Insert, topic::PLUG, 9), Verdict::NotAsked);
        check(
            DeadLetter {
                reason: "time_out_of_range_or_so: x".to_owned(),
                ..insert(10)
            },
            Verdict::NotAsked,
        );
        check(
            DeadLetter {
                truncated: true,
                ..insert(11)
            },
            Verdict::Incomplete("its bytes were not kept whole"),
        );
        check(
            DeadLetter {
                payload_base64: "%".to_owned(),
                ..insert(12)
            },
            Verdict::Incomplete("its bytes are not base64"),
        );
    }

    #[test]
    fn reasons_are_shown_on_one_line() {
        assert_eq!(shown("a\nb\u{1b}[0m"), "a b [0m");
        assert_eq!(shown(&"\u{e9}".repeat(1_000)).chars().count(), SHOWN_CHARS);
    }
}
