//! What the broker knows of one client: subscriptions, messages on their way, packet ids.
//!
//! A session outlives its connection as long as its client asked for. Everything in it is bounded; what does not
//! fit is counted by the caller, never dropped in silence. No input or output happens here.

use std::{
    collections::{BTreeMap, HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    subscriptions::Subscription,
    wire::{DisconnectReason, Outgoing, Publish, PublishProperties, QoS, Version, Will},
};

/// Messages waiting for one client. A phone that slept a night at one reading a second comes back to more than
/// this; a box with 1 GB cannot keep that for many.
pub const QUEUE_MESSAGES: usize = 10_000;
/// Bytes waiting for one client.
pub const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Messages above QoS 0 sent and not acknowledged, whatever the client allows.
const INFLIGHT: u16 = 64;
/// Subscriptions of one client.
pub const SUBSCRIPTIONS: usize = 10_000;

/// A message for one client.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// Topic.
    pub topic: Arc<str>,
    /// Payload.
    pub payload: Bytes,
    /// QoS after the subscription's limit.
    pub qos: QoS,
    /// The retain flag towards the client.
    pub retain: bool,
    /// As published, version 5 only.
    pub properties: Option<Arc<PublishProperties>>,
    /// Identifiers of the subscriptions that matched.
    pub ids: Vec<usize>,
    /// Not sent after this.
    pub expires: Option<Instant>,
}

impl Delivery {
    fn bytes(&self) -> usize {
        self.topic.len() + self.payload.len()
    }
}

/// The connection a session has at the moment.
pub struct Attached {
    /// Tells connections of the same client id apart.
    pub generation: u64,
    /// Wakes the connection when there is something to send.
    pub wake: Arc<Notify>,
    /// Ends the connection; the reason is set before.
    pub kick: Kick,
    /// Largest packet the client takes.
    pub max_packet_size: Option<u32>,
}

/// Ends a connection from outside.
#[derive(Clone, Default)]
pub struct Kick {
    token: CancellationToken,
    reason: Arc<std::sync::OnceLock<DisconnectReason>>,
}

impl Kick {
    /// Ends the connection with a reason; the first one counts.
    pub fn kick(&self, reason: DisconnectReason) {
        // A second kick changes nothing.
        let _ = self.reason.set(reason);
        self.token.cancel();
    }

    /// Completes when the connection is to end.
    pub async fn kicked(&self) -> DisconnectReason {
        self.token.cancelled().await;
        *self
            .reason
            .get()
            .expect("the reason is set before the token is cancelled")
    }
}

enum Inflight {
    /// Waits for PUBACK or PUBREC.
    Sent(Delivery),
    /// Waits for PUBCOMP.
    Released,
}

/// One client.
pub struct Session {
    /// Protocol version of its latest connection.
    pub version: Version,
    /// Its connection, if it has one.
    pub attached: Option<Attached>,
    /// Its subscriptions by filter as written.
    pub subscriptions: HashMap<String, Subscription>,
    /// How long it outlives its connection; `None` for ever.
    pub expiry: Option<Duration>,
    /// When it ends, while it has no connection.
    pub expires: Option<Instant>,
    /// To be published when the connection is lost.
    pub will: Option<Will>,
    /// A will that waits for its delay.
    pub will_due: Option<(Instant, Publish)>,
    queue: VecDeque<Delivery>,
    queue_bytes: usize,
    inflight: BTreeMap<u16, Inflight>,
    /// Packet ids in the order they were sent, for resending.
    order: VecDeque<u16>,
    next_pkid: u16,
    receive_maximum: u16,
    /// QoS 2 messages of theirs that wait for PUBREL.
    incoming: HashSet<u16>,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It waits for the client.
    Waiting,
    /// The client is away and the message is not to be kept (QoS 0).
    Away,
    /// The queue is full.
    Full,
}

impl Session {
    /// A session without history.
    pub fn new(version: Version) -> Self {
        Self {
            version,
            attached: None,
            subscriptions: HashMap::new(),
            expiry: None,
            expires: None,
            will: None,
            will_due: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            inflight: BTreeMap::new(),
            order: VecDeque::new(),
            next_pkid: 1,
            receive_maximum: INFLIGHT,
            incoming: HashSet::new(),
        }
    }

    /// Takes a new connection: what was sent and not acknowledged goes out again, in order.
    pub fn attach(&mut self, version: Version, receive_maximum: u16, attached: Attached) -> Vec<Outgoing> {
        self.version = version;
        self.receive_maximum = receive_maximum.min(INFLIGHT);
        self.attached = Some(attached);
        self.expires = None;
        let resend = |pkid: &u16| match self.inflight.get(pkid)? {
            Inflight::Sent(delivery) => Some(Outgoing::Publish(publish(delivery, *pkid, true))),
            Inflight::Released => Some(Outgoing::PubRel(*pkid)),
        };
        self.order.iter().filter_map(resend).collect()
    }

    /// Queues a message.
    pub fn push(&mut self, delivery: Delivery) -> Queued {
        let Some(attached) = &self.attached else {
            if delivery.qos == QoS::AtMostOnce {
                return Queued::Away;
            }
            return self.enqueue(delivery);
        };
        attached.wake.notify_one();
        self.enqueue(delivery)
    }

    fn enqueue(&mut self, delivery: Delivery) -> Queued {
        if self.queue.len() >= QUEUE_MESSAGES || self.queue_bytes + delivery.bytes() > QUEUE_BYTES {
            return Queued::Full;
        }
        self.queue_bytes += delivery.bytes();
        self.queue.push_back(delivery);
        Queued::Waiting
    }

    /// The next messages to send, about `max_bytes` of them, as far as the client's window allows.
    /// The second value counts messages that expired or are larger than the client takes.
    pub fn next_outgoing(&mut self, max_bytes: usize, now: Instant) -> (Vec<Outgoing>, u64) {
        let max_packet = self
            .attached
            .as_ref()
            .and_then(|a| a.max_packet_size)
            .map_or(usize::MAX, |n| n as usize);
        let mut out = Vec::new();
        let mut bytes = 0;
        let mut dropped = 0;
        while bytes < max_bytes {
            let Some(front) = self.queue.front() else { break };
            if front.qos != QoS::AtMostOnce && self.inflight.len() >= usize::from(self.receive_maximum) {
                break;
            }
            let delivery = self.queue.pop_front().expect("the front was just seen");
            self.queue_bytes -= delivery.bytes();
            // 16 bytes cover header, packet id and an expiry; other properties are the publisher's own weight.
            let too_large = delivery.bytes() + 16 > max_packet;
            if too_large || delivery.expires.is_some_and(|expires| expires <= now) {
                dropped += 1;
                continue;
            }
            bytes += delivery.bytes();
            let pkid = if delivery.qos == QoS::AtMostOnce {
                0
            } else {
                self.take_pkid()
            };
            let mut message = publish(&delivery, pkid, false);
            if let (Some(expires), Some(properties)) = (delivery.expires, &mut message.properties) {
                let left = expires.saturating_duration_since(now).as_secs();
                properties.message_expiry_interval = Some(u32::try_from(left).unwrap_or(u32::MAX));
            }
            out.push(Outgoing::Publish(message));
            if pkid != 0 {
                self.inflight.insert(pkid, Inflight::Sent(delivery));
                self.order.push_back(pkid);
            }
        }
        if bytes >= max_bytes
            && let Some(attached) = &self.attached
        {
            attached.wake.notify_one();
        }
        (out, dropped)
    }

    fn take_pkid(&mut self) -> u16 {
        // At most INFLIGHT ids are in use, so a free one is near.
        while self.inflight.contains_key(&self.next_pkid) {
            self.next_pkid = self.next_pkid.checked_add(1).unwrap_or(1);
        }
        let pkid = self.next_pkid;
        self.next_pkid = self.next_pkid.checked_add(1).unwrap_or(1);
        pkid
    }

    /// PUBACK, PUBCOMP, or a PUBREC that refuses: the message is done. Unknown ids are ignored, as a late
    /// answer of an earlier connection may be.
    pub fn complete(&mut self, pkid: u16) {
        if self.inflight.remove(&pkid).is_some() {
            self.order.retain(|p| *p != pkid);
            if let Some(attached) = &self.attached {
                attached.wake.notify_one();
            }
        }
    }

    /// PUBREC: the client has the message; from now on only PUBREL is resent.
    pub fn release(&mut self, pkid: u16) {
        if let Some(state) = self.inflight.get_mut(&pkid) {
            *state = Inflight::Released;
        }
    }

    /// Notes a QoS 2 message of theirs. False when it is a resend of one that is known.
    pub fn incoming_begin(&mut self, pkid: u16) -> bool {
        self.incoming.insert(pkid)
    }

    /// PUBREL of theirs. False when the id is not known.
    pub fn incoming_end(&mut self, pkid: u16) -> bool {
        self.incoming.remove(&pkid)
    }

    /// Messages that wait or are on their way.
    pub fn backlog(&self) -> usize {
        self.queue.len() + self.inflight.len()
    }
}

fn publish(delivery: &Delivery, pkid: u16, dup: bool) -> Publish {
    let mut properties = delivery.properties.as_ref().map(|p| Box::new((**p).clone()));
    if !delivery.ids.is_empty() {
        properties
            .get_or_insert_with(Box::default)
            .subscription_identifiers
            .clone_from(&delivery.ids);
    }
    Publish {
        dup,
        qos: delivery.qos,
        pkid,
        retain: delivery.retain,
        topic: delivery.topic.clone(),
        payload: delivery.payload.clone(),
        properties,
    }
}
