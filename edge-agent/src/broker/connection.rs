//! One connection: bytes in, packets handled in order, bytes out.
//!
//! Acknowledgements leave in the order their publishes came, each when the disk has it. A connection is not read
//! while too many of its publishes wait for the disk. Whatever a client sends, only its own connection pays.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use rumqttd::protocol::ConnAckProperties;
use tokio::{net::TcpStream, sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, CaptureRefused,
    access::Rights,
    handshake::{self, Refusal, refuse},
    inbound::{PENDING_ACKS, PendingAck, TOPIC_ALIASES, front_ready},
    outbound::{OUR_ALIASES, farewell},
    reader::{Frame, PACKET_BYTES, Reader},
    session::{Answered, Kick},
    subscriptions::ClientId,
    wire::{
        self, ConnectCode, DisconnectReason, Goodbye, Incoming, Malformed, Outgoing, Subscribe,
        SubscribeVerdict, Version,
    },
};

/// Filters of one SUBSCRIBE that are handled before others get their turn.
const FILTERS_AT_A_TIME: usize = 16;

/// How a connection ended.
#[derive(Debug)]
pub enum End {
    /// The client said goodbye.
    Goodbye(Goodbye),
    /// The client went without a word.
    Lost(std::io::Error),
    /// We ended it.
    Ours(DisconnectReason, String),
}

impl From<std::io::Error> for End {
    fn from(error: std::io::Error) -> Self {
        End::Lost(error)
    }
}

impl From<Malformed> for End {
    fn from(error: Malformed) -> Self {
        End::Ours(error.reason(), error.to_string())
    }
}

/// A packet that may not come.
pub fn broken_rule(what: &str) -> End {
    End::Ours(DisconnectReason::ProtocolError, what.into())
}

/// Runs a connection to its end.
pub async fn run(broker: Arc<Broker>, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
    // A reading is one small packet: waiting to fill a segment would only delay its acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "a connection ended before it began");
        return;
    }
    let mut reader = Reader::new(stream);
    let connect = tokio::select! {
        () = stop.cancelled() => return,
        read = timeout(broker.limits.connect, handshake::read_connect(&mut reader)) => match read {
            Ok(Ok(connect)) => connect,
            Ok(Err(refusal)) => {
                refuse(&broker, reader.stream, peer, refusal).await;
                return;
            }
            Err(_) => {
                broker.counters.refused_connections.fetch_add(1, Ordering::Relaxed);
                tracing::info!(%peer, "a client did not send CONNECT in time");
                return;
            }
        },
    };
    let rights = match handshake::admit(&broker, peer.ip(), &connect).await {
        Ok(rights) => rights,
        Err(refusal) => {
            refuse(&broker, reader.stream, peer, refusal).await;
            return;
        }
    };
    let version = connect.version;
    let keep_alive = connect.keep_alive;
    let max_packet_bytes = connect.max_packet_size.map_or(usize::MAX, |n| n as usize);
    let our_aliases = connect.topic_alias_max.min(OUR_ALIASES);
    let assigned = connect
        .client_id
        .is_empty()
        .then(|| format!("assigned-{:016x}", rand::random::<u64>()));
    let keeps_its_id = assigned.is_none();
    let client: ClientId = assigned
        .clone()
        .unwrap_or_else(|| connect.client_id.clone())
        .into();
    let connected = broker.state().connect(&client, *connect);
    let Some(connected) = connected else {
        refuse(&broker, reader.stream, peer, Refusal::full(version)).await;
        return;
    };
    if let Some(will) = connected.will {
        broker.accept_will(&client, will).await;
    }
    broker.counters.connections.fetch_add(1, Ordering::Relaxed);
    tracing::debug!(%client, %peer, ?version, "client connected");

    let mut connection = Connection {
        broker: broker.clone(),
        reader,
        out: BytesMut::new(),
        version,
        client: client.clone(),
        rights,
        keeps_its_id,
        generation: connected.generation,
        pending: VecDeque::new(),
        open: HashSet::new(),
        aliases: HashMap::new(),
        our_aliases: HashMap::new(),
        our_aliases_max: our_aliases,
        max_packet_bytes,
        oversize_seen: false,
        heard: tokio::time::Instant::now(),
        keep_alive: (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1_500)),
    };
    let properties = (version == Version::V5).then(|| Box::new(connack_properties(assigned)));
    let welcome = Outgoing::ConnAck(connected.session_present, ConnectCode::Success, properties);
    let end = connection
        .run(welcome, &connected.wake, &connected.kick, &stop)
        .await;
    connection.finish(end).await;
}

fn connack_properties(assigned: Option<String>) -> ConnAckProperties {
    ConnAckProperties {
        receive_max: Some(PENDING_ACKS),
        max_packet_size: Some(u32::try_from(PACKET_BYTES).expect("some megabytes fit")),
        assigned_client_identifier: assigned,
        topic_alias_max: Some(TOPIC_ALIASES),
        ..ConnAckProperties::default()
    }
}

/// One connection of a client that was let in.
pub struct Connection {
    pub(super) broker: Arc<Broker>,
    pub(super) reader: Reader,
    pub(super) out: BytesMut,
    pub(super) version: Version,
    pub(super) client: ClientId,
    pub(super) rights: Rights,
    /// The client chose its id, so a resend of it can be told.
    pub(super) keeps_its_id: bool,
    pub(super) generation: u64,
    pub(super) pending: VecDeque<PendingAck>,
    /// Packet ids of their messages above QoS 0 on this connection that are not finished.
    pub(super) open: HashSet<u16>,
    pub(super) aliases: HashMap<u16, Arc<str>>,
    pub(super) our_aliases: HashMap<Arc<str>, u16>,
    pub(super) our_aliases_max: u16,
    /// Largest packet the client takes.
    pub(super) max_packet_bytes: usize,
    /// One that sends payloads too large to pass on is named once.
    pub(super) oversize_seen: bool,
    pub(super) heard: tokio::time::Instant,
    pub(super) keep_alive: Option<Duration>,
}

/// What there is to do.
enum Work {
    Acknowledge(Result<(), CaptureRefused>),
    Send,
    Read(Result<Frame, End>),
}

impl Connection {
    async fn run(&mut self, welcome: Outgoing, wake: &Notify, kick: &Kick, stop: &CancellationToken) -> End {
        if let Err(end) = self.send(welcome) {
            return end;
        }
        loop {
            if let Err(end) = self.flush(kick, stop).await {
                return end;
            }
            let may_read = self.may_read();
            // A client that is not read because the disk is behind is not silent.
            let silent_until = self
                .keep_alive
                .filter(|_| may_read)
                .map(|limit| self.heard + limit);
            let step = tokio::select! {
                biased;
                end = ended(kick, stop) => Err(end),
                // The three take turns at random: none can starve the others.
                work = async {
                    tokio::select! {
                        outcome = front_ready(&mut self.pending) => Work::Acknowledge(outcome),
                        () = wake.notified() => Work::Send,
                        frame = self.reader.next(Some(self.version)), if may_read => Work::Read(frame),
                    }
                } => match work {
                    Work::Acknowledge(outcome) => self.acknowledge_all(outcome),
                    Work::Send => self.send_waiting(),
                    Work::Read(Ok(frame)) => self.handle_all(frame).await,
                    Work::Read(Err(end)) => Err(end),
                },
                () = sleep_until(silent_until) => Err(End::Ours(
                    DisconnectReason::KeepAliveTimeout,
                    "nothing was heard for 1.5 keep-alives".into(),
                )),
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    fn may_read(&self) -> bool {
        self.pending.len() < usize::from(PENDING_ACKS)
    }

    /// Handles a frame and every further whole frame that is already here, so that they share one write.
    async fn handle_all(&mut self, frame: Frame) -> Result<(), End> {
        let mut frame = Some(frame);
        while let Some(next) = frame {
            match next {
                Frame::Packet(bytes) => {
                    let incoming = wire::decode(self.version, bytes)?;
                    self.handle(incoming).await?;
                }
                Frame::Oversize(oversize) => self.oversize(*oversize).await?,
            }
            frame = match self.may_read() {
                true => self.reader.buffered(Some(self.version))?,
                false => None,
            };
        }
        // Afterwards: handling them may have waited for the disk, and that is not the client's silence.
        self.heard = tokio::time::Instant::now();
        Ok(())
    }

    async fn handle(&mut self, incoming: Incoming) -> Result<(), End> {
        match incoming {
            Incoming::Publish(publish) => self.publish(publish).await,
            Incoming::PubAck(pkid) => self.answered(|session| session.acknowledged(pkid)).map(drop),
            Incoming::PubRec(pkid, taken) => match self.answered(|session| session.received(pkid, taken))? {
                Answered::Message if !taken => Ok(()),
                answered => self.send(Outgoing::PubRel(pkid, answered == Answered::Message)),
            },
            Incoming::PubComp(pkid) => self.answered(|session| session.completed(pkid)).map(drop),
            Incoming::PubRel(pkid) => {
                let known = match self.broker.state().latest(&self.client, self.generation) {
                    Some(session) => session.incoming_end(pkid),
                    None => false,
                };
                self.open.remove(&pkid);
                self.send(Outgoing::PubComp(pkid, known))
            }
            Incoming::Subscribe(subscribe) => self.subscribe(subscribe).await,
            Incoming::Unsubscribe(pkid, filters) => self.unsubscribe(pkid, &filters).await,
            Incoming::PingReq => self.send(Outgoing::PingResp),
            Incoming::Disconnect(goodbye) => {
                // A session that was to end with its connection cannot be prolonged (MQTT 5, 3.14.2.2.2).
                let ends = match self.broker.state().latest(&self.client, self.generation) {
                    Some(session) => session.expiry == Some(Duration::ZERO),
                    None => false,
                };
                if ends && goodbye.session_expiry.is_some_and(|seconds| seconds > 0) {
                    return Err(broken_rule("a session expiry where there is no session to keep"));
                }
                Err(End::Goodbye(goodbye))
            }
            Incoming::Connect(_) => Err(broken_rule("a second CONNECT")),
        }
    }

    fn answered(
        &self,
        answer: impl FnOnce(&mut super::session::Session) -> Answered,
    ) -> Result<Answered, End> {
        let answered = match self.broker.state().latest(&self.client, self.generation) {
            Some(session) => answer(session),
            None => Answered::Nothing,
        };
        if answered == Answered::Wrong {
            return Err(broken_rule("the wrong acknowledgement for a message"));
        }
        Ok(answered)
    }

    /// Filter by filter, so that nobody waits for ten thousand of them.
    async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let mut verdicts = Vec::with_capacity(subscribe.filters.len());
        for (n, filter) in subscribe.filters.into_iter().enumerate() {
            if n % FILTERS_AT_A_TIME == FILTERS_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            let shared = filter.path.starts_with("$share/");
            // MQTT 5, 3.8.3.1.
            if shared && filter.no_local {
                return Err(broken_rule("no-local on a shared subscription"));
            }
            verdicts.push(if self.rights.may_subscribe(&filter.path) {
                self.broker.state().subscribe(
                    &self.client,
                    self.generation,
                    subscribe.id,
                    filter,
                    Instant::now(),
                )
            } else {
                SubscribeVerdict::NotAuthorized
            });
        }
        self.send(Outgoing::SubAck(subscribe.pkid, verdicts))
    }

    async fn unsubscribe(&mut self, pkid: u16, filters: &[String]) -> Result<(), End> {
        let mut reasons = Vec::with_capacity(filters.len());
        for (n, filter) in filters.iter().enumerate() {
            if n % FILTERS_AT_A_TIME == FILTERS_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            reasons.push(
                self.broker
                    .state()
                    .unsubscribe(&self.client, self.generation, filter),
            );
        }
        self.send(Outgoing::UnsubAck(pkid, reasons))
    }

    async fn finish(mut self, end: End) {
        let mut words = None;
        let goodbye = match end {
            End::Goodbye(goodbye) => {
                tracing::debug!(client = %self.client, "client disconnected");
                Some(goodbye)
            }
            End::Lost(error) => {
                tracing::debug!(client = %self.client, %error, "client lost");
                None
            }
            End::Ours(reason, why) => {
                use DisconnectReason::{ServerShuttingDown, SessionTakenOver};
                words = Some(reason);
                if !matches!(reason, ServerShuttingDown | SessionTakenOver) {
                    self.broker
                        .counters
                        .protocol_errors
                        .fetch_add(1, Ordering::Relaxed);
                    tracing::info!(client = %self.client, ?reason, why, "a client was disconnected");
                }
                // The agent's stop is not the death of its devices.
                (reason == ServerShuttingDown).then_some(Goodbye {
                    with_will: false,
                    session_expiry: None,
                })
            }
        };
        let will =
            self.broker
                .state()
                .disconnect(&self.client, self.generation, goodbye.as_ref(), Instant::now());
        if let Some(will) = will {
            self.broker.accept_will(&self.client, will).await;
        }
        if let Some(reason) = words
            && self.send(Outgoing::Disconnect(reason)).is_ok()
        {
            farewell(&mut self.reader.stream, &self.out).await;
        }
    }
}

/// Completes when the connection is to end from outside.
pub async fn ended(kick: &Kick, stop: &CancellationToken) -> End {
    tokio::select! {
        biased;
        () = stop.cancelled() => End::Ours(DisconnectReason::ServerShuttingDown, "the agent stops".into()),
        reason = kick.kicked() => End::Ours(reason, format!("{reason:?}")),
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
