//! The MQTT broker: the door every device comes in by.
//!
//! One port speaks MQTT 3.1.1 and 5; others speak the same in TLS or WebSocket. A publish on a captured topic is handed to [`Captured`] and acknowledged only
//! when the other side says it is on disk; other subscribers get it at once. Sessions, matching, retained
//! messages, wills and shared subscriptions are this module's own; rumqttd gives the wire formats
//! (docs/adr/0002 says why its router is not used).
//!
//! This module knows nothing of the buffer, of Redpanda or of what a payload means.

mod access;
mod addresses;
mod attached;
mod connection;
mod delivery;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
mod handshake;
mod inbound;
mod listen;
mod net;
mod outbound;
mod reader;
mod retained;
mod session;
mod state;
mod store;
mod subscriptions;
mod users;
mod visitors;
mod wire;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use access::{Access, Anonymous};
pub use addresses::AddressLimits;
pub use listen::Door;
pub use net::tls::{Tls, TlsError, TlsSettings};
pub use store::{Counters as StoreCounters, Held, HeldSession, Store, StoreError};
pub use subscriptions::MAX_LEVELS;
pub use users::{Users, UsersError, hash_password};
pub use visitors::{Refusal, Refusals, Stranger, Visitor, Visitors, shown};

use crate::clock::{Clock, Stamp};
use crate::line::Line;

/// A publish on a captured topic, on its way to the disk.
#[derive(Debug)]
pub struct Captured {
    /// When it was received.
    pub stamp: Stamp,
    /// Its topic.
    pub topic: Arc<str>,
    /// Its payload, whole or not.
    pub payload: CapturedPayload,
    /// Who sent it; `None` at QoS 0, for wills, and for clients whose id was made up for one connection.
    pub sender: Option<Sender>,
    /// Its place on the line of its connection.
    pub line: Option<Line>,
    /// Answered when it is on disk, or refused. Dropped without an answer at shutdown: then nobody is told.
    pub done: Option<oneshot::Sender<Result<(), CaptureRefused>>>,
}

/// The sender of a publish above QoS 0.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Its client id.
    pub client: Arc<str>,
    /// The packet id.
    pub pkid: u16,
    /// The publish is marked as sent before.
    pub dup: bool,
}

/// A payload, or what is kept of one above the capture limit.
#[derive(Clone, Debug)]
pub enum CapturedPayload {
    /// All of it.
    Whole(Bytes),
    /// The beginning of it.
    Truncated {
        /// First bytes.
        head: Bytes,
        /// Whole length in bytes.
        length: u64,
        /// SHA-256 of all of it.
        sha256: [u8; 32],
    },
}

/// A captured publish was not kept: the connection it came on is closed, so that its sender tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CaptureRefused {
    /// The buffer stayed full.
    Full,
    /// The disk could not be written.
    Disk,
}

/// Settings of the broker.
pub struct Settings {
    /// Who may do what.
    pub access: Access,
    /// Which topics are captured.
    pub captures: Box<dyn Fn(&str) -> bool + Send + Sync>,
    /// Most connections at a time.
    pub max_connections: usize,
    /// What one address may take.
    pub address_limits: AddressLimits,
    /// Where sessions and retained messages outlive the agent; without it they do not.
    pub store: Option<Store>,
    /// Called every few seconds while connections are accepted and the shared state can be had.
    pub alive: Box<dyn Fn() + Send + Sync>,
}

/// Counted since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections refused before they had a session.
    pub refused_connections: AtomicU64,
    /// Those of them whose address had too many.
    pub address_refusals: AtomicU64,
    /// Logins with a wrong user or password, or not checked because there were too many of those.
    pub failed_logins: AtomicU64,
    /// Times a connection was read more slowly because its address sends too much.
    pub throttled: AtomicU64,
    /// Connections closed for a malformed packet or a broken rule.
    pub protocol_errors: AtomicU64,
    /// Publishes received.
    pub received: AtomicU64,
    /// Publishes received on captured topics.
    pub captured: AtomicU64,
    /// Publishes the sender had no right to.
    pub denied: AtomicU64,
    /// Payloads above the capture limit.
    pub oversize: AtomicU64,
}

/// Figures for `/status` and metrics.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Sessions kept, connected or not.
    pub sessions: usize,
    /// Clients connected.
    pub connected: usize,
    /// Messages waiting for subscribers.
    pub backlog: usize,
    /// Retained messages.
    pub retained: usize,
    /// Messages routed to subscribers since start.
    pub routed: u64,
    /// Messages lost to subscribers whose queue was full, since start.
    pub queue_full: u64,
    /// Times a subscriber began to lose messages that way, since start.
    pub slow_subscribers: u64,
    /// Messages that expired or were too large for their subscriber, since start.
    pub undeliverable: u64,
    /// Retained messages refused for want of room, since start.
    pub retained_refused: u64,
    /// Sessions of absent clients forgotten to make room for others, since start.
    pub sessions_evicted: u64,
}

/// Times a client is given.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A client that opened a connection says CONNECT within this.
    pub connect: Duration,
    /// A client that takes none of our bytes for this long is gone.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // A device on a weak radio link needs seconds; a slow-loris needs a place for ever.
        Self {
            connect: Duration::from_secs(10),
            write: Duration::from_secs(20),
        }
    }
}

/// The broker. Shared by the listener, its connections and the rest of the agent.
pub struct Broker {
    settings: Settings,
    limits: Limits,
    clock: Arc<Clock>,
    capture: mpsc::Sender<Captured>,
    addresses: Arc<addresses::Addresses>,
    state: Mutex<state::State>,
    writer: Mutex<Option<std::thread::JoinHandle<()>>>,
    /// Counted since start.
    pub counters: Counters,
    /// Figures of the store.
    pub store: StoreCounters,
    /// Who came and who was sent away.
    pub visitors: Visitors,
}

/// Captured publishes between the connections and the buffer. Enough to keep group commits full; a
/// connection that finds it full stops reading.
const CAPTURE_QUEUE: usize = 1_024;

/// How often the listener says that it is alive.
const TURN: Duration = Duration::from_secs(5);

/// Connections end within this when the agent stops: last words and some.
const STOP_LIMIT: Duration = Duration::from_secs(5);

impl Broker {
    /// A broker and the stream of what it captures.
    pub fn new(settings: Settings, clock: Arc<Clock>) -> (Arc<Self>, mpsc::Receiver<Captured>) {
        Self::with_limits(settings, Limits::default(), clock)
    }

    /// The same with other times for clients.
    pub fn with_limits(
        mut settings: Settings,
        limits: Limits,
        clock: Arc<Clock>,
    ) -> (Arc<Self>, mpsc::Receiver<Captured>) {
        let (capture, captured) = mpsc::channel(CAPTURE_QUEUE);
        let store = settings.store.take();
        let addresses = Arc::new(addresses::Addresses::new(settings.address_limits));
        let broker = Arc::new(Self {
            settings,
            limits,
            clock,
            capture,
            addresses,
            state: Mutex::new(state::State::default()),
            writer: Mutex::default(),
            counters: Counters::default(),
            store: StoreCounters::default(),
            visitors: Visitors::default(),
        });
        if let Some(store) = store {
            broker.take_up(store);
        }
        (broker, captured)
    }

    /// Goes on with what the store held, and keeps it from now on.
    fn take_up(self: &Arc<Self>, mut store: Store) {
        let restored = std::mem::take(&mut store.restored);
        self.store
            .unreadable
            .store(restored.unreadable, Ordering::Relaxed);
        let writer = store.start(self).unwrap_or_else(|error| {
            tracing::error!(%error, "the thread that writes sessions cannot be started; the agent ends so that it is started again");
            std::process::exit(crate::EXIT_BROKEN);
        });
        let wall = if self.clock.is_synced() {
            state::Wall::Right
        } else {
            state::Wall::Unknown
        };
        let mut state = self.state();
        state.journal.begin(writer.thread().clone(), self.clock.clone());
        state.restore(restored, wall, store::form::Now::read());
        drop(state);
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = Some(writer);
    }

    /// Writes what is not written yet and ends the thread that does it.
    async fn close_store(&self) {
        self.state().journal.close();
        let writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(writer) = writer else { return };
        let joined = tokio::task::spawn_blocking(move || writer.join());
        match tokio::time::timeout(STOP_LIMIT, joined).await {
            Ok(Ok(Ok(()))) => {}
            Ok(_) => tracing::error!("the thread that writes sessions panicked"),
            Err(_) => tracing::warn!("sessions were not written in time; what was acknowledged is on disk"),
        }
    }

    /// Accepts connections until `stop`. The caller owns the listeners and the stop signal.
    pub async fn serve(self: Arc<Self>, doors: Vec<(TcpListener, Door)>, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.settings.max_connections));
        let tasks = TaskTracker::new();
        // A task of its own: a will on a captured topic may have to wait for the disk, new clients need not.
        tasks.spawn(self.clone().keep_house(stop.clone()));
        for (listener, door) in doors {
            let (broker, permits) = (self.clone(), permits.clone());
            let accepting = listen::accept_all(broker, listener, door, permits, tasks.clone(), stop.clone());
            tasks.spawn(accepting);
        }
        let mut turn = tokio::time::interval(TURN);
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                _ = turn.tick() => {
                    self.stats();
                    (self.settings.alive)();
                }
            }
        }
        tasks.close();
        if tokio::time::timeout(STOP_LIMIT, tasks.wait()).await.is_err() {
            tracing::warn!("some MQTT connections did not end in time");
        }
        self.close_store().await;
    }

    async fn keep_house(self: Arc<Self>, stop: CancellationToken) {
        let mut interval = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            let wills = self.state().housekeeping(Instant::now());
            for (client, will) in wills {
                tokio::select! {
                    () = stop.cancelled() => return,
                    () = self.accept_will(&client, will) => {}
                }
            }
        }
    }

    /// Publishes a message of the agent itself to the clients that are connected now, and to nobody later.
    /// Answers how many there are. Never captured.
    pub fn publish_now(&self, topic: &str, payload: Bytes) -> usize {
        let publish = wire::Publish {
            dup: false,
            qos: wire::QoS::AtMostOnce,
            pkid: 0,
            retain: false,
            topic: topic.into(),
            payload,
            properties: None,
        };
        self.state().publish_now(&publish, Instant::now())
    }

    /// Figures for `/status` and metrics.
    pub fn stats(&self) -> Stats {
        let state = self.state();
        let (sessions, connected, backlog, retained) = state.sizes();
        Stats {
            sessions,
            connected,
            backlog,
            retained,
            routed: state.counts.routed,
            queue_full: state.counts.queue_full,
            slow_subscribers: state.counts.slow_subscribers,
            undeliverable: state.counts.undeliverable,
            retained_refused: state.counts.retained_refused,
            sessions_evicted: state.counts.sessions_evicted,
        }
    }

    /// Replaces users and access lists for connections to come; those there are keep what they came in by.
    pub fn replace_users(&self, users: Users) {
        self.settings.access.replace_users(users);
    }

    fn captures(&self, topic: &str) -> bool {
        (self.settings.captures)(topic)
    }

    /// A will is a message of its client: captured like one, though nobody is left to acknowledge to. Whether it may be
    /// published was decided when its client was let in.
    async fn accept_will(&self, client: &str, will: wire::Publish) {
        if self.captures(&will.topic) {
            let captured = Captured {
                stamp: self.clock.stamp(),
                topic: will.topic.clone(),
                payload: CapturedPayload::Whole(will.payload.clone()),
                sender: None,
                line: None,
                done: None,
            };
            if self.capture.send(captured).await.is_err() {
                tracing::debug!(client, "a will came after the buffer was closed");
            }
        }
        self.state().publish(Some(client), &will, Instant::now());
    }

    /// A panic while the state was being changed leaves it in an unknown form: better to start again from the disk.
    fn state(&self) -> MutexGuard<'_, state::State> {
        self.state.lock().unwrap_or_else(|_| {
            tracing::error!(
                "the broker's state is damaged by a panic; the agent ends so that it is started again"
            );
            std::process::exit(crate::EXIT_BROKEN);
        })
    }
}

pub use wire::QoS;
