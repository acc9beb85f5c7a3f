//! The MQTT broker: the door every device comes in by.
//!
//! One TCP port speaks MQTT 3.1.1 and 5. A publish on a captured topic is handed to [`Captured`] and acknowledged only
//! when the other side says it is on disk; other subscribers get it at once. Sessions, matching, retained
//! messages, wills and shared subscriptions are this module's own; rumqttd gives the wire formats
//! (docs/adr/0002 says why its router is not used).
//!
//! This module knows nothing of the buffer, of Redpanda or of what a payload means.

mod access;
mod connection;
mod handshake;
mod inbound;
mod outbound;
mod reader;
mod retained;
mod session;
mod state;
mod subscriptions;
mod users;
mod wire;

use std::{
    sync::{Arc, Mutex, MutexGuard, atomic::AtomicU64},
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, oneshot},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use access::{Access, Anonymous};
pub use subscriptions::MAX_LEVELS;
pub use users::{Users, UsersError, hash_password};

use crate::clock::{Clock, Stamp};

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
}

/// Counted since start.
#[derive(Debug, Default)]
pub struct Counters {
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections refused before they had a session.
    pub refused_connections: AtomicU64,
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
    state: Mutex<state::State>,
    /// Counted since start.
    pub counters: Counters,
}

/// Captured publishes between the connections and the buffer. Enough to keep group commits full; a
/// connection that finds it full stops reading.
const CAPTURE_QUEUE: usize = 1_024;

/// Connections end within this when the agent stops: last words and some.
const STOP_LIMIT: Duration = Duration::from_secs(5);

impl Broker {
    /// A broker and the stream of what it captures.
    pub fn new(settings: Settings, clock: Arc<Clock>) -> (Arc<Self>, mpsc::Receiver<Captured>) {
        Self::with_limits(settings, Limits::default(), clock)
    }

    /// The same with other times for clients.
    pub fn with_limits(
        settings: Settings,
        limits: Limits,
        clock: Arc<Clock>,
    ) -> (Arc<Self>, mpsc::Receiver<Captured>) {
        let (capture, captured) = mpsc::channel(CAPTURE_QUEUE);
        let broker = Self {
            settings,
            limits,
            clock,
            capture,
            state: Mutex::new(state::State::default()),
            counters: Counters::default(),
        };
        (Arc::new(broker), captured)
    }

    /// Accepts connections until `stop`. The caller owns the listener and the stop signal.
    pub async fn serve(self: Arc<Self>, listener: TcpListener, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(self.settings.max_connections));
        let tasks = TaskTracker::new();
        // A task of its own: a will on a captured topic may have to wait for the disk, new clients need not.
        tasks.spawn(self.clone().keep_house(stop.clone()));
        loop {
            // A permit before accept: above the limit clients wait in the kernel's queue instead of costing memory.
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                accepted = accept(&listener, &permits) => accepted,
            };
            let Some((stream, peer, permit)) = accepted else {
                continue;
            };
            let broker = self.clone();
            let stop = stop.child_token();
            tasks.spawn(async move {
                connection::run(broker, stream, peer, stop).await;
                drop(permit);
            });
        }
        tasks.close();
        if tokio::time::timeout(STOP_LIMIT, tasks.wait()).await.is_err() {
            tracing::warn!("some MQTT connections did not end in time");
        }
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

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(
    tokio::net::TcpStream,
    std::net::SocketAddr,
    tokio::sync::OwnedSemaphorePermit,
)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, peer)) => Some((stream, peer, permit)),
        Err(error) => {
            // Out of file descriptors, most likely: waiting lets connections end.
            tracing::warn!(%error, "an MQTT connection could not be accepted");
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

pub use wire::QoS;
