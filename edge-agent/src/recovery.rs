//! A buffer that cannot be opened is moved aside and replaced; what can be read of it is forwarded.
//!
//! Nobody is there to repair a box in a cupboard: the agent takes readings again at once, and salvages in the
//! background. Salvaged messages keep their identity and their time, so those that had been forwarded already are
//! recognised at the far end. What was lost is counted and told like every other loss, as far as it can be known. One
//! salvaged buffer is kept for a person to look at; older ones are deleted.

mod gaps;

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use anyhow::Context as _;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    buffer::{self, AppendError, Buffer, Found, Limits},
    clock::{self, Segment, SegmentId, Timeline},
    losses::{Losses, Reason},
    message::{Identity, Message},
};
use gaps::Gaps;

/// The buffer's folder in the data folder.
const BUFFER: &str = "buffer";
/// Buffers that wait to be salvaged, with a number behind.
const DAMAGED: &str = "buffer.damaged.";
/// The last one that was.
const SALVAGED: &str = "buffer.salvaged";
/// In a buffer's folder: it was found damaged while running, and is to be replaced at the next start.
const MARK: &str = "damaged";
/// What was found waits here for the buffer: bounds memory.
const QUEUE: usize = 16;
/// How often a salvaged message that finds no room is tried again.
const ROOM_POLL: std::time::Duration = std::time::Duration::from_secs(1);

/// Counted since start.
#[derive(Debug, Default)]
pub struct Salvage {
    /// Messages salvaged.
    pub messages: AtomicU64,
    /// Buffers that were moved aside and are not salvaged yet.
    pub waiting: AtomicU64,
}

/// A buffer that is open, and the damaged ones it replaces.
pub struct Opened {
    /// The buffer.
    pub buffer: Buffer,
    /// To be salvaged.
    pub damaged: Vec<PathBuf>,
}

/// Opens the buffer in `data_dir`, replacing a damaged one. A full disk or a missing right is an error.
pub fn open(data_dir: &Path, limits: &Limits) -> anyhow::Result<Opened> {
    let dir = data_dir.join(BUFFER);
    if dir.join(MARK).exists() {
        tracing::error!("the buffer was found damaged while the agent ran");
        move_aside(data_dir)?;
    }
    let buffer = match Buffer::open(&dir, limits.clone()) {
        Ok(buffer) => buffer,
        Err(error) if error.is_damage() => {
            tracing::error!(%error, "the buffer cannot be opened; it is moved aside and salvaged");
            move_aside(data_dir)?;
            Buffer::open(&dir, limits.clone()).context("opening a new buffer in place of the damaged one")?
        }
        Err(error) => return Err(error).context("opening the buffer"),
    };
    Ok(Opened {
        buffer,
        damaged: damaged(data_dir)?,
    })
}

/// Marks the buffer as damaged, so that the next start replaces it.
pub fn mark_damaged(data_dir: &Path) {
    if let Err(error) = std::fs::write(data_dir.join(BUFFER).join(MARK), b"") {
        tracing::error!(%error, "the damaged buffer could not be marked");
    }
}

fn damaged(data_dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(data_dir).with_context(|| format!("reading {}", data_dir.display()))? {
        let entry = entry.context("reading the data folder")?;
        if entry.file_name().to_string_lossy().starts_with(DAMAGED) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

fn move_aside(data_dir: &Path) -> anyhow::Result<()> {
    let number = (1..)
        .find(|n| !data_dir.join(format!("{DAMAGED}{n}")).exists())
        .unwrap_or(0);
    let aside = data_dir.join(format!("{DAMAGED}{number}"));
    std::fs::rename(data_dir.join(BUFFER), &aside)
        .with_context(|| format!("moving the damaged buffer to {}", aside.display()))
}

/// Salvages the damaged buffers one after the other. Stops between messages; what is not done is begun again at
/// the next start, which is harmless.
pub async fn run(
    damaged: Vec<PathBuf>,
    buffer: Buffer,
    timeline: Arc<Mutex<Timeline>>,
    salvage: Arc<Salvage>,
    losses: Arc<Losses>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    salvage.waiting.store(damaged.len() as u64, Ordering::Relaxed);
    for dir in damaged {
        let before = salvage.messages.load(Ordering::Relaxed);
        let Some(gaps) = one(&dir, &buffer, &timeline, &salvage, &stop).await? else {
            return Ok(());
        };
        for gap in gaps {
            losses.many(
                Reason::Damaged,
                gap.count,
                gap.before.or(Some(gap.after)),
                Some(gap.after),
            );
        }
        let messages = salvage.messages.load(Ordering::Relaxed) - before;
        salvage.waiting.fetch_sub(1, Ordering::Relaxed);
        let kept = dir.with_file_name(SALVAGED);
        // Only the last one is kept; a first one has no predecessor.
        let _ = std::fs::remove_dir_all(&kept);
        std::fs::rename(&dir, &kept).context("putting the salvaged buffer away")?;
        tracing::warn!(messages, kept = %kept.display(), "a damaged buffer was salvaged");
    }
    stop.cancelled().await;
    Ok(())
}

/// Answers what is missing; `None` when the agent stops before it is done.
async fn one(
    dir: &Path,
    buffer: &Buffer,
    timeline: &Mutex<Timeline>,
    salvage: &Salvage,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Vec<gaps::Gap>>> {
    let Known { segments, heads } = read_known(dir).await?;
    let segments = adopt_segments(segments, buffer, timeline).await?;
    let mut seen = HashSet::new();
    let mut there = Gaps::default();
    let mut found = scan(dir.to_owned());
    while let Some(next) = found.recv().await {
        let Found::Entries { epoch, entries, .. } = next else {
            continue;
        };
        // A page that sled rewrote stands in the file more than once.
        if !entries
            .first()
            .is_some_and(|first| seen.insert((epoch, first.sequence)))
        {
            continue;
        }
        let head = heads.get(&epoch).copied().unwrap_or(0);
        for entry in entries.into_iter().filter(|entry| entry.sequence.0 >= head) {
            if stop.is_cancelled() {
                return Ok(None);
            }
            let Ok(mut message) = Message::decode(entry.bytes) else {
                continue;
            };
            let unknown = SegmentId(u32::MAX);
            message.stamp.segment = *segments.get(&(epoch, message.stamp.segment)).unwrap_or(&unknown);
            there.found(epoch, entry.sequence.0, message.stamp);
            message.identity.get_or_insert(Identity {
                epoch,
                sequence: entry.sequence.0,
            });
            if !keep(buffer, &message, stop).await? {
                return Ok(None);
            }
            salvage.messages.fetch_add(1, Ordering::Relaxed);
        }
    }
    let gaps = heads.iter().flat_map(|(epoch, head)| there.of(*epoch, *head));
    Ok(Some(gaps.collect()))
}

/// Waits for room as long as it takes. Answers false when the agent stops before.
async fn keep(buffer: &Buffer, message: &Message, stop: &CancellationToken) -> anyhow::Result<bool> {
    loop {
        match buffer.append(message.encode()).await {
            Ok(_) => return Ok(true),
            Err(AppendError::Full | AppendError::Disk) => {}
            Err(error) => return Err(error).context("keeping a salvaged message"),
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(false),
            () = tokio::time::sleep(ROOM_POLL) => {}
        }
    }
}

fn scan(dir: PathBuf) -> mpsc::Receiver<Found> {
    let (sender, receiver) = mpsc::channel(QUEUE);
    tokio::task::spawn_blocking(move || {
        if let Err(error) = buffer::salvage(&dir, |found| sender.blocking_send(found).is_ok()) {
            tracing::error!(%error, dir = %dir.display(), "a damaged buffer could be read in part only");
        }
    });
    receiver
}

/// What is known of a damaged buffer before its messages are taken.
#[derive(Default)]
struct Known {
    /// The clock's segments; of several states of one, the one that knows most.
    segments: HashMap<(u32, SegmentId), Segment>,
    /// What comes before these sequences was forwarded. A buffer of the older form does not say, and its sequences have
    /// holes of their own.
    heads: HashMap<u32, u64>,
}

async fn read_known(dir: &Path) -> anyhow::Result<Known> {
    let mut known = Known::default();
    let mut found = scan(dir.to_owned());
    while let Some(next) = found.recv().await {
        let (epoch, name, value) = match next {
            Found::Entries { epoch, head, .. } => {
                if let Some(head) = head {
                    let latest = known.heads.entry(epoch).or_default();
                    *latest = head.max(*latest);
                }
                continue;
            }
            Found::Value { epoch, name, value } => (epoch, name, value),
        };
        let id = name
            .strip_prefix(clock::KEY_PREFIX)
            .and_then(|id| <[u8; 4]>::try_from(id).ok());
        let (Some(id), Some(segment)) = (id, Segment::decode(&value)) else {
            continue;
        };
        let id = (epoch, SegmentId(u32::from_be_bytes(id)));
        match known.segments.get_mut(&id) {
            Some(known) => known.learn(segment),
            None => {
                known.segments.insert(id, segment);
            }
        }
    }
    Ok(known)
}

/// Gives the old segments new numbers in this buffer, on disk before they are used.
async fn adopt_segments(
    old: HashMap<(u32, SegmentId), Segment>,
    buffer: &Buffer,
    timeline: &Mutex<Timeline>,
) -> anyhow::Result<HashMap<(u32, SegmentId), SegmentId>> {
    let damaged = || anyhow::anyhow!("the timeline is damaged by a panic");
    let mut adopted = HashMap::new();
    for (old, segment) in old {
        let id = timeline.lock().map_err(|_| damaged())?.next_adopted_segment();
        let value = vec![(Segment::key(id), Some(segment.encode()))];
        buffer
            .put(value)
            .await
            .context("keeping the clock's segments of a damaged buffer")?;
        timeline.lock().map_err(|_| damaged())?.adopt(id, segment);
        adopted.insert(old, id);
    }
    Ok(adopted)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use telemetry::Clock as Trust;

    use super::*;
    use crate::{buffer::Sequence, clock::Stamp, message::Body};

    fn limits() -> Limits {
        Limits {
            max_bytes: 1 << 30,
            commit_interval: Duration::from_millis(1),
            commit_bytes: 32 * 1024,
            when_full: buffer::WhenFull::Reject,
        }
    }

    fn message(monotonic_us: u64) -> Message {
        let stamp = Stamp {
            segment: SegmentId(1),
            monotonic_us,
            synced: true,
        };
        let body = Body::Payload(Bytes::from(format!("payload {monotonic_us}")));
        Message {
            identity: None,
            stamp,
            topic: "a/events/rpc".into(),
            body,
        }
    }

    async fn filled(data_dir: &Path) -> u32 {
        let opened = open(data_dir, &limits()).unwrap();
        assert!(opened.damaged.is_empty());
        let segment = Segment {
            boot_id: "boot".into(),
            offset_us: Some(1_000),
            guess_us: 0,
            guessed_until_us: 0,
        };
        opened
            .buffer
            .put(vec![(Segment::key(SegmentId(1)), Some(segment.encode()))])
            .await
            .unwrap();
        for n in 1..=100 {
            opened.buffer.append(message(n).encode()).await.unwrap();
        }
        let epoch = opened.buffer.epoch();
        opened.buffer.close();
        epoch
    }

    /// Opens what `damage` left and answers identity, payload and time of everything that is there in the end.
    async fn recovered(data_dir: &Path) -> Vec<(Identity, String, i64)> {
        recovered_with(data_dir, Arc::default()).await
    }

    async fn recovered_with(data_dir: &Path, losses: Arc<Losses>) -> Vec<(Identity, String, i64)> {
        let Opened { buffer, damaged } = open(data_dir, &limits()).unwrap();
        let timeline = Arc::new(Mutex::new(Timeline::load(
            buffer.values(clock::KEY_PREFIX).unwrap(),
        )));
        let stop = CancellationToken::new();
        let salvage = Arc::new(Salvage::default());
        let wanted = damaged.len() as u64;
        let task = tokio::spawn(run(
            damaged,
            buffer.clone(),
            timeline.clone(),
            salvage.clone(),
            losses,
            stop.clone(),
        ));
        while wanted > 0 && !data_dir.join(SALVAGED).exists() {
            assert!(!task.is_finished());
            tokio::task::yield_now().await;
        }
        stop.cancel();
        task.await.unwrap().unwrap();
        let mut all = Vec::new();
        let mut next = buffer.head();
        loop {
            let batch = buffer.read(next, 1 << 20).unwrap();
            let Some(after) = batch.next else { break };
            next = after;
            for entry in batch.entries {
                let message = Message::decode(entry.bytes).unwrap();
                let resolved = timeline.lock().unwrap().resolve(message.stamp).unwrap();
                assert_eq!(resolved.clock, Trust::Synced);
                let here = Identity {
                    epoch: buffer.epoch(),
                    sequence: entry.sequence.0,
                };
                let Body::Payload(payload) = message.body else {
                    panic!("only payloads were written")
                };
                let text = String::from_utf8(payload.to_vec()).unwrap();
                all.push((
                    message.identity.unwrap_or(here),
                    text,
                    resolved.time.timestamp_micros(),
                ));
            }
        }
        all.sort();
        assert_eq!(
            buffer.append(vec![1]).await.map(|s| s > Sequence(0)),
            Ok(true),
            "new readings are taken"
        );
        all
    }

    fn want(epoch: u32) -> Vec<(Identity, String, i64)> {
        (1..=100)
            .map(|n| {
                (
                    Identity { epoch, sequence: n },
                    format!("payload {n}"),
                    n as i64 + 1_000,
                )
            })
            .collect()
    }

    #[tokio::test]
    async fn an_undamaged_buffer_is_just_opened() {
        let dir = tempfile::tempdir().unwrap();
        let epoch = filled(dir.path()).await;
        assert_eq!(recovered(dir.path()).await, want(epoch));
        assert!(!dir.path().join(SALVAGED).exists());
    }

    #[tokio::test]
    async fn a_buffer_marked_as_damaged_is_replaced_and_nothing_of_it_is_lost() {
        let dir = tempfile::tempdir().unwrap();
        let epoch = filled(dir.path()).await;
        mark_damaged(dir.path());
        assert_eq!(recovered(dir.path()).await, want(epoch));
        assert!(dir.path().join(SALVAGED).exists());
        assert!(damaged(dir.path()).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_buffer_sled_cannot_open_is_replaced_and_what_is_whole_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let epoch = filled(dir.path()).await;
        let values = dir.path().join(BUFFER).join("values");
        std::fs::write(values.join("conf"), b"not sled's configuration").unwrap();
        assert_eq!(recovered(dir.path()).await, want(epoch));
        assert!(dir.path().join(SALVAGED).exists());
    }

    #[tokio::test]
    async fn what_a_damaged_buffer_has_lost_is_counted_with_its_time() {
        let dir = tempfile::tempdir().unwrap();
        let epoch = filled(dir.path()).await;
        // Each entry has a page of its own behind that of the small value: 41 to 50 and 80 are hit.
        let log = dir.path().join(BUFFER).join("log/0000000000000001.log");
        let mut bytes = std::fs::read(&log).unwrap();
        for n in (41..=50).chain([80]) {
            bytes[n * 4096 + 10] ^= 0xff;
        }
        std::fs::write(&log, bytes).unwrap();
        mark_damaged(dir.path());
        let losses = Arc::new(Losses::default());
        let found = recovered_with(dir.path(), losses.clone()).await;
        let mut want = want(epoch);
        want.retain(|(identity, ..)| !(41..=50).contains(&identity.sequence) && identity.sequence != 80);
        assert_eq!(found, want);
        assert_eq!(losses.count(Reason::Damaged), 11);
        let (count, first, last) = losses.episode(Reason::Damaged).unwrap();
        let micros = |stamp: Option<crate::clock::Stamp>| stamp.map(|stamp| stamp.monotonic_us);
        assert_eq!((count, micros(first), micros(last)), (11, Some(40), Some(81)));
    }

    #[tokio::test]
    async fn a_log_whose_small_values_are_gone_is_salvaged_whole() {
        type Damage = fn(&Path);
        let damages: [(&str, Damage); 4] = [
            ("cut to nothing", |values| {
                std::fs::write(values.join("db"), []).unwrap();
            }),
            ("cut", |values| {
                let bytes = std::fs::read(values.join("db")).unwrap();
                std::fs::write(values.join("db"), &bytes[..100]).unwrap();
            }),
            ("overwritten", |values| {
                let mut bytes = std::fs::read(values.join("db")).unwrap();
                bytes[..64].fill(0xa5);
                std::fs::write(values.join("db"), bytes).unwrap();
            }),
            ("removed", |values| std::fs::remove_dir_all(values).unwrap()),
        ];
        for (what, damage) in damages {
            let dir = tempfile::tempdir().unwrap();
            let epoch = filled(dir.path()).await;
            damage(&dir.path().join(BUFFER).join("values"));
            assert_eq!(recovered(dir.path()).await, want(epoch), "{what}");
        }
    }

    #[tokio::test]
    async fn a_truncated_or_overwritten_file_never_stops_the_start() {
        for name in ["values/db", "values/conf", "log/0000000000000001.log"] {
            for (keep, garbage) in [(0, 0), (100, 0), (5_000, 0), (5_000, 3_000), (0, 9_000)] {
                let dir = tempfile::tempdir().unwrap();
                filled(dir.path()).await;
                let path = dir.path().join(BUFFER).join(name);
                let mut bytes = std::fs::read(&path).unwrap();
                bytes.truncate(keep);
                bytes.extend((0..garbage).map(|n| (n * 7) as u8));
                std::fs::write(&path, bytes).unwrap();
                let Opened { buffer, .. } = open(dir.path(), &limits()).unwrap();
                assert!(buffer.append(vec![1]).await.is_ok(), "{name} {keep} {garbage}");
            }
        }
    }
}
