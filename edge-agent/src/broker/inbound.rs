//! Messages a client publishes: checked, captured, routed and acknowledged in their order.

use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tokio::sync::oneshot;

use super::{
    CaptureRefused, Captured, CapturedPayload, Sender,
    connection::{Connection, End, broken_rule},
    reader::Oversize,
    session::Begun,
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

/// A publish whose acknowledgement waits for the disk, or for those before it.
pub struct PendingAck {
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

    /// The same without waiting.
    fn ready_now(&mut self) -> Option<Result<(), CaptureRefused>> {
        match &mut self.disk {
            Some(receiver) => match receiver.try_recv() {
                Ok(outcome) => Some(outcome),
                Err(oneshot::error::TryRecvError::Empty) => None,
                Err(oneshot::error::TryRecvError::Closed) => Some(Err(CaptureRefused::Disk)),
            },
            None => Some(Ok(())),
        }
    }
}

impl Connection {
    pub(super) async fn publish(&mut self, mut publish: Publish) -> Result<(), End> {
        publish.topic = self.resolve_topic(&publish)?;
        let payload = CapturedPayload::Whole(publish.payload.clone());
        self.accept(publish, payload).await
    }

    /// A payload above the limit was read and thrown away: where it would have been captured it is acknowledged, and
    /// its beginning kept for a person.
    pub(super) async fn oversize(&mut self, oversize: Oversize) -> Result<(), End> {
        let (mut publish, payload) = oversize.finish();
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
            self.acknowledge_later(qos, pkid, Verdict::NotAuthorized, None);
            return Ok(());
        }
        let captured = self.broker.captures(&publish.topic);
        let whole = matches!(payload, CapturedPayload::Whole(_));
        if !captured && !whole {
            self.acknowledge_later(qos, pkid, Verdict::TooLarge, None);
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
        self.acknowledge_later(qos, pkid, Verdict::Accepted, disk);
        if whole && begun == Begun::New {
            let routed = self
                .broker
                .state()
                .publish(Some(&self.client), &publish, Instant::now());
            if routed.crowded {
                tokio::time::sleep(CROWDED_PAUSE).await;
            }
        }
        Ok(())
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
        let (done, disk) = match publish.qos {
            QoS::AtMostOnce => (None, None),
            _ => {
                let (sender, receiver) = oneshot::channel();
                (Some(sender), Some(receiver))
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
        disk: Option<oneshot::Receiver<Result<(), CaptureRefused>>>,
    ) {
        if qos != QoS::AtMostOnce {
            self.pending.push_back(PendingAck {
                qos,
                pkid,
                verdict,
                disk,
            });
        }
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
        while let Some(outcome) = self.pending.front_mut().and_then(PendingAck::ready_now) {
            self.acknowledge(outcome)?;
        }
        Ok(())
    }

    fn acknowledge(&mut self, outcome: Result<(), CaptureRefused>) -> Result<(), End> {
        let Some(ack) = self.pending.pop_front() else {
            return Ok(());
        };
        match outcome {
            Ok(()) if ack.qos == QoS::AtLeastOnce => {
                self.open.remove(&ack.pkid);
                self.send(Outgoing::PubAck(ack.pkid, ack.verdict))
            }
            Ok(()) => {
                if ack.verdict == Verdict::Accepted {
                    if let Some(session) = self.broker.state().latest(&self.client, self.generation) {
                        session.incoming_settled(ack.pkid);
                    }
                } else {
                    self.open.remove(&ack.pkid);
                }
                self.send(Outgoing::PubRec(ack.pkid, ack.verdict))
            }
            // Never a failing PUBACK: a client would take the message for settled.
            Err(refused) => Err(End::Ours(
                DisconnectReason::QuotaExceeded,
                format!("not buffered: {refused:?}"),
            )),
        }
    }
}

/// The disk's word for the oldest publish that waits.
pub async fn front_ready(pending: &mut VecDeque<PendingAck>) -> Result<(), CaptureRefused> {
    match pending.front_mut() {
        Some(front) => front.ready().await,
        None => std::future::pending().await,
    }
}
