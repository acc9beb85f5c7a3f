//! Messages a client publishes: checked, captured, routed and acknowledged in their order.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::{oneshot, watch};

use super::{
    CaptureRefused, Captured, CapturedPayload, Refusal, Sender,
    connection::{Connection, End, broken_rule},
    reader::Oversize,
    session::Begun,
    state::Routed,
    subscriptions::sound_topic,
    wire::{DisconnectReason, Outgoing, Publish, QoS, Verdict, Version},
};

/// Publishes of one connection that wait for the disk; also the receive maximum told to version 5 clients.
pub const PENDING_ACKS: u16 = 128;
/// A publisher pauses for this when a subscriber falls behind: one that reads catches up before its queue is full, and
/// one that does not is cut off a few seconds later. A device that sends a few messages a second never notices.
const CROWDED_PAUSE: Duration = Duration::from_millis(1);
/// Topic aliases a version 5 client may set.
pub const TOPIC_ALIASES: u16 = 32;

/// An acknowledgement that waits for the disk, or for those before it.
pub struct PendingAck {
    reply: Reply,
    /// The buffer's word, for a captured publish.
    captured: Option<oneshot::Receiver<Result<(), CaptureRefused>>>,
    /// The store of sessions must be written up to here.
    stored: Option<u64>,
}

/// What is answered.
#[derive(Debug)]
pub enum Reply {
    /// PUBACK to a publish at QoS 1.
    Ack(u16, Verdict),
    /// PUBREC to a publish at QoS 2.
    Rec(u16, Verdict),
    /// PUBREL to a PUBREC of theirs; false when the packet id was not known.
    Rel(u16, bool),
    /// PUBCOMP to a PUBREL of theirs; false when the packet id was not known.
    Comp(u16, bool),
    /// What has no more to it than being sent.
    Other(Outgoing),
}

impl PendingAck {
    async fn ready(&mut self, store: &mut watch::Receiver<u64>) -> Result<(), CaptureRefused> {
        if let Some(receiver) = &mut self.captured {
            // A dropped sender means the agent is stopping: nothing may be acknowledged then.
            let outcome = receiver.await.unwrap_or(Err(CaptureRefused::Disk));
            self.captured = None;
            outcome?;
        }
        if let Some(version) = self.stored {
            store
                .wait_for(|written| *written >= version)
                .await
                .map_err(|_| CaptureRefused::Disk)?;
            self.stored = None;
        }
        Ok(())
    }

    /// The same without waiting.
    fn ready_now(&mut self, store: &watch::Receiver<u64>) -> Option<Result<(), CaptureRefused>> {
        if let Some(receiver) = &mut self.captured {
            let outcome = match receiver.try_recv() {
                Ok(outcome) => outcome,
                Err(oneshot::error::TryRecvError::Empty) => return None,
                Err(oneshot::error::TryRecvError::Closed) => Err(CaptureRefused::Disk),
            };
            self.captured = None;
            if outcome.is_err() {
                return Some(outcome);
            }
        }
        let written = self.stored.is_none_or(|version| *store.borrow() >= version);
        written.then_some(Ok(()))
    }
}

impl Connection {
    /// An address that sends too much is read more slowly.
    async fn throttle(&self, bytes: usize) {
        let pause = self.guest.sends(bytes, Instant::now());
        if !pause.is_zero() {
            self.broker.counters.throttled.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) async fn publish(&mut self, mut publish: Publish) -> Result<(), End> {
        self.throttle(publish.payload.len()).await;
        publish.topic = self.resolve_topic(&publish)?;
        let payload = CapturedPayload::Whole(publish.payload.clone());
        self.accept(publish, payload).await
    }

    /// A payload above the limit was read and thrown away: where it would have been captured it is acknowledged, and
    /// its beginning kept for a person.
    pub(super) async fn oversize(&mut self, oversize: Oversize) -> Result<(), End> {
        let (mut publish, payload) = oversize.finish();
        if let CapturedPayload::Truncated { length, .. } = &payload {
            self.throttle(usize::try_from(*length).unwrap_or(usize::MAX))
                .await;
        }
        publish.topic = self.resolve_topic(&publish)?;
        self.broker.counters.oversize.fetch_add(1, Ordering::Relaxed);
        if !self.oversize_seen {
            self.oversize_seen = true;
            tracing::warn!(client = %self.client, "a payload is too large; further ones of this connection are only counted");
        }
        self.accept(publish, payload).await
    }

    async fn accept(&mut self, publish: Publish, payload: CapturedPayload) -> Result<(), End> {
        self.broker.counters.received.fetch_add(1, Ordering::Relaxed);
        let (qos, pkid) = (publish.qos, publish.pkid);
        if qos != QoS::AtMostOnce {
            if self.version == Version::V5
                && self.open.len() >= usize::from(PENDING_ACKS)
                && !self.open.contains(&pkid)
            {
                return Err(End::Ours(
                    DisconnectReason::ReceiveMaximumExceeded,
                    "more messages than the receive maximum".into(),
                ));
            }
            self.open.insert(pkid);
        }
        if !self.rights.may_publish(&publish.topic) {
            if self.broker.counters.denied.fetch_add(1, Ordering::Relaxed) == 0 {
                tracing::warn!(client = %self.client, "a client published where it may not; further ones are only counted");
            }
            self.broker
                .visitors
                .refused(&self.client, Refusal::Publish, &publish.topic);
            self.acknowledge_later(qos, pkid, Verdict::NotAuthorized, None, None);
            return Ok(());
        }
        let captured = self.broker.captures(&publish.topic);
        let whole = matches!(payload, CapturedPayload::Whole(_));
        if !captured && !whole {
            self.acknowledge_later(qos, pkid, Verdict::TooLarge, None, None);
            return Ok(());
        }
        let begun = match qos {
            QoS::ExactlyOnce => self.begin_exactly_once(pkid)?,
            _ => Begun::New,
        };
        // A resend that is not known to be on disk goes there again; being on disk twice is told apart there.
        let disk = if captured && begun != Begun::Settled {
            self.capture(&publish, payload).await?
        } else {
            None
        };
        let routed = self.route(&publish, whole && begun == Begun::New);
        self.acknowledge_later(qos, pkid, Verdict::Accepted, disk, routed.stored);
        if routed.crowded {
            tokio::time::sleep(CROWDED_PAUSE).await;
        }
        Ok(())
    }

    /// Passes a message on, if it is new. That it was, and to whom, is noted in one moment.
    fn route(&self, publish: &Publish, new: bool) -> Routed {
        let mut state = self.broker.state();
        let mut routed = if new {
            state.publish(Some(&self.client), publish, Instant::now())
        } else {
            Routed::default()
        };
        if publish.qos == QoS::ExactlyOnce {
            let noted = state.incoming_routed(&self.client, self.generation, publish.pkid);
            routed.stored = noted.max(routed.stored);
        }
        routed
    }

    fn begin_exactly_once(&self, pkid: u16) -> Result<Begun, End> {
        let begun = match self.broker.state().latest(&self.client, self.generation) {
            Some(session) => session.incoming_begin(pkid),
            None => {
                return Err(End::Ours(
                    DisconnectReason::SessionTakenOver,
                    "the session belongs to another connection".into(),
                ));
            }
        };
        if begun == Begun::TooMany {
            return Err(End::Ours(
                DisconnectReason::QuotaExceeded,
                "too many QoS 2 messages are not released".into(),
            ));
        }
        Ok(begun)
    }

    /// Sends a payload to the disk. Answers where the disk's word will come from, above QoS 0.
    async fn capture(
        &self,
        publish: &Publish,
        payload: CapturedPayload,
    ) -> Result<Option<oneshot::Receiver<Result<(), CaptureRefused>>>, End> {
        self.broker.counters.captured.fetch_add(1, Ordering::Relaxed);
        let (line, done, disk) = match publish.qos {
            QoS::AtMostOnce => (self.line.of_sent_once(), None, None),
            _ => {
                let (sender, receiver) = oneshot::channel();
                (self.line.of_resent(), Some(sender), Some(receiver))
            }
        };
        let captured = Captured {
            stamp: self.broker.clock.stamp(),
            topic: publish.topic.clone(),
            payload,
            sender: (publish.qos != QoS::AtMostOnce && self.keeps_its_id).then(|| Sender {
                client: self.client.clone(),
                pkid: publish.pkid,
                dup: publish.dup,
            }),
            line: Some(line),
            done,
        };
        if self.broker.capture.send(captured).await.is_err() {
            return Err(End::Ours(
                DisconnectReason::ServerShuttingDown,
                "the buffer is closed".into(),
            ));
        }
        Ok(disk)
    }

    fn acknowledge_later(
        &mut self,
        qos: QoS,
        pkid: u16,
        verdict: Verdict,
        captured: Option<oneshot::Receiver<Result<(), CaptureRefused>>>,
        stored: Option<u64>,
    ) {
        let reply = match qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => Reply::Ack(pkid, verdict),
            QoS::ExactlyOnce => Reply::Rec(pkid, verdict),
        };
        self.pending.push_back(PendingAck {
            reply,
            captured,
            stored,
        });
    }

    /// Answers once the store of sessions is written that far, behind the answers that wait already.
    pub(super) fn reply_later(&mut self, reply: Reply, stored: Option<u64>) {
        self.pending.push_back(PendingAck {
            reply,
            captured: None,
            stored,
        });
    }

    fn resolve_topic(&mut self, publish: &Publish) -> Result<Arc<str>, End> {
        let alias = publish.properties.as_ref().and_then(|p| p.topic_alias);
        let topic = match alias {
            None if publish.topic.is_empty() && self.version == Version::V5 => {
                return Err(broken_rule("neither topic nor alias"));
            }
            None => &publish.topic,
            Some(alias) if alias == 0 || alias > TOPIC_ALIASES => {
                return Err(End::Ours(
                    DisconnectReason::TopicAliasInvalid,
                    format!("topic alias {alias}"),
                ));
            }
            Some(alias) if publish.topic.is_empty() => match self.aliases.get(&alias) {
                Some(topic) => return Ok(topic.clone()),
                None => return Err(broken_rule("an alias that was not set")),
            },
            Some(_) => &publish.topic,
        };
        if !sound_topic(topic) {
            return Err(End::Ours(
                DisconnectReason::TopicNameInvalid,
                "the topic is not a topic name, too long or too deep".into(),
            ));
        }
        if let Some(alias) = alias {
            self.aliases.insert(alias, topic.clone());
        }
        Ok(topic.clone())
    }

    /// One group commit answers many: they share one write.
    pub(super) fn acknowledge_all(&mut self, outcome: Result<(), CaptureRefused>) -> Result<(), End> {
        self.acknowledge(outcome)?;
        loop {
            let front = self.pending.front_mut();
            let Some(outcome) = front.and_then(|ack| ack.ready_now(&self.store)) else {
                return Ok(());
            };
            self.acknowledge(outcome)?;
        }
    }

    fn acknowledge(&mut self, outcome: Result<(), CaptureRefused>) -> Result<(), End> {
        let Some(ack) = self.pending.pop_front() else {
            return Ok(());
        };
        if let Err(refused) = outcome {
            // Never a failing PUBACK: a client would take the message for settled.
            return Err(End::Ours(
                DisconnectReason::QuotaExceeded,
                format!("not buffered: {refused:?}"),
            ));
        }
        match ack.reply {
            Reply::Ack(pkid, verdict) => {
                self.open.remove(&pkid);
                self.send(Outgoing::PubAck(pkid, verdict))
            }
            Reply::Rec(pkid, verdict) => {
                if verdict == Verdict::Accepted {
                    if let Some(session) = self.broker.state().latest(&self.client, self.generation) {
                        session.incoming_settled(pkid);
                    }
                } else {
                    self.open.remove(&pkid);
                }
                self.send(Outgoing::PubRec(pkid, verdict))
            }
            Reply::Rel(pkid, known) => self.send(Outgoing::PubRel(pkid, known)),
            Reply::Other(answer) => self.send(answer),
            Reply::Comp(pkid, known) => {
                self.open.remove(&pkid);
                self.send(Outgoing::PubComp(pkid, known))
            }
        }
    }
}

/// The disk's word for the oldest answer that waits.
pub async fn front_ready(
    pending: &mut VecDeque<PendingAck>,
    store: &mut watch::Receiver<u64>,
) -> Result<(), CaptureRefused> {
    match pending.front_mut() {
        Some(front) => front.ready(store).await,
        None => std::future::pending().await,
    }
}
