//! What was refused, dropped or damaged: counted by reason, and told as `buffer_loss`, one event an episode.
//!
//! An episode begins with the first message lost for a reason and ends when none was for a while. Its event goes the way
//! of readings, through room in the buffer that is kept back for it. This module loses nothing itself but what is older
//! than the age limit, where there is one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use telemetry::EventBody;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    buffer::{Buffer, Loss, LossReason},
    clock::{Clock, Stamp, Timeline},
    message::Message,
};

/// An episode in which nothing was lost for this long is over.
const QUIET: Duration = Duration::from_secs(5);
/// One that goes on is told after this, and then after ever longer times up to a day: room for events is limited, too.
const FIRST_REPORT: Duration = Duration::from_secs(60);
const LONGEST_REPORT: Duration = Duration::from_secs(24 * 3600);
/// How often episodes are looked at.
const INTERVAL: Duration = Duration::from_secs(1);
/// How often the age of the oldest part is looked at.
const AGE_INTERVAL: Duration = Duration::from_secs(60);

/// Why messages are lost to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// Refused, the byte limit was reached. A device that publishes above QoS 0 still has it.
    Full,
    /// Refused, the disk could not be written. A device that publishes above QoS 0 still has it.
    Disk,
    /// Acknowledged and dropped for newer ones, as configured.
    Dropped,
    /// Acknowledged and older than the age limit.
    Expired,
    /// Acknowledged and damaged on disk.
    Damaged,
    /// Acknowledged, and Redpanda takes neither its records nor a dead letter of it.
    Refused,
}

impl Reason {
    /// All of them.
    pub const ALL: [Reason; 6] = [
        Reason::Full,
        Reason::Disk,
        Reason::Dropped,
        Reason::Expired,
        Reason::Damaged,
        Reason::Refused,
    ];

    /// Its word in events and metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Reason::Full => "full",
            Reason::Disk => "disk",
            Reason::Dropped => "dropped",
            Reason::Expired => "expired",
            Reason::Damaged => "damaged",
            Reason::Refused => "refused",
        }
    }
}

#[derive(Debug)]
struct Episode {
    count: u64,
    first: Option<Stamp>,
    last: Option<Stamp>,
    begun: DateTime<Utc>,
    latest: Instant,
    report_at: Instant,
    report_after: Duration,
}

/// The ledger of losses.
#[derive(Debug, Default)]
pub struct Losses {
    open: Mutex<BTreeMap<Reason, Episode>>,
    counts: [AtomicU64; Reason::ALL.len()],
}

impl Losses {
    /// How many were lost for a reason since start.
    pub fn count(&self, reason: Reason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// What is not told yet of a reason: how many, and the first and the last of them.
    #[cfg(test)]
    pub fn episode(&self, reason: Reason) -> Option<(u64, Option<Stamp>, Option<Stamp>)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let episode = open.get(&reason)?;
        Some((episode.count, episode.first, episode.last))
    }

    /// Notes that a message was lost.
    pub fn one(&self, reason: Reason, stamp: Stamp) {
        self.many(reason, 1, Some(stamp), Some(stamp));
    }

    /// Notes that several were lost, the first and the last of them with these stamps where they are known.
    pub fn many(&self, reason: Reason, count: u64, first: Option<Stamp>, last: Option<Stamp>) {
        self.counts[reason as usize].fetch_add(count, Ordering::Relaxed);
        let now = Instant::now();
        // Changed in single steps; a panic elsewhere leaves it whole.
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let episode = open.entry(reason).or_insert_with(|| {
            tracing::error!(
                reason = reason.word(),
                "messages are lost; the end of it is told with their number"
            );
            Episode {
                count: 0,
                first: None,
                last: None,
                begun: Utc::now(),
                latest: now,
                report_at: now + FIRST_REPORT,
                report_after: FIRST_REPORT,
            }
        });
        episode.count += count;
        episode.latest = now;
        episode.first = episode.first.or(first);
        episode.last = last.or(episode.last);
    }

    /// What is to be told now; `all` at a stop.
    fn due(&self, all: bool) -> Vec<(Reason, Episode)> {
        let now = Instant::now();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        for reason in Reason::ALL {
            let Some(episode) = open.get_mut(&reason) else {
                continue;
            };
            if all || now >= episode.latest + QUIET {
                due.extend(open.remove(&reason).map(|episode| (reason, episode)));
            } else if now >= episode.report_at && episode.count > 0 {
                let report_after = (episode.report_after * 4).min(LONGEST_REPORT);
                let (begun, last) = (Utc::now(), episode.last);
                let rest = Episode {
                    count: 0,
                    first: None,
                    last,
                    begun,
                    latest: episode.latest,
                    report_at: now + report_after,
                    report_after,
                };
                due.push((reason, std::mem::replace(episode, rest)));
            }
        }
        due.retain(|(_, episode)| episode.count > 0);
        due
    }

    /// Takes an episode back that could not be told.
    fn put_back(&self, reason: Reason, mut episode: Episode) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(later) = open.remove(&reason) {
            episode.count += later.count;
            episode.last = later.last.or(episode.last);
        }
        episode.latest = Instant::now();
        open.insert(reason, episode);
    }
}

/// Tells losses.
pub struct Reporter {
    /// Where they are noted.
    pub losses: Arc<Losses>,
    /// The buffer: it tells what it dropped, and takes the events.
    pub buffer: Buffer,
    /// The clock.
    pub clock: Arc<Clock>,
    /// Times of messages.
    pub timeline: Arc<Mutex<Timeline>>,
    /// Messages older than this are dropped.
    pub max_age: Option<Duration>,
}

impl Reporter {
    /// Runs until `stop`, then tells what is left.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut dropped = self
            .buffer
            .losses()
            .context("somebody else listens to the buffer's losses")?;
        let mut interval = tokio::time::interval(INTERVAL);
        let mut age_at = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                Some(loss) = dropped.recv() => {
                    self.note(&loss);
                    continue;
                }
                _ = interval.tick() => {}
            }
            if let Some(max_age) = self.max_age
                && age_at <= Instant::now()
            {
                age_at = Instant::now() + AGE_INTERVAL;
                self.expire(max_age)?;
            }
            self.tell(false).await;
        }
        while let Ok(loss) = dropped.try_recv() {
            self.note(&loss);
        }
        self.tell(true).await;
        Ok(())
    }

    fn note(&self, loss: &Loss) {
        let reason = match loss.reason {
            LossReason::Full => Reason::Dropped,
            LossReason::Expired => Reason::Expired,
        };
        let stamp = |entry: &Option<bytes::Bytes>| {
            entry
                .clone()
                .and_then(|entry| Message::decode(entry).ok())
                .map(|message| message.stamp)
        };
        self.losses
            .many(reason, loss.count, stamp(&loss.first), stamp(&loss.last));
    }

    fn expire(&self, max_age: Duration) -> anyhow::Result<()> {
        while self.clock.is_synced()
            && let Some((last, end)) = self
                .buffer
                .oldest_part()
                .context("looking for the oldest messages")?
            && let Ok(message) = Message::decode(last.bytes)
            && self
                .age(message.stamp, Utc::now())
                .is_some_and(|age| age > max_age)
            && let Some(loss) = self
                .buffer
                .expire_before(end)
                .context("dropping the oldest messages")?
        {
            self.note(&loss);
        }
        Ok(())
    }

    /// How old a message is. Within a boot the monotonic clock says it, whatever the wall clock is set to. Of an earlier
    /// boot's it is known only while the wall clock has not been stepped: a wrong year must not expire a house's readings.
    fn age(&self, stamp: Stamp, now: DateTime<Utc>) -> Option<Duration> {
        let here = self.clock.stamp();
        if self
            .timeline
            .lock()
            .ok()?
            .is_same_boot(stamp.segment, here.segment)
        {
            return Some(Duration::from_micros(
                here.monotonic_us.saturating_sub(stamp.monotonic_us),
            ));
        }
        if self.clock.steps().0 > 0 {
            return None;
        }
        (now - self.time(stamp)?).to_std().ok()
    }

    fn time(&self, stamp: Stamp) -> Option<DateTime<Utc>> {
        Some(self.timeline.lock().ok()?.resolve(stamp)?.time)
    }

    async fn tell(&self, all: bool) {
        for (reason, episode) in self.losses.due(all) {
            let from = episode
                .first
                .and_then(|stamp| self.time(stamp))
                .unwrap_or(episode.begun);
            let to = episode
                .last
                .and_then(|stamp| self.time(stamp))
                .unwrap_or_else(Utc::now)
                .max(from);
            let (count, word) = (episode.count, reason.word());
            tracing::warn!(reason = word, count, %from, %to, "messages were lost");
            let body = EventBody::BufferLoss {
                from,
                to,
                count,
                reason: word.to_owned(),
            };
            let event = Message::event(self.clock.stamp(), &body.into());
            if let Err(error) = self.buffer.append_reserved(event.encode()).await {
                tracing::debug!(%error, "a loss cannot be told yet");
                self.losses.put_back(reason, episode);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        buffer::{Limits, Sequence, WhenFull},
        clock::{Segment, SegmentId},
        message::{AgentEvent, Body},
    };

    fn stamp(monotonic_us: u64) -> Stamp {
        Stamp {
            segment: SegmentId(1),
            monotonic_us,
            synced: true,
        }
    }

    fn reporter(dir: &std::path::Path, offset_us: i64, max_age: Option<Duration>) -> Reporter {
        let limits = Limits {
            max_bytes: 1 << 30,
            commit_interval: Duration::from_millis(1),
            commit_bytes: 1 << 18,
            when_full: WhenFull::DropOldest,
        };
        let mut timeline = Timeline::default();
        let segment = |boot_id: &str| Segment {
            boot_id: boot_id.into(),
            offset_us: Some(offset_us),
            guess_us: 0,
            guessed_until_us: 0,
        };
        timeline.note(SegmentId(1), segment("an earlier boot"));
        timeline.note(SegmentId(2), segment("this boot"));
        let clock = Clock::new(SegmentId(2));
        clock.apply(crate::clock::Change::Synchronised {
            segment: SegmentId(2),
            offset_us,
        });
        Reporter {
            losses: Arc::default(),
            buffer: Buffer::open(dir, limits).unwrap(),
            clock: Arc::new(clock),
            timeline: Arc::new(Mutex::new(timeline)),
            max_age,
        }
    }

    fn events(buffer: &Buffer, from: Sequence) -> Vec<EventBody> {
        let batch = buffer.read(from, 1 << 20).unwrap();
        let event = |bytes| match Message::decode(bytes).unwrap().body {
            Body::Event(json) => serde_json::from_slice::<AgentEvent>(&json).unwrap().body,
            other => panic!("{other:?}"),
        };
        batch
            .entries
            .into_iter()
            .map(|entry| event(entry.bytes))
            .collect()
    }

    #[tokio::test]
    async fn an_episode_is_one_event_with_its_times_and_number() {
        let dir = tempfile::tempdir().unwrap();
        let reporter = reporter(dir.path(), 1_767_254_400_000_000, None);
        let (buffer, losses) = (reporter.buffer.clone(), reporter.losses.clone());
        for n in 1..=10 {
            losses.one(Reason::Full, stamp(n * 1_000_000));
        }
        losses.one(Reason::Disk, stamp(20_000_000));
        let stop = CancellationToken::new();
        stop.cancel();
        reporter.run(stop).await.unwrap();
        let at = |second: i64| DateTime::from_timestamp(1_767_254_400 + second, 0).unwrap();
        let loss = |from: i64, to: i64, count, reason: &str| EventBody::BufferLoss {
            from: at(from),
            to: at(to),
            count,
            reason: reason.into(),
        };
        assert_eq!(
            events(&buffer, Sequence(1)),
            [loss(1, 10, 10, "full"), loss(20, 20, 1, "disk")]
        );
        assert_eq!(
            (losses.count(Reason::Full), losses.count(Reason::Dropped)),
            (10, 0)
        );
    }

    #[tokio::test]
    async fn a_clock_that_jumps_years_forward_makes_nothing_old() {
        let dir = tempfile::tempdir().unwrap();
        let day_us = 24 * 3_600_000_000_i64;
        let now = DateTime::from_timestamp_micros(Utc::now().timestamp_micros()).unwrap();
        let reporter = reporter(dir.path(), now.timestamp_micros() - day_us, None);
        let age = |stamp, now| reporter.age(stamp, now);
        // Of an earlier boot, by the wall clock.
        let earlier = stamp(1_000_000);
        assert_eq!(age(earlier, now), Some(Duration::from_secs(24 * 3600 - 1)));
        // Of this boot, by the monotonic one.
        let here = reporter.clock.stamp();
        let future = now + chrono::TimeDelta::days(3_650);
        assert!(age(here, future).unwrap() < Duration::from_secs(600));
        reporter.clock.note_step(1e9);
        assert!(age(here, future).unwrap() < Duration::from_secs(600));
        assert_eq!(age(earlier, future), None, "nobody can know");
    }

    #[tokio::test]
    async fn what_is_older_than_the_age_limit_is_dropped_and_told() {
        let dir = tempfile::tempdir().unwrap();
        let hour_us = 3_600_000_000_i64;
        let now_us = Utc::now().timestamp_micros();
        // Twelve MiB, the first half of them two hours old.
        let reporter = reporter(dir.path(), now_us - 3 * hour_us, Some(Duration::from_secs(3600)));
        for n in 0..48_u64 {
            let at = if n < 24 {
                hour_us as u64 + n
            } else {
                3 * hour_us as u64 + n
            };
            let payload: Vec<u8> = (0..1 << 18).map(|_| rand::random()).collect();
            let message = Message {
                identity: None,
                stamp: stamp(at),
                topic: "t".into(),
                body: Body::Payload(payload.into()),
            };
            reporter.buffer.append(message.encode()).await.unwrap();
        }
        reporter.expire(Duration::from_secs(3600)).unwrap();
        let head = reporter.buffer.head().0;
        assert!((15..=25).contains(&head), "{head}");
        assert_eq!(reporter.losses.count(Reason::Expired), head - 1);
        reporter.tell(true).await;
        assert!(matches!(
            &events(&reporter.buffer, Sequence(49))[..],
            [EventBody::BufferLoss { count, reason, .. }] if *count == head - 1 && reason == "expired"
        ));
    }
}
