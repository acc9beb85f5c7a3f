//! All sessions, subscriptions and retained messages, and the routing between them.
//!
//! One lock guards it; every operation is short and none waits. Connections call in, and are woken when something
//! waits for them. Nothing here touches a socket or the disk.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    session::{Attached, Delivery, Kick, Queued, SUBSCRIPTIONS, Session},
    subscriptions::{ClientId, Subscription, Subscriptions, parse_filter},
    wire::{
        Connect, DisconnectReason, Filter, Goodbye, Outgoing, Publish, PublishProperties, QoS,
        RetainHandling, Subscribe, SubscribeVerdict, UnsubAckReason,
    },
};

/// Topics that may hold a retained message.
const RETAINED_MESSAGES: usize = 10_000;
/// Sessions, connected or not.
const SESSIONS: usize = 2_000;
/// A version 3.1.1 session that asked to be kept is forgotten after a week without its client:
/// that version has no word for "how long".
const V311_EXPIRY: Duration = Duration::from_secs(7 * 24 * 3600);
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
}

/// See the module.
#[derive(Default)]
pub struct State {
    sessions: HashMap<ClientId, Session>,
    subscriptions: Subscriptions,
    retained: HashMap<Arc<str>, Retained>,
    next_generation: u64,
    /// Counted since start.
    pub counts: Counts,
}

struct Retained {
    publish: Publish,
    expires: Option<Instant>,
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
    /// What was sent before and not acknowledged.
    pub resend: Vec<Outgoing>,
    /// A delayed will of the earlier session that is due because the session ends.
    pub will: Option<Publish>,
}

impl State {
    /// Lets a client in; `None` when there are too many sessions. An older connection with the same id is ended.
    pub fn connect(&mut self, client: &ClientId, connect: Connect) -> Option<Connected> {
        if !self.sessions.contains_key(client) && self.sessions.len() >= SESSIONS {
            return None;
        }
        let mut will = None;
        if let Some(old) = self.sessions.get_mut(client) {
            if let Some(attached) = old.attached.take() {
                attached.kick.kick(DisconnectReason::SessionTakenOver);
                // A take-over loses the old connection; its will is due unless it may wait for the session to go on.
                if let Some(lost) = old.will.take()
                    && (connect.clean_start || lost.delay_seconds == 0)
                {
                    will = Some(lost.publish);
                }
            }
            // A client that comes back in time takes its delayed will with it, unless its session ends here.
            if let Some((_, publish)) = old.will_due.take()
                && connect.clean_start
            {
                will = Some(publish);
            }
            if connect.clean_start {
                self.drop_session(client);
            }
        }
        let session_present = self.sessions.contains_key(client);
        self.next_generation += 1;
        let generation = self.next_generation;
        let (wake, kick) = (Arc::new(Notify::new()), Kick::default());
        let session = self
            .sessions
            .entry(client.clone())
            .or_insert_with(|| Session::new(connect.version));
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
        let resend = session.attach(connect.version, connect.receive_maximum, attached);
        wake.notify_one();
        Some(Connected {
            generation,
            session_present,
            wake,
            kick,
            resend,
            will,
        })
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
        session.attached = None;
        if let Some(seconds) = goodbye.and_then(|g| g.session_expiry)
            // A session that was to end with its connection cannot be prolonged (MQTT 5, 3.14.2.2.2).
            && session.expiry != Some(Duration::ZERO)
        {
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
        self.retained
            .retain(|_, r| r.expires.is_none_or(|expires| expires > now));
        wills
    }

    /// Retains and routes a message. Answers how many sessions get it.
    pub fn publish(&mut self, publisher: Option<&str>, publish: &Publish, now: Instant) -> usize {
        let expires = publish
            .properties
            .as_ref()
            .and_then(|p| p.message_expiry_interval)
            .map(|seconds| now + Duration::from_secs(u64::from(seconds)));
        let properties = publish.properties.as_ref().map(|p| Arc::new(forwarded(p)));
        if publish.retain {
            self.retain(publish, expires);
        }
        let sessions = &self.sessions;
        let online = |client: &ClientId| sessions.get(client).is_some_and(|s| s.attached.is_some());
        let receivers = self.subscriptions.receivers(&publish.topic, publisher, &online);
        let mut reached = 0;
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
                Queued::Waiting => reached += 1,
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

    /// Hands a message of the agent's to the sessions that are connected now, at QoS 0, so that it is never
    /// delivered later. Answers how many there are.
    pub fn publish_now(&mut self, publish: &Publish) -> usize {
        let sessions = &self.sessions;
        let online = |client: &ClientId| sessions.get(client).is_some_and(|s| s.attached.is_some());
        let receivers = self.subscriptions.receivers(&publish.topic, None, &online);
        let mut reached = 0;
        for (client, receiver) in receivers {
            let Some(session) = self.sessions.get_mut(&client).filter(|s| s.attached.is_some()) else {
                continue;
            };
            let delivery = Delivery {
                topic: publish.topic.clone(),
                payload: publish.payload.clone(),
                qos: QoS::AtMostOnce,
                retain: false,
                properties: None,
                ids: receiver.ids,
                expires: None,
            };
            if session.push(delivery) == Queued::Waiting {
                reached += 1;
            }
        }
        self.counts.routed += reached as u64;
        reached
    }

    fn retain(&mut self, publish: &Publish, expires: Option<Instant>) {
        if publish.payload.is_empty() {
            self.retained.remove(&publish.topic);
        } else if self.retained.len() < RETAINED_MESSAGES || self.retained.contains_key(&publish.topic) {
            let publish = Publish {
                dup: false,
                pkid: 0,
                ..publish.clone()
            };
            self.retained
                .insert(publish.topic.clone(), Retained { publish, expires });
        } else {
            self.counts.retained_refused += 1;
        }
    }

    /// Adds subscriptions; `allowed` decides filter by filter. Retained messages are queued behind the SUBACK.
    pub fn subscribe(
        &mut self,
        client: &ClientId,
        subscribe: Subscribe,
        allowed: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Vec<SubscribeVerdict> {
        let id = subscribe.id;
        let mut verdicts = Vec::with_capacity(subscribe.filters.len());
        for filter in subscribe.filters {
            verdicts.push(self.subscribe_one(client, id, filter, &allowed, now));
        }
        verdicts
    }

    fn subscribe_one(
        &mut self,
        client: &ClientId,
        id: Option<usize>,
        filter: Filter,
        allowed: &impl Fn(&str) -> bool,
        now: Instant,
    ) -> SubscribeVerdict {
        let Some(parsed) = parse_filter(&filter.path) else {
            return SubscribeVerdict::InvalidFilter;
        };
        // MQTT 5, 3.8.3.1: no-local on a shared subscription is a protocol error; refusing the filter is enough.
        if parsed.group.is_some() && filter.no_local {
            return SubscribeVerdict::InvalidFilter;
        }
        if !allowed(parsed.filter) {
            return SubscribeVerdict::NotAuthorized;
        }
        let Some(session) = self.sessions.get_mut(client) else {
            return SubscribeVerdict::QuotaExceeded;
        };
        if session.subscriptions.len() >= SUBSCRIPTIONS && !session.subscriptions.contains_key(&filter.path) {
            return SubscribeVerdict::QuotaExceeded;
        }
        let subscription = Subscription {
            qos: filter.qos,
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            id,
        };
        let new = self.subscriptions.insert(parsed, client, subscription);
        let wants_retained = parsed.group.is_none()
            && match filter.retain_handling {
                RetainHandling::Always => true,
                RetainHandling::WhenNew => new,
                RetainHandling::Never => false,
            };
        if wants_retained && let Ok(matcher) = crate::topic_filter::TopicFilter::parse(parsed.filter) {
            for retained in self
                .retained
                .values()
                .filter(|r| matcher.matches(&r.publish.topic))
            {
                if retained.expires.is_some_and(|expires| expires <= now) {
                    continue;
                }
                let publish = &retained.publish;
                let queued = session.push(Delivery {
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

    /// Removes subscriptions.
    pub fn unsubscribe(&mut self, client: &ClientId, filters: &[String]) -> Vec<UnsubAckReason> {
        let Some(session) = self.sessions.get_mut(client) else {
            return Vec::new();
        };
        let mut reasons = Vec::with_capacity(filters.len());
        for filter in filters {
            let known = session.subscriptions.remove(filter).is_some();
            if let Some(parsed) = parse_filter(filter) {
                self.subscriptions.remove(parsed, client);
            }
            reasons.push(if known {
                UnsubAckReason::Success
            } else {
                UnsubAckReason::NoSubscriptionExisted
            });
        }
        reasons
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
        self.sessions
            .get_mut(client)
            .filter(|s| s.attached.as_ref().is_some_and(|a| a.generation == generation))
    }

    /// Sessions, connected sessions, messages waiting for them, retained messages.
    pub fn sizes(&self) -> (usize, usize, usize, usize) {
        let connected = self.sessions.values().filter(|s| s.attached.is_some()).count();
        let backlog = self.sessions.values().map(Session::backlog).sum();
        (self.sessions.len(), connected, backlog, self.retained.len())
    }
}

/// A slow subscriber is cut off rather than skipped: it sees the loss, and a persistent session goes on with what
/// its queue holds. An absent one is only counted.
fn overflow(client: &ClientId, session: &Session) {
    if let Some(attached) = &session.attached {
        tracing::warn!(client = %client, "a subscriber reads too slowly and is disconnected");
        attached.kick.kick(DisconnectReason::QuotaExceeded);
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

#[cfg(test)]
mod tests {
    use super::{super::wire::Version, *};
    use bytes::Bytes;

    fn connect(clean_start: bool) -> Connect {
        Connect {
            version: Version::V311,
            client_id: String::new(),
            clean_start,
            keep_alive: 0,
            login: None,
            will: None,
            session_expiry: None,
            receive_maximum: 10,
            max_packet_size: None,
            enhanced_auth: false,
        }
    }

    fn message(topic: &str, qos: QoS, retain: bool, payload: &'static str) -> Publish {
        let payload = Bytes::from_static(payload.as_bytes());
        Publish {
            dup: false,
            qos,
            pkid: 0,
            retain,
            topic: topic.into(),
            payload,
            properties: None,
        }
    }

    fn subscribe(state: &mut State, client: &ClientId, filter: &str, qos: QoS) -> Vec<SubscribeVerdict> {
        let filter = Filter {
            path: filter.into(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: RetainHandling::Always,
        };
        let subscribe = Subscribe {
            pkid: 1,
            id: None,
            filters: vec![filter],
        };
        state.subscribe(client, subscribe, |f| f != "forbidden", Instant::now())
    }

    fn payloads(out: &[Outgoing]) -> Vec<(u16, bool, String)> {
        out.iter()
            .map(|packet| match packet {
                Outgoing::Publish(p) => (p.pkid, p.dup, String::from_utf8(p.payload.to_vec()).unwrap()),
                Outgoing::PubRel(pkid) => (*pkid, false, "PUBREL".into()),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_persistent_session_gets_what_came_while_it_was_away_in_order() {
        let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
        let first = state.connect(&client, connect(false)).unwrap();
        subscribe(&mut state, &client, "a/#", QoS::AtLeastOnce);
        state.publish(None, &message("a/1", QoS::AtLeastOnce, false, "1"), now);
        assert_eq!(
            payloads(&state.next_outgoing(&client, first.generation, 1000, now)),
            [(1, false, "1".into())]
        );
        state.disconnect(&client, first.generation, None, now);
        state.publish(None, &message("a/2", QoS::AtMostOnce, false, "not kept"), now);
        state.publish(None, &message("a/2", QoS::AtLeastOnce, false, "2"), now);
        let second = state.connect(&client, connect(false)).unwrap();
        assert!(second.session_present);
        assert_eq!(payloads(&second.resend), [(1, true, "1".into())]);
        assert_eq!(
            payloads(&state.next_outgoing(&client, second.generation, 1000, now)),
            [(2, false, "2".into())]
        );
        assert!(
            state
                .next_outgoing(&client, first.generation, 1000, now)
                .is_empty(),
            "the old connection gets nothing"
        );
    }

    #[test]
    fn the_window_is_kept_and_qos_2_resends_only_its_release() {
        let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
        let first = state
            .connect(
                &client,
                Connect {
                    receive_maximum: 2,
                    ..connect(false)
                },
            )
            .unwrap();
        subscribe(&mut state, &client, "a", QoS::ExactlyOnce);
        for text in ["1", "2", "3"] {
            state.publish(None, &message("a", QoS::ExactlyOnce, false, text), now);
        }
        assert_eq!(state.next_outgoing(&client, first.generation, 1000, now).len(), 2);
        assert!(
            state
                .next_outgoing(&client, first.generation, 1000, now)
                .is_empty()
        );
        state.latest(&client, first.generation).unwrap().release(1);
        let second = state.connect(&client, connect(false)).unwrap();
        assert_eq!(
            payloads(&second.resend),
            [(1, false, "PUBREL".into()), (2, true, "2".into())]
        );
        state.latest(&client, second.generation).unwrap().complete(1);
        assert_eq!(
            payloads(&state.next_outgoing(&client, second.generation, 1000, now)),
            [(3, false, "3".into())]
        );
    }

    #[test]
    fn retained_messages_are_given_kept_and_cleared() {
        let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
        state.publish(None, &message("r/1", QoS::AtLeastOnce, true, "old"), now);
        state.publish(None, &message("r/1", QoS::AtLeastOnce, true, "new"), now);
        state.publish(None, &message("r/2", QoS::AtLeastOnce, true, "gone"), now);
        state.publish(None, &message("r/2", QoS::AtLeastOnce, true, ""), now);
        let connected = state.connect(&client, connect(true)).unwrap();
        subscribe(&mut state, &client, "r/+", QoS::AtMostOnce);
        let out = state.next_outgoing(&client, connected.generation, 1000, now);
        assert_eq!(payloads(&out), [(0, false, "new".into())]);
        assert!(matches!(&out[0], Outgoing::Publish(p) if p.retain));
    }

    #[test]
    fn a_will_is_published_when_the_connection_is_lost_only() {
        let now = Instant::now();
        let client = ClientId::from("c");
        let with_will = |delay_seconds| {
            let mut state = State::default();
            let will = super::super::wire::Will {
                publish: message("w", QoS::AtMostOnce, false, "bye"),
                delay_seconds,
            };
            let wanted = Connect {
                will: Some(will),
                version: Version::V5,
                session_expiry: Some(100),
                ..connect(true)
            };
            let generation = state.connect(&client, wanted).unwrap().generation;
            (state, generation)
        };
        let goodbye = |with_will| Goodbye {
            with_will,
            session_expiry: None,
        };
        let (mut state, generation) = with_will(0);
        assert!(
            state
                .disconnect(&client, generation, Some(&goodbye(false)), now)
                .is_none()
        );
        let (mut state, generation) = with_will(0);
        assert!(
            state
                .disconnect(&client, generation, Some(&goodbye(true)), now)
                .is_some()
        );
        let (mut state, generation) = with_will(0);
        assert!(state.disconnect(&client, generation, None, now).is_some());
        let (mut state, generation) = with_will(10);
        assert!(state.disconnect(&client, generation, None, now).is_none());
        assert!(state.housekeeping(now + Duration::from_secs(9)).is_empty());
        assert_eq!(state.housekeeping(now + Duration::from_secs(10)).len(), 1);
        let (mut state, generation) = with_will(10);
        state.disconnect(&client, generation, None, now);
        state.connect(
            &client,
            Connect {
                version: Version::V5,
                session_expiry: Some(100),
                ..connect(false)
            },
        );
        assert!(
            state.housekeeping(now + Duration::from_secs(50)).is_empty(),
            "it came back in time"
        );
    }

    #[test]
    fn sessions_end_when_they_were_to_and_leave_nothing() {
        let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
        let clean = state.connect(&client, connect(true)).unwrap();
        assert_eq!(
            subscribe(&mut state, &client, "forbidden", QoS::AtMostOnce),
            [SubscribeVerdict::NotAuthorized]
        );
        assert_eq!(
            subscribe(&mut state, &client, "a/#/b", QoS::AtMostOnce),
            [SubscribeVerdict::InvalidFilter]
        );
        subscribe(&mut state, &client, "a", QoS::AtMostOnce);
        state.disconnect(&client, clean.generation, None, now);
        assert_eq!(state.sizes(), (0, 0, 0, 0));
        assert_eq!(
            state.publish(None, &message("a", QoS::AtLeastOnce, false, "x"), now),
            0
        );
        let kept = state.connect(&client, connect(false)).unwrap();
        assert!(!kept.session_present);
        state.disconnect(&client, kept.generation, None, now);
        state.housekeeping(now + V311_EXPIRY - Duration::from_secs(1));
        assert_eq!(state.sizes().0, 1);
        state.housekeeping(now + V311_EXPIRY);
        assert_eq!(state.sizes().0, 0);
    }

    #[test]
    fn a_full_queue_is_counted_and_the_slow_subscriber_is_cut_off() {
        let (mut state, client, now) = (State::default(), ClientId::from("c"), Instant::now());
        let connected = state.connect(&client, connect(false)).unwrap();
        subscribe(&mut state, &client, "a", QoS::AtLeastOnce);
        for _ in 0..super::super::session::QUEUE_MESSAGES {
            assert_eq!(
                state.publish(None, &message("a", QoS::AtLeastOnce, false, "x"), now),
                1
            );
        }
        assert_eq!(
            state.publish(None, &message("a", QoS::AtLeastOnce, false, "x"), now),
            0
        );
        assert_eq!(state.counts.queue_full, 1);
        let mut kicked = Box::pin(connected.kick.kicked());
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(kicked.as_mut().poll(&mut context).is_ready());
    }
}
