//! What outlives the agent: retained messages, sessions with their subscriptions, and messages above QoS 0 that wait for
//! the clients of such sessions, in a sled database of its own beside the buffer.
//!
//! The state of the broker is in memory; every change of what must outlive it goes into a [`Journal`], and one thread
//! writes the journal to the disk, all that has gathered at once. An acknowledgement that depends on a change waits
//! until it is written. What does not change, what is for clean sessions, and QoS 0 is never written.
//!
//! It never decides anything about MQTT and never touches the buffer: readings do not depend on it.

mod disk;
pub mod form;
pub mod journal;

use std::{
    collections::{BTreeMap, HashMap},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub use disk::StoreError;
pub use journal::Journal;

use self::{
    disk::{Disk, Values},
    form::{Now, Number, SessionRecord},
    journal::Task,
};
use super::{Broker, delivery::Delivery, retained, subscriptions::Subscription, wire::Will};

/// A failed commit is tried again after this, with the database opened anew: sled keeps its first error for ever, and a
/// full disk does not become free by hammering it.
const RETRY: Duration = Duration::from_secs(1);

/// An open store and what it held.
pub struct Store {
    path: PathBuf,
    /// `None` where there is nothing yet: what is never needed is never made.
    disk: Option<Disk>,
    pub(super) restored: Restored,
    /// What was there could not be read; it was moved aside and the store began empty.
    pub(super) replaced: bool,
}

/// What a store holds, for somebody who looks into one; topics and payloads as they were published.
#[derive(Debug)]
pub struct Held {
    /// Retained messages.
    pub retained: Vec<(String, Vec<u8>)>,
    /// Sessions.
    pub sessions: Vec<HeldSession>,
    /// It was damaged and begins empty.
    pub replaced: bool,
    /// Values that could not be read.
    pub unreadable: u64,
}

/// A session in a store.
#[derive(Debug)]
pub struct HeldSession {
    /// Its client id.
    pub client: String,
    /// Filters it is subscribed to.
    pub filters: Vec<String>,
    /// Messages above QoS 0 that its client does not have yet, in order.
    pub messages: Vec<(String, Vec<u8>)>,
}

/// Figures of the store.
#[derive(Debug, Default)]
pub struct Counters {
    /// Commits since start.
    pub commits: AtomicU64,
    /// Commits that failed since start.
    pub failed: AtomicU64,
    /// Bytes on disk.
    pub bytes: AtomicU64,
    /// Stores that were damaged, moved aside and replaced, since start.
    pub replaced: AtomicU64,
    /// Values that could not be read at start.
    pub unreadable: AtomicU64,
    /// From a commit that failed to the next that works.
    pub broken: AtomicBool,
}

/// What a store held.
#[derive(Default)]
pub struct Restored {
    /// Sessions.
    pub sessions: Vec<RestoredSession>,
    /// Retained messages.
    pub retained: Vec<retained::Message>,
    /// Keys that belong to nothing.
    pub orphans: Vec<Vec<u8>>,
    /// Values that could not be read.
    pub unreadable: u64,
}

/// A session and everything of it.
pub struct RestoredSession {
    /// The session itself.
    pub record: SessionRecord,
    /// Its subscriptions.
    pub subscriptions: Vec<(String, Subscription)>,
    /// Messages for its client by their places.
    pub messages: BTreeMap<u64, Delivery>,
    /// QoS 2 messages towards the client: packet id, place, whether it is released.
    pub outgoing: Vec<(u16, u64, bool)>,
    /// Packet ids of the client's QoS 2 messages.
    pub incoming: Vec<u16>,
    /// Its will, and when that is due in milliseconds since 1970; `None` when its client was connected.
    pub will: Option<(Will, Option<u64>)>,
}

impl Store {
    /// Opens the store in `path`, if there is one. A damaged one is moved aside to `<path>.damaged`, and an empty one
    /// takes its place: sessions are worth less than an agent that starts.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        if !path.exists() {
            return Ok(Self {
                path: path.into(),
                disk: None,
                restored: Restored::default(),
                replaced: false,
            });
        }
        let open = || Disk::open(path).and_then(|disk| Ok((disk.read()?, disk)));
        let found = match open() {
            Err(error) if error.is_damage() && disk::drop_snapshots(path) => open(),
            found => found,
        };
        let (((values, broken), disk), replaced) = match found {
            Ok(found) => (found, false),
            Err(error) if error.is_damage() && disk::is_incomplete(path) => {
                tracing::info!(%error, "the power went while the store of sessions was made; it is made again");
                let io = |source| StoreError::Io {
                    path: path.into(),
                    source,
                };
                std::fs::remove_dir_all(path).map_err(io)?;
                return Self::open(path);
            }
            Err(error) if error.is_damage() => {
                let aside = path.with_extension("damaged");
                tracing::error!(%error, aside = %aside.display(), "the store of sessions cannot be read; it is moved aside, and sessions and retained messages begin empty");
                move_aside(path, &aside).map_err(|source| StoreError::Io {
                    path: path.into(),
                    source,
                })?;
                let disk = Disk::open(path)?;
                ((disk.read()?, disk), true)
            }
            Err(error) => return Err(error),
        };
        let mut restored = restore(values, Now::read());
        restored.unreadable += broken;
        Ok(Self {
            path: path.into(),
            disk: Some(disk),
            restored,
            replaced,
        })
    }

    /// What it held when it was opened, in words of MQTT.
    pub fn held(&self) -> Held {
        let message = |topic: &str, payload: &[u8]| (topic.to_owned(), payload.to_vec());
        let retained = self.restored.retained.iter();
        let sessions = self.restored.sessions.iter().map(|session| HeldSession {
            client: session.record.client.clone(),
            filters: session.subscriptions.iter().map(|(f, _)| f.clone()).collect(),
            messages: session
                .messages
                .values()
                .map(|delivery| message(&delivery.topic, &delivery.payload))
                .collect(),
        });
        Held {
            retained: retained
                .map(|m| message(&m.publish.topic, &m.publish.payload))
                .collect(),
            sessions: sessions.collect(),
            replaced: self.replaced,
            unreadable: self.restored.unreadable,
        }
    }

    /// Starts the thread that writes `broker`'s journal, until that is closed.
    pub fn start(self, broker: &Arc<Broker>) -> std::io::Result<std::thread::JoinHandle<()>> {
        let counters = &broker.store;
        counters
            .replaced
            .store(u64::from(self.replaced), Ordering::Relaxed);
        let bytes = self.disk.as_ref().map_or(0, Disk::bytes);
        counters.bytes.store(bytes, Ordering::Relaxed);
        let writer = Writer {
            path: self.path,
            disk: self.disk,
            broker: broker.clone(),
        };
        std::thread::Builder::new()
            .name("session-writer".into())
            .spawn(move || {
                // Without it nothing that waits for the store is ever acknowledged again.
                if catch_unwind(AssertUnwindSafe(|| writer.run())).is_err() {
                    tracing::error!(
                        "the thread that writes sessions panicked; the agent ends so that it is started again"
                    );
                    std::process::exit(crate::EXIT_BROKEN);
                }
            })
    }
}

/// One older damaged store at most is kept, so that a dying disk does not fill itself.
fn move_aside(path: &Path, aside: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(aside) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::rename(path, aside)
}

struct Writer {
    path: PathBuf,
    /// `None` before the first commit and after one that failed.
    disk: Option<Disk>,
    broker: Arc<Broker>,
}

impl Writer {
    fn run(mut self) {
        loop {
            let task = self.broker.state().journal.task(Instant::now());
            match task {
                Task::End => return,
                Task::Wait(None) => std::thread::park(),
                Task::Wait(Some(until)) => {
                    std::thread::park_timeout(until.saturating_duration_since(Instant::now()));
                }
                Task::Write(mut changes, version) => {
                    while let Err(error) = self.commit(&changes) {
                        self.failed(&error);
                        changes.values_mut().for_each(journal::Change::doubt);
                        if self.broker.state().journal.is_closing() {
                            return;
                        }
                        std::thread::park_timeout(RETRY);
                    }
                    self.succeeded();
                    self.broker.state().journal.written(version);
                }
            }
        }
    }

    fn commit(&mut self, changes: &HashMap<Vec<u8>, journal::Change>) -> Result<(), StoreError> {
        let disk = match self.disk.take() {
            Some(disk) => disk,
            None => Disk::open(&self.path)?,
        };
        disk.commit(changes)?;
        self.broker.store.bytes.store(disk.bytes(), Ordering::Relaxed);
        self.disk = Some(disk);
        Ok(())
    }

    fn failed(&self, error: &StoreError) {
        self.broker.store.failed.fetch_add(1, Ordering::Relaxed);
        if !self.broker.store.broken.swap(true, Ordering::Relaxed) {
            tracing::error!(%error, "sessions cannot be written; what waits for them is not acknowledged until they can");
        }
    }

    fn succeeded(&self) {
        self.broker.store.commits.fetch_add(1, Ordering::Relaxed);
        if self.broker.store.broken.swap(false, Ordering::Relaxed) {
            tracing::info!("sessions can be written again");
        }
    }
}

/// Makes sessions and retained messages of what was read.
fn restore(values: Values, now: Now) -> Restored {
    let mut restored = Restored::default();
    let mut sessions: HashMap<Number, RestoredSession> = HashMap::new();
    // The first pass finds the sessions, the second what belongs to them.
    for (key, value) in values.iter().filter(|(key, _)| key.first() == Some(&b's')) {
        match SessionRecord::read(value) {
            Some(record) => {
                let session = RestoredSession {
                    record,
                    subscriptions: Vec::new(),
                    messages: BTreeMap::new(),
                    outgoing: Vec::new(),
                    incoming: Vec::new(),
                    will: None,
                };
                sessions.insert(session.record.number, session);
            }
            None => {
                restored.unreadable += 1;
                restored.orphans.push(key.clone());
            }
        }
    }
    for (key, value) in values {
        let done = match key.first() {
            Some(b's') => continue,
            Some(b'r') => form::read_retained(&value, now).map(|message| restored.retained.push(message)),
            _ => {
                let owner = key.get(1..9).and_then(|number| number.try_into().ok());
                let owner = owner.map(|number| Number(u64::from_be_bytes(number)));
                match owner.and_then(|number| sessions.get_mut(&number)) {
                    Some(session) => session.take(key[0], &key[9..], &value, now),
                    None => {
                        restored.orphans.push(key);
                        continue;
                    }
                }
            }
        };
        if done.is_none() {
            restored.unreadable += 1;
            restored.orphans.push(key);
        }
    }
    restored.sessions = sessions.into_values().collect();
    restored
}

impl RestoredSession {
    fn take(&mut self, kind: u8, rest: &[u8], value: &[u8], now: Now) -> Option<()> {
        match kind {
            b'f' => self.subscriptions.push(form::read_filter(value)?),
            b'q' => {
                let place = u64::from_be_bytes(rest.try_into().ok()?);
                self.messages
                    .insert(place, form::read_delivery(value, place, now)?);
            }
            b'o' => {
                let (place, released) = form::read_outgoing(value)?;
                self.outgoing
                    .push((u16::from_be_bytes(rest.try_into().ok()?), place, released));
            }
            b'w' if rest.is_empty() => self.will = Some(form::read_will(value, now)?),
            b'i' => self.incoming.push(u16::from_be_bytes(rest.try_into().ok()?)),
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a power cut left of sled's file `conf`: it has no checksum yet. Found by `faults cuts 400 60`.
    const HALF_A_CONF: &[u8] = b"segment_size: 1048576\nuse_compression: false\nversion: 0.34\n";

    #[test]
    fn a_power_cut_while_the_store_is_made_is_no_damage_and_one_afterwards_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sessions");
        for with_database in [false, true] {
            std::fs::create_dir_all(path.join("blobs")).unwrap();
            std::fs::write(path.join("conf"), HALF_A_CONF).unwrap();
            if with_database {
                std::fs::write(path.join("db"), [0; 512]).unwrap();
            }
            let held = Store::open(&path).unwrap().held();
            assert!(!held.replaced && held.unreadable == 0, "{held:?}");
            assert!(!path.with_extension("damaged").exists());
        }
        drop(Disk::open(&path).unwrap());
        std::fs::write(path.join("conf"), HALF_A_CONF).unwrap();
        assert!(Store::open(&path).unwrap().held().replaced);
    }
}
