//! From a publish to its receivers: what is retained, and who gets it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{
        delivery::Delivery,
        retained::Message,
        session::Queued,
        store::form,
        subscriptions::ClientId,
        wire::{Publish, PublishProperties, QoS},
    },
    State, overflow,
};

/// How late a message of the agent's own may reach a client that is slow to read.
const NOW: Duration = Duration::from_secs(5);
/// What became of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Sessions that get it.
    pub sessions: usize,
    /// One of them is connected and falls behind.
    pub crowded: bool,
    /// Nothing may be acknowledged before the journal is written up to here.
    pub stored: Option<u64>,
}

impl State {
    /// Retains and routes a message.
    pub fn publish(&mut self, publisher: Option<&str>, publish: &Publish, now: Instant) -> Routed {
        let expires = publish
            .properties
            .as_ref()
            .and_then(|p| p.message_expiry_interval)
            .map(|seconds| now + Duration::from_secs(u64::from(seconds)));
        let properties = publish.properties.as_ref().map(|p| Arc::new(forwarded(p)));
        let mut routed = Routed::default();
        let mut noted = publish.retain && self.retain(publisher, publish, expires);
        let sessions = &self.sessions;
        let online = |client: &ClientId| sessions.get(client).is_some_and(|s| s.attached.is_some());
        let receivers = self.subscriptions.receivers(&publish.topic, publisher, &online);
        for (client, receiver) in receivers {
            let Some(session) = self.sessions.get_mut(&client) else {
                continue;
            };
            let delivery = Delivery {
                topic: publish.topic.clone(),
                payload: publish.payload.clone(),
                qos: lower(publish.qos, receiver.qos),
                retain: publish.retain && receiver.retain_as_published,
                properties: properties.clone(),
                ids: receiver.ids,
                expires,
                stored: None,
                sent_before: false,
            };
            let kept = session.is_kept() && delivery.qos != QoS::AtMostOnce;
            match session.push(delivery, &mut self.journal) {
                queued @ (Queued::Waiting | Queued::Crowded) => {
                    routed.sessions += 1;
                    routed.crowded |= queued == Queued::Crowded;
                    noted |= kept;
                }
                Queued::Away => {}
                Queued::Full => overflow(&client, session, &mut self.counts),
            }
        }
        self.counts.routed += routed.sessions as u64;
        // The value may be the one that is there and not be on disk yet: who sends it again waits for it as well.
        noted |= publish.retain && self.journal.is_pending(&form::retained_key(&publish.topic));
        if noted && publish.qos != QoS::AtMostOnce {
            routed.stored = Some(self.journal.promise());
        }
        routed
    }

    /// Hands a message of the agent's to the sessions that are connected now, at QoS 0 and for a few seconds, so that
    /// it is never delivered later. Answers how many there are.
    pub fn publish_now(&mut self, publish: &Publish, now: Instant) -> usize {
        let sessions = &self.sessions;
        let online = |client: &ClientId| sessions.get(client).is_some_and(|s| s.attached.is_some());
        let receivers = self.subscriptions.receivers(&publish.topic, None, &online);
        let mut reached = 0;
        for (client, receiver) in receivers {
            let Some(session) = self.sessions.get_mut(&client) else {
                continue;
            };
            let delivery = Delivery {
                topic: publish.topic.clone(),
                payload: publish.payload.clone(),
                qos: QoS::AtMostOnce,
                retain: false,
                properties: None,
                ids: receiver.ids,
                expires: Some(now + NOW),
                stored: None,
                sent_before: false,
            };
            match session.push(delivery, &mut self.journal) {
                Queued::Waiting | Queued::Crowded => reached += 1,
                Queued::Away => {}
                Queued::Full => overflow(&client, session, &mut self.counts),
            }
        }
        self.counts.routed += reached as u64;
        reached
    }

    /// Answers whether there is something new for the disk: a value that is the one that is there is not.
    fn retain(&mut self, publisher: Option<&str>, publish: &Publish, expires: Option<Instant>) -> bool {
        let key = form::retained_key(&publish.topic);
        let old = self.retained.get(&publish.topic);
        let known = old.is_some();
        if publish.payload.is_empty() {
            self.retained.remove(&publish.topic);
            if known {
                self.journal.remove(key);
            }
            return known;
        }
        let same = old.is_some_and(|old| expires.is_none() && old.says_the_same(publish));
        let message = Message {
            publish: Publish {
                dup: false,
                pkid: 0,
                ..publish.clone()
            },
            publisher: publisher.map(ClientId::from),
            expires,
        };
        let value =
            (!same && self.journal.is_kept()).then(|| form::write_retained(&message, self.journal.now()));
        if !self.retained.set(message) {
            if self.counts.retained_refused == 0 {
                tracing::warn!("there is no room for a retained message; further ones are only counted");
            }
            self.counts.retained_refused += 1;
            if known {
                self.journal.remove(key);
            }
            return known;
        }
        match value {
            Some(value) if known => self.journal.put(key, value),
            Some(value) => self.journal.put_new(key, value),
            None => {}
        }
        !same
    }
}

pub(super) fn lower(a: QoS, b: QoS) -> QoS {
    if a < b { a } else { b }
}

/// Properties a receiver gets: the publisher's, without what belongs to the publisher's connection.
pub(super) fn forwarded(properties: &PublishProperties) -> PublishProperties {
    PublishProperties {
        topic_alias: None,
        subscription_identifiers: Vec::new(),
        ..properties.clone()
    }
}
