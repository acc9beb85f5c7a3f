//! All sessions, subscriptions and retained messages, and the routing between them.
//!
//! One lock guards it; every operation is short and none waits. Connections call in, and are woken when something
//! waits for them. What must outlive the agent is noted in the journal at the moment it changes. Nothing here touches a
//! socket or the disk.

mod restore;
mod routing;

use restore::RETURN;
pub use restore::Wall;
pub use routing::Routed;
use routing::{forwarded, lower};

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicUsize},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{
    attached::{Attached, Kick},
    delivery::Delivery,
    retained::Retained,
    session::{Answered, Queued, Session},
    store::{Journal, form},
    subscriptions::{ClientId, Subscription, Subscriptions, levels, parse_filter},
    wire::{
        Connect, DisconnectReason, Filter, Goodbye, Outgoing, Publish, RetainHandling, SubscribeVerdict,
        UnsubAckReason,
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
    /// Times a session began to lose messages because its queue was full.
    pub slow_subscribers: u64,
}

/// See the module.
#[derive(Default)]
pub struct State {
    sessions: HashMap<ClientId, Session>,
    subscriptions: Subscriptions,
    retained: Retained,
    /// Bytes that wait in all sessions.
    held_bytes: Arc<AtomicUsize>,
    /// Of sessions that had to make room.
    evicted_wills: Vec<(ClientId, Publish)>,
    next_generation: u64,
    /// What is not on disk yet.
    pub journal: Journal,
    /// Counted since start.
    pub counts: Counts,
}

/// What is known of a client that is let in, besides its CONNECT.
#[derive(Clone, Default)]
pub struct Admitted {
    /// The user it has proven to be.
    pub user: Option<String>,
    /// Topics it gets by no subscription.
    pub refused: Arc<[TopicFilter]>,
    /// Topics it gets at most. An earlier connection of the session may have subscribed to more.
    pub allowed: Option<Arc<[TopicFilter]>>,
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
    /// Messages that were lost to the session's full queue since its client was told last.
    pub lost: u64,
}

impl State {
    /// Lets a client in; `None` when there are too many sessions. An older connection with the same id is ended.
    pub fn connect(&mut self, client: &ClientId, connect: Connect, admitted: Admitted) -> Option<Connected> {
        if !self.sessions.contains_key(client) && self.sessions.len() >= SESSIONS && !self.evict() {
            return None;
        }
        let mut will = None;
        if let Some(old) = self.sessions.get_mut(client) {
            let attached = old.attached.take();
            // A session that was to end with its connection ends by a take-over, too.
            // And what waits for one user is not for another that calls itself the same.
            let ends = connect.clean_start
                || (attached.is_some() && old.expiry == Some(Duration::ZERO))
                || old.user != admitted.user;
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
            .or_insert_with(|| Session::new(client.clone(), connect.version, held_bytes.clone()));
        session.user = admitted.user;
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
            refused: admitted.refused,
            allowed: admitted.allowed,
        };
        session.attach(connect.version, connect.receive_maximum, attached);
        session.keep(&mut self.journal);
        session.note_will(&mut self.journal);
        let lost = std::mem::take(&mut session.lost);
        wake.notify_one();
        Some(Connected {
            generation,
            session_present,
            wake,
            kick,
            will,
            lost,
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
        // Its session ends, so its will is due.
        let session = self.sessions.get_mut(&client);
        if let Some((_, will)) = session.and_then(|session| session.will_due.take()) {
            self.evicted_wills.push((client.clone(), will));
        }
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
        let session = attached_as(&mut self.sessions, client, generation)?;
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
        self.leave(client, now);
        due
    }

    /// A connection ended because the agent stops, which is not the death of its client. The will of a session that is kept
    /// is published after the next start, if the client does not come back; others are dropped with their sessions.
    pub fn suspend(&mut self, client: &ClientId, generation: u64, now: Instant) {
        let Some(session) = attached_as(&mut self.sessions, client, generation) else {
            return;
        };
        session.detach(now);
        if let Some(will) = session.will.take() {
            let delay = Duration::from_secs(u64::from(will.delay_seconds));
            session.will_due = Some((now + delay.max(RETURN), will.publish));
        }
        self.leave(client, now);
    }

    /// What becomes of a session whose connection is gone.
    fn leave(&mut self, client: &ClientId, now: Instant) {
        let Some(session) = self.sessions.get_mut(client) else {
            return;
        };
        session.note_will(&mut self.journal);
        match session.expiry {
            Some(Duration::ZERO) => self.drop_session(client),
            Some(expiry) => {
                session.expires = Some(now + expiry);
                session.note_itself(&mut self.journal);
            }
            None => {
                session.expires = None;
                session.note_itself(&mut self.journal);
            }
        }
    }

    fn drop_session(&mut self, client: &ClientId) {
        if let Some(mut session) = self.sessions.remove(client) {
            session.forget(&mut self.journal);
            for filter in session.subscriptions.keys() {
                if let Some(parsed) = parse_filter(filter) {
                    self.subscriptions.remove(parsed, client);
                }
            }
        }
    }

    /// Ends what has expired. Answers the wills that are due. Call about once a second.
    pub fn housekeeping(&mut self, now: Instant) -> Vec<(ClientId, Publish)> {
        let mut wills = std::mem::take(&mut self.evicted_wills);
        let mut gone = Vec::new();
        for (client, session) in &mut self.sessions {
            let ended = session.expires.is_some_and(|expires| expires <= now);
            if session
                .will_due
                .as_ref()
                .is_some_and(|(due, _)| ended || *due <= now)
                && let Some((_, will)) = session.will_due.take()
            {
                session.note_will(&mut self.journal);
                wills.push((client.clone(), will));
            }
            if ended {
                gone.push(client.clone());
            }
        }
        gone.iter().for_each(|client| self.drop_session(client));
        for topic in self.retained.expire(now) {
            self.journal.remove(form::retained_key(&topic));
        }
        wills
    }

    /// A QoS 2 message of a client's was passed on: its resend after a restart will not be. Answers what must be on disk
    /// before that is acknowledged.
    pub fn incoming_routed(&mut self, client: &ClientId, generation: u64, pkid: u16) -> Option<u64> {
        let session = attached_as(&mut self.sessions, client, generation).filter(|s| s.is_kept())?;
        session.incoming_routed(pkid, &mut self.journal);
        Some(self.journal.promise())
    }

    /// PUBREL of a client's. Answers whether the id was known, and what must be on disk before PUBCOMP: a client may use
    /// the id again from then on.
    pub fn incoming_end(&mut self, client: &ClientId, generation: u64, pkid: u16) -> (bool, Option<u64>) {
        let Some(session) = attached_as(&mut self.sessions, client, generation) else {
            return (false, None);
        };
        let known = session.incoming_end(pkid, &mut self.journal);
        let noted = known && session.is_kept();
        (known, noted.then(|| self.journal.promise()))
    }

    /// PUBACK of a client's.
    pub fn acknowledged(&mut self, client: &ClientId, generation: u64, pkid: u16) -> Answered {
        match attached_as(&mut self.sessions, client, generation) {
            Some(session) => session.acknowledged(pkid, &mut self.journal),
            None => Answered::Nothing,
        }
    }

    /// PUBREC of a client's, and what must be on disk before PUBREL.
    pub fn received(
        &mut self,
        client: &ClientId,
        generation: u64,
        pkid: u16,
        taken: bool,
    ) -> (Answered, Option<u64>) {
        let Some(session) = attached_as(&mut self.sessions, client, generation) else {
            return (Answered::Nothing, None);
        };
        let answered = session.received(pkid, taken, &mut self.journal);
        let noted = answered == Answered::Message && session.is_kept();
        (answered, noted.then(|| self.journal.promise()))
    }

    /// PUBCOMP of a client's.
    pub fn completed(&mut self, client: &ClientId, generation: u64, pkid: u16) -> Answered {
        match attached_as(&mut self.sessions, client, generation) {
            Some(session) => session.completed(pkid, &mut self.journal),
            None => Answered::Nothing,
        }
    }

    /// Adds a subscription. Retained messages are queued behind the SUBACK. `id` is the subscription identifier. With the
    /// verdict comes what must be on disk before it is told.
    pub fn subscribe(
        &mut self,
        client: &ClientId,
        generation: u64,
        id: Option<usize>,
        filter: Filter,
        now: Instant,
    ) -> (SubscribeVerdict, Option<u64>) {
        let Some(parsed) = parse_filter(&filter.path) else {
            return (SubscribeVerdict::InvalidFilter, None);
        };
        let Some(session) = attached_as(&mut self.sessions, client, generation) else {
            return (SubscribeVerdict::QuotaExceeded, None);
        };
        let known = session.subscriptions.contains_key(&filter.path);
        let depth = levels(parsed.filter);
        if !known
            && (session.subscriptions.len() >= SUBSCRIPTIONS
                || session.subscribed_levels + depth > SUBSCRIBED_LEVELS)
        {
            return (SubscribeVerdict::QuotaExceeded, None);
        }
        let subscription = Subscription {
            qos: filter.qos,
            no_local: filter.no_local,
            retain_as_published: filter.retain_as_published,
            id,
        };
        let Some(new) = self.subscriptions.insert(parsed, client, subscription) else {
            return (SubscribeVerdict::QuotaExceeded, None);
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
                let delivery = Delivery {
                    topic: publish.topic.clone(),
                    payload: publish.payload.clone(),
                    qos: lower(publish.qos, filter.qos),
                    retain: true,
                    properties: publish.properties.as_ref().map(|p| Arc::new(forwarded(p))),
                    ids: id.into_iter().collect(),
                    expires: retained.expires,
                    stored: None,
                    sent_before: false,
                };
                if session.push_retained(delivery, &mut self.journal) == Queued::Full {
                    overflow(client, session, &mut self.counts);
                    break;
                }
            }
        }
        if session.subscriptions.get(&filter.path) != Some(&subscription) {
            session.note_subscription(&filter.path, &subscription, &mut self.journal);
        }
        session.subscriptions.insert(filter.path, subscription);
        // The session itself as well, which is as new as its first subscription.
        let stored = session.is_kept().then(|| self.journal.promise());
        (SubscribeVerdict::Granted(filter.qos), stored)
    }

    /// Removes a subscription. The second value is what must be on disk before that is told.
    pub fn unsubscribe(
        &mut self,
        client: &ClientId,
        generation: u64,
        filter: &str,
    ) -> (UnsubAckReason, Option<u64>) {
        let Some(parsed) = parse_filter(filter) else {
            return (UnsubAckReason::TopicFilterInvalid, None);
        };
        let Some(session) = attached_as(&mut self.sessions, client, generation) else {
            return (UnsubAckReason::NoSubscriptionExisted, None);
        };
        if session.subscriptions.remove(filter).is_none() {
            return (UnsubAckReason::NoSubscriptionExisted, None);
        }
        session.subscribed_levels -= levels(parsed.filter);
        session.forget_subscription(filter, &mut self.journal);
        let stored = session.is_kept().then(|| self.journal.promise());
        self.subscriptions.remove(parsed, client);
        (UnsubAckReason::Success, stored)
    }

    /// Messages to send now on a connection, nothing when it is not the client's latest; and what must be on disk before
    /// they are sent.
    pub fn next_outgoing(
        &mut self,
        client: &ClientId,
        generation: u64,
        max_bytes: usize,
        now: Instant,
    ) -> (Vec<Outgoing>, Option<u64>) {
        let Some(session) = attached_as(&mut self.sessions, client, generation) else {
            return (Vec::new(), None);
        };
        let batch = session.next_outgoing(max_bytes, now, &mut self.journal);
        self.counts.undeliverable += batch.dropped;
        let stored = batch.must_be_stored.then(|| self.journal.promise());
        (batch.packets, stored)
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
/// its queue holds. For an absent one the first loss is said, and every one counted. A client of version 5 is told how many
/// they were when it comes back.
fn overflow(client: &ClientId, session: &mut Session, counts: &mut Counts) {
    counts.queue_full += 1;
    session.lost += 1;
    let begins = !std::mem::replace(&mut session.overflowing, true);
    counts.slow_subscribers += u64::from(begins);
    match &session.attached {
        Some(attached) if attached.kick.kick(DisconnectReason::QuotaExceeded) => {
            tracing::warn!(client = %client, "a subscriber reads too slowly and is disconnected");
        }
        Some(_) => {}
        None if begins => {
            tracing::warn!(client = %client, "the queue of an absent subscriber is full; messages for it are lost until it comes back, and only counted");
        }
        None => {}
    }
}
