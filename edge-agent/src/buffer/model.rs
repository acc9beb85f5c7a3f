//! The buffer against a plain list: random operations, restarts and crashes, with a seed that is printed when they differ.
//!
//! A crash is what SIGKILL leaves: the files as they are at that moment, while the buffer goes on in another folder that
//! nobody looks at any more. What a power cut leaves is tried by `tests/faults`.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::*;

struct Model {
    random: StdRng,
    dir: tempfile::TempDir,
    /// Always there but in the middle of a restart: two buffers cannot have one folder.
    open: Option<Buffer>,
    entries: BTreeMap<u64, Vec<u8>>,
    values: BTreeMap<Vec<u8>, Vec<u8>>,
    removed: u64,
}

fn limits() -> Limits {
    Limits {
        max_bytes: 1 << 30,
        commit_interval: Duration::from_micros(100),
        commit_bytes: 32 * 1024,
        when_full: WhenFull::Reject,
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

impl Model {
    fn new(seed: u64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let buffer = Buffer::open(dir.path(), limits()).unwrap();
        Self {
            random: StdRng::seed_from_u64(seed),
            dir,
            open: Some(buffer),
            entries: BTreeMap::new(),
            values: BTreeMap::new(),
            removed: 1,
        }
    }

    fn buffer(&self) -> &Buffer {
        self.open.as_ref().unwrap()
    }

    fn last(&self) -> u64 {
        self.entries.keys().last().copied().unwrap_or(0)
    }

    async fn append(&mut self) {
        let size = match self.random.random_range(0..100) {
            0..3 => 250_000,
            3..20 => self.random.random_range(0..40_000),
            _ => self.random.random_range(0..600),
        };
        let bytes: Vec<u8> = (0..size).map(|_| self.random.random()).collect();
        let name = vec![b'v', self.random.random_range(0..20)];
        let value = self
            .random
            .random_bool(0.8)
            .then(|| vec![self.random.random(); size.min(9_000)]);
        let (sender, receiver) = oneshot::channel();
        let done: Done = Box::new(move |outcome| sender.send(outcome).unwrap());
        let side = vec![(name.clone(), value.clone())];
        let append = Append {
            bytes: bytes.clone(),
            side,
            line: None,
            reserved: false,
            done,
        };
        assert!(self.buffer().try_append(append).is_ok());
        let sequence = receiver.await.unwrap().unwrap();
        match value {
            Some(value) => self.values.insert(name, value),
            None => self.values.remove(&name),
        };
        assert_eq!(sequence.0, self.last() + 1, "sequences have no gaps");
        self.entries.insert(sequence.0, bytes);
    }

    fn remove(&mut self) {
        let end = self.random.random_range(self.removed..=self.last() + 1);
        self.buffer().remove_before(Sequence(end));
        self.removed = end;
    }

    fn check(&mut self) {
        let mut next = Sequence(self.removed);
        let most = self.random.random_range(1..300_000);
        let mut want = self.entries.range(self.removed..);
        loop {
            let batch = self.buffer().read(next, most).unwrap();
            assert!(batch.corrupt.is_empty(), "{:?}", batch.corrupt);
            for entry in &batch.entries {
                let (n, bytes) = want.next().expect("something is there that was not appended");
                assert!(
                    (*n, &bytes[..]) == (entry.sequence.0, &entry.bytes[..]),
                    "entry {n} is another one"
                );
            }
            match batch.next {
                Some(after) if after > next => next = after,
                _ => break,
            }
        }
        assert!(want.next().is_none(), "not everything is there");
        let values: BTreeMap<_, _> = self.buffer().values(b"v").unwrap().into_iter().collect();
        let want: BTreeMap<_, _> = self
            .values
            .iter()
            .map(|(name, v)| (name[1..].to_vec(), v.clone()))
            .collect();
        assert!(values == want, "small values differ");
    }

    /// In a crash the folder is copied between two operations, when nothing but a checkpoint may be under way.
    fn restart(&mut self, crash: bool) {
        let epoch = self.buffer().epoch();
        if crash {
            let left = tempfile::tempdir().unwrap();
            copy(self.dir.path(), left.path());
            self.buffer().close();
            self.open = None;
            self.dir = left;
        } else {
            self.buffer().close();
        }
        self.open = None;
        self.open = Some(Buffer::open(self.dir.path(), limits()).unwrap());
        assert_eq!(self.buffer().epoch(), epoch);
        let head = self.buffer().head().0;
        assert!(head <= self.removed, "an entry that was not removed is gone");
        assert!(crash || head == self.removed, "a removal is forgotten");
        // Those that come back are as they were.
        let removed = std::mem::replace(&mut self.removed, head);
        self.check();
        self.buffer().remove_before(Sequence(removed));
        self.removed = removed;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn random_operations_restarts_and_crashes_agree_with_a_model() {
    let seeds = std::env::var("BUFFER_MODEL_SEEDS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(3);
    let first = u64::from(rand::random::<u32>());
    for seed in first..first + seeds {
        eprintln!("seed {seed}");
        let mut model = Model::new(seed);
        for _ in 0..400 {
            match model.random.random_range(0..100) {
                0..75 => model.append().await,
                75..88 => model.remove(),
                88..95 => model.check(),
                95..98 => model.restart(true),
                _ => model.restart(false),
            }
        }
    }
}
