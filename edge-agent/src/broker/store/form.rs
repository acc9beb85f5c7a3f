//! The form of what is kept: keys and values.
//!
//! ```text
//! r <topic 16>                      a retained message
//! s <client id 16>                  a session: number, user, expiry, since when its client is away
//! f <session 8> <filter 16>         a subscription
//! q <session 8> <place 8>           a message above QoS 0 that waits for the client or was not acknowledged by it
//! o <session 8> <packet id 2>       a QoS 2 message towards the client: its place, and whether it is released
//! i <session 8> <packet id 2>       a QoS 2 message of the client's that it has not released
//! w <session 8>                     the client's will: when it is due, or that its client was connected
//! ```
//!
//! Names are hashed (16 bytes of SHA-256), so that keys are short however long a topic is; the name itself stands in
//! the value. A message is a PUBLISH packet of MQTT 5, written and read by the codec every other packet goes through.
//! Numbers are big-endian, places ascend. A value begins with the version of its form.

use std::time::{Duration, Instant, SystemTime};

use bytes::{Buf, BufMut, BytesMut};
use rumqttd::protocol::QoS;
use sha2::{Digest, Sha256};

use super::super::{
    delivery::Delivery,
    retained,
    subscriptions::Subscription,
    wire::{self, Incoming, Outgoing, Publish, Version, Will},
};

/// Version of the form.
const FORM: u8 = 1;
/// "For ever", and "not away".
const NONE: u64 = u64::MAX;
/// Marks a time that was kept while nobody knew the wall clock: the rest is what was left of it, in milliseconds.
const LEFT: u64 = 1 << 63;

/// The number of a session, by which everything of it is found. Random, so that none is ever used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Number(pub u64);

fn named(kind: u8, name: &str) -> Vec<u8> {
    let mut key = vec![kind];
    key.extend_from_slice(&hash(name));
    key
}

fn hash(name: &str) -> [u8; 16] {
    let digest: [u8; 32] = Sha256::digest(name).into();
    *digest.first_chunk().expect("16 are fewer than 32")
}

fn numbered(kind: u8, session: Number, rest: &[u8]) -> Vec<u8> {
    let mut key = Vec::with_capacity(9 + rest.len());
    key.push(kind);
    key.extend_from_slice(&session.0.to_be_bytes());
    key.extend_from_slice(rest);
    key
}

/// Key of a retained message.
pub fn retained_key(topic: &str) -> Vec<u8> {
    named(b'r', topic)
}

/// Key of a session.
pub fn session_key(client: &str) -> Vec<u8> {
    named(b's', client)
}

/// Key of a subscription.
pub fn filter_key(session: Number, filter: &str) -> Vec<u8> {
    numbered(b'f', session, &hash(filter))
}

/// Key of a message.
pub fn message_key(session: Number, place: u64) -> Vec<u8> {
    numbered(b'q', session, &place.to_be_bytes())
}

/// Key of a QoS 2 message towards the client.
pub fn outgoing_key(session: Number, pkid: u16) -> Vec<u8> {
    numbered(b'o', session, &pkid.to_be_bytes())
}

/// Key of a QoS 2 message of the client's.
pub fn incoming_key(session: Number, pkid: u16) -> Vec<u8> {
    numbered(b'i', session, &pkid.to_be_bytes())
}

/// Key of a will.
pub fn will_key(session: Number) -> Vec<u8> {
    numbered(b'w', session, &[])
}

/// The time now, on both clocks: what is kept has the wall's, what runs the other.
#[derive(Clone, Copy, Debug)]
pub struct Now {
    /// For what runs.
    pub instant: Instant,
    /// Milliseconds since 1970.
    pub wall_ms: u64,
    /// The wall clock can be believed.
    pub wall_is_known: bool,
}

impl Now {
    /// The time now.
    pub fn read() -> Self {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            instant: Instant::now(),
            wall_ms: wall.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0)),
            wall_is_known: true,
        }
    }

    /// A time to come as it is kept.
    pub fn kept(&self, due: Instant) -> u64 {
        let left = due.saturating_duration_since(self.instant).as_millis();
        let left = u64::try_from(left).unwrap_or(LEFT).min(LEFT >> 1);
        if self.wall_is_known {
            self.wall_ms.saturating_add(left).min(LEFT - 1)
        } else {
            LEFT | left
        }
    }

    /// This moment as it is kept; where the wall clock is not known, one that is never long ago.
    pub const fn kept_now(&self) -> u64 {
        if self.wall_is_known { self.wall_ms } else { LEFT }
    }

    /// How long it is until a time that was kept.
    pub const fn left_until(&self, kept: u64) -> Duration {
        Duration::from_millis(if kept & LEFT != 0 {
            kept & !LEFT
        } else {
            kept.saturating_sub(self.wall_ms)
        })
    }

    /// How long ago a time is that was kept.
    pub const fn passed_since(&self, kept: u64) -> Duration {
        Duration::from_millis(if kept & LEFT != 0 {
            0
        } else {
            self.wall_ms.saturating_sub(kept)
        })
    }
}

/// A session as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its number.
    pub number: Number,
    /// Client id.
    pub client: String,
    /// The user it belongs to.
    pub user: Option<String>,
    /// Protocol version of its latest connection.
    pub version: Version,
    /// How long it outlives its connection; `None` for ever.
    pub expiry: Option<Duration>,
    /// Since when its client is away, as [`Now::kept_now`] tells it; `None` while it is connected.
    pub away_since_ms: Option<u64>,
}

impl SessionRecord {
    /// Its value.
    pub fn write(&self) -> Vec<u8> {
        let mut out = BytesMut::new();
        out.put_u8(FORM);
        out.put_u64(self.number.0);
        out.put_u8(if self.version == Version::V5 { 5 } else { 4 });
        out.put_u64(self.expiry.map_or(NONE, |expiry| expiry.as_secs()));
        out.put_u64(self.away_since_ms.unwrap_or(NONE));
        put_text(&self.client, &mut out);
        out.put_u8(u8::from(self.user.is_some()));
        put_text(self.user.as_deref().unwrap_or_default(), &mut out);
        out.to_vec()
    }

    /// Reads a value.
    pub fn read(mut value: &[u8]) -> Option<Self> {
        let value = &mut value;
        form(value)?;
        let number = Number(value.try_get_u64().ok()?);
        let version = match value.try_get_u8().ok()? {
            4 => Version::V311,
            5 => Version::V5,
            _ => return None,
        };
        let expiry = some(value.try_get_u64().ok()?).map(Duration::from_secs);
        let away_since_ms = some(value.try_get_u64().ok()?);
        let client = text(value)?;
        let has_user = value.try_get_u8().ok()? == 1;
        let user = text(value)?;
        Some(Self {
            number,
            client,
            user: has_user.then_some(user),
            version,
            expiry,
            away_since_ms,
        })
    }
}

/// Value of a subscription.
pub fn write_filter(filter: &str, subscription: &Subscription) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u8(FORM);
    out.put_u8(
        subscription.qos as u8
            | u8::from(subscription.no_local) << 2
            | u8::from(subscription.retain_as_published) << 3,
    );
    // An identifier is at most 268,435,455, and 0 is none.
    out.put_u32(subscription.id.map_or(0, |id| u32::try_from(id).unwrap_or(0)));
    put_text(filter, &mut out);
    out.to_vec()
}

/// Reads a subscription.
pub fn read_filter(mut value: &[u8]) -> Option<(String, Subscription)> {
    let value = &mut value;
    form(value)?;
    let options = value.try_get_u8().ok()?;
    let id = value.try_get_u32().ok()?;
    let subscription = Subscription {
        qos: rumqttd::protocol::qos(options & 3)?,
        no_local: options & 4 != 0,
        retain_as_published: options & 8 != 0,
        id: (id != 0).then_some(id as usize),
    };
    Some((text(value)?, subscription))
}

/// Value of a retained message.
pub fn write_retained(message: &retained::Message, now: Now) -> Vec<u8> {
    let publisher = message.publisher.as_deref();
    write_message(&message.publish, message.expires, &[], publisher, now)
}

/// Reads a retained message.
pub fn read_retained(value: &[u8], now: Now) -> Option<retained::Message> {
    let (publish, expires, _, publisher) = read_message(value, now)?;
    Some(retained::Message {
        publish,
        publisher: publisher.map(Into::into),
        expires,
    })
}

/// Value of a message for a client.
pub fn write_delivery(delivery: &Delivery, now: Now) -> Vec<u8> {
    let publish = Publish {
        dup: false,
        qos: delivery.qos,
        pkid: 0,
        retain: delivery.retain,
        topic: delivery.topic.clone(),
        payload: delivery.payload.clone(),
        properties: delivery.properties.as_ref().map(|p| Box::new((**p).clone())),
    };
    write_message(&publish, delivery.expires, &delivery.ids, None, now)
}

/// Reads a message for a client.
pub fn read_delivery(value: &[u8], place: u64, now: Now) -> Option<Delivery> {
    let (publish, expires, ids, _) = read_message(value, now)?;
    Some(Delivery {
        topic: publish.topic,
        payload: publish.payload,
        qos: publish.qos,
        retain: publish.retain,
        properties: publish.properties.map(|p| (*p).into()),
        ids,
        expires,
        stored: Some(place),
        sent_before: false,
    })
}

/// Value of a QoS 2 message towards the client.
pub fn write_outgoing(place: u64, released: bool) -> Vec<u8> {
    let mut out = vec![FORM, u8::from(released)];
    out.extend_from_slice(&place.to_be_bytes());
    out
}

/// Reads one: its place, and whether it is released.
pub fn read_outgoing(mut value: &[u8]) -> Option<(u64, bool)> {
    let value = &mut value;
    form(value)?;
    let released = value.try_get_u8().ok()? == 1;
    Some((value.try_get_u64().ok()?, released))
}

/// Value of a QoS 2 message of the client's: that it is there says it all.
pub fn write_incoming() -> Vec<u8> {
    vec![FORM]
}

/// Value of a will; `due` is when it is to be published, `None` while its client is connected.
pub fn write_will(will: &Will, due: Option<Instant>, now: Now) -> Vec<u8> {
    let mut out = vec![FORM];
    out.put_u64(due.map_or(NONE, |due| now.kept(due)));
    out.put_u32(will.delay_seconds);
    out.extend_from_slice(&write_message(&will.publish, None, &[], None, now));
    out
}

/// Reads a will, and when it is due, for [`Now::left_until`].
pub fn read_will(mut value: &[u8], now: Now) -> Option<(Will, Option<u64>)> {
    let value = &mut value;
    form(value)?;
    let due_ms = some(value.try_get_u64().ok()?);
    let delay_seconds = value.try_get_u32().ok()?;
    let (publish, ..) = read_message(value, now)?;
    Some((
        Will {
            publish,
            delay_seconds,
        },
        due_ms,
    ))
}

fn write_message(
    publish: &Publish,
    expires: Option<Instant>,
    ids: &[usize],
    publisher: Option<&str>,
    now: Now,
) -> Vec<u8> {
    let mut out = BytesMut::with_capacity(64 + publish.topic.len() + publish.payload.len());
    out.put_u8(FORM);
    out.put_u64(expires.map_or(NONE, |expires| now.kept(expires)));
    out.put_u16(u16::try_from(ids.len()).unwrap_or(u16::MAX));
    for id in ids.iter().take(usize::from(u16::MAX)) {
        out.put_u32(u32::try_from(*id).unwrap_or(0));
    }
    out.put_u8(u8::from(publisher.is_some()));
    put_text(publisher.unwrap_or_default(), &mut out);
    // Above QoS 0 a packet has an id; any will do.
    let pkid = u16::from(publish.qos != QoS::AtMostOnce);
    let packet = Outgoing::Publish(Publish {
        pkid,
        ..publish.clone()
    });
    wire::encode(Version::V5, packet, &mut out).expect("a PUBLISH can always be written");
    out.to_vec()
}

type Message = (Publish, Option<Instant>, Vec<usize>, Option<String>);

fn read_message(mut value: &[u8], now: Now) -> Option<Message> {
    let value = &mut value;
    form(value)?;
    let expires = match some(value.try_get_u64().ok()?) {
        Some(kept) => Some(now.instant.checked_add(now.left_until(kept))?),
        None => None,
    };
    let count = value.try_get_u16().ok()?;
    let ids = (0..count)
        .map(|_| value.try_get_u32().ok().map(|id| id as usize))
        .collect::<Option<_>>()?;
    let has_publisher = value.try_get_u8().ok()? == 1;
    let publisher = text(value)?;
    let Ok(Incoming::Publish(publish)) = wire::decode(Version::V5, BytesMut::from(&value[..])) else {
        return None;
    };
    let publish = Publish { pkid: 0, ..publish };
    Some((publish, expires, ids, has_publisher.then_some(publisher)))
}

fn form(value: &mut &[u8]) -> Option<()> {
    (value.try_get_u8().ok()? == FORM).then_some(())
}

fn some(number: u64) -> Option<u64> {
    (number != NONE).then_some(number)
}

fn put_text(text: &str, out: &mut BytesMut) {
    out.put_u16(u16::try_from(text.len()).expect("names came in behind a 16-bit length"));
    out.put_slice(text.as_bytes());
}

fn text(value: &mut &[u8]) -> Option<String> {
    let len = usize::from(value.try_get_u16().ok()?);
    let (head, rest) = value.split_at_checked(len)?;
    *value = rest;
    String::from_utf8(head.to_vec()).ok()
}
