//! Letters to readers that are away, and values that are retained: what MQTT sessions must hold after a power cut.
//!
//! A writer publishes at QoS 1 and 2 while its reader, a persistent session, is away; then the reader takes what waits. What
//! the writer was told is kept must be in the reader's session from then until the reader has it, once and in order; and a
//! retained value that was acknowledged must be there, or a later one.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use tokio::{
    io::AsyncWriteExt as _,
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::{
    Report,
    client::Task,
    ledger::now_us,
    packet::{self, Incoming, Packet},
};

/// Readers, each with a writer of its own.
pub const READERS: usize = 3;
/// An answer of an agent that is traced, on a busy machine.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// A reader goes again when nothing has come for this long.
const READS_FOR: Duration = Duration::from_millis(40);

/// Of all readers and writers.
#[derive(Debug, Default)]
pub struct Post {
    readers: Mutex<Vec<Reader>>,
}

/// Times are microseconds since 1970.
#[derive(Clone, Debug, Default)]
struct Reader {
    /// SUBACK was read.
    subscribed: Option<u64>,
    letters: BTreeMap<u64, Letter>,
    /// When each retained value was acknowledged; `None` while it is not.
    values: BTreeMap<u64, Option<u64>>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Letter {
    acknowledged: Option<u64>,
    /// The reader is about to say that it has it.
    taken: Option<u64>,
}

/// What was found in a session store after a cut, as the inspector's lines say it.
#[derive(Debug, Default)]
pub struct Found {
    filters: Vec<(String, String)>,
    letters: Vec<(String, u64)>,
    values: Vec<(String, u64)>,
}

fn name(reader: usize) -> String {
    format!("reader-{reader}")
}

fn filter(reader: usize) -> String {
    format!("post/{reader}/letters/#")
}

fn value_topic(reader: usize) -> String {
    format!("post/{reader}/state")
}

impl Found {
    /// Takes a line of the inspector; false when it is none of sessions.
    pub fn take(&mut self, words: &[&str]) -> bool {
        match words {
            ["session", client, filter] => self.filters.push(((*client).into(), (*filter).into())),
            ["letter", client, n] => self.letters.push(((*client).into(), n.parse().unwrap_or(0))),
            ["retained", topic, n] => self.values.push(((*topic).into(), n.parse().unwrap_or(0))),
            _ => return false,
        }
        true
    }
}

impl Post {
    /// Readers and writers that go on until they are told to settle.
    pub fn start(agent: SocketAddr, tasks: &watch::Receiver<Task>) -> (Arc<Post>, JoinSet<Result<()>>) {
        let post = Arc::new(Post {
            readers: Mutex::new(vec![Reader::default(); READERS]),
        });
        let mut running = JoinSet::new();
        for reader in 0..READERS {
            let pair = Pair {
                post: post.clone(),
                agent,
                reader,
                next: 1,
            };
            running.spawn(pair.run(tasks.clone()));
        }
        (post, running)
    }

    fn readers(&self) -> MutexGuard<'_, Vec<Reader>> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, reader: usize, change: impl FnOnce(&mut Reader, u64)) {
        change(&mut self.readers()[reader], now_us());
    }

    /// Letters and values that were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let readers = self.readers();
        let of = |reader: &Reader| {
            let letters = reader
                .letters
                .values()
                .filter(|l| l.acknowledged.is_some())
                .count();
            letters + reader.values.values().filter(|value| value.is_some()).count()
        };
        readers.iter().map(of).sum::<usize>() as u64
    }

    /// When something was acknowledged: a good moment for a cut.
    pub fn times(&self) -> Vec<u64> {
        let readers = self.readers();
        let of = |reader: &Reader| -> Vec<u64> {
            let letters = reader.letters.values().filter_map(|letter| letter.acknowledged);
            letters.chain(reader.values.values().flatten().copied()).collect()
        };
        readers.iter().flat_map(of).collect()
    }

    /// Compares what was found after a cut at `at_us` with what was acknowledged by then.
    pub fn judge(&self, found: &Found, at_us: u64, report: &mut Report) {
        let before = |time: Option<u64>| time.is_some_and(|time| time <= at_us);
        for (n, reader) in self.readers().iter().enumerate() {
            let client = name(n);
            if before(reader.subscribed) && !found.filters.contains(&(client.clone(), filter(n))) {
                report.missing += 1;
                report.example(|| format!("{client}: its subscription is gone (cut at {at_us})"));
            }
            let mut last = 0;
            let mine = || found.letters.iter().filter(|(who, _)| *who == client);
            for (_, letter) in mine() {
                if !reader.letters.contains_key(letter) {
                    report.invented += 1;
                    report.example(|| format!("{client}: letter {letter} was never sent (cut at {at_us})"));
                }
                report.duplicates += u64::from(*letter == last);
                report.reordered += u64::from(*letter < last);
                if *letter <= last {
                    report.example(|| format!("{client}: letter {letter} behind {last} (cut at {at_us})"));
                }
                last = *letter;
            }
            for (letter, state) in &reader.letters {
                let held = || mine().any(|(_, found)| found == letter);
                if before(state.acknowledged) && !before(state.taken) && !held() {
                    report.missing += 1;
                    report.example(|| format!("{client}: letter {letter} is gone (cut at {at_us})"));
                }
            }
            let topic = value_topic(n);
            let value = found.values.iter().find(|(found, _)| *found == topic);
            let value = value.map_or(0, |(_, value)| *value);
            let acknowledged = reader.values.iter().filter(|(_, time)| before(**time));
            let want = acknowledged.map(|(value, _)| *value).max().unwrap_or(0);
            if value < want {
                report.missing += 1;
                report.example(|| format!("{topic} is {value} and not {want} (cut at {at_us})"));
            }
            if value > 0 && !reader.values.contains_key(&value) {
                report.invented += 1;
                report.example(|| format!("{topic} is {value}, which was never sent (cut at {at_us})"));
            }
        }
    }
}

/// A reader and its writer; one is away while the other is there.
struct Pair {
    post: Arc<Post>,
    agent: SocketAddr,
    reader: usize,
    next: u64,
}

impl Pair {
    async fn run(mut self, tasks: watch::Receiver<Task>) -> Result<()> {
        self.read().await.context("reading")?;
        while *tasks.borrow() == Task::Publish {
            self.write().await.context("writing")?;
            if rand::random_bool(0.5) {
                self.read().await.context("reading")?;
            }
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<()> {
        let mut line = Line::open(self.agent, &name(self.reader), false).await?;
        line.send(&packet::subscribe(&filter(self.reader), 2)).await?;
        let mut subscribed = false;
        let mut patience = ANSWER_WITHIN;
        while let Ok(packet) = timeout(patience, line.next()).await {
            match packet? {
                Packet::SubAck(qos) => {
                    ensure!(qos == 2, "the subscription is granted with {qos:#x}");
                    self.post.note(self.reader, |reader, now| {
                        reader.subscribed.get_or_insert(now);
                    });
                    subscribed = true;
                    patience = READS_FOR;
                }
                Packet::Publish {
                    qos, pkid, payload, ..
                } => {
                    let letter: u64 = String::from_utf8(payload)?.parse()?;
                    self.post.note(self.reader, |reader, now| {
                        reader.letters.entry(letter).or_default().taken.get_or_insert(now);
                    });
                    let answer = if qos == 2 {
                        packet::pubrec(pkid)
                    } else {
                        packet::puback(pkid)
                    };
                    line.send(&answer).await?;
                }
                Packet::PubRel(pkid) => line.send(&packet::pubcomp(pkid)).await?,
                other => anyhow::bail!("a reader is told {other:?}"),
            }
        }
        ensure!(subscribed, "the subscription is not answered");
        Ok(())
    }

    async fn write(&mut self) -> Result<()> {
        let mut line = Line::open(self.agent, &format!("writer-{}", self.reader), true).await?;
        for _ in 0..rand::random_range(1..8) {
            let (n, qos) = (self.next, 1 + (self.next % 2) as u8);
            self.next += 1;
            self.post.note(self.reader, |reader, _| {
                reader.letters.insert(n, Letter::default());
                reader.values.insert(n, None);
            });
            let topic = format!("post/{}/letters/{}", self.reader, n % 3);
            let text = n.to_string();
            line.send(&packet::publish(&topic, text.as_bytes(), qos, 1, false))
                .await?;
            line.settled().await?;
            self.post.note(self.reader, |reader, now| {
                reader.letters.entry(n).or_default().acknowledged = Some(now);
            });
            line.released(qos).await?;
            let topic = value_topic(self.reader);
            line.send(&packet::publish_retained(&topic, text.as_bytes(), qos, 2))
                .await?;
            line.settled().await?;
            self.post.note(self.reader, |reader, now| {
                reader.values.insert(n, Some(now));
            });
            line.released(qos).await?;
        }
        Ok(())
    }
}

/// A connection.
struct Line {
    incoming: Incoming,
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    pkid: u16,
}

impl Line {
    async fn open(agent: SocketAddr, client: &str, clean: bool) -> Result<Line> {
        let stream = timeout(ANSWER_WITHIN, TcpStream::connect(agent)).await??;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let mut line = Line {
            incoming: Incoming::default(),
            reader,
            writer,
            pkid: 0,
        };
        line.send(&packet::connect(client, clean)).await?;
        let first = timeout(ANSWER_WITHIN, line.next()).await??;
        ensure!(matches!(first, Packet::ConnAck { .. }), "CONNACK comes first");
        Ok(line)
    }

    async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(ANSWER_WITHIN, self.writer.write_all(bytes))
            .await?
            .context("writing")
    }

    async fn next(&mut self) -> Result<Packet> {
        self.incoming.next(&mut self.reader).await
    }

    /// PUBACK or PUBREC.
    async fn settled(&mut self) -> Result<()> {
        match timeout(ANSWER_WITHIN, self.next()).await?? {
            Packet::PubAck(pkid) | Packet::PubRec(pkid) => {
                self.pkid = pkid;
                Ok(())
            }
            other => anyhow::bail!("an acknowledgement was to come, and not {other:?}"),
        }
    }

    /// The rest of an exchange at QoS 2.
    async fn released(&mut self, qos: u8) -> Result<()> {
        if qos < 2 {
            return Ok(());
        }
        self.send(&packet::pubrel(self.pkid)).await?;
        let last = timeout(ANSWER_WITHIN, self.next()).await??;
        ensure!(
            last == Packet::PubComp(self.pkid),
            "PUBCOMP was to come, and not {last:?}"
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A post in which reader 0 subscribed at 10, was sent letters 1 to 3, acknowledged at 20, 30 and never, and took
    /// letter 1 at 40; and a value 1, acknowledged at 25.
    fn post() -> Post {
        let letter = |acknowledged, taken| Letter { acknowledged, taken };
        let reader = Reader {
            subscribed: Some(10),
            letters: [
                (1, letter(Some(20), Some(40))),
                (2, letter(Some(30), None)),
                (3, letter(None, None)),
            ]
            .into(),
            values: [(1, Some(25)), (2, None)].into(),
        };
        Post {
            readers: Mutex::new(vec![reader]),
        }
    }

    /// Missing, duplicates, reordered, invented.
    fn judged(at_us: u64, lines: &str) -> (u64, u64, u64, u64) {
        let mut found = Found::default();
        for line in lines.lines() {
            assert!(found.take(&line.split(' ').collect::<Vec<_>>()), "{line}");
        }
        let mut report = Report::default();
        post().judge(&found, at_us, &mut report);
        (
            report.missing,
            report.duplicates,
            report.reordered,
            report.invented,
        )
    }

    #[test]
    fn what_is_acknowledged_and_not_taken_must_be_there() {
        let session = "session reader-0 post/0/letters/#\n";
        let all = format!("{session}letter reader-0 1\nletter reader-0 2\nretained post/0/state 1");
        assert_eq!(judged(5, ""), (0, 0, 0, 0));
        assert_eq!(judged(15, ""), (1, 0, 0, 0), "the subscription");
        assert_eq!(judged(22, session), (1, 0, 0, 0), "letter 1");
        assert_eq!(judged(35, &all), (0, 0, 0, 0));
        assert_eq!(judged(35, session), (3, 0, 0, 0), "both letters and the value");
        let later = format!("{session}letter reader-0 2\nletter reader-0 3\nretained post/0/state 2");
        assert_eq!(
            judged(45, &later),
            (0, 0, 0, 0),
            "1 is taken, 3 and value 2 may be there"
        );
        let wrong = format!(
            "{session}letter reader-0 2\nletter reader-0 1\nletter reader-0 1\nletter reader-0 9\nretained post/0/state 7"
        );
        assert_eq!(judged(45, &wrong), (0, 1, 1, 2));
    }
}
