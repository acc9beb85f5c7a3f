//! As much of MQTT 3.1.1 as a device speaks, written out: a library would decide for itself what to resend.

use anyhow::{Result, bail, ensure};
use tokio::{io::AsyncReadExt, net::tcp::OwnedReadHalf};

/// What a broker tells a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Packet {
    /// Accepted; the flag says whether the session was there.
    ConnAck {
        /// The session was there.
        session_present: bool,
    },
    /// QoS 1 is settled.
    PubAck(u16),
    /// QoS 2 is in the broker's hands.
    PubRec(u16),
    /// QoS 2 is settled.
    PubComp(u16),
    /// QoS 2 towards the client is released.
    PubRel(u16),
    /// A subscription is granted at this QoS.
    SubAck(u8),
    /// A message for the client.
    Publish {
        /// Quality of service.
        qos: u8,
        /// Packet id, 0 at QoS 0.
        pkid: u16,
        /// Its topic.
        topic: String,
        /// Its payload.
        payload: Vec<u8>,
    },
}

/// Seconds; long enough that no test has to ping.
const KEEP_ALIVE: u16 = 600;

/// CONNECT of protocol level 4.
pub fn connect(client: &str, clean: bool) -> Vec<u8> {
    let mut body = vec![0, 4, b'M', b'Q', b'T', b'T', 4, if clean { 2 } else { 0 }];
    body.extend_from_slice(&KEEP_ALIVE.to_be_bytes());
    text(&mut body, client);
    packet(0x10, &body)
}

/// PUBLISH.
pub fn publish(topic: &str, payload: &[u8], qos: u8, pkid: u16, dup: bool) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
    text(&mut body, topic);
    body.extend_from_slice(&pkid.to_be_bytes());
    body.extend_from_slice(payload);
    packet(0x30 | (u8::from(dup) << 3) | (qos << 1), &body)
}

/// The same, to be retained.
pub fn publish_retained(topic: &str, payload: &[u8], qos: u8, pkid: u16) -> Vec<u8> {
    let mut bytes = publish(topic, payload, qos, pkid, false);
    bytes[0] |= 1;
    bytes
}

/// SUBSCRIBE for one filter.
pub fn subscribe(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

/// PUBACK.
pub fn puback(pkid: u16) -> Vec<u8> {
    packet(0x40, &pkid.to_be_bytes())
}

/// PUBREC.
pub fn pubrec(pkid: u16) -> Vec<u8> {
    packet(0x50, &pkid.to_be_bytes())
}

/// PUBCOMP.
pub fn pubcomp(pkid: u16) -> Vec<u8> {
    packet(0x70, &pkid.to_be_bytes())
}

/// PUBREL.
pub fn pubrel(pkid: u16) -> Vec<u8> {
    packet(0x62, &pkid.to_be_bytes())
}

fn text(body: &mut Vec<u8>, text: &str) {
    let len = u16::try_from(text.len()).expect("names of a test are short");
    body.extend_from_slice(&len.to_be_bytes());
    body.extend_from_slice(text.as_bytes());
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let digit = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { digit | 0x80 } else { digit });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// Reads packets off a connection.
#[derive(Debug, Default)]
pub struct Incoming {
    bytes: Vec<u8>,
}

impl Incoming {
    /// The next packet. Cancel safe: what was read stays here.
    ///
    /// # Errors
    /// When the connection ends or says what no broker may say.
    pub async fn next(&mut self, from: &mut OwnedReadHalf) -> Result<Packet> {
        loop {
            if let Some(packet) = self.take()? {
                return Ok(packet);
            }
            ensure!(from.read_buf(&mut self.bytes).await? > 0, "the connection ended");
        }
    }

    fn take(&mut self) -> Result<Option<Packet>> {
        let [first, length, ..] = self.bytes[..] else {
            return Ok(None);
        };
        let length = usize::from(length);
        ensure!(length < 128, "an answer of {length} bytes");
        if self.bytes.len() < 2 + length {
            return Ok(None);
        }
        let body: Vec<u8> = self.bytes.drain(..2 + length).skip(2).collect();
        if first >> 4 == 3 {
            return message(first, &body).map(Some);
        }
        let [high, low, ..] = body[..] else {
            bail!("an answer without a packet id: {first:#x}");
        };
        let pkid = u16::from_be_bytes([high, low]);
        Ok(Some(match first {
            0x20 => {
                ensure!(low == 0, "CONNECT was refused with {low}");
                Packet::ConnAck {
                    session_present: high & 1 == 1,
                }
            }
            0x40 => Packet::PubAck(pkid),
            0x50 => Packet::PubRec(pkid),
            0x62 => Packet::PubRel(pkid),
            0x70 => Packet::PubComp(pkid),
            0x90 => Packet::SubAck(body.get(2).copied().unwrap_or(0x80)),
            _ => bail!("an answer nobody asked for: {first:#x}"),
        }))
    }
}

fn message(first: u8, body: &[u8]) -> Result<Packet> {
    let cut = || anyhow::anyhow!("a message is cut off");
    let (length, rest) = body.split_first_chunk::<2>().ok_or_else(cut)?;
    let (topic, mut rest) = rest
        .split_at_checked(usize::from(u16::from_be_bytes(*length)))
        .ok_or_else(cut)?;
    let qos = (first >> 1) & 3;
    let mut pkid = 0;
    if qos > 0 {
        let (id, payload) = rest.split_first_chunk::<2>().ok_or_else(cut)?;
        (pkid, rest) = (u16::from_be_bytes(*id), payload);
    }
    Ok(Packet::Publish {
        qos,
        pkid,
        topic: String::from_utf8(topic.to_vec())?,
        payload: rest.to_vec(),
    })
}
