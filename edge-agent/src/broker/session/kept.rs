//! The part of a session that outlives the agent: what of it is noted in the journal, and how it is found again.
//!
//! Only a session that outlives its connection has one. A message is noted when it is queued and forgotten when its
//! client has it; the packet id of a QoS 2 message is on disk before the client sees it, and that it is released
//! before PUBREL says so: otherwise a restart would deliver it twice.

use std::time::Duration;

use super::{
    super::{
        delivery::Delivery,
        store::{
            Journal, RestoredSession,
            form::{self, Number, SessionRecord},
        },
        subscriptions::Subscription,
        wire::{QoS, Will},
    },
    Inflight, Session, Step,
};

/// What a session is known by on disk.
#[derive(Debug)]
pub(super) struct Kept {
    number: Number,
    /// The place of the next message.
    next_place: u64,
    /// Its will is noted.
    will: bool,
}

impl Session {
    /// True when it outlives the agent.
    pub fn is_kept(&self) -> bool {
        self.kept.is_some()
    }

    /// From now on it outlives the agent, if its client asked for that.
    pub fn keep(&mut self, journal: &mut Journal) {
        if self.kept.is_none() && self.expiry != Some(Duration::ZERO) && journal.is_kept() {
            self.kept = Some(Kept {
                number: Number(rand::random()),
                next_place: 0,
                will: false,
            });
        }
        self.note_itself(journal);
    }

    /// Notes whose it is and how long it stays.
    pub fn note_itself(&mut self, journal: &mut Journal) {
        let Some(kept) = &self.kept else { return };
        let now = journal.now();
        let record = SessionRecord {
            number: kept.number,
            client: self.client.to_string(),
            user: self.user.clone(),
            version: self.version,
            expiry: self.expiry,
            away_since_ms: self.attached.is_none().then(|| now.kept_now()),
        };
        journal.put(form::session_key(&self.client), record.write());
    }

    /// Notes its will as it is now: of a client that is connected, waiting for its time, or gone.
    pub fn note_will(&mut self, journal: &mut Journal) {
        let Some(kept) = &mut self.kept else { return };
        let key = form::will_key(kept.number);
        let waiting = self.will_due.as_ref().map(|(due, publish)| {
            let will = Will {
                publish: publish.clone(),
                delay_seconds: 0,
            };
            form::write_will(&will, Some(*due), journal.now())
        });
        let connected = || Some(form::write_will(self.will.as_ref()?, None, journal.now()));
        let value = waiting.or_else(connected);
        let was = std::mem::replace(&mut kept.will, value.is_some());
        match value {
            Some(value) => journal.put(key, value),
            None if was => journal.remove(key),
            None => {}
        }
    }

    /// Nothing of it stays.
    pub fn forget(&mut self, journal: &mut Journal) {
        let Some(kept) = self.kept.take() else { return };
        let number = kept.number;
        if kept.will {
            journal.remove(form::will_key(number));
        }
        journal.remove(form::session_key(&self.client));
        for filter in self.subscriptions.keys() {
            journal.remove(form::filter_key(number, filter));
        }
        let queued = self.queue.iter().filter_map(|delivery| delivery.stored);
        for place in queued.chain(self.inflight.values().filter_map(|i| i.stored)) {
            journal.remove(form::message_key(number, place));
        }
        for (pkid, inflight) in &self.inflight {
            if inflight.stored.is_some() {
                journal.remove(form::outgoing_key(number, *pkid));
            }
        }
        for pkid in self.incoming.keys() {
            journal.remove(form::incoming_key(number, *pkid));
        }
    }

    /// Notes a subscription that is new or has changed.
    pub fn note_subscription(&self, filter: &str, subscription: &Subscription, journal: &mut Journal) {
        if let Some(kept) = &self.kept {
            let value = form::write_filter(filter, subscription);
            journal.put(form::filter_key(kept.number, filter), value);
        }
    }

    /// A subscription is gone.
    pub fn forget_subscription(&self, filter: &str, journal: &mut Journal) {
        if let Some(kept) = &self.kept {
            journal.remove(form::filter_key(kept.number, filter));
        }
    }

    /// Notes a message that is being queued.
    pub(super) fn note(&mut self, delivery: &mut Delivery, journal: &mut Journal) {
        if delivery.qos == QoS::AtMostOnce {
            return;
        }
        let Some(kept) = &mut self.kept else { return };
        let place = kept.next_place;
        kept.next_place += 1;
        delivery.stored = Some(place);
        let value = form::write_delivery(delivery, journal.now());
        journal.put_new(form::message_key(kept.number, place), value);
    }

    /// A queued message goes.
    pub(super) fn forget_message(&self, stored: Option<u64>, journal: &mut Journal) {
        if let (Some(kept), Some(place)) = (&self.kept, stored) {
            journal.remove(form::message_key(kept.number, place));
        }
    }

    /// Notes the packet id of a message that is about to be sent. True when it must be on disk before.
    pub(super) fn note_sent(&self, delivery: &Delivery, pkid: u16, journal: &mut Journal) -> bool {
        match (&self.kept, delivery.stored) {
            (Some(kept), Some(place)) if self.is_noted(delivery) => {
                let value = form::write_outgoing(place, false);
                journal.put_new(form::outgoing_key(kept.number, pkid), value);
                true
            }
            _ => false,
        }
    }

    /// Whether the packet id of a message is kept with it.
    pub(super) fn is_noted(&self, delivery: &Delivery) -> bool {
        self.kept.is_some() && delivery.stored.is_some() && delivery.qos == QoS::ExactlyOnce
    }

    /// The client has a QoS 2 message; only its packet id is still open.
    pub(super) fn note_released(&self, pkid: u16, stored: Option<u64>, journal: &mut Journal) {
        if let (Some(kept), Some(place)) = (&self.kept, stored) {
            journal.remove(form::message_key(kept.number, place));
            let value = form::write_outgoing(place, true);
            journal.put(form::outgoing_key(kept.number, pkid), value);
        }
    }

    /// A message that was sent is done.
    pub(super) fn forget_sent(&self, pkid: u16, inflight: &Inflight, journal: &mut Journal) {
        let (Some(kept), Some(place)) = (&self.kept, inflight.stored) else {
            return;
        };
        let (message, id) = match &inflight.step {
            Step::Sent(delivery) => (true, delivery.qos == QoS::ExactlyOnce),
            Step::Released => (false, true),
        };
        if message {
            journal.remove(form::message_key(kept.number, place));
        }
        if id {
            journal.remove(form::outgoing_key(kept.number, pkid));
        }
    }

    /// Their QoS 2 message was passed on to everybody it is for: a resend after a restart must not be. Noted in the
    /// same moment as what it was passed on as, so that the disk never has the one without the other.
    pub fn incoming_routed(&self, pkid: u16, journal: &mut Journal) {
        if let Some(kept) = &self.kept
            && self.incoming.contains_key(&pkid)
        {
            journal.put_new(form::incoming_key(kept.number, pkid), form::write_incoming());
        }
    }

    pub(super) fn forget_incoming(&self, pkid: u16, journal: &mut Journal) {
        if let Some(kept) = &self.kept {
            journal.remove(form::incoming_key(kept.number, pkid));
        }
    }

    /// Takes up what was kept. Its subscriptions are the caller's to enter where they are looked up.
    pub fn resume(&mut self, restored: &mut RestoredSession) {
        let last_place = restored.messages.keys().next_back().copied();
        let last_sent = restored.outgoing.iter().map(|(_, place, _)| *place).max();
        self.kept = Some(Kept {
            number: restored.record.number,
            next_place: last_place.max(last_sent).map_or(0, |last| last + 1),
            will: restored.will.is_some(),
        });
        self.user.clone_from(&restored.record.user);
        self.expiry = restored.record.expiry;
        let mut outgoing = std::mem::take(&mut restored.outgoing);
        outgoing.sort_unstable_by_key(|(_, place, _)| *place);
        for (pkid, place, released) in outgoing {
            let step = match restored.messages.remove(&place) {
                Some(delivery) if !released => {
                    self.hold(delivery.bytes());
                    Step::Sent(delivery)
                }
                _ => Step::Released,
            };
            let inflight = Inflight {
                step,
                stored: Some(place),
                counted: false,
            };
            self.inflight.insert(pkid, inflight);
            self.order.push_back(pkid);
        }
        let was_connected = restored.record.away_since_ms.is_none();
        for mut delivery in std::mem::take(&mut restored.messages).into_values() {
            delivery.sent_before = was_connected;
            self.hold(delivery.bytes());
            self.queue.push_back(delivery);
        }
        // Nothing says that they were captured, so a resend goes to the disk again, where it is recognised.
        self.incoming = restored.incoming.iter().map(|pkid| (*pkid, false)).collect();
    }
}
