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
mod session;
mod state;
mod subscriptions;
mod wire;

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
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
pub use subscriptions::MAX_LEVELS;

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
}

/// The broker. Shared by the listener, its connections and the rest of the agent.
pub struct Broker {
    settings: Settings,
    clock: Arc<Clock>,
    capture: mpsc::Sender<Captured>,
    state: Mutex<state::State>,
    /// Counted since start.
    pub counters: Counters,
}

/// Captured publishes between the connections and the buffer. Enough to keep group commits full; a
/// connection that finds it full stops reading.
const CAPTURE_QUEUE: usize = 1_024;

/// Connections end within this when the agent stops: one write time-out and some.
const STOP_LIMIT: Duration = Duration::from_secs(5);

impl Broker {
    /// A broker and the stream of what it captures.
    pub fn new(settings: Settings, clock: Arc<Clock>) -> (Arc<Self>, mpsc::Receiver<Captured>) {
        let (capture, captured) = mpsc::channel(CAPTURE_QUEUE);
        let broker = Self {
            settings,
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
        let mut housekeeping = tokio::time::interval(Duration::from_secs(1));
        loop {
            // A permit before accept: above the limit clients wait in the kernel's queue instead of costing memory.
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                _ = housekeeping.tick() => {
                    self.housekeeping().await;
                    continue;
                }
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

    async fn housekeeping(&self) {
        let wills = self.state().housekeeping(Instant::now());
        for (client, will) in wills {
            self.accept_will(&client, will).await;
        }
    }

    /// Publishes a message of the agent itself to the clients that are connected now, and to nobody later.
    /// Answers how many there are. Never captured.
    pub fn publish_now(&self, topic: &str, payload: Bytes) -> usize {
        let publish = wire::Publish {
            dup: false,
            qos: QoS::AtMostOnce,
            pkid: 0,
            retain: false,
            topic: topic.into(),
            payload,
            properties: None,
        };
        self.state().publish_now(&publish)
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
        }
    }

    fn captures(&self, topic: &str) -> bool {
        (self.settings.captures)(topic)
    }

    /// A will is a message of its client: captured like one, though nobody is left to acknowledge to.
    async fn accept_will(&self, client: &str, will: wire::Publish) {
        if !self.settings.access.may_publish(&will.topic) {
            self.counters.denied.fetch_add(1, Ordering::Relaxed);
            return;
        }
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
