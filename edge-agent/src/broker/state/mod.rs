//! All sessions, subscriptions and retained messages, and the routing between them.
//!
//! One lock guards it; every operation is short and none waits. Connections call in, and are woken when something
//! waits for them. Nothing here touches a socket or the disk.

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    retained::{Message, Retained},
    session::{Attached, Delivery, Kick, Queued, Session},
    subscriptions::{ClientId, Subscription, Subscriptions, levels, parse_filter},
    wire::{
        Connect, DisconnectReason, Filter, Goodbye, Outgoing, Publish, PublishProperties, QoS,
        RetainHandling, SubscribeVerdict, UnsubAckReason,
    },
};
use crate::topic_filter::TopicFilter;

/// Sessions, connected or not. When there are as many, the one that has been away longest makes room.
const SESSIONS: usize = 2_000;
/// Subscriptions of one client.
const SUBSCRIPTIONS: usize = 10_000;
/// Levels of all filters of one client: ten thousand filters of four levels.
const SUBSCRIBED_LEVELS: usize = 40_000;
/// A version 3.1.1 session that asked to be kept is forgotten after a week without its client:
/// that version has no word for "how long".
const V311_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
/// How late a message of the agent's own may reach a client that is slow to read.
const NOW: Duration = Duration::from_secs(5);
/// "For ever" in version 5.
const NEVER_EXPIRES: u32 = u32::MAX;

/// Counted since start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Messages handed to a session.
    pub routed: u64,
    /// Messages for sessions whose queue was full.
    pub queue_full: u64,
    /// Messages that expired or were larger than their receiver takes.
    pub undeliverable: u64,
    /// Retained messages refused because there are too many.
    pub retained_refused: u64,
    /// Sessions forgotten to make room for others.
    pub sessions_evicted: u64,
}

/// See the module.
#[derive(Default)]
pub struct State {
    sessions: HashMap<ClientId, Session>,
    subscriptions: Subscriptions,
    retained: Retained,
    /// Bytes that wait in all sessions.
    held_bytes: Arc<AtomicUsize>,
    next_generation: u64,
    /// Counted since start.
    pub counts: Counts,
}

/// What became of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Routed {
    /// Sessions that get it.
    pub sessions: usize,
    /// One of them is connected and falls behind.
    pub crowded: bool,
}

/// A connection that was let in.
pub struct Connected {
    /// Tells it apart from others of the same client id.
    pub generation: u64,
    /// The client finds its earlier session.
    pub session_present: bool,
    /// Notified when something waits.
    pub wake: Arc<Notify>,
    /// Fires when the connection is to end.
    pub kick: Kick,
    /// A delayed will of the earlier session that is due because the session ends.
    pub will: Option<Publish>,
}

impl State {
    /// Lets a client in; `None` when there are too many sessions. An older connection with the same id is ended.
    pub fn connect(&mut self, client: &ClientId, connect: Connect) -> Option<Connected> {
        if !self.sessions.contains_key(client) && self.sessions.len() >= SESSIONS && !self.evict() {
            return None;
        }
        let mut will = None;
        if let Some(old) = self.sessions.get_mut(client) {
            let attached = old.attached.take();
            // A session that was to end with its connection ends by a take-over, too.
            let ends = connect.clean_start || (attached.is_some() && old.expiry == Some(Duration::ZERO));
            if let Some(attached) = attached {
                attached.kick.kick(DisconnectReason::SessionTakenOver);
                // A take-over loses the old connection; its will is due unless it may wait for the session to go on.
                if let Some(lost) = old.will.take()
                    && (ends || lost.delay_seconds == 0)
                {
                    will = Some(lost.publish);
                }
            }
            // A client that comes back in time takes its delayed will with it, unless its session ends here.
            if let Some((_, publish)) = old.will_due.take()
                && ends
            {
                will = Some(publish);
            }
            if ends {
                self.drop_session(client);
            }
        }
        let session_present = self.sessions.contains_key(client);
        self.next_generation += 1;
        let generation = self.next_generation;
        let (wake, kick) = (Arc::new(Notify::new()), Kick::default());
        let held_bytes = &self.held_bytes;
        let session = self
            .sessions
            .entry(client.clone())
            .or_insert_with(|| Session::new(connect.version, held_bytes.clone()));
        session.expiry = match (connect.session_expiry, connect.clean_start) {
            (None, true) => Some(Duration::ZERO),
            (None, false) => Some(V311_EXPIRY),
            (Some(NEVER_EXPIRES), _) => None,
            (Some(seconds), _) => Some(Duration::from_secs(u64::from(seconds))),
        };
        session.will = connect.will;
        let attached = Attached {
            generation,
            wake: wake.clone(),
            kick: kick.clone(),
            max_packet_size: connect.max_packet_size,
        };
        session.attach(connect.version, connect.receive_maximum, attached);
        wake.notify_one();
        Some(Connected {
            generation,
            session_present,
            wake,
            kick,
            will,
        })
    }

    /// Forgets the session that has been away longest. False when all are connected.
    fn evict(&mut self) -> bool {
        let away = |(client, session): (&ClientId, &Session)| {
            session.away_since.map(|since| (since, client.clone()))
        };
        let Some((_, client)) = self.sessions.iter().filter_map(away).min() else {
            return false;
        };
        if self.counts.sessions_evicted == 0 {
            tracing::warn!(%client, "too many sessions; those longest away make room, further ones are only counted");
        }
        self.counts.sessions_evicted += 1;
        self.drop_session(&client);
        true
    }

    /// A connection ended. `goodbye` is the client's DISCONNECT, if it sent one. Answers a will that is due now.
    pub fn disconnect(
        &mut self,
        client: &ClientId,
        generation: u64,
        goodbye: Option<&Goodbye>,
        now: Instant,
    ) -> Option<Publish> {
        let session = self.sessions.get_mut(client)?;
        if session
            .attached
            .as_ref()
            .is_none_or(|a| a.generation != generation)
        {
            return None;
        }
        session.detach(now);
        if let Some(seconds) = goodbye.and_then(|g| g.session_expiry) {
            session.expiry = (seconds != NEVER_EXPIRES).then(|| Duration::from_secs(u64::from(seconds)));
        }
        let will = session
            .will
            .take()
            .filter(|_| goodbye.is_none_or(|g| g.with_will));
        let mut due = None;
        if let Some(will) = will {
            let delay = Duration::from_secs(u64::from(will.delay_seconds))
                .min(session.expiry.unwrap_or(Duration::MAX));
            if delay.is_zero() {
                due = Some(will.publish);
            } else {
                session.will_due = Some((now + delay, will.publish));
            }
        }
        match session.expiry {
            Some(Duration::ZERO) => self.drop_session(client),
            Some(expiry) => session.expires = Some(now + expiry),
            None => session.expires = None,
        }
        due
    }

    fn drop_session(&mut self, client: &ClientId) {
        if let Some(session) = self.sessions.remove(client) {
            for filter in session.subscriptions.keys() {
                if let Some(parsed) = parse_filter(filter) {
                    self.subscriptions.remove(parsed, client);
                }
            }
        }
    }

    /// Ends what has expired. Answers the wills that are due. Call about once a second.
    pub fn housekeeping(&mut self, now: Instant) -> Vec<(ClientId, Publish)> {
        let mut wills = Vec::new();
        let mut gone = Vec::new();
        for (client, session) in &mut self.sessions {
            let ended = session.expires.is_some_and(|expires| expires <= now);
            if session
                .will_due
                .as_ref()
                .is_some_and(|(due, _)| ended || *due <= now)
                && let Some((_, will)) = session.will_due.take()
            {
                wills.push((client.clone(), will));
            }
            if ended {
                gone.push(client.clone());
            }
        }
        gone.iter().for_each(|client| self.drop_session(client));
        self.retained.expire(now);
        wills
    }

    /// Retains and routes a message.
    pub fn publish(&mut self, publisher: Option<&str>, publish: &Publish, now: Instant) -> Routed {
        let expires = publish
            .properties
            .as_ref()
            .and_then(|p| p.message_expiry_interval)
            .map(|seconds| now + Duration::from_secs(u64::from(seconds)));
        let properties = publish.properties.as_ref().map(|p| Arc::new(forwarded(p)));
        if publish.retain {
            self.retain(publisher, publish, expires);
        }
        let sessions = &self.sessions;
        let online = |client: &ClientId| sessions.get(client).is_some_and(|s| s.attached.is_some());
        let receivers = self.subscriptions.receivers(&publish.topic, publisher, &online);
        let mut routed = Routed::default();
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
            };
            match session.push(delivery) {
                Queued::Waiting => routed.sessions += 1,
                Queued::Crowded => {
                    routed.sessions += 1;
                    routed.crowded = true;
                }
                Queued::Away => {}
                Queued::Full => {
                    self.counts.queue_full += 1;
                    overflow(&client, session);
                }
            }
        }
        self.counts.routed += routed.sessions as u64;
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
            };
            match session.push(delivery) {
                Queued::Waiting | Queued::Crowded => reached += 1,
                Queued::Away => {}
                Queued::Full => {
                    self.counts.queue_full += 1;
                    overflow(&client, session);
                }
            }
        }
        self.counts.routed += reached as u64;
        reached
    }

    fn retain(&mut self, publisher: Option<&str>, publish: &Publish, expires: Option<Instant>) {
        let message = Message {
            publish: Publish {
                dup: false,
                pkid: 0,
                ..publish.clone()
            },
            publisher: publisher.map(ClientId::from),
            expires,
        };
        if !self.retained.set(message) {
            if self.counts.retained_refused == 0 {
                tracing::warn!("there is no room for a retained message; further ones are only counted");
            }
            self.counts.retained_refused += 1;
        }
    }

    /// Adds a subscription. Retained messages are queued behind the SUBACK. `id` is the subscription identifier.
    pub fn subscribe(
        &mut self,
        client: &ClientId,
        generation: u64,
        id: Option<usize>,
        filter: Filter,
        now: Instant,
    ) -> SubscribeVerdict {
        let Some(parsed) = parse_filter(&filter.path) else {
            return SubscribeVerdict::InvalidFilter;
        };
        let Some(session) = attached_as(&mut self.sessions, client, generation) else {
            return SubscribeVerdict::QuotaExceeded;
        };
        let known = session.subscriptions.contains_key(&filter.path);
        let depth = levels(parsed.filter);
        if !known
            && (session.subscriptions.len() >= SUBSCRIPTIONS
                || session.subscribed_levels + depth > SUBSCRIBED_LEVELS)
        {
            return SubscribeVerdict::QuotaExceeded;
        }
        let subscription = Subscription {
            qos: filter.qos,
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            id,
        };
        let Some(new) = self.subscriptions.insert(parsed, client, subscription) else {
            return SubscribeVerdict::QuotaExceeded;
        };
        if !known {
            session.subscribed_levels += depth;
        }
        let wants_retained = parsed.group.is_none()
            && match filter.retain_handling {
                RetainHandling::Always => true,
                RetainHandling::WhenNew => new,
                RetainHandling::Never => false,
            };
        if wants_retained && let Ok(matcher) = TopicFilter::parse(parsed.filter) {
            for retained in self.retained.matching(&matcher) {
                let own = filter.no_local && retained.publisher.as_ref() == Some(client);
                if own || retained.expires.is_some_and(|expires| expires <= now) {
                    continue;
                }
                let publish = &retained.publish;
                let queued = session.push_retained(Delivery {
                    topic: publish.topic.clone(),
                    payload: publish.payload.clone(),
                    qos: lower(publish.qos, filter.qos),
                    retain: true,
                    properties: publish.properties.as_ref().map(|p| Arc::new(forwarded(p))),
                    ids: id.into_iter().collect(),
                    expires: retained.expires,
                });
                if queued == Queued::Full {
                    self.counts.queue_full += 1;
                    overflow(client, session);
                    break;
                }
            }
        }
        session.subscriptions.insert(filter.path, subscription);
        SubscribeVerdict::Granted(filter.qos)
    }

    /// Removes a subscription.
    pub fn unsubscribe(&mut self, client: &ClientId, generation: u64, filter: &str) -> UnsubAckReason {
        let Some(parsed) = parse_filter(filter) else {
            return UnsubAckReason::TopicFilterInvalid;
        };
        let Some(session) = attached_as(&mut self.sessions, client, generation) else {
            return UnsubAckReason::NoSubscriptionExisted;
        };
        if session.subscriptions.remove(filter).is_none() {
            return UnsubAckReason::NoSubscriptionExisted;
        }
        session.subscribed_levels -= levels(parsed.filter);
        self.subscriptions.remove(parsed, client);
        UnsubAckReason::Success
    }

    /// Messages to send now on a connection; nothing when it is not the client's latest.
    pub fn next_outgoing(
        &mut self,
        client: &ClientId,
        generation: u64,
        max_bytes: usize,
        now: Instant,
    ) -> Vec<Outgoing> {
        let Some(session) = self.latest(client, generation) else {
            return Vec::new();
        };
        let (out, dropped) = session.next_outgoing(max_bytes, now);
        self.counts.undeliverable += dropped;
        out
    }

    /// The session, if `generation` is its latest connection.
    pub fn latest(&mut self, client: &ClientId, generation: u64) -> Option<&mut Session> {
        attached_as(&mut self.sessions, client, generation)
    }

    /// Sessions, connected sessions, messages waiting for them, retained messages.
    pub fn sizes(&self) -> (usize, usize, usize, usize) {
        let connected = self.sessions.values().filter(|s| s.attached.is_some()).count();
        let backlog = self.sessions.values().map(Session::backlog).sum();
        (self.sessions.len(), connected, backlog, self.retained.len())
    }
}

fn attached_as<'a>(
    sessions: &'a mut HashMap<ClientId, Session>,
    client: &ClientId,
    generation: u64,
) -> Option<&'a mut Session> {
    sessions
        .get_mut(client)
        .filter(|s| s.attached.as_ref().is_some_and(|a| a.generation == generation))
}

/// A slow subscriber is cut off rather than skipped: it sees the loss, and a persistent session goes on with what
/// its queue holds. An absent one is only counted.
fn overflow(client: &ClientId, session: &Session) {
    if let Some(attached) = &session.attached
        && attached.kick.kick(DisconnectReason::QuotaExceeded)
    {
        tracing::warn!(client = %client, "a subscriber reads too slowly and is disconnected");
    }
}

fn lower(a: QoS, b: QoS) -> QoS {
    if a < b { a } else { b }
}

/// Properties a receiver gets: the publisher's, without what belongs to the publisher's connection.
fn forwarded(properties: &PublishProperties) -> PublishProperties {
    PublishProperties {
        topic_alias: None,
        subscription_identifiers: Vec::new(),
        ..properties.clone()
    }
}
