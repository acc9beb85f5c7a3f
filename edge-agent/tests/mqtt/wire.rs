//! Packets as a client writes and reads them. It writes whatever a test asks for, sound or not.

/// Protocol level.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V3 = 4,
    V5 = 5,
}

/// Both, for tests that hold for both.
pub const BOTH: [Version; 2] = [Version::V3, Version::V5];

/// Names of properties that tests use (MQTT 5, 2.2.2.2).
pub mod prop {
    pub const PAYLOAD_FORMAT: u8 = 1;
    pub const MESSAGE_EXPIRY: u8 = 2;
    pub const CONTENT_TYPE: u8 = 3;
    pub const RESPONSE_TOPIC: u8 = 8;
    pub const CORRELATION_DATA: u8 = 9;
    pub const SUBSCRIPTION_ID: u8 = 11;
    pub const SESSION_EXPIRY: u8 = 17;
    pub const ASSIGNED_ID: u8 = 18;
    pub const SERVER_KEEP_ALIVE: u8 = 19;
    pub const AUTH_METHOD: u8 = 21;
    pub const WILL_DELAY: u8 = 24;
    pub const RECEIVE_MAXIMUM: u8 = 33;
    pub const ALIAS_MAXIMUM: u8 = 34;
    pub const ALIAS: u8 = 35;
    pub const USER: u8 = 38;
    pub const MAX_PACKET: u8 = 39;
}

/// A property's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    Number(u32),
    Bytes(Vec<u8>),
    Pair(String, String),
}

/// Properties in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Props(pub Vec<(u8, Value)>);

impl Props {
    pub fn number(mut self, id: u8, value: u32) -> Self {
        self.0.push((id, Value::Number(value)));
        self
    }

    pub fn bytes(mut self, id: u8, value: impl AsRef<[u8]>) -> Self {
        self.0.push((id, Value::Bytes(value.as_ref().to_vec())));
        self
    }

    pub fn user(mut self, key: &str, value: &str) -> Self {
        self.0.push((prop::USER, Value::Pair(key.into(), value.into())));
        self
    }

    pub fn get(&self, id: u8) -> Option<&Value> {
        self.0.iter().find(|(i, _)| *i == id).map(|(_, v)| v)
    }

    pub fn get_number(&self, id: u8) -> Option<u32> {
        match self.get(id) {
            Some(Value::Number(n)) => Some(*n),
            _ => None,
        }
    }

    /// All numbers of one property, sorted.
    pub fn numbers(&self, id: u8) -> Vec<u32> {
        let mut numbers: Vec<_> = self
            .0
            .iter()
            .filter_map(|(i, v)| match v {
                Value::Number(n) if *i == id => Some(*n),
                _ => None,
            })
            .collect();
        numbers.sort_unstable();
        numbers
    }

    pub fn users(&self) -> Vec<(String, String)> {
        self.0
            .iter()
            .filter_map(|(_, v)| match v {
                Value::Pair(k, v) => Some((k.clone(), v.clone())),
                _ => None,
            })
            .collect()
    }

    pub fn write(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for (id, value) in &self.0 {
            body.push(*id);
            match (width(*id), value) {
                (Width::One, Value::Number(n)) => body.push(*n as u8),
                (Width::Two, Value::Number(n)) => body.extend((*n as u16).to_be_bytes()),
                (Width::Four, Value::Number(n)) => body.extend(n.to_be_bytes()),
                (Width::Variable, Value::Number(n)) => body.extend(variable(*n as usize)),
                (_, Value::Bytes(b)) => body.extend(text(b)),
                (_, Value::Pair(k, v)) => {
                    body.extend(text(k));
                    body.extend(text(v));
                }
                (Width::Text | Width::Pair, Value::Number(_)) => panic!("property {id} is not a number"),
            }
        }
        let mut out = variable(body.len());
        out.extend(body);
        out
    }
}

enum Width {
    One,
    Two,
    Four,
    Variable,
    Text,
    Pair,
}

fn width(id: u8) -> Width {
    match id {
        1 | 23 | 25 | 36 | 37 | 40 | 41 | 42 => Width::One,
        19 | 33 | 34 | 35 => Width::Two,
        2 | 17 | 24 | 39 => Width::Four,
        11 => Width::Variable,
        38 => Width::Pair,
        _ => Width::Text,
    }
}

/// A variable byte integer.
pub fn variable(mut n: usize) -> Vec<u8> {
    let mut out = Vec::new();
    loop {
        let byte = (n % 128) as u8;
        n /= 128;
        out.push(if n > 0 { byte | 0x80 } else { byte });
        if n == 0 {
            return out;
        }
    }
}

/// A text or bytes with their length.
pub fn text(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let bytes = bytes.as_ref();
    let mut out = (bytes.len() as u16).to_be_bytes().to_vec();
    out.extend(bytes);
    out
}

/// A packet of a first byte and a body.
pub fn packet(byte1: u8, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut out = vec![byte1];
    out.extend(variable(body.len()));
    out.extend(body);
    out
}

/// A will of a CONNECT.
#[derive(Clone, Debug)]
pub struct Will {
    pub topic: &'static str,
    pub payload: &'static [u8],
    pub qos: u8,
    pub retain: bool,
    pub props: Props,
}

/// A CONNECT. Keep-alive 0 and a clean session unless said otherwise, as the interoperability suite does.
#[derive(Clone, Debug)]
pub struct Connect {
    pub version: Version,
    pub id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub will: Option<Will>,
    /// User and password.
    pub login: Option<(String, String)>,
    pub props: Props,
}

impl Connect {
    pub fn new(version: Version, id: &str) -> Self {
        Self {
            version,
            id: id.into(),
            clean: true,
            keep_alive: 0,
            will: None,
            login: None,
            props: Props::default(),
        }
    }

    /// A session that outlives its connection, in both versions.
    pub fn kept(version: Version, id: &str) -> Self {
        let connect = Self {
            clean: false,
            ..Self::new(version, id)
        };
        match version {
            Version::V3 => connect,
            Version::V5 => connect.number(prop::SESSION_EXPIRY, 1_000),
        }
    }

    pub fn number(mut self, id: u8, value: u32) -> Self {
        self.props = self.props.number(id, value);
        self
    }

    pub fn login(mut self, user: &str, password: &str) -> Self {
        self.login = Some((user.to_owned(), password.to_owned()));
        self
    }

    pub fn will(mut self, topic: &'static str, payload: &'static [u8], qos: u8, retain: bool) -> Self {
        self.will = Some(Will {
            topic,
            payload,
            qos,
            retain,
            props: Props::default(),
        });
        self
    }

    pub fn write(&self) -> Vec<u8> {
        let mut flags = if self.clean { 2 } else { 0 };
        if let Some(will) = &self.will {
            flags |= 4 | will.qos << 3 | u8::from(will.retain) << 5;
        }
        if self.login.is_some() {
            flags |= 0x80 | 0x40;
        }
        let mut body = text("MQTT");
        body.extend([self.version as u8, flags]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == Version::V5 {
            body.extend(self.props.write());
        }
        body.extend(text(&self.id));
        if let Some(will) = &self.will {
            if self.version == Version::V5 {
                body.extend(will.props.write());
            }
            body.extend(text(will.topic));
            body.extend(text(will.payload));
        }
        if let Some((user, password)) = &self.login {
            body.extend(text(user));
            body.extend(text(password));
        }
        packet(0x10, body)
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub pkid: u16,
    pub props: Props,
}

impl Message {
    pub fn new(topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> Self {
        Self {
            topic: topic.into(),
            payload: payload.as_ref().to_vec(),
            qos,
            retain: false,
            dup: false,
            pkid: 0,
            props: Props::default(),
        }
    }

    pub fn retained(self) -> Self {
        Self { retain: true, ..self }
    }

    pub fn pkid(self, pkid: u16) -> Self {
        Self { pkid, ..self }
    }

    pub fn dup(self) -> Self {
        Self { dup: true, ..self }
    }

    pub fn props(self, props: Props) -> Self {
        Self { props, ..self }
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("tests send text")
    }

    pub fn write(&self, version: Version) -> Vec<u8> {
        let mut body = text(&self.topic);
        if self.qos > 0 {
            body.extend(self.pkid.to_be_bytes());
        }
        if version == Version::V5 {
            body.extend(self.props.write());
        }
        body.extend(&self.payload);
        packet(
            0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain),
            body,
        )
    }
}

/// A SUBSCRIBE of filters with their option bytes.
pub fn subscribe(version: Version, pkid: u16, props: &Props, filters: &[(&str, u8)]) -> Vec<u8> {
    let mut body = pkid.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.extend(props.write());
    }
    for (filter, options) in filters {
        body.extend(text(filter));
        body.push(*options);
    }
    packet(0x82, body)
}

/// An UNSUBSCRIBE.
pub fn unsubscribe(version: Version, pkid: u16, filters: &[&str]) -> Vec<u8> {
    let mut body = pkid.to_be_bytes().to_vec();
    if version == Version::V5 {
        body.push(0);
    }
    filters.iter().for_each(|f| body.extend(text(f)));
    packet(0xA2, body)
}

/// An acknowledgement without a reason.
pub fn ack(byte1: u8, pkid: u16) -> Vec<u8> {
    packet(byte1, pkid.to_be_bytes())
}

pub const PUBACK: u8 = 0x40;
pub const PUBREC: u8 = 0x50;
pub const PUBREL: u8 = 0x62;
pub const PUBCOMP: u8 = 0x70;
pub const PINGREQ: [u8; 2] = [0xC0, 0];
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// What a broker may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    ConnAck {
        present: bool,
        code: u8,
        props: Props,
    },
    Publish(Message),
    /// Any of the four acknowledgements: its first byte, packet id and reason (0 when left out).
    Ack(u8, u16, u8),
    SubAck(u16, Vec<u8>),
    UnsubAck(u16, Vec<u8>),
    PingResp,
    Disconnect(u8),
}

/// Takes the first packet off `bytes`, if it is whole.
pub fn read(version: Version, bytes: &mut bytes::BytesMut) -> Option<Packet> {
    let (mut len, mut at) = (0, 1);
    loop {
        let byte = *bytes.get(at)?;
        len |= usize::from(byte & 0x7f) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
    }
    if bytes.len() < at + len {
        return None;
    }
    let frame = bytes.split_to(at + len);
    let mut body = Cursor(&frame[at..]);
    let five = version == Version::V5;
    let packet = match frame[0] >> 4 {
        2 => Packet::ConnAck {
            present: body.u8() == 1,
            code: body.u8(),
            props: if five { body.props() } else { Props::default() },
        },
        3 => {
            let qos = (frame[0] >> 1) & 3;
            let topic = String::from_utf8(body.text()).expect("topics are UTF-8");
            let pkid = if qos > 0 { body.u16() } else { 0 };
            assert!(qos == 0 || pkid != 0, "packet id 0 from the broker");
            let props = if five { body.props() } else { Props::default() };
            Packet::Publish(Message {
                topic,
                payload: std::mem::take(&mut body.0).to_vec(),
                qos,
                retain: frame[0] & 1 != 0,
                dup: frame[0] & 8 != 0,
                pkid,
                props,
            })
        }
        4..=7 => {
            let pkid = body.u16();
            let reason = if body.0.is_empty() { 0 } else { body.u8() };
            if !body.0.is_empty() {
                body.props();
            }
            Packet::Ack(frame[0], pkid, reason)
        }
        9 | 11 => {
            let pkid = body.u16();
            if five {
                body.props();
            }
            let codes = std::mem::take(&mut body.0).to_vec();
            if frame[0] >> 4 == 9 {
                Packet::SubAck(pkid, codes)
            } else {
                Packet::UnsubAck(pkid, codes)
            }
        }
        13 => Packet::PingResp,
        14 => {
            assert!(five, "3.1.1 has no DISCONNECT from the broker");
            let reason = if body.0.is_empty() { 0 } else { body.u8() };
            if !body.0.is_empty() {
                body.props();
            }
            Packet::Disconnect(reason)
        }
        other => panic!("packet type {other} from the broker"),
    };
    assert!(body.0.is_empty(), "bytes are left in {frame:02x?}");
    Some(packet)
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take(&mut self, n: usize) -> Vec<u8> {
        let (head, rest) = self.0.split_at(n);
        self.0 = rest;
        head.to_vec()
    }

    fn u8(&mut self) -> u8 {
        self.take(1)[0]
    }

    fn u16(&mut self) -> u16 {
        u16::from(self.u8()) << 8 | u16::from(self.u8())
    }

    fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }

    fn variable(&mut self) -> usize {
        let (mut n, mut shift) = (0, 0);
        loop {
            let byte = self.u8();
            n |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                return n;
            }
        }
    }

    fn text(&mut self) -> Vec<u8> {
        let len = usize::from(self.u16());
        self.take(len)
    }

    fn props(&mut self) -> Props {
        let len = self.variable();
        let bytes = self.take(len);
        let mut body = Cursor(&bytes);
        let mut props = Props::default();
        while !body.0.is_empty() {
            let id = body.u8();
            let value = match width(id) {
                Width::One => Value::Number(u32::from(body.u8())),
                Width::Two => Value::Number(u32::from(body.u16())),
                Width::Four => Value::Number(body.u32()),
                Width::Variable => Value::Number(body.variable() as u32),
                Width::Text => Value::Bytes(body.text()),
                Width::Pair => {
                    let [key, value] =
                        [body.text(), body.text()].map(|b| String::from_utf8(b).expect("UTF-8"));
                    Value::Pair(key, value)
                }
            };
            props.0.push((id, value));
        }
        props
    }
}
