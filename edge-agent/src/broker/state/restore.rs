//! Sessions and retained messages as they were before the agent started.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    super::{
        store::{Restored, RestoredSession, form::Now},
        subscriptions::{ClientId, levels, parse_filter},
    },
    State, V311_EXPIRY,
};

/// A client whose connection ended with the agent's gets this long to come back before its will is published, if its own
/// delay is shorter. The standard lets a server defer wills over its restart (MQTT 5, 3.1.2.5); at once, every device of a
/// house would be told dead because the agent was updated. One and a half of the longest keep-alive that is granted.
pub(super) const RETURN: Duration = Duration::from_secs(90);

/// Whether the wall clock can be believed when the agent starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wall {
    /// How long a client was away is known.
    Right,
    /// A Pi without a battery clock: time the agent did not run is not counted, so a session stays too long rather
    /// than too short.
    Unknown,
}

impl State {
    /// Takes up what was kept. Call once, before the first client, with the journal open.
    pub fn restore(&mut self, restored: Restored, wall: Wall, now: Now) {
        for message in restored.retained {
            // What has no room was refused before it was kept.
            self.retained.set(message);
        }
        for session in restored.sessions {
            self.restore_session(session, wall, now);
        }
        restored
            .orphans
            .into_iter()
            .for_each(|key| self.journal.remove(key));
        for client in self.ended(now.instant) {
            self.drop_session(&client);
        }
    }

    fn restore_session(&mut self, mut restored: RestoredSession, wall: Wall, now: Now) {
        let client = ClientId::from(restored.record.client.as_str());
        let held_bytes = Arc::clone(&self.held_bytes);
        let mut session = super::Session::new(client.clone(), restored.record.version, held_bytes);
        session.resume(&mut restored);
        let away = match (restored.record.away_since_ms, wall) {
            (Some(since), Wall::Right) => now.passed_since(since),
            _ => Duration::ZERO,
        };
        let left = session.expiry.map(|expiry| expiry.saturating_sub(away));
        // A time that cannot be reckoned with is as good as for ever, but no clock is off by that much.
        session.expires = left.map(|left| now.instant.checked_add(left).unwrap_or(now.instant + V311_EXPIRY));
        session.away_since = Some(now.instant);
        if let Some((will, due)) = restored.will.take() {
            let delay = Duration::from_secs(u64::from(will.delay_seconds));
            let wait = match (due, wall) {
                (Some(due), Wall::Right) => now.left_until(due),
                (Some(_), Wall::Unknown) => RETURN,
                (None, _) => delay.max(RETURN),
            };
            let due = now.instant.checked_add(wait).unwrap_or(now.instant + RETURN);
            session.will_due = Some((due, will.publish));
            // The next start must not begin to wait anew.
            session.note_will(&mut self.journal);
        }
        for (filter, subscription) in restored.subscriptions {
            let Some(parsed) = parse_filter(&filter) else {
                continue;
            };
            if self.subscriptions.insert(parsed, &client, subscription).is_some() {
                session.subscribed_levels += levels(parsed.filter);
                session.subscriptions.insert(filter, subscription);
            }
        }
        if restored.record.away_since_ms.is_none() {
            // From now on it is away; the next start must know since when.
            session.note_itself(&mut self.journal);
        }
        self.sessions.insert(client, session);
    }

    /// Those with a will are left to the housekeeping, which publishes it.
    fn ended(&self, now: Instant) -> Vec<ClientId> {
        let ended = |session: &super::Session| {
            session.will_due.is_none() && session.expires.is_some_and(|expires| expires <= now)
        };
        self.sessions
            .iter()
            .filter(|(_, session)| ended(session))
            .map(|(client, _)| client.clone())
            .collect()
    }
}
