//! Properties of version 5: the rules the codec does not check, and those of PUBLISH written.

use bytes::{BufMut, BytesMut};

use super::{Malformed, PublishProperties};
use crate::topic_filter::valid_topic_name;

/// The packets of a client that have properties.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// CONNECT.
    Connect,
    /// The will in a CONNECT.
    Will,
    /// PUBLISH.
    Publish,
    /// PUBACK, PUBREC, PUBREL and PUBCOMP.
    Acknowledgement,
    /// SUBSCRIBE.
    Subscribe,
    /// UNSUBSCRIBE.
    Unsubscribe,
    /// DISCONNECT.
    Disconnect,
}

const PAYLOAD_FORMAT: u8 = 1;
const MESSAGE_EXPIRY: u8 = 2;
const CONTENT_TYPE: u8 = 3;
const RESPONSE_TOPIC: u8 = 8;
const CORRELATION_DATA: u8 = 9;
const SUBSCRIPTION_ID: u8 = 11;
const SESSION_EXPIRY: u8 = 17;
const AUTH_METHOD: u8 = 21;
const AUTH_DATA: u8 = 22;
const PROBLEM_INFORMATION: u8 = 23;
const WILL_DELAY: u8 = 24;
const RESPONSE_INFORMATION: u8 = 25;
const REASON: u8 = 31;
const RECEIVE_MAXIMUM: u8 = 33;
const ALIAS_MAXIMUM: u8 = 34;
const ALIAS: u8 = 35;
const USER: u8 = 38;
const MAX_PACKET: u8 = 39;

impl Kind {
    /// Which properties a client may send in it (MQTT 5, table 2-4).
    const fn allows(self, id: u8) -> bool {
        match self {
            Kind::Connect => matches!(
                id,
                SESSION_EXPIRY
                    | AUTH_METHOD
                    | AUTH_DATA
                    | PROBLEM_INFORMATION
                    | RESPONSE_INFORMATION
                    | RECEIVE_MAXIMUM
                    | ALIAS_MAXIMUM
                    | USER
                    | MAX_PACKET
            ),
            Kind::Will => matches!(
                id,
                PAYLOAD_FORMAT
                    | MESSAGE_EXPIRY
                    | CONTENT_TYPE
                    | RESPONSE_TOPIC
                    | CORRELATION_DATA
                    | WILL_DELAY
                    | USER
            ),
            // A subscription identifier has its place in PUBLISH, but not in one of a client's.
            Kind::Publish => matches!(
                id,
                PAYLOAD_FORMAT
                    | MESSAGE_EXPIRY
                    | CONTENT_TYPE
                    | RESPONSE_TOPIC
                    | CORRELATION_DATA
                    | SUBSCRIPTION_ID
                    | ALIAS
                    | USER
            ),
            Kind::Acknowledgement => matches!(id, REASON | USER),
            Kind::Subscribe => matches!(id, SUBSCRIPTION_ID | USER),
            Kind::Unsubscribe => matches!(id, USER),
            Kind::Disconnect => matches!(id, SESSION_EXPIRY | REASON | USER),
        }
    }
}

/// Checks the properties at the beginning of `walk` and leaves it behind them.
pub fn check(kind: Kind, walk: &mut Walk<'_>) -> Result<(), Malformed> {
    let len = walk.variable()?;
    let mut walk = Walk::new(walk.take(len)?);
    let mut seen = 0_u64;
    while !walk.is_empty() {
        let id = walk.u8()?;
        if !kind.allows(id) {
            return Err(Malformed::Form("a property has no place in its packet"));
        }
        // Identifiers end at 42.
        if id != USER && seen & 1 << id != 0 {
            return Err(Malformed::Rule("a property comes twice"));
        }
        seen |= 1 << id;
        check_value(kind, id, &mut walk)?;
    }
    if seen & 1 << AUTH_DATA != 0 && seen & 1 << AUTH_METHOD == 0 {
        return Err(Malformed::Rule("authentication data without a method"));
    }
    Ok(())
}

fn check_value(kind: Kind, id: u8, walk: &mut Walk<'_>) -> Result<(), Malformed> {
    match id {
        PAYLOAD_FORMAT | PROBLEM_INFORMATION | RESPONSE_INFORMATION => {
            if walk.u8()? > 1 {
                return Err(Malformed::Rule("a property that is 0 or 1 is neither"));
            }
        }
        MESSAGE_EXPIRY | SESSION_EXPIRY | WILL_DELAY => walk.skip(4)?,
        ALIAS_MAXIMUM | ALIAS => walk.skip(2)?,
        RECEIVE_MAXIMUM => {
            if walk.take(2)? == [0, 0] {
                return Err(Malformed::Rule("receive maximum 0"));
            }
        }
        MAX_PACKET => {
            if walk.take(4)? == [0, 0, 0, 0] {
                return Err(Malformed::Rule("maximum packet size 0"));
            }
        }
        SUBSCRIPTION_ID => {
            if walk.variable()? == 0 {
                return Err(Malformed::Rule("subscription identifier 0"));
            }
            if kind == Kind::Publish {
                return Err(Malformed::Rule("subscription identifier in a client's PUBLISH"));
            }
        }
        RESPONSE_TOPIC => {
            if !valid_topic_name(walk.text()?) {
                return Err(Malformed::Rule("the response topic is not a topic name"));
            }
        }
        CORRELATION_DATA | AUTH_DATA => drop(walk.bytes()?),
        USER => {
            walk.text()?;
            walk.text()?;
        }
        // What is left of those allowed are texts.
        _ => drop(walk.text()?),
    }
    Ok(())
}

/// Bytes read from front to back.
pub struct Walk<'a>(&'a [u8]);

const CUT_OFF: Malformed = Malformed::Form("a field is cut off");

impl<'a> Walk<'a> {
    /// At the beginning of `bytes`.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Nothing is left.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// An error if something is left.
    pub fn end(&self, what: &'static str) -> Result<(), Malformed> {
        if self.is_empty() {
            Ok(())
        } else {
            Err(Malformed::Form(what))
        }
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(len).ok_or(CUT_OFF)?;
        self.0 = rest;
        Ok(head)
    }

    /// Leaves bytes out.
    pub fn skip(&mut self, len: usize) -> Result<(), Malformed> {
        self.take(len).map(drop)
    }

    /// A byte.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    /// Bytes behind their length.
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let len = self.take(2)?;
        self.take(usize::from(u16::from_be_bytes([len[0], len[1]])))
    }

    /// A text behind its length.
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        let text = std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::Form("text is not UTF-8"))?;
        if text.contains('\0') {
            return Err(Malformed::Form("text has a NUL character"));
        }
        Ok(text)
    }

    /// A variable byte integer.
    pub fn variable(&mut self) -> Result<usize, Malformed> {
        let mut value = 0;
        for n in 0..4 {
            let byte = self.u8()?;
            value |= usize::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed::Form("a length has more than four bytes"))
    }
}

/// Bytes of a variable byte integer.
pub const fn variable_len(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Writes a variable byte integer.
pub fn put_variable(mut value: usize, out: &mut BytesMut) {
    loop {
        let byte = (value & 0x7f) as u8;
        value >>= 7;
        out.put_u8(if value == 0 { byte } else { byte | 0x80 });
        if value == 0 {
            return;
        }
    }
}

/// Bytes the properties of a PUBLISH cost while it waits.
pub fn weight(properties: &PublishProperties) -> usize {
    // 64 bytes stand for the allocations of a user property.
    publish_len(properties) + 64 * properties.user_properties.len() + size_of::<PublishProperties>()
}

/// Bytes of the properties of a PUBLISH, without their length.
pub fn publish_len(properties: &PublishProperties) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, |t| 3 + t.len());
    let pair = |(key, value): &(String, String)| 5 + key.len() + value.len();
    properties.payload_format_indicator.map_or(0, |_| 2)
        + properties.message_expiry_interval.map_or(0, |_| 5)
        + properties.topic_alias.map_or(0, |_| 3)
        + text(&properties.content_type)
        + text(&properties.response_topic)
        + properties.correlation_data.as_ref().map_or(0, |d| 3 + d.len())
        + properties.user_properties.iter().map(pair).sum::<usize>()
        + properties
            .subscription_identifiers
            .iter()
            .map(|id| 1 + variable_len(*id))
            .sum::<usize>()
}

/// Writes the properties of a PUBLISH behind their length.
pub fn put_publish(properties: &PublishProperties, out: &mut BytesMut) {
    put_variable(publish_len(properties), out);
    if let Some(format) = properties.payload_format_indicator {
        out.put_slice(&[PAYLOAD_FORMAT, format]);
    }
    if let Some(seconds) = properties.message_expiry_interval {
        out.put_u8(MESSAGE_EXPIRY);
        out.put_u32(seconds);
    }
    if let Some(alias) = properties.topic_alias {
        out.put_u8(ALIAS);
        out.put_u16(alias);
    }
    if let Some(text) = &properties.content_type {
        out.put_u8(CONTENT_TYPE);
        put_bytes(text.as_bytes(), out);
    }
    if let Some(text) = &properties.response_topic {
        out.put_u8(RESPONSE_TOPIC);
        put_bytes(text.as_bytes(), out);
    }
    if let Some(data) = &properties.correlation_data {
        out.put_u8(CORRELATION_DATA);
        put_bytes(data, out);
    }
    for (key, value) in &properties.user_properties {
        out.put_u8(USER);
        put_bytes(key.as_bytes(), out);
        put_bytes(value.as_bytes(), out);
    }
    for id in &properties.subscription_identifiers {
        out.put_u8(SUBSCRIPTION_ID);
        put_variable(*id, out);
    }
}

fn put_bytes(bytes: &[u8], out: &mut BytesMut) {
    out.put_u16(u16::try_from(bytes.len()).expect("it came in behind a 16-bit length"));
    out.put_slice(bytes);
}
