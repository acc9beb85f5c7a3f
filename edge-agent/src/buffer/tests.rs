//! The buffer against its promises: order, identity, durability over restarts, damage in one place only.

use super::*;
use crate::line::Line;

fn limits() -> Limits {
    Limits {
        max_bytes: 1 << 30,
        commit_interval: Duration::from_millis(1),
        commit_bytes: 32 * 1024,
        when_full: WhenFull::Reject,
    }
}

fn entry(n: u64) -> Vec<u8> {
    format!("entry {n}").into_bytes()
}

fn read_all(buffer: &Buffer, mut from: Sequence) -> Vec<(u64, Vec<u8>)> {
    let mut all = Vec::new();
    loop {
        let batch = buffer.read(from, 4096).unwrap();
        assert!(batch.corrupt.is_empty(), "{:?}", batch.corrupt);
        let Some(next) = batch.next else { return all };
        if batch.entries.is_empty() {
            return all;
        }
        all.extend(
            batch
                .entries
                .into_iter()
                .map(|e| (e.sequence.0, e.bytes.to_vec())),
        );
        from = next;
    }
}

#[tokio::test]
async fn entries_come_back_in_order_with_their_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    for n in 1..=100 {
        assert_eq!(buffer.append(entry(n)).await, Ok(Sequence(n)));
    }
    let want: Vec<_> = (1..=100).map(|n| (n, entry(n))).collect();
    assert_eq!(read_all(&buffer, buffer.head()), want);
    assert_eq!(read_all(&buffer, Sequence(42)), want[41..]);
    assert_eq!(buffer.stats().entries, 100);
    assert!(buffer.read(Sequence(101), 100).unwrap().entries.is_empty());
}

#[tokio::test]
async fn concurrent_appends_share_commits() {
    let dir = tempfile::tempdir().unwrap();
    let slow = Limits {
        commit_interval: Duration::from_millis(50),
        ..limits()
    };
    let buffer = Buffer::open(dir.path(), slow).unwrap();
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let buffer = buffer.clone();
            tokio::spawn(async move { buffer.append(entry(n)).await.unwrap() })
        })
        .collect();
    let mut seen = std::collections::BTreeSet::new();
    for task in tasks {
        assert!(seen.insert(task.await.unwrap()), "a sequence was given twice");
    }
    assert_eq!(seen.len(), 200);
    let commits = buffer.stats().commits;
    assert!(commits < 50, "{commits} commits for 200 concurrent appends");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_and_sequences_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let epoch = {
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        for n in 1..=10 {
            buffer.append(entry(n)).await.unwrap();
        }
        buffer.remove_before(Sequence(11));
        buffer.close();
        assert_eq!(buffer.append(entry(11)).await, Err(AppendError::Closed));
        buffer.epoch()
    };
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    assert_eq!(
        buffer.epoch(),
        epoch,
        "the epoch belongs to the buffer, not to the process"
    );
    assert_eq!(buffer.stats().entries, 0);
    assert_eq!(
        buffer.append(entry(11)).await,
        Ok(Sequence(11)),
        "an emptied buffer must not reuse sequences"
    );
}

#[tokio::test]
async fn a_partly_removed_group_comes_back_whole_but_never_less() {
    let dir = tempfile::tempdir().unwrap();
    {
        let slow = Limits {
            commit_interval: Duration::from_millis(30),
            ..limits()
        };
        let buffer = Buffer::open(dir.path(), slow).unwrap();
        let appends = (1..=10).map(|n| buffer.append(entry(n)));
        futures_join(appends).await;
        buffer.remove_before(Sequence(5));
        buffer.close();
    }
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    let sequences: Vec<_> = read_all(&buffer, buffer.head())
        .into_iter()
        .map(|(n, _)| n)
        .collect();
    assert!(sequences.ends_with(&[5, 6, 7, 8, 9, 10]), "{sequences:?}");
}

async fn futures_join<F: Future<Output = Result<Sequence, AppendError>> + Send>(
    futures: impl Iterator<Item = F>,
) {
    let mut all: Vec<_> = futures.map(Box::pin).collect();
    std::future::poll_fn(|context| {
        all.retain_mut(|f| f.as_mut().poll(context).is_pending());
        if all.is_empty() {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
}

#[tokio::test]
async fn an_entry_of_256_kib_that_does_not_compress_is_kept() {
    let dir = tempfile::tempdir().unwrap();
    let big: Vec<u8> = (0..256 * 1024 + 500).map(|_| rand::random()).collect();
    {
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        buffer.append(entry(1)).await.unwrap();
        buffer.append(big.clone()).await.unwrap();
        buffer.append(entry(3)).await.unwrap();
        buffer.close();
    }
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    assert_eq!(
        read_all(&buffer, buffer.head()),
        [(1, entry(1)), (2, big), (3, entry(3))]
    );
}

/// A buffer as older versions made it, with entries `range` and a clock offset; answers the entries.
pub(super) fn older_buffer(
    dir: &Path,
    epoch: u32,
    range: std::ops::RangeInclusive<u64>,
) -> Vec<(u64, Vec<u8>)> {
    let tree = sled::Config::new()
        .path(dir)
        .segment_size(4 * 1024 * 1024)
        .flush_every_ms(None)
        .open()
        .unwrap();
    tree.insert(b"mepoch", &epoch.to_be_bytes()).unwrap();
    let all: Vec<_> = range.map(|n| (n, entry(n))).collect();
    for group in all.chunks(7) {
        let entries: Vec<&[u8]> = group.iter().map(|(_, bytes)| bytes.as_slice()).collect();
        let mut batch = sled::Batch::default();
        group::write(&mut batch, epoch, group[0].0, &entries);
        batch.insert(b"mnext", &(group[group.len() - 1].0 + 1).to_be_bytes());
        tree.apply_batch(batch).unwrap();
    }
    tree.insert(b"cseen/x", b"riding").unwrap();
    tree.insert(b"cclock/1", named::wrap(epoch, b"clock/1", b"offset"))
        .unwrap();
    tree.flush().unwrap();
    all
}

#[tokio::test]
async fn a_buffer_of_the_older_form_is_read_to_its_end_and_then_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let mut want = older_buffer(dir.path(), 0xfeed, 101..=200);
    for restart in 0..3 {
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        assert_eq!(buffer.epoch(), 0xfeed, "ids go on in the same epoch");
        assert_eq!(buffer.head().0, want[0].0, "restart {restart}");
        assert_eq!(buffer.value(b"clock/1").unwrap().as_deref(), Some(&b"offset"[..]));
        assert_eq!(
            buffer.values(b"seen/").unwrap(),
            [(b"x".to_vec(), b"riding".to_vec())]
        );
        let next = want[want.len() - 1].0 + 1;
        assert_eq!(buffer.append(entry(next)).await, Ok(Sequence(next)));
        want.push((next, entry(next)));
        assert_eq!(read_all(&buffer, buffer.head()), want, "restart {restart}");
        buffer.remove_before(Sequence(110 + restart));
        buffer.close();
        want.retain(|(n, _)| *n >= 110 + restart);
    }
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    buffer.remove_before(Sequence(202));
    buffer.close();
    drop(buffer);
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    assert!(!dir.path().join("db").exists() && !dir.path().join("conf").exists());
    assert_eq!(
        read_all(&buffer, buffer.head()),
        [(202, entry(202)), (203, entry(203))]
    );
    assert_eq!(buffer.value(b"clock/1").unwrap().as_deref(), Some(&b"offset"[..]));
}

/// Changes a byte of a frame of the first segment; when every entry was committed alone, each has a page.
fn damage_frame(dir: &Path, frame: usize, at: usize) {
    let path = segment::path(&dir.join("log"), 1);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[frame * frame::PAGE_BYTES + at] ^= 1;
    std::fs::write(&path, bytes).unwrap();
}

#[tokio::test]
async fn a_damaged_frame_is_reported_once_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    for n in 1..=5 {
        buffer.append(entry(n)).await.unwrap();
    }
    damage_frame(dir.path(), 1, 60);
    damage_frame(dir.path(), 2, 0);
    damage_frame(dir.path(), 4, 20);
    let batch = buffer.read(Sequence(1), 4096).unwrap();
    let sequences: Vec<_> = batch.entries.iter().map(|e| e.sequence.0).collect();
    assert_eq!(sequences, [1, 4]);
    let what = "damaged on disk";
    let damage = [
        CorruptGroup {
            first: 2,
            count: 2,
            what,
        },
        CorruptGroup {
            first: 5,
            count: 1,
            what,
        },
    ];
    assert_eq!(batch.corrupt, damage);
    assert_eq!(
        batch.next,
        Some(Sequence(6)),
        "a reader must get past damage at the end"
    );
    assert!(buffer.read(Sequence(6), 4096).unwrap().corrupt.is_empty());
    buffer.append(entry(6)).await.unwrap();
    let batch = buffer.read(Sequence(6), 4096).unwrap();
    assert_eq!((batch.entries.len(), batch.corrupt.len()), (1, 0));
}

#[tokio::test]
async fn damage_found_at_a_start_costs_nothing_that_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    for n in 1..=9 {
        buffer.append(entry(n)).await.unwrap();
    }
    buffer.close();
    drop(buffer);
    damage_frame(dir.path(), 0, 8);
    damage_frame(dir.path(), 5, 60);
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    assert_eq!(buffer.append(entry(10)).await, Ok(Sequence(10)));
    let batch = buffer.read(buffer.head(), 4096).unwrap();
    let sequences: Vec<_> = batch.entries.iter().map(|e| e.sequence.0).collect();
    assert_eq!(sequences, [2, 3, 4, 5, 7, 8, 9, 10]);
    assert_eq!(batch.corrupt.iter().map(|c| c.count).sum::<u64>(), 2);
}

/// Entries of noise in a MiB.
const PER_MIB: u64 = 4;

/// A MiB of noise.
async fn fill_mib(buffer: &Buffer, from: u64) -> Result<Vec<(u64, Vec<u8>)>, AppendError> {
    let mut all = Vec::new();
    for n in from..from + PER_MIB {
        let bytes = noise((1 << 20) / PER_MIB as usize);
        assert_eq!(buffer.append(bytes.clone()).await?, Sequence(n));
        all.push((n, bytes));
    }
    Ok(all)
}

fn noise(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|_| rand::random()).collect()
}

fn segments(dir: &Path) -> usize {
    segment::list(&dir.join("log")).unwrap().len()
}

/// Waits until it is so.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let begin = std::time::Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn drained_segments_are_used_again() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    let mut next = 1;
    for _ in 0..40 {
        let all = fill_mib(&buffer, next).await.unwrap();
        assert_eq!(read_all(&buffer, Sequence(next)), all);
        next += all.len() as u64;
        buffer.remove_before(Sequence(next));
    }
    until("segments are given up", || segments(dir.path()) <= 8).await;
    let stats = buffer.stats();
    assert!(stats.bytes_on_disk < 24 << 20, "{stats:?} after 40 MiB");
}

#[tokio::test]
async fn a_full_buffer_refuses_and_accepts_again_when_it_is_drained() {
    let dir = tempfile::tempdir().unwrap();
    let small = Limits {
        max_bytes: 16 << 20,
        ..limits()
    };
    let buffer = Buffer::open(dir.path(), small.clone()).unwrap();
    let mut next = 1;
    let refused = loop {
        match fill_mib(&buffer, next).await {
            Ok(_) => next += PER_MIB,
            Err(why) => break why,
        }
        assert!(next < 20 * PER_MIB, "never full");
    };
    assert_eq!(
        (refused, buffer.refusing()),
        (AppendError::Full, Some(AppendError::Full))
    );
    assert!(buffer.stats().bytes_on_disk <= 16 << 20, "{:?}", buffer.stats());
    // What must be written all the same has room.
    let before = buffer.stats().entries;
    buffer.append_reserved(entry(0)).await.unwrap();
    buffer
        .put(vec![(b"clock/1".to_vec(), Some(vec![1]))])
        .await
        .unwrap();
    assert_eq!(buffer.stats().entries, before + 1);
    buffer.close();
    drop(buffer);
    let buffer = Buffer::open(dir.path(), small).unwrap();
    assert_eq!(buffer.stats().entries, before + 1);
    assert_eq!(buffer.append(noise(1 << 18)).await, Err(AppendError::Full));
    // What nobody sends again is refused alone: once there is room, what follows it on its line is kept.
    let line = Line::default();
    for (place, is_cut) in [(line.of_sent_once(), false), (line.of_resent(), true)] {
        let (sender, receiver) = oneshot::channel();
        let append = Append {
            bytes: noise(1 << 18),
            side: Vec::new(),
            line: Some(place),
            reserved: false,
            done: Box::new(move |outcome| sender.send(outcome).unwrap()),
        };
        assert!(buffer.try_append(append).is_ok());
        assert_eq!(receiver.await.unwrap(), Err(AppendError::Full));
        assert_eq!(line.is_cut(), is_cut);
    }
    buffer.remove_before(Sequence(40));
    until("room again", || buffer.refusing().is_none()).await;
    assert_eq!(buffer.append(noise(200_000)).await, Ok(Sequence(before + 2)));
}

#[tokio::test]
async fn a_buffer_that_drops_the_oldest_takes_everything_and_tells_what_it_dropped() {
    let dir = tempfile::tempdir().unwrap();
    let small = Limits {
        max_bytes: 16 << 20,
        when_full: WhenFull::DropOldest,
        ..limits()
    };
    let buffer = Buffer::open(dir.path(), small).unwrap();
    let mut losses = buffer.losses().unwrap();
    let mut all = Vec::new();
    for _ in 0..40 {
        let next = all.len() as u64 + 1;
        all.extend(fill_mib(&buffer, next).await.unwrap());
    }
    // Nothing is dropped behind the back of what follows.
    buffer.close();
    assert!(buffer.stats().bytes_on_disk <= 16 << 20);
    let head = buffer.head().0;
    assert!(head > PER_MIB * 20, "{head}");
    assert_eq!(read_all(&buffer, Sequence(head)), all[head as usize - 1..]);
    let mut lost = 0;
    while let Ok(loss) = losses.try_recv() {
        assert_eq!(loss.first.as_deref(), Some(&all[lost as usize].1[..]));
        lost += loss.count;
        assert_eq!(loss.last.as_deref(), Some(&all[lost as usize - 1].1[..]));
    }
    assert_eq!(lost, head - 1);
}

#[tokio::test]
async fn what_follows_a_refused_entry_on_its_line_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    let (cut, whole) = (Line::default().of_resent(), Line::default());
    cut.refused();
    let (sender, receiver) = std::sync::mpsc::channel();
    for (n, line) in [(1, &cut), (2, &whole), (3, &cut)] {
        let sender = sender.clone();
        let done: Done = Box::new(move |outcome| sender.send((n, outcome)).unwrap());
        let append = Append {
            bytes: entry(n),
            side: Vec::new(),
            line: Some(line.clone()),
            reserved: false,
            done,
        };
        assert!(buffer.try_append(append).is_ok());
    }
    let mut outcomes: Vec<_> = receiver.iter().take(3).collect();
    outcomes.sort_by_key(|(n, _)| *n);
    let refused = Err(AppendError::Disk);
    assert_eq!(outcomes, [(1, refused), (2, Ok(Sequence(1))), (3, refused)]);
}

#[tokio::test]
async fn small_values_outlive_checkpoints_and_the_segments_they_came_in() {
    let dir = tempfile::tempdir().unwrap();
    let large = noise(100_000);
    {
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        buffer
            .put(vec![(b"a/long".to_vec(), Some(large.clone()))])
            .await
            .unwrap();
        buffer
            .put(vec![(b"a/short".to_vec(), Some(b"1".to_vec()))])
            .await
            .unwrap();
        buffer
            .put(vec![(b"a/gone".to_vec(), Some(noise(9_000)))])
            .await
            .unwrap();
        let mut next = 1;
        for _ in 0..20 {
            next += fill_mib(&buffer, next).await.unwrap().len() as u64;
            buffer.remove_before(Sequence(next));
        }
        let first = || buffer.shared.parts.log.oldest().map(|(segment, _)| segment.id);
        until("the first segment is given up", || {
            first().is_none_or(|id| id > 1)
        })
        .await;
        buffer.put(vec![(b"a/gone".to_vec(), None)]).await.unwrap();
        assert_eq!(buffer.value(b"a/long").unwrap(), Some(large.clone()));
        buffer.close();
    }
    let blobs = dir
        .path()
        .join("values")
        .join("blobs")
        .read_dir()
        .unwrap()
        .count();
    assert_eq!(blobs, 0, "sled does not sync the files under blobs/");
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    let all = buffer.values(b"a/").unwrap();
    assert_eq!(
        all,
        [(b"long".to_vec(), large), (b"short".to_vec(), b"1".to_vec())]
    );
}

#[tokio::test]
async fn small_values_survive_a_restart_and_ride_with_entries() {
    let dir = tempfile::tempdir().unwrap();
    {
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        buffer
            .put(vec![(b"clock/1".to_vec(), Some(b"a".to_vec()))])
            .await
            .unwrap();
        let (sender, receiver) = oneshot::channel();
        let done: Done = Box::new(move |outcome| sender.send(outcome).unwrap());
        let side = vec![
            (b"clock/2".to_vec(), Some(b"b".to_vec())),
            (b"clock/1".to_vec(), None),
        ];
        assert!(
            buffer
                .try_append(Append {
                    bytes: entry(1),
                    side,
                    line: None,
                    reserved: false,
                    done
                })
                .is_ok()
        );
        receiver.await.unwrap().unwrap();
        buffer.close();
    }
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    assert_eq!(
        buffer.values(b"clock/").unwrap(),
        [(b"2".to_vec(), b"b".to_vec())]
    );
    assert_eq!(buffer.value(b"clock/1").unwrap(), None);
}

#[tokio::test]
async fn a_put_of_nothing_answers_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    buffer.append(entry(1)).await.unwrap();
    let written = || {
        let folder = std::fs::read_dir(dir.path().join("log")).unwrap();
        let mut files: Vec<_> = folder.map(|file| file.unwrap().path()).collect();
        files.sort();
        let first = std::fs::read(&files[0]).unwrap();
        assert!(first.iter().any(|byte| *byte != 0), "the entry is there");
        first
    };
    let before = written();
    for _ in 0..10 {
        assert_eq!(buffer.put(Vec::new()).await, Ok(()));
    }
    assert!(before == written(), "the log has changed");
}

#[tokio::test]
async fn a_buffer_whose_writer_panicked_has_ended_and_refuses() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    buffer.append(entry(1)).await.unwrap();
    let append = Append {
        bytes: entry(2),
        side: Vec::new(),
        line: None,
        reserved: false,
        done: Box::new(|_| panic!("a test")),
    };
    assert!(buffer.try_append(append).is_ok());
    tokio::time::timeout(Duration::from_secs(60), buffer.ended())
        .await
        .expect("it is noticed");
    assert_eq!(buffer.append(entry(3)).await, Err(AppendError::Closed));
    buffer.close();
}
