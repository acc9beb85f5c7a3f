//! The buffer against its promises: order, identity, durability over restarts, damage in one place only.

use super::*;

fn limits() -> Limits {
    Limits {
        max_bytes: 1 << 30,
        commit_interval: Duration::from_millis(1),
        commit_bytes: 32 * 1024,
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

/// sled does not sync the files under `blobs/`: an acknowledged entry must never be in one.
#[tokio::test]
async fn a_backlog_of_full_groups_that_do_not_compress_leaves_nothing_in_unsynced_files() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    for n in 0..300 {
        let size = if n % 20 == 0 { 256 * 1024 } else { 31 * 1024 };
        let bytes: Vec<u8> = (0..size).map(|_| rand::random()).collect();
        buffer.append(bytes).await.unwrap();
        let blobs = dir.path().join("blobs").read_dir().unwrap().count();
        assert_eq!(blobs, 0, "after {n} entries");
    }
}

#[tokio::test]
async fn a_damaged_group_is_reported_and_the_rest_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    for n in 1..=3 {
        buffer.append(entry(n)).await.unwrap();
    }
    let damage = |first: u64, change: &dyn Fn(&mut Vec<u8>)| {
        let mut value = buffer
            .shared
            .tree
            .get(group::key(first, 0))
            .unwrap()
            .unwrap()
            .to_vec();
        change(&mut value);
        buffer.shared.tree.insert(group::key(first, 0), value).unwrap();
    };
    damage(2, &|value| *value.last_mut().unwrap() ^= 1);
    let batch = buffer.read(Sequence(1), 4096).unwrap();
    let sequences: Vec<_> = batch.entries.iter().map(|e| e.sequence.0).collect();
    assert_eq!(sequences, [1, 3]);
    assert_eq!(
        batch.corrupt,
        [CorruptGroup {
            first: 2,
            count: 1,
            what: "checksum does not match"
        }]
    );
    damage(3, &|value| value.truncate(4));
    let batch = buffer.read(Sequence(2), 4096).unwrap();
    assert_eq!(batch.corrupt.len(), 2);
    assert!(batch.entries.is_empty());
    assert_eq!(
        batch.next,
        Some(Sequence(4)),
        "a reader must get past damage at the end"
    );
}

#[tokio::test]
async fn a_reader_gets_past_sequences_that_a_failed_commit_burnt() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    buffer.append(entry(1)).await.unwrap();
    // What the writer does with the sequences of a commit that failed.
    buffer.shared.counters.tail.fetch_add(5, Ordering::AcqRel);
    let batch = buffer.read(Sequence(1), 4096).unwrap();
    assert_eq!((batch.entries.len(), batch.next), (1, Some(Sequence(2))));
    let batch = buffer.read(Sequence(2), 4096).unwrap();
    assert!(batch.entries.is_empty());
    buffer.remove_before(batch.next.unwrap());
    assert_eq!(buffer.stats().entries, 0, "a drained buffer counts as empty");
}

#[tokio::test]
async fn a_damaged_group_is_reported_once() {
    let dir = tempfile::tempdir().unwrap();
    let buffer = Buffer::open(dir.path(), limits()).unwrap();
    buffer.append(entry(1)).await.unwrap();
    let key = group::key(1, 0);
    let mut value = buffer.shared.tree.get(key).unwrap().unwrap().to_vec();
    *value.last_mut().unwrap() ^= 1;
    buffer.shared.tree.insert(key, value).unwrap();
    let first = buffer.read(Sequence(1), 4096).unwrap();
    assert_eq!((first.corrupt.len(), first.next), (1, Some(Sequence(2))));
    assert!(buffer.read(Sequence(2), 4096).unwrap().corrupt.is_empty());
    buffer.append(entry(2)).await.unwrap();
    let second = buffer.read(Sequence(2), 4096).unwrap();
    assert_eq!((second.entries.len(), second.corrupt.len()), (1, 0));
}

#[tokio::test]
async fn a_full_buffer_refuses_and_accepts_again_when_it_is_drained() {
    let dir = tempfile::tempdir().unwrap();
    let small = Limits {
        max_bytes: 1,
        ..limits()
    };
    let buffer = Buffer::open(dir.path(), small).unwrap();
    // An empty buffer takes one group whatever its size: the file never shrinks below sled's own segments.
    assert_eq!(buffer.append(entry(1)).await, Ok(Sequence(1)));
    assert_eq!(buffer.append(entry(2)).await, Err(AppendError::Full));
    buffer.remove_before(Sequence(2));
    assert_eq!(buffer.append(entry(3)).await, Ok(Sequence(2)));
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

/// Random appends, removals, reads and restarts against a plain list.
#[tokio::test]
async fn random_operations_agree_with_a_model() {
    use rand::{RngExt, SeedableRng};
    for seed in 0..8 {
        let mut random = rand::rngs::StdRng::seed_from_u64(seed);
        let dir = tempfile::tempdir().unwrap();
        let mut buffer = Buffer::open(dir.path(), limits()).unwrap();
        let mut model: std::collections::BTreeMap<u64, Vec<u8>> = Default::default();
        let mut removed = 1;
        for step in 0..300 {
            match random.random_range(0..100) {
                0..60 => {
                    let size = if random.random_bool(0.02) {
                        120_000
                    } else {
                        random.random_range(0..600)
                    };
                    let bytes: Vec<u8> = (0..size).map(|_| random.random()).collect();
                    let sequence = buffer.append(bytes.clone()).await.unwrap();
                    assert!(
                        model.insert(sequence.0, bytes).is_none(),
                        "seed {seed} step {step}"
                    );
                }
                60..75 => {
                    let end = model
                        .keys()
                        .last()
                        .map_or(removed, |last| random.random_range(removed..=last + 1));
                    buffer.remove_before(Sequence(end));
                    removed = end;
                }
                75..95 => {
                    let from = Sequence(removed);
                    let want: Vec<_> = model.range(removed..).map(|(n, b)| (*n, b.clone())).collect();
                    assert_eq!(read_all(&buffer, from), want, "seed {seed} step {step}");
                }
                _ => {
                    buffer.close();
                    drop(buffer);
                    buffer = Buffer::open(dir.path(), limits()).unwrap();
                    assert!(
                        buffer.head().0 <= removed,
                        "seed {seed} step {step}: an unremoved entry is gone"
                    );
                }
            }
        }
    }
}
