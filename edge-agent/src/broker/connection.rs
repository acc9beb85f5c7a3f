//! One connection: bytes in, packets handled in order, bytes out.
//!
//! Acknowledgements leave in the order their publishes came, each when the disk has it. A connection is not read
//! while too many of its publishes wait for the disk. Whatever a client sends, only its own connection pays.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use rumqttd::protocol::ConnAckProperties;
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::oneshot,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    Broker, CaptureRefused, Captured, CapturedPayload, Sender,
    session::Kick,
    subscriptions::{ClientId, MAX_LEVELS},
    wire::{
        self, Connect, ConnectCode, DisconnectReason, FixedHeader, Goodbye, Incoming, Malformed, Outgoing,
        Publish, QoS, Verdict, Version,
    },
};
use crate::topic_filter::valid_topic_name;

/// A device that opened a connection says CONNECT within this.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// A client that takes none of our bytes for this long is gone.
const WRITE_LIMIT: Duration = Duration::from_secs(20);
/// Largest payload that is captured and routed.
pub const CAPTURE_BYTES: usize = 256 * 1024;
/// Largest packet that is kept in memory: a captured payload, its topic, and 64 KiB of properties.
const PACKET_BYTES: usize = CAPTURE_BYTES + 128 * 1024;
/// Largest packet that is read at all, and discarded; beyond it the connection ends.
const DISCARD_BYTES: usize = 16 * 1024 * 1024;
/// What is kept of a payload that is too large.
const HEAD_BYTES: usize = 4 * 1024;
/// Publishes of one connection that wait for the disk; also the receive maximum told to version 5 clients.
const PENDING_ACKS: u16 = 128;
/// Topic aliases a version 5 client may set.
const TOPIC_ALIASES: u16 = 32;
/// Bytes of messages written in one go.
const WRITE_BATCH_BYTES: usize = 64 * 1024;
/// Room for one read: a device's frame is a few hundred bytes, and a thousand connections share 1 GB.
const READ_BYTES: usize = 4 * 1024;

/// How a connection ended.
#[derive(Debug)]
enum End {
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
        End::Ours(DisconnectReason::MalformedPacket, error.to_string())
    }
}

/// Runs a connection to its end.
pub async fn run(broker: Arc<Broker>, stream: TcpStream, peer: SocketAddr, stop: CancellationToken) {
    // A reading is one small packet: waiting to fill a segment would only delay its acknowledgement.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "a connection ended before it began");
        return;
    }
    let mut reader = Reader {
        stream,
        buffer: BytesMut::with_capacity(READ_BYTES),
        oversize: None,
    };
    let connect = tokio::select! {
        () = stop.cancelled() => return,
        read = timeout(CONNECT_LIMIT, read_connect(&mut reader)) => match read {
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
    if let Err(refusal) = admit(&broker, peer, &connect) {
        refuse(&broker, reader.stream, peer, refusal).await;
        return;
    }
    let version = connect.version;
    let keep_alive = connect.keep_alive;
    let assigned = connect
        .client_id
        .is_empty()
        .then(|| format!("assigned-{:016x}", rand::random::<u64>()));
    let client: ClientId = assigned
        .clone()
        .unwrap_or_else(|| connect.client_id.clone())
        .into();
    let connected = broker.state().connect(&client, *connect);
    let Some(connected) = connected else {
        let refusal = Refusal {
            version,
            code: ConnectCode::QuotaExceeded,
            why: "too many sessions".into(),
        };
        refuse(&broker, reader.stream, peer, refusal).await;
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
        keeps_its_id: assigned.is_none(),
        generation: connected.generation,
        pending: VecDeque::new(),
        aliases: HashMap::new(),
        heard: tokio::time::Instant::now(),
        keep_alive: (keep_alive > 0).then(|| Duration::from_millis(u64::from(keep_alive) * 1_500)),
    };
    let properties = (version == Version::V5).then(|| Box::new(connack_properties(assigned)));
    let mut first = vec![Outgoing::ConnAck(
        connected.session_present,
        ConnectCode::Success,
        properties,
    )];
    first.extend(connected.resend);
    let end = connection
        .run(first, &connected.wake, &connected.kick, &stop)
        .await;
    connection.finish(end).await;
}

fn connack_properties(assigned: Option<String>) -> ConnAckProperties {
    ConnAckProperties {
        receive_max: Some(PENDING_ACKS),
        max_packet_size: Some(u32::try_from(DISCARD_BYTES).expect("16 MiB fit")),
        assigned_client_identifier: assigned,
        topic_alias_max: Some(TOPIC_ALIASES),
        ..ConnAckProperties::default()
    }
}

/// A connection that is not let in.
struct Refusal {
    version: Version,
    code: ConnectCode,
    why: String,
}

impl From<End> for Refusal {
    fn from(end: End) -> Self {
        let why = match end {
            End::Ours(_, why) => why,
            End::Lost(error) => error.to_string(),
            End::Goodbye(_) => "DISCONNECT before CONNECT".into(),
        };
        // `UnspecifiedError` stands for "say nothing, just close": before a sound CONNECT no answer is due.
        Self {
            version: Version::V311,
            code: ConnectCode::UnspecifiedError,
            why,
        }
    }
}

async fn read_connect(reader: &mut Reader) -> Result<Box<Connect>, Refusal> {
    let silent = |why: String| Refusal {
        version: Version::V311,
        code: ConnectCode::UnspecifiedError,
        why,
    };
    let frame = match reader.next(None).await? {
        Frame::Packet(frame) => frame,
        Frame::Oversize(_) => return Err(silent("first packet is too large".into())),
    };
    match wire::connect_version(&frame).map_err(|e| silent(e.to_string()))? {
        Ok(version) => match wire::decode(version, frame) {
            Ok(Incoming::Connect(connect)) => Ok(connect),
            Ok(_) => Err(silent("first packet is not CONNECT".into())),
            Err(error) => Err(silent(error.to_string())),
        },
        Err(level) => {
            // Version 3.1 and whatever comes after 5 get the answer of the nearest version we speak.
            let (version, code) = if level > 5 {
                (Version::V5, ConnectCode::UnsupportedProtocolVersion)
            } else {
                (Version::V311, ConnectCode::RefusedProtocolVersion)
            };
            Err(Refusal {
                version,
                code,
                why: format!("protocol level {level} is not spoken"),
            })
        }
    }
}

fn admit(broker: &Broker, peer: SocketAddr, connect: &Connect) -> Result<(), Refusal> {
    let version = connect.version;
    let refuse = |code, why: &str| {
        Err(Refusal {
            version,
            code,
            why: why.into(),
        })
    };
    if connect.enhanced_auth {
        return refuse(
            ConnectCode::BadAuthenticationMethod,
            "enhanced authentication is not supported",
        );
    }
    if connect.client_id.is_empty() && version == Version::V311 && !connect.clean_start {
        return refuse(
            ConnectCode::ClientIdentifierNotValid,
            "a session to be kept needs a client id",
        );
    }
    if let Err(error) = broker.settings.access.connect(peer.ip()) {
        return refuse(ConnectCode::NotAuthorized, &error.to_string());
    }
    if let Some(will) = &connect.will
        && !sound_topic(&will.publish.topic)
    {
        return refuse(
            ConnectCode::UnspecifiedError,
            "the will's topic is not a topic name",
        );
    }
    Ok(())
}

async fn refuse(broker: &Broker, mut stream: TcpStream, peer: SocketAddr, refusal: Refusal) {
    broker
        .counters
        .refused_connections
        .fetch_add(1, Ordering::Relaxed);
    tracing::info!(%peer, why = %refusal.why, "a client was not let in");
    let code = match (refusal.version, refusal.code) {
        (_, ConnectCode::UnspecifiedError) => return,
        (Version::V311, ConnectCode::QuotaExceeded) => ConnectCode::ServiceUnavailable,
        (Version::V311, ConnectCode::BadAuthenticationMethod) => ConnectCode::NotAuthorized,
        (_, code) => code,
    };
    let mut out = BytesMut::new();
    if wire::encode(refusal.version, Outgoing::ConnAck(false, code, None), &mut out).is_ok() {
        // The client is being sent away; whether it hears why is its own affair.
        let _ = timeout(WRITE_LIMIT, stream.write_all(&out)).await;
        let _ = stream.shutdown().await;
    }
}

/// A publish whose acknowledgement waits for the disk, or for those before it.
struct PendingAck {
    qos: QoS,
    pkid: u16,
    verdict: Verdict,
    disk: Option<oneshot::Receiver<Result<(), CaptureRefused>>>,
}

impl PendingAck {
    async fn ready(&mut self) -> Result<(), CaptureRefused> {
        match &mut self.disk {
            // A dropped sender means the agent is stopping: nothing may be acknowledged then.
            Some(receiver) => receiver.await.unwrap_or(Err(CaptureRefused::Disk)),
            None => Ok(()),
        }
    }
}

/// How a publish came.
struct Arrival {
    qos: QoS,
    pkid: u16,
    dup: bool,
}

struct Connection {
    broker: Arc<Broker>,
    reader: Reader,
    out: BytesMut,
    version: Version,
    client: ClientId,
    /// The client chose its id, so a resend of it can be told.
    keeps_its_id: bool,
    generation: u64,
    pending: VecDeque<PendingAck>,
    aliases: HashMap<u16, Arc<str>>,
    heard: tokio::time::Instant,
    keep_alive: Option<Duration>,
}

impl Connection {
    async fn run(
        &mut self,
        first: Vec<Outgoing>,
        wake: &tokio::sync::Notify,
        kick: &Kick,
        stop: &CancellationToken,
    ) -> End {
        for packet in first {
            if let Err(end) = self.send(packet) {
                return end;
            }
        }
        loop {
            if let Err(end) = self.flush().await {
                return end;
            }
            let silent_until = self.keep_alive.map(|limit| self.heard + limit);
            let may_read = self.pending.len() < usize::from(PENDING_ACKS);
            let step = tokio::select! {
                biased;
                () = stop.cancelled() => {
                    Err(End::Ours(DisconnectReason::ServerShuttingDown, "the agent stops".into()))
                }
                reason = kick.kicked() => Err(End::Ours(reason, format!("{reason:?}"))),
                outcome = front_ready(&mut self.pending), if !self.pending.is_empty() => self.acknowledge(outcome),
                () = wake.notified() => self.send_waiting(),
                frame = self.reader.next(Some(self.version)), if may_read => match frame {
                    Ok(frame) => self.handle_all(frame).await,
                    Err(end) => Err(end),
                },
                () = sleep_until(silent_until) => {
                    Err(End::Ours(DisconnectReason::KeepAliveTimeout, "nothing was heard for 1.5 keep-alives".into()))
                }
            };
            if let Err(end) = step {
                return end;
            }
        }
    }

    /// Handles a frame and every further whole frame that is already here, so that they share one write.
    async fn handle_all(&mut self, frame: Frame) -> Result<(), End> {
        self.heard = tokio::time::Instant::now();
        let mut frame = Some(frame);
        while let Some(next) = frame {
            match next {
                Frame::Packet(bytes) => {
                    let incoming = wire::decode(self.version, bytes)?;
                    self.handle(incoming).await?;
                }
                Frame::Oversize(oversize) => self.oversize(oversize).await?,
            }
            frame = match self.pending.len() < usize::from(PENDING_ACKS) {
                true => self.reader.buffered(Some(self.version))?,
                false => None,
            };
        }
        Ok(())
    }

    async fn handle(&mut self, incoming: Incoming) -> Result<(), End> {
        match incoming {
            Incoming::Publish(publish) => self.publish(publish).await,
            Incoming::PubAck(pkid) | Incoming::PubComp(pkid) | Incoming::PubRec(pkid, false) => {
                if let Some(session) = self.broker.state().latest(&self.client, self.generation) {
                    session.complete(pkid);
                }
                Ok(())
            }
            Incoming::PubRec(pkid, true) => {
                if let Some(session) = self.broker.state().latest(&self.client, self.generation) {
                    session.release(pkid);
                }
                self.send(Outgoing::PubRel(pkid))
            }
            Incoming::PubRel(pkid) => {
                let known = match self.broker.state().latest(&self.client, self.generation) {
                    Some(session) => session.incoming_end(pkid),
                    None => false,
                };
                self.send(Outgoing::PubComp(pkid, known))
            }
            Incoming::Subscribe(subscribe) => {
                let pkid = subscribe.pkid;
                let broker = self.broker.clone();
                let verdicts = broker.state().subscribe(
                    &self.client,
                    subscribe,
                    |filter| broker.settings.access.may_subscribe(filter),
                    Instant::now(),
                );
                self.send(Outgoing::SubAck(pkid, verdicts))
            }
            Incoming::Unsubscribe(pkid, filters) => {
                let reasons = self.broker.state().unsubscribe(&self.client, &filters);
                self.send(Outgoing::UnsubAck(pkid, reasons))
            }
            Incoming::PingReq => self.send(Outgoing::PingResp),
            Incoming::Disconnect(goodbye) => Err(End::Goodbye(goodbye)),
            Incoming::Connect(_) => Err(End::Ours(
                DisconnectReason::ProtocolError,
                "a second CONNECT".into(),
            )),
        }
    }

    async fn publish(&mut self, mut publish: Publish) -> Result<(), End> {
        self.broker.counters.received.fetch_add(1, Ordering::Relaxed);
        publish.topic = self.resolve_topic(&publish)?;
        if !self.broker.settings.access.may_publish(&publish.topic) {
            return self.deny(publish.qos, publish.pkid);
        }
        // A resend of a QoS 2 message is answered like the first, when that is on disk, and not routed again.
        let routed = publish.qos == QoS::ExactlyOnce && !self.begin_exactly_once(publish.pkid);
        let captured = self.broker.captures(&publish.topic);
        let payload = captured.then(|| CapturedPayload::Whole(publish.payload.clone()));
        let arrival = Arrival {
            qos: publish.qos,
            pkid: publish.pkid,
            dup: publish.dup,
        };
        self.capture(publish.topic.clone(), payload, arrival).await?;
        if !routed {
            self.broker
                .state()
                .publish(Some(&self.client), &publish, Instant::now());
        }
        Ok(())
    }

    fn begin_exactly_once(&self, pkid: u16) -> bool {
        match self.broker.state().latest(&self.client, self.generation) {
            Some(session) => session.incoming_begin(pkid),
            None => false,
        }
    }

    /// Sends a captured payload to the disk and remembers the acknowledgement that is due.
    async fn capture(
        &mut self,
        topic: Arc<str>,
        payload: Option<CapturedPayload>,
        arrival: Arrival,
    ) -> Result<(), End> {
        let Arrival { qos, pkid, dup } = arrival;
        let mut disk = None;
        if let Some(payload) = payload {
            self.broker.counters.captured.fetch_add(1, Ordering::Relaxed);
            let mut done = None;
            if qos != QoS::AtMostOnce {
                let (sender, receiver) = oneshot::channel();
                (done, disk) = (Some(sender), Some(receiver));
            }
            let captured = Captured {
                stamp: self.broker.clock.stamp(),
                topic,
                payload,
                sender: (qos != QoS::AtMostOnce && self.keeps_its_id).then(|| Sender {
                    client: self.client.clone(),
                    pkid,
                    dup,
                }),
                done,
            };
            if self.broker.capture.send(captured).await.is_err() {
                return Err(End::Ours(
                    DisconnectReason::ServerShuttingDown,
                    "the buffer is closed".into(),
                ));
            }
        }
        if qos != QoS::AtMostOnce {
            self.pending.push_back(PendingAck {
                qos,
                pkid,
                verdict: Verdict::Accepted,
                disk,
            });
        }
        Ok(())
    }

    fn deny(&mut self, qos: QoS, pkid: u16) -> Result<(), End> {
        if self.broker.counters.denied.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!(client = %self.client, "a client published where it may not; further ones are only counted");
        }
        if qos != QoS::AtMostOnce {
            self.pending.push_back(PendingAck {
                qos,
                pkid,
                verdict: Verdict::NotAuthorized,
                disk: None,
            });
        }
        Ok(())
    }

    fn resolve_topic(&mut self, publish: &Publish) -> Result<Arc<str>, End> {
        let alias = publish.properties.as_ref().and_then(|p| p.topic_alias);
        let topic = match alias {
            None => publish.topic.clone(),
            Some(alias) if alias == 0 || alias > TOPIC_ALIASES => {
                return Err(End::Ours(
                    DisconnectReason::TopicAliasInvalid,
                    format!("topic alias {alias}"),
                ));
            }
            Some(alias) if publish.topic.is_empty() => match self.aliases.get(&alias) {
                Some(topic) => topic.clone(),
                None => {
                    return Err(End::Ours(
                        DisconnectReason::ProtocolError,
                        format!("unset topic alias {alias}"),
                    ));
                }
            },
            Some(alias) => {
                self.aliases.insert(alias, publish.topic.clone());
                publish.topic.clone()
            }
        };
        if sound_topic(&topic) {
            Ok(topic)
        } else {
            Err(End::Ours(
                DisconnectReason::TopicNameInvalid,
                "the topic is not a topic name".into(),
            ))
        }
    }

    /// A payload above the limit was read and thrown away: it is acknowledged, and its beginning kept for a person.
    async fn oversize(&mut self, oversize: Oversize) -> Result<(), End> {
        self.broker.counters.received.fetch_add(1, Ordering::Relaxed);
        self.broker.counters.oversize.fetch_add(1, Ordering::Relaxed);
        if !sound_topic(&oversize.topic) {
            return Err(End::Ours(
                DisconnectReason::TopicNameInvalid,
                "the topic is not a topic name".into(),
            ));
        }
        if !self.broker.settings.access.may_publish(&oversize.topic) {
            return self.deny(oversize.qos, oversize.pkid);
        }
        if oversize.qos == QoS::ExactlyOnce {
            self.begin_exactly_once(oversize.pkid);
        }
        let payload = self
            .broker
            .captures(&oversize.topic)
            .then(|| CapturedPayload::Truncated {
                head: oversize.head.freeze(),
                length: oversize.length,
                sha256: oversize.hash.finalize().into(),
            });
        let arrival = Arrival {
            qos: oversize.qos,
            pkid: oversize.pkid,
            dup: oversize.dup,
        };
        if payload.is_none() {
            tracing::warn!(client = %self.client, bytes = oversize.length, "a payload too large to route was discarded");
        }
        self.capture(oversize.topic, payload, arrival).await
    }

    fn acknowledge(&mut self, outcome: Result<(), CaptureRefused>) -> Result<(), End> {
        let Some(ack) = self.pending.pop_front() else {
            return Ok(());
        };
        match outcome {
            Ok(()) if ack.qos == QoS::AtLeastOnce => self.send(Outgoing::PubAck(ack.pkid, ack.verdict)),
            Ok(()) => self.send(Outgoing::PubRec(ack.pkid, ack.verdict)),
            // Never a failing PUBACK: a client would take the message for settled.
            Err(refused) => Err(End::Ours(
                DisconnectReason::QuotaExceeded,
                format!("not buffered: {refused:?}"),
            )),
        }
    }

    fn send_waiting(&mut self) -> Result<(), End> {
        let waiting = self.broker.state().next_outgoing(
            &self.client,
            self.generation,
            WRITE_BATCH_BYTES,
            Instant::now(),
        );
        waiting.into_iter().try_for_each(|packet| self.send(packet))
    }

    fn send(&mut self, packet: Outgoing) -> Result<(), End> {
        wire::encode(self.version, packet, &mut self.out).map_err(|error| {
            tracing::error!(client = %self.client, %error, "a packet of ours could not be written");
            End::Ours(DisconnectReason::ProtocolError, error.to_string())
        })
    }

    async fn flush(&mut self) -> Result<(), End> {
        if self.out.is_empty() {
            return Ok(());
        }
        match timeout(WRITE_LIMIT, self.reader.stream.write_all(&self.out)).await {
            Ok(Ok(())) => {
                self.out.clear();
                Ok(())
            }
            Ok(Err(error)) => Err(End::Lost(error)),
            Err(_) => Err(End::Lost(std::io::ErrorKind::TimedOut.into())),
        }
    }

    async fn finish(mut self, end: End) {
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
                if !matches!(reason, ServerShuttingDown | SessionTakenOver) {
                    self.broker
                        .counters
                        .protocol_errors
                        .fetch_add(1, Ordering::Relaxed);
                    tracing::info!(client = %self.client, ?reason, why, "a client was disconnected");
                }
                if self.send(Outgoing::Disconnect(reason)).is_ok() {
                    // The client is being sent away; whether it hears why is its own affair.
                    let _ = timeout(WRITE_LIMIT, self.reader.stream.write_all(&self.out)).await;
                    let _ = self.reader.stream.shutdown().await;
                }
                None
            }
        };
        let will =
            self.broker
                .state()
                .disconnect(&self.client, self.generation, goodbye.as_ref(), Instant::now());
        if let Some(will) = will {
            self.broker.accept_will(&self.client, will).await;
        }
    }
}

async fn front_ready(pending: &mut VecDeque<PendingAck>) -> Result<(), CaptureRefused> {
    match pending.front_mut() {
        Some(front) => front.ready().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn sound_topic(topic: &str) -> bool {
    valid_topic_name(topic) && topic.split('/').count() <= MAX_LEVELS
}

/// A whole packet, or what is left of a PUBLISH that was too large.
enum Frame {
    Packet(BytesMut),
    Oversize(Oversize),
}

/// A PUBLISH whose payload is read and thrown away.
struct Oversize {
    qos: QoS,
    pkid: u16,
    dup: bool,
    topic: Arc<str>,
    head: BytesMut,
    length: u64,
    hash: Sha256,
    left: usize,
}

/// Takes frames from the socket. Every await may be cancelled between frames without losing a byte.
struct Reader {
    stream: TcpStream,
    buffer: BytesMut,
    oversize: Option<Oversize>,
}

impl Reader {
    /// The next frame. `version` is `None` before CONNECT, when only small packets are taken.
    async fn next(&mut self, version: Option<Version>) -> Result<Frame, End> {
        loop {
            if let Some(frame) = self.buffered(version)? {
                return Ok(frame);
            }
            if self.buffer.capacity() - self.buffer.len() < READ_BYTES {
                self.buffer.reserve(READ_BYTES);
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(End::Lost(std::io::ErrorKind::UnexpectedEof.into()));
            }
        }
    }

    /// The next frame as far as it is here already.
    fn buffered(&mut self, version: Option<Version>) -> Result<Option<Frame>, End> {
        if let Some(oversize) = &mut self.oversize {
            let take = oversize.left.min(self.buffer.len());
            oversize.swallow(&self.buffer[..take]);
            self.buffer.advance(take);
            return Ok(if oversize.left == 0 {
                self.oversize.take().map(Frame::Oversize)
            } else {
                None
            });
        }
        let Some(header) = FixedHeader::peek(&self.buffer)? else {
            return Ok(None);
        };
        if header.remaining_len > PACKET_BYTES {
            return self.begin_oversize(version, header);
        }
        if self.buffer.len() < header.frame_len() {
            return Ok(None);
        }
        let frame = self.buffer.split_to(header.frame_len());
        if header.packet_type() == FixedHeader::PUBLISH
            && let Some(version) = version
            && let Some(start) = payload_start(version, &frame, header)
            && frame.len() - start > CAPTURE_BYTES
        {
            let mut oversize = Oversize::begin(&frame[..start], header, frame.len() - start)?;
            oversize.swallow(&frame[start..]);
            return Ok(Some(Frame::Oversize(oversize)));
        }
        Ok(Some(Frame::Packet(frame)))
    }

    fn begin_oversize(
        &mut self,
        version: Option<Version>,
        header: FixedHeader,
    ) -> Result<Option<Frame>, End> {
        let too_large = || {
            let why = format!("a packet of {} bytes", header.remaining_len);
            End::Ours(DisconnectReason::PacketTooLarge, why)
        };
        let Some(version) = version else {
            return Err(too_large());
        };
        if header.packet_type() != FixedHeader::PUBLISH || header.remaining_len > DISCARD_BYTES {
            return Err(too_large());
        }
        let Some(start) = payload_start(version, &self.buffer, header) else {
            // Topic and properties of a sound PUBLISH have come long before this much is buffered.
            return if self.buffer.len() > PACKET_BYTES {
                Err(too_large())
            } else {
                Ok(None)
            };
        };
        let head = self.buffer.split_to(start);
        self.oversize = Some(Oversize::begin(&head, header, header.frame_len() - start)?);
        self.buffered(Some(version))
    }
}

impl Oversize {
    /// `head` is the frame up to its payload of `left` bytes.
    fn begin(head: &[u8], header: FixedHeader, left: usize) -> Result<Self, End> {
        let qos = match (header.byte1 >> 1) & 3 {
            0 => QoS::AtMostOnce,
            1 => QoS::AtLeastOnce,
            2 => QoS::ExactlyOnce,
            _ => return Err(Malformed::Rule("QoS 3").into()),
        };
        let body = &head[header.header_len..];
        let topic_len = usize::from(u16::from_be_bytes([body[0], body[1]]));
        let topic =
            std::str::from_utf8(&body[2..2 + topic_len]).map_err(|_| Malformed::Rule("text is not UTF-8"))?;
        let pkid = match qos {
            QoS::AtMostOnce => 0,
            _ => u16::from_be_bytes([body[2 + topic_len], body[3 + topic_len]]),
        };
        if qos != QoS::AtMostOnce && pkid == 0 {
            return Err(Malformed::Rule("packet id 0").into());
        }
        Ok(Self {
            qos,
            pkid,
            dup: header.byte1 & 0b1000 != 0,
            topic: topic.into(),
            head: BytesMut::new(),
            length: left as u64,
            hash: Sha256::new(),
            left,
        })
    }

    fn swallow(&mut self, bytes: &[u8]) {
        let keep = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..keep]);
        self.hash.update(bytes);
        self.left -= bytes.len();
    }
}

/// Where the payload of a PUBLISH begins in its frame; `None` while that is not here yet, or never comes.
fn payload_start(version: Version, frame: &[u8], header: FixedHeader) -> Option<usize> {
    let mut at = header.header_len;
    let topic_len = frame.get(at..at + 2)?;
    at += 2 + usize::from(u16::from_be_bytes([topic_len[0], topic_len[1]]));
    if header.byte1 & 0b0110 != 0 {
        at += 2;
    }
    if version == Version::V5 {
        let mut properties_len = 0;
        for n in 0.. {
            let byte = *frame.get(at)?;
            properties_len |= usize::from(byte & 0x7f) << (7 * n);
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
            if n == 3 {
                return None;
            }
        }
        at += properties_len;
    }
    (at <= frame.len() && at <= header.frame_len()).then_some(at)
}
