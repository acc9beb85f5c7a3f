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
use tokio::{
    sync::{Notify, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, CaptureRefused,
    access::Rights,
    addresses::Guest,
    attached::Kick,
    handshake::{self, Refusal, refuse},
    inbound::{PENDING_ACKS, PendingAck, Reply, TOPIC_ALIASES, front_ready},
    net::Stream,
    outbound::{Held, OUR_ALIASES, farewell, held_ready},
    reader::{Frame, PACKET_BYTES, Reader},
    session::Answered,
    state::Admitted,
    subscriptions::ClientId,
    visitors::{self, Heard},
    wire::{
        self, ConnectCode, DisconnectReason, Goodbye, Incoming, Malformed, Outgoing, Subscribe,
        SubscribeVerdict, Version,
    },
};
use crate::line::Line;

/// Filters of one SUBSCRIBE that are handled before others get their turn.
const FILTERS_AT_A_TIME: usize = 16;

/// Longest keep-alive a version 5 client is granted, in seconds: one that vanished is noticed within a minute and a half.
/// Version 3.1.1 has no word for it, so there the client's own counts.
const KEEP_ALIVE_SECONDS: u16 = 60;

/// A commit to an SD card takes some tens of milliseconds; a connection is not held up longer for one.
const STORE_USUALLY_TAKES: Duration = Duration::from_millis(200);

/// Name of the user property of CONNACK that says how many messages were lost to the session's full queue.
const LOST_MESSAGES: &str = "lost-messages";

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
        if error.kind() == std::io::ErrorKind::FileTooLarge {
            return End::Ours(DisconnectReason::PacketTooLarge, error.to_string());
        }
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

/// Who is at the other end.
pub struct Peer {
    /// Its address.
    pub peer: SocketAddr,
    /// The name that its certificate proves.
    pub name: Option<String>,
    /// Its place among those of its address.
    pub guest: Guest,
}

/// Runs a connection to its end.
pub async fn run(broker: Arc<Broker>, stream: Stream, from: Peer, stop: CancellationToken) {
    let peer = from.peer;
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
                broker.visitors.not_let_in(
                    peer.ip(),
                    None,
                    visitors::Refusal::Timeout,
                    "no CONNECT in time",
                );
                return;
            }
        },
    };
    let rights = match handshake::admit(&broker, &from, &connect).await {
        Ok(rights) => rights,
        Err(refusal) => {
            refuse(&broker, reader.stream, peer, refusal).await;
            return;
        }
    };
    let version = connect.version;
    let packet_bytes = reader.stream.packet_limit().unwrap_or(PACKET_BYTES);
    let (keep_alive, told_keep_alive) = match version {
        Version::V5 if connect.keep_alive > KEEP_ALIVE_SECONDS => {
            (KEEP_ALIVE_SECONDS, Some(KEEP_ALIVE_SECONDS))
        }
        _ => (connect.keep_alive, None),
    };
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
    let admitted = Admitted {
        user: rights.user().map(Into::into),
        refused: rights.refused(),
        allowed: rights.allowed(),
    };
    let connected = broker.state().connect(&client, *connect, admitted);
    let Some(connected) = connected else {
        refuse(&broker, reader.stream, peer, Refusal::full(version, &client)).await;
        return;
    };
    if let Some(will) = connected.will {
        broker.accept_will(&client, will).await;
    }
    broker.counters.connections.fetch_add(1, Ordering::Relaxed);
    tracing::debug!(%client, %peer, ?version, "client connected");

    let seen = broker.visitors.came(&client, peer.ip(), rights.user(), version);
    let mut connection = Connection {
        broker: broker.clone(),
        seen,
        reader,
        out: BytesMut::new(),
        version,
        client: client.clone(),
        rights,
        keeps_its_id,
        generation: connected.generation,
        pending: VecDeque::new(),
        held: None,
        line: Line::default(),
        open: HashSet::new(),
        aliases: HashMap::new(),
        our_aliases: HashMap::new(),
        our_aliases_max: our_aliases,
        max_packet_bytes,
        oversize_seen: false,
        store: broker.state().journal.committed(),
        kick: connected.kick,
        guest: from.guest,
        stop,
        heard: tokio::time::Instant::now(),
        keep_alive: (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1_500)),
    };
    let properties = (version == Version::V5).then(|| {
        Box::new(connack_properties(
            assigned,
            told_keep_alive,
            connected.lost,
            packet_bytes,
        ))
    });
    let welcome = Outgoing::ConnAck(connected.session_present, ConnectCode::Success, properties);
    let end = connection.run(welcome, &connected.wake).await;
    connection.finish(end).await;
}

fn connack_properties(
    assigned: Option<String>,
    keep_alive: Option<u16>,
    lost: u64,
    packet_bytes: usize,
) -> ConnAckProperties {
    // The standard has no word for it; version 3.1.1 has not even room for one.
    let lost = (lost > 0).then(|| (LOST_MESSAGES.to_owned(), lost.to_string()));
    ConnAckProperties {
        user_properties: lost.into_iter().collect(),
        receive_max: Some(PENDING_ACKS),
        max_packet_size: Some(u32::try_from(packet_bytes).expect("some megabytes fit")),
        assigned_client_identifier: assigned,
        topic_alias_max: Some(TOPIC_ALIASES),
        server_keep_alive: keep_alive,
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
    /// What waits for the store of sessions.
    pub(super) held: Option<Held>,
    /// On which its messages go to the disk.
    pub(super) line: Line,
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
    /// The same for a person to read.
    pub(super) seen: Heard,
    pub(super) keep_alive: Option<Duration>,
    /// How far the store of sessions is written.
    pub(super) store: watch::Receiver<u64>,
    /// Its place among those of its address.
    pub(super) guest: Guest,
    /// Ends this connection.
    pub(super) kick: Kick,
    /// Ends all.
    pub(super) stop: CancellationToken,
}

/// What there is to do.
enum Work {
    Acknowledge(Result<(), CaptureRefused>),
    Send,
    SendHeld(Result<(), End>),
    Read(Result<Frame, End>),
}

impl Connection {
    async fn run(&mut self, welcome: Outgoing, wake: &Notify) -> End {
        if let Err(end) = self.send(welcome) {
            return end;
        }
        loop {
            if let Err(end) = self.flush().await {
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
                end = ended(&self.kick, &self.stop) => Err(end),
                // The four take turns at random: none can starve the others.
                work = async {
                    tokio::select! {
                        outcome = front_ready(&mut self.pending, &mut self.store) => Work::Acknowledge(outcome),
                        () = wake.notified() => Work::Send,
                        written = held_ready(&mut self.held) => Work::SendHeld(written),
                        frame = self.reader.next(Some(self.version)), if may_read => Work::Read(frame),
                    }
                } => match work {
                    Work::Acknowledge(outcome) => self.acknowledge_all(outcome),
                    Work::Send => self.send_waiting(),
                    Work::SendHeld(written) => written.and_then(|()| self.send_held()),
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
        self.seen.now();
        Ok(())
    }

    async fn handle(&mut self, incoming: Incoming) -> Result<(), End> {
        match incoming {
            Incoming::Publish(publish) => self.publish(publish).await,
            Incoming::PubAck(pkid) => {
                let answered = self
                    .broker
                    .state()
                    .acknowledged(&self.client, self.generation, pkid);
                expected(answered)
            }
            Incoming::PubRec(pkid, taken) => {
                let (answered, stored) =
                    self.broker
                        .state()
                        .received(&self.client, self.generation, pkid, taken);
                expected(answered)?;
                if answered == Answered::Nothing || taken {
                    self.reply_later(Reply::Rel(pkid, answered == Answered::Message), stored);
                }
                Ok(())
            }
            Incoming::PubComp(pkid) => {
                let answered = self.broker.state().completed(&self.client, self.generation, pkid);
                expected(answered)
            }
            Incoming::PubRel(pkid) => {
                let (known, stored) = self
                    .broker
                    .state()
                    .incoming_end(&self.client, self.generation, pkid);
                self.reply_later(Reply::Comp(pkid, known), stored);
                Ok(())
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

    /// Filter by filter, so that nobody waits for ten thousand of them.
    async fn subscribe(&mut self, subscribe: Subscribe) -> Result<(), End> {
        let mut verdicts = Vec::with_capacity(subscribe.filters.len());
        let mut stored = None;
        for (n, filter) in subscribe.filters.into_iter().enumerate() {
            if n % FILTERS_AT_A_TIME == FILTERS_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            let shared = filter.path.starts_with("$share/");
            // MQTT 5, 3.8.3.1.
            if shared && filter.no_local {
                return Err(broken_rule("no-local on a shared subscription"));
            }
            if !self.rights.may_subscribe(&filter.path) {
                self.broker
                    .visitors
                    .refused(&self.client, visitors::Refusal::Subscribe, &filter.path);
                verdicts.push(SubscribeVerdict::NotAuthorized);
                continue;
            }
            let path = filter.path.clone();
            let (verdict, noted) = self.broker.state().subscribe(
                &self.client,
                self.generation,
                subscribe.id,
                filter,
                Instant::now(),
            );
            if !matches!(verdict, SubscribeVerdict::Granted(_)) {
                self.broker
                    .visitors
                    .refused(&self.client, visitors::Refusal::Subscribe, &path);
            }
            verdicts.push(verdict);
            stored = stored.max(noted);
        }
        let answer = Outgoing::SubAck(subscribe.pkid, verdicts);
        self.answer_when_written(answer, stored).await
    }

    async fn unsubscribe(&mut self, pkid: u16, filters: &[String]) -> Result<(), End> {
        let mut reasons = Vec::with_capacity(filters.len());
        let mut stored = None;
        for (n, filter) in filters.iter().enumerate() {
            if n % FILTERS_AT_A_TIME == FILTERS_AT_A_TIME - 1 {
                tokio::task::yield_now().await;
            }
            let (reason, noted) = self
                .broker
                .state()
                .unsubscribe(&self.client, self.generation, filter);
            reasons.push(reason);
            stored = stored.max(noted);
        }
        let answer = Outgoing::UnsubAck(pkid, reasons);
        self.answer_when_written(answer, stored).await
    }

    /// Answers once the store of sessions is written that far: before anything else is sent while that takes no longer than usual,
    /// so that most clients see what they expect; else among the other answers, and the connection goes on meanwhile.
    async fn answer_when_written(&mut self, answer: Outgoing, stored: Option<u64>) -> Result<(), End> {
        match timeout(STORE_USUALLY_TAKES, self.written(stored)).await {
            Ok(written) => written.and_then(|()| self.send(answer)),
            Err(_) => {
                self.reply_later(Reply::Other(answer), stored);
                Ok(())
            }
        }
    }

    /// Waits until the store of sessions is written that far. A client that is ended meanwhile hears no more of it.
    pub(super) async fn written(&mut self, version: Option<u64>) -> Result<(), End> {
        let Some(version) = version else { return Ok(()) };
        tokio::select! {
            biased;
            written = self.store.wait_for(|written| *written >= version) => match written {
                Ok(_) => Ok(()),
                Err(_) => Err(store_closed()),
            },
            end = ended(&self.kick, &self.stop) => Err(end),
        }
    }

    async fn finish(mut self, end: End) {
        self.broker.visitors.went(&self.client);
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
                if let Some(word) = visitors::Refusal::of(reason) {
                    self.broker.visitors.refused(&self.client, word, &why);
                }
                if !matches!(reason, ServerShuttingDown | SessionTakenOver) {
                    self.broker
                        .counters
                        .protocol_errors
                        .fetch_add(1, Ordering::Relaxed);
                    tracing::info!(client = %self.client, ?reason, why, "a client was disconnected");
                }
                None
            }
        };
        let now = Instant::now();
        let will = if words == Some(DisconnectReason::ServerShuttingDown) {
            self.broker.state().suspend(&self.client, self.generation, now);
            None
        } else {
            self.broker
                .state()
                .disconnect(&self.client, self.generation, goodbye.as_ref(), now)
        };
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

fn expected(answered: Answered) -> Result<(), End> {
    match answered {
        Answered::Wrong => Err(broken_rule("the wrong acknowledgement for a message")),
        Answered::Message | Answered::Nothing => Ok(()),
    }
}

/// The store of sessions ended, which it does with the agent.
pub fn store_closed() -> End {
    End::Ours(DisconnectReason::ServerShuttingDown, "the store is closed".into())
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
