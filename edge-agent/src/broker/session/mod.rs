//! What the broker knows of one client: subscriptions, messages on their way, packet ids.
//!
//! A session outlives its connection as long as its client asked for. Everything in it is bounded; what does not
//! fit is counted by the caller, never dropped in silence. What of it must outlive the agent is noted in the journal. No
//! input or output happens here.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

mod kept;

use self::kept::Kept;
use super::{
    attached::Attached,
    delivery::Delivery,
    store::Journal,
    subscriptions::{ClientId, Subscription},
    wire::{self, Outgoing, Publish, QoS, Version, Will},
};

/// Messages waiting for one client. A phone that slept a night at one reading a second comes back to more than
/// this; a box with 1 GB cannot keep that for many.
pub const QUEUE_MESSAGES: usize = 10_000;
/// Bytes waiting for one client, with what their bookkeeping costs.
pub const QUEUE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes waiting for all clients together. Payloads that several of them share are counted for each.
const ALL_QUEUES_BYTES: usize = 64 * 1024 * 1024;
/// A client that has no more than this waiting is not held to the limit for all, so that nobody can take
/// everything from everybody else.
const OWN_SHARE_BYTES: usize = 32 * 1024;
/// Messages above QoS 0 sent and not acknowledged, whatever the client allows.
const INFLIGHT: u16 = 64;
/// QoS 2 messages of a client that wait for its PUBREL. Version 5 clients are held to less by the receive maximum;
/// for the others this is far more than any has open, and bounds what one that never releases can cost.
const INCOMING: usize = 2_048;

/// A message above QoS 0 that was sent.
struct Inflight {
    step: Step,
    /// Its place in the store, where it has one.
    stored: Option<u64>,
    /// Sent on the present connection, so that it takes a place in the client's window.
    counted: bool,
}

enum Step {
    /// Waits for PUBACK or PUBREC.
    Sent(Delivery),
    /// Waits for PUBCOMP.
    Released,
}

/// What a client's acknowledgement stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answered {
    /// A message that waits for it.
    Message,
    /// No message has this id.
    Nothing,
    /// The message with this id wants another answer: a broken rule.
    Wrong,
}

/// What a QoS 2 publish of a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begun {
    /// A new message.
    New,
    /// A resend of one that was passed on, but nothing says that it was captured.
    Unsettled,
    /// A resend of one that is settled in every way.
    Settled,
    /// One too many.
    TooMany,
}

/// One client.
pub struct Session {
    client: ClientId,
    /// The user it belongs to; another user's client of the same id begins anew.
    pub user: Option<String>,
    /// Protocol version of its latest connection.
    pub version: Version,
    /// `None` where it ends with its connection, or nothing is kept on disk.
    kept: Option<Kept>,
    /// Messages were lost to its full queue, and that was said.
    pub overflowing: bool,
    /// How many, until its client is told.
    pub lost: u64,
    /// Its connection, if it has one.
    pub attached: Option<Attached>,
    /// Its subscriptions by filter as written.
    pub subscriptions: HashMap<String, Subscription>,
    /// Levels of all its filters.
    pub subscribed_levels: usize,
    /// How long it outlives its connection; `None` for ever.
    pub expiry: Option<Duration>,
    /// When it ends, while it has no connection.
    pub expires: Option<Instant>,
    /// Since when it has no connection.
    pub away_since: Option<Instant>,
    /// To be published when the connection is lost.
    pub will: Option<Will>,
    /// A will that waits for its delay.
    pub will_due: Option<(Instant, Publish)>,
    queue: VecDeque<Delivery>,
    /// Bytes of everything that waits or is on its way.
    held_bytes: usize,
    all_held_bytes: Arc<AtomicUsize>,
    inflight: BTreeMap<u16, Inflight>,
    /// Packet ids in the order they were sent.
    order: VecDeque<u16>,
    /// Those of an earlier connection that are still to be sent again on this one.
    resend: VecDeque<u16>,
    /// Messages that take a place in the client's window.
    outstanding: usize,
    next_pkid: u16,
    receive_maximum: u16,
    /// QoS 2 messages of theirs that wait for PUBREL, and whether they are settled.
    incoming: HashMap<u16, bool>,
}

/// What goes out next.
#[derive(Debug, Default)]
pub struct Batch {
    /// The packets.
    pub packets: Vec<Outgoing>,
    /// Messages left out because they expired or are larger than the client takes.
    pub dropped: u64,
    /// Packet ids in it must be on disk before the client sees them.
    pub must_be_stored: bool,
}

/// What became of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Queued {
    /// It waits for the client.
    Waiting,
    /// It waits, and the queue of a connected client is more than half full.
    Crowded,
    /// The client is away and the message is not to be kept (QoS 0).
    Away,
    /// The queue is full.
    Full,
}

impl Session {
    /// A session without history. `all_held_bytes` is shared by all sessions.
    pub fn new(client: ClientId, version: Version, all_held_bytes: Arc<AtomicUsize>) -> Self {
        Self {
            client,
            user: None,
            version,
            kept: None,
            overflowing: false,
            lost: 0,
            attached: None,
            subscriptions: HashMap::new(),
            subscribed_levels: 0,
            expiry: None,
            expires: None,
            away_since: None,
            will: None,
            will_due: None,
            queue: VecDeque::new(),
            held_bytes: 0,
            all_held_bytes,
            inflight: BTreeMap::new(),
            order: VecDeque::new(),
            resend: VecDeque::new(),
            outstanding: 0,
            next_pkid: 1,
            receive_maximum: INFLIGHT,
            incoming: HashMap::new(),
        }
    }

    /// Takes a new connection: what was sent and not acknowledged will go out again first, in order.
    pub fn attach(&mut self, version: Version, receive_maximum: u16, attached: Attached) {
        self.version = version;
        self.receive_maximum = receive_maximum.min(INFLIGHT);
        // A connection that is taken over was never detached.
        self.drop_fleeting();
        self.attached = Some(attached);
        self.expires = None;
        self.away_since = None;
        self.overflowing = false;
        self.outstanding = 0;
        self.inflight.values_mut().for_each(|i| i.counted = false);
        self.resend = self.order.clone();
    }

    /// The connection is gone. What waited at QoS 0 was for this connection only.
    pub fn detach(&mut self, now: Instant) {
        self.attached = None;
        self.away_since = Some(now);
        self.drop_fleeting();
    }

    fn drop_fleeting(&mut self) {
        let (gone, kept): (VecDeque<_>, _) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition(|delivery| delivery.qos == QoS::AtMostOnce);
        self.queue = kept;
        self.release_bytes(gone.iter().map(Delivery::bytes).sum());
    }

    /// Queues a message.
    pub fn push(&mut self, delivery: Delivery, journal: &mut Journal) -> Queued {
        self.enqueue(delivery, QUEUE_MESSAGES, QUEUE_BYTES, journal)
    }

    /// Queues a retained message. What is retained is bounded itself, and its payloads are there anyway: all of it
    /// fits behind a full queue, so that one subscription to everything is never too much.
    pub fn push_retained(&mut self, delivery: Delivery, journal: &mut Journal) -> Queued {
        self.enqueue(
            delivery,
            QUEUE_MESSAGES + super::retained::MESSAGES,
            QUEUE_BYTES + super::retained::BYTES,
            journal,
        )
    }

    fn enqueue(
        &mut self,
        mut delivery: Delivery,
        most: usize,
        most_bytes: usize,
        journal: &mut Journal,
    ) -> Queued {
        match &self.attached {
            None if delivery.qos == QoS::AtMostOnce => return Queued::Away,
            None => {}
            Some(attached) => attached.wake.notify_one(),
        }
        let bytes = self.held_bytes + delivery.bytes();
        let all = self.all_held_bytes.load(Ordering::Relaxed) + delivery.bytes();
        if self.queue.len() >= most
            || bytes > most_bytes
            || (all > ALL_QUEUES_BYTES && bytes > OWN_SHARE_BYTES)
        {
            return Queued::Full;
        }
        self.note(&mut delivery, journal);
        self.hold(delivery.bytes());
        self.queue.push_back(delivery);
        if self.attached.is_some() && (self.queue.len() > most / 2 || bytes > most_bytes / 2) {
            Queued::Crowded
        } else {
            Queued::Waiting
        }
    }

    fn hold(&mut self, bytes: usize) {
        self.held_bytes += bytes;
        self.all_held_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn release_bytes(&mut self, bytes: usize) {
        self.held_bytes -= bytes;
        self.all_held_bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// The next messages to send, about `max_bytes` of them, as far as the client's window allows.
    pub fn next_outgoing(&mut self, max_bytes: usize, now: Instant, journal: &mut Journal) -> Batch {
        let mut batch = Batch::default();
        let mut bytes = 0;
        while bytes < max_bytes
            && let Some(pkid) = self.resend.front().copied()
        {
            let Some(inflight) = self.inflight.get(&pkid) else {
                // Answered before it was sent again.
                self.resend.pop_front();
                continue;
            };
            match &inflight.step {
                Step::Released => batch.packets.push(Outgoing::PubRel(pkid, true)),
                Step::Sent(_) if self.window_is_full() => return batch,
                Step::Sent(delivery) if self.may_not_have(delivery) => self.finish(pkid, journal),
                Step::Sent(delivery) => {
                    let message = delivery.publish(pkid, true, now);
                    bytes += delivery.bytes();
                    if self.takes(&message) {
                        // Taken for a connection that ended before the disk had its packet id, it may still not be there.
                        batch.must_be_stored |= self.is_noted(delivery);
                        batch.packets.push(Outgoing::Publish(message));
                        self.count(pkid);
                    } else {
                        batch.dropped += 1;
                        self.finish(pkid, journal);
                    }
                }
            }
            self.resend.pop_front();
        }
        while bytes < max_bytes && self.resend.is_empty() {
            let Some(front) = self.queue.front() else { break };
            if front.qos != QoS::AtMostOnce && self.window_is_full() {
                break;
            }
            let delivery = self.queue.pop_front().expect("the front was just seen");
            let weight = delivery.bytes();
            let pkid = if delivery.qos == QoS::AtMostOnce {
                0
            } else {
                self.free_pkid()
            };
            let message = delivery.publish(pkid, false, now);
            let expired = delivery.expires.is_some_and(|expires| expires <= now);
            if self.may_not_have(&delivery) || expired || !self.takes(&message) {
                self.release_bytes(weight);
                batch.dropped += u64::from(!self.may_not_have(&delivery));
                self.forget_message(delivery.stored, journal);
                continue;
            }
            bytes += weight;
            batch.packets.push(Outgoing::Publish(message));
            if pkid == 0 {
                self.release_bytes(weight);
            } else {
                self.next_pkid = pkid.checked_add(1).unwrap_or(1);
                batch.must_be_stored |= self.note_sent(&delivery, pkid, journal);
                let inflight = Inflight {
                    stored: delivery.stored,
                    step: Step::Sent(delivery),
                    counted: false,
                };
                self.inflight.insert(pkid, inflight);
                self.order.push_back(pkid);
                self.count(pkid);
            }
        }
        if bytes >= max_bytes
            && let Some(attached) = &self.attached
        {
            attached.wake.notify_one();
        }
        batch
    }

    fn may_not_have(&self, delivery: &Delivery) -> bool {
        let attached = self.attached.as_ref();
        attached.is_some_and(|attached| attached.may_not_have(&delivery.topic))
    }

    /// The receive maximum is a matter of one connection; packet ids in use are one of the session.
    fn window_is_full(&self) -> bool {
        self.outstanding >= usize::from(self.receive_maximum)
    }

    fn count(&mut self, pkid: u16) {
        if let Some(inflight) = self.inflight.get_mut(&pkid) {
            self.outstanding += usize::from(!inflight.counted);
            inflight.counted = true;
        }
    }

    fn takes(&self, message: &Publish) -> bool {
        match self.attached.as_ref().and_then(|a| a.max_packet_size) {
            Some(most) => wire::publish_len(self.version, message) <= most as usize,
            None => true,
        }
    }

    fn free_pkid(&self) -> u16 {
        // At most INFLIGHT ids are in use, so a free one is near.
        let mut pkid = self.next_pkid;
        while self.inflight.contains_key(&pkid) {
            pkid = pkid.checked_add(1).unwrap_or(1);
        }
        pkid
    }

    fn finish(&mut self, pkid: u16, journal: &mut Journal) {
        if let Some(inflight) = self.inflight.remove(&pkid) {
            self.forget_sent(pkid, &inflight, journal);
            if let Step::Sent(delivery) = &inflight.step {
                self.release_bytes(delivery.bytes());
            }
            self.outstanding -= usize::from(inflight.counted);
            self.order.retain(|p| *p != pkid);
            if let Some(attached) = &self.attached {
                attached.wake.notify_one();
            }
        }
    }

    /// PUBACK: the client has a QoS 1 message.
    pub fn acknowledged(&mut self, pkid: u16, journal: &mut Journal) -> Answered {
        match self.inflight.get(&pkid).map(|i| &i.step) {
            None => Answered::Nothing,
            Some(Step::Sent(delivery)) if delivery.qos == QoS::AtLeastOnce => {
                self.finish(pkid, journal);
                Answered::Message
            }
            Some(_) => Answered::Wrong,
        }
    }

    /// PUBREC: the client has a QoS 2 message, and from now on only PUBREL is sent again; or it refuses it, which
    /// is the end of it.
    pub fn received(&mut self, pkid: u16, taken: bool, journal: &mut Journal) -> Answered {
        match self.inflight.get_mut(&pkid) {
            None => Answered::Nothing,
            Some(Inflight {
                step: Step::Sent(delivery),
                ..
            }) if delivery.qos != QoS::ExactlyOnce => Answered::Wrong,
            Some(inflight) => {
                if !taken {
                    self.finish(pkid, journal);
                } else if let Step::Sent(delivery) = std::mem::replace(&mut inflight.step, Step::Released) {
                    self.release_bytes(delivery.bytes());
                    self.note_released(pkid, delivery.stored, journal);
                }
                Answered::Message
            }
        }
    }

    /// PUBCOMP: a QoS 2 message is done.
    pub fn completed(&mut self, pkid: u16, journal: &mut Journal) -> Answered {
        match self.inflight.get(&pkid).map(|i| &i.step) {
            None => Answered::Nothing,
            Some(Step::Released) => {
                self.finish(pkid, journal);
                Answered::Message
            }
            Some(Step::Sent(_)) => Answered::Wrong,
        }
    }

    /// Notes a QoS 2 message of theirs. What is noted here is written by [`Session::incoming_routed`].
    pub fn incoming_begin(&mut self, pkid: u16) -> Begun {
        match self.incoming.get(&pkid) {
            Some(true) => Begun::Settled,
            Some(false) => Begun::Unsettled,
            None if self.incoming.len() >= INCOMING => Begun::TooMany,
            None => {
                self.incoming.insert(pkid, false);
                Begun::New
            }
        }
    }

    /// Their QoS 2 message is where it belongs; a resend of it needs no more than an answer.
    pub fn incoming_settled(&mut self, pkid: u16) {
        if let Some(settled) = self.incoming.get_mut(&pkid) {
            *settled = true;
        }
    }

    /// PUBREL of theirs. False when the id is not known.
    pub fn incoming_end(&mut self, pkid: u16, journal: &mut Journal) -> bool {
        let known = self.incoming.remove(&pkid).is_some();
        if known {
            self.forget_incoming(pkid, journal);
        }
        known
    }

    /// Messages that wait or are on their way.
    pub fn backlog(&self) -> usize {
        self.queue.len() + self.inflight.len()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.release_bytes(self.held_bytes);
    }
}
