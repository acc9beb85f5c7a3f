//! Retained messages: the last one of each topic, for those who subscribe later.

use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Instant};

use super::{
    subscriptions::ClientId,
    wire::{self, Publish},
};
use crate::topic_filter::TopicFilter;

/// Topics that may hold a retained message.
pub const MESSAGES: usize = 10_000;
/// Bytes of all retained messages: a house has some hundreds of a few hundred bytes each.
pub const BYTES: usize = 16 * 1024 * 1024;
/// What a retained message costs besides its topic, payload and properties.
const MESSAGE_BYTES: usize = 256;

/// A retained message.
pub struct Message {
    /// As it was published.
    pub publish: Publish,
    /// Who published it; `None` for the agent.
    pub publisher: Option<ClientId>,
    /// Not given out after this.
    pub expires: Option<Instant>,
}

impl Message {
    /// Nothing that a subscriber gets would change with `publish` in its place.
    pub fn says_the_same(&self, publish: &Publish) -> bool {
        self.expires.is_none()
            && self.publish.payload == publish.payload
            && self.publish.qos == publish.qos
            && self.publish.properties == publish.properties
    }

    fn bytes(&self) -> usize {
        let properties = self.publish.properties.as_ref().map_or(0, |p| wire::weight(p));
        MESSAGE_BYTES + self.publish.topic.len() + self.publish.payload.len() + properties
    }
}

/// See the module.
#[derive(Default)]
pub struct Retained {
    /// By topic, so that a filter looks only at what begins as it does.
    messages: BTreeMap<Arc<str>, Message>,
    bytes: usize,
}

impl Retained {
    /// Keeps a message, in place of an older one of its topic; an empty one only clears. False when there is no room:
    /// then the older one is gone all the same, for it is no longer true.
    pub fn set(&mut self, message: Message) -> bool {
        self.remove(&message.publish.topic.clone());
        if message.publish.payload.is_empty() {
            return true;
        }
        if self.messages.len() >= MESSAGES || self.bytes + message.bytes() > BYTES {
            return false;
        }
        self.bytes += message.bytes();
        self.messages.insert(message.publish.topic.clone(), message);
        true
    }

    /// The message of a topic.
    pub fn get(&self, topic: &str) -> Option<&Message> {
        self.messages.get(topic)
    }

    /// Forgets the message of a topic.
    pub fn remove(&mut self, topic: &str) {
        if let Some(old) = self.messages.remove(topic) {
            self.bytes -= old.bytes();
        }
    }

    /// Messages on topics that `filter` covers.
    pub fn matching<'a>(&'a self, filter: &'a TopicFilter) -> impl Iterator<Item = &'a Message> {
        let prefix = literal_prefix(filter.as_str());
        self.messages
            .range::<str, _>((Bound::Included(prefix), Bound::Unbounded))
            .take_while(move |(topic, _)| topic.starts_with(prefix))
            .map(|(_, message)| message)
            .filter(|message| filter.matches(&message.publish.topic))
    }

    /// Drops what has expired. Answers its topics.
    pub fn expire(&mut self, now: Instant) -> Vec<Arc<str>> {
        let expired = |message: &&Message| message.expires.is_some_and(|expires| expires <= now);
        let gone: Vec<_> = self.messages.values().filter(expired).collect();
        let topics: Vec<_> = gone.into_iter().map(|m| m.publish.topic.clone()).collect();
        topics.iter().for_each(|topic| self.remove(topic));
        topics
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }
}

/// What every topic a filter covers begins with. `a/#` also covers `a`, so the slash before a wildcard is left out.
fn literal_prefix(filter: &str) -> &str {
    match filter.find(['+', '#']) {
        Some(at) => filter[..at].trim_end_matches('/'),
        None => filter,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::broker::wire::QoS;

    fn message(topic: &str, len: usize) -> Message {
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            pkid: 0,
            retain: true,
            topic: topic.into(),
            payload: Bytes::from(vec![b'x'; len]),
            properties: None,
        };
        Message {
            publish,
            publisher: None,
            expires: None,
        }
    }

    #[test]
    fn filters_find_what_they_cover() {
        let mut retained = Retained::default();
        let topics = ["a", "a/b", "a/b/c", "a//b", "ab", "b", "$SYS/x", "/a", "a b/c"];
        for topic in topics {
            assert!(retained.set(message(topic, 1)));
        }
        for filter in [
            "#", "+", "a", "a/#", "a/+", "a/b/#", "+/b", "a//+", "/#", "/+", "$SYS/#", "a b/+", "z/#",
        ] {
            let filter = TopicFilter::parse(filter).unwrap();
            let mut found: Vec<_> = retained.matching(&filter).map(|m| &*m.publish.topic).collect();
            let mut wanted: Vec<_> = topics.into_iter().filter(|t| filter.matches(t)).collect();
            found.sort_unstable();
            wanted.sort_unstable();
            assert_eq!(found, wanted, "{filter}");
        }
    }

    #[test]
    fn room_is_bounded_and_comes_back() {
        let mut retained = Retained::default();
        let large = 256 * 1024;
        let fit = (0..)
            .take_while(|n| retained.set(message(&format!("t/{n}"), large)))
            .count();
        assert!((60..=64).contains(&fit), "{fit}");
        assert!(
            !retained.set(message("t/0", 20 * 1024 * 1024)),
            "too large for all of it"
        );
        assert_eq!(retained.len(), fit - 1, "and the old one is gone");
        for n in 0..fit {
            assert!(retained.set(message(&format!("t/{n}"), 0)));
        }
        assert_eq!((retained.len(), retained.bytes), (0, 0));
        for n in 0..MESSAGES {
            assert!(retained.set(message(&format!("t/{n}"), 1)));
        }
        assert!(!retained.set(message("one more", 1)));
        assert!(retained.set(message("t/5", 2)), "replacing needs no room");
        retained
            .messages
            .values_mut()
            .for_each(|m| m.expires = Some(Instant::now()));
        retained.expire(Instant::now());
        assert_eq!((retained.len(), retained.bytes), (0, 0));
    }
}
