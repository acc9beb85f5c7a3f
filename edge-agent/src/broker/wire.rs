//! The two wire formats, MQTT 3.1.1 and 5, behind one pair of packet types.
//!
//! The bytes are read and written by rumqttd's codecs. This module adds what they leave out: telling the
//! versions apart, the fixed header's flags, packets only a server may send (its version 5 reader panics on
//! them), a DISCONNECT that ends after its reason, and access to a PUBLISH's packet id. A frame it refuses costs its
//! sender the connection. It never touches a socket and keeps no state.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use rumqttd::protocol::{
    self as codec, ConnAck, ConnAckProperties, Packet, Protocol, PubAck, PubAckReason, PubComp,
    PubCompReason, PubRec, PubRecReason, PubRel, PubRelReason, RetainForwardRule, SubAck,
    SubscribeReasonCode, UnsubAck, v4::V4, v5::V5,
};

pub use codec::{ConnectReturnCode as ConnectCode, PublishProperties, QoS, UnsubAckReason};

/// Protocol version of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V311,
    /// MQTT 5.
    V5,
}

/// Why a frame is refused.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Malformed {
    /// The codec's word.
    #[error("{0}")]
    Codec(#[from] codec::Error),
    /// A rule of the protocol the codec does not check.
    #[error("{0}")]
    Rule(&'static str),
}

/// What a client may send.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// First packet of a connection.
    Connect(Box<Connect>),
    /// A message.
    Publish(Publish),
    /// Acknowledges a message of ours at QoS 1.
    PubAck(u16),
    /// Acknowledges a message of ours at QoS 2; false when the client refuses it.
    PubRec(u16, bool),
    /// Releases a message of theirs at QoS 2.
    PubRel(u16),
    /// Completes a message of ours at QoS 2.
    PubComp(u16),
    /// Asks for messages.
    Subscribe(Subscribe),
    /// Wants messages no longer.
    Unsubscribe(u16, Vec<String>),
    /// Keeps the connection alive.
    PingReq,
    /// Ends the connection.
    Disconnect(Goodbye),
}

/// First packet of a connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Connect {
    /// Protocol version.
    pub version: Version,
    /// Client id; empty asks for one to be assigned.
    pub client_id: String,
    /// Discard what is kept of an earlier session.
    pub clean_start: bool,
    /// Seconds; 0 for none.
    pub keep_alive: u16,
    /// User and password.
    pub login: Option<(String, String)>,
    /// Published when the connection is lost.
    pub will: Option<Will>,
    /// Seconds the session outlives the connection; `None` where the version has no such field.
    pub session_expiry: Option<u32>,
    /// Messages above QoS 0 the client takes before it acknowledges.
    pub receive_maximum: u16,
    /// Largest packet the client takes.
    pub max_packet_size: Option<u32>,
    /// The client wants an exchange of AUTH packets, which is not supported.
    pub enhanced_auth: bool,
}

/// Published when a connection is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Will {
    /// The message; its packet id is 0.
    pub publish: Publish,
    /// Seconds to wait before.
    pub delay_seconds: u32,
}

/// A message in either direction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Sent before.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// Packet id, 0 at QoS 0.
    pub pkid: u16,
    /// To be retained; towards a client: was retained.
    pub retain: bool,
    /// Topic name; empty where version 5 sends an alias alone.
    pub topic: Arc<str>,
    /// Payload.
    pub payload: Bytes,
    /// Version 5 only.
    pub properties: Option<Box<PublishProperties>>,
}

/// Asks for messages.
#[derive(Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet id.
    pub pkid: u16,
    /// Subscription identifier of version 5.
    pub id: Option<usize>,
    /// What is asked for.
    pub filters: Vec<Filter>,
}

/// One filter of a SUBSCRIBE.
#[derive(Debug, PartialEq, Eq)]
pub struct Filter {
    /// The filter, unchecked.
    pub path: String,
    /// Highest QoS wanted.
    pub qos: QoS,
    /// Not the client's own messages.
    pub no_local: bool,
    /// Keep the retain flag as published.
    pub retain_as_published: bool,
    /// When retained messages are wanted.
    pub retain_handling: RetainHandling,
}

/// When retained messages are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetainHandling {
    /// At every subscribe.
    Always,
    /// When the subscription is new.
    WhenNew,
    /// Never.
    Never,
}

/// How a client says goodbye.
#[derive(Debug, PartialEq, Eq)]
pub struct Goodbye {
    /// The will shall be published all the same.
    pub with_will: bool,
    /// A new session expiry, seconds.
    pub session_expiry: Option<u32>,
}

/// What a server may send.
#[derive(Debug)]
pub enum Outgoing {
    /// Answers CONNECT.
    ConnAck(bool, ConnectCode, Option<Box<ConnAckProperties>>),
    /// A message.
    Publish(Publish),
    /// Acknowledges at QoS 1.
    PubAck(u16, Verdict),
    /// Acknowledges at QoS 2.
    PubRec(u16, Verdict),
    /// Releases at QoS 2.
    PubRel(u16),
    /// Completes at QoS 2; false when the packet id was not known.
    PubComp(u16, bool),
    /// Answers SUBSCRIBE.
    SubAck(u16, Vec<SubscribeVerdict>),
    /// Answers UNSUBSCRIBE.
    UnsubAck(u16, Vec<UnsubAckReason>),
    /// Answers PINGREQ.
    PingResp,
    /// Ends a version 5 connection with a reason; version 3.1.1 has no such packet and is just closed.
    Disconnect(DisconnectReason),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted.
    Accepted,
    /// The sender may not publish there. Version 3.1.1 cannot say so: it reads as accepted.
    NotAuthorized,
}

/// What became of one filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeVerdict {
    /// Granted at this QoS.
    Granted(QoS),
    /// The client may not.
    NotAuthorized,
    /// The filter is malformed or too deep.
    InvalidFilter,
    /// A limit is reached.
    QuotaExceeded,
}

/// Reasons we end a connection for; the numbers are those of MQTT 5 section 3.14.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum DisconnectReason {
    /// A packet could not be read.
    MalformedPacket = 0x81,
    /// A packet came that may not come.
    ProtocolError = 0x82,
    /// The agent stops.
    ServerShuttingDown = 0x8B,
    /// Nothing was heard for 1.5 keep-alives.
    KeepAliveTimeout = 0x8D,
    /// The same client id connected again.
    SessionTakenOver = 0x8E,
    /// The topic has wildcards, is empty, or too deep.
    TopicNameInvalid = 0x90,
    /// An alias that was not agreed.
    TopicAliasInvalid = 0x94,
    /// The packet is larger than agreed.
    PacketTooLarge = 0x95,
    /// The buffer is full, or a queue is.
    QuotaExceeded = 0x97,
}

/// The fixed header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedHeader {
    /// Type and flags.
    pub byte1: u8,
    /// Bytes of the fixed header itself.
    pub header_len: usize,
    /// Bytes behind it.
    pub remaining_len: usize,
}

impl FixedHeader {
    /// Packet type of PUBLISH.
    pub const PUBLISH: u8 = 3;

    /// Reads the header at the beginning of `bytes`; `None` when more bytes are needed.
    pub fn peek(bytes: &[u8]) -> Result<Option<Self>, Malformed> {
        let Some((&byte1, rest)) = bytes.split_first() else {
            return Ok(None);
        };
        let mut remaining_len = 0;
        for (n, &byte) in rest.iter().take(4).enumerate() {
            remaining_len |= usize::from(byte & 0x7f) << (7 * n);
            if byte & 0x80 == 0 {
                return Ok(Some(Self {
                    byte1,
                    header_len: n + 2,
                    remaining_len,
                }));
            }
        }
        if rest.len() >= 4 {
            Err(Malformed::Rule("remaining length has more than four bytes"))
        } else {
            Ok(None)
        }
    }

    /// The packet type.
    pub const fn packet_type(self) -> u8 {
        self.byte1 >> 4
    }

    /// Length of the whole frame.
    pub const fn frame_len(self) -> usize {
        self.header_len + self.remaining_len
    }

    /// Flags as MQTT 2.2.2 wants them, and only packets a client may send.
    fn check(self) -> Result<(), Malformed> {
        let flags = self.byte1 & 0x0f;
        match (self.packet_type(), flags) {
            (3, flags) if flags & 0b0110 == 0b0110 => Err(Malformed::Rule("QoS 3")),
            (3, flags) if flags & 0b1110 == 0b1000 => Err(Malformed::Rule("DUP at QoS 0")),
            (3, _) | (6 | 8 | 10, 0b0010) | (1 | 4 | 5 | 7 | 12 | 14, 0) => Ok(()),
            (1 | 4..=8 | 10 | 12 | 14, _) => Err(Malformed::Rule("flags of the fixed header are wrong")),
            _ => Err(Malformed::Rule("packet type is not for clients to send")),
        }
    }
}

/// Version asked for by a whole CONNECT frame. `Err` with the level for one that is not spoken.
pub fn connect_version(frame: &[u8]) -> Result<Result<Version, u8>, Malformed> {
    let header = FixedHeader::peek(frame)?.ok_or(Malformed::Rule("frame is cut off"))?;
    if header.byte1 != 0x10 {
        return Err(Malformed::Rule("first packet is not CONNECT"));
    }
    let body = &frame[header.header_len..];
    match body {
        [0, 4, b'M', b'Q', b'T', b'T', 4, ..] => Ok(Ok(Version::V311)),
        [0, 4, b'M', b'Q', b'T', b'T', 5, ..] => Ok(Ok(Version::V5)),
        [0, 4, b'M', b'Q', b'T', b'T', level, ..] | [0, 6, b'M', b'Q', b'I', b's', b'd', b'p', level, ..] => {
            Ok(Err(*level))
        }
        _ => Err(Malformed::Rule("protocol name is not MQTT")),
    }
}

/// Reads one whole frame.
pub fn decode(version: Version, mut frame: BytesMut) -> Result<Incoming, Malformed> {
    let header = FixedHeader::peek(&frame)?.ok_or(Malformed::Rule("frame is cut off"))?;
    if header.frame_len() != frame.len() {
        return Err(Malformed::Rule("frame has the wrong length"));
    }
    header.check()?;
    match header.packet_type() {
        1 => check_connect_flags(version, &frame[header.header_len..])?,
        // The codec wants properties after the reason; the standard lets them be left out.
        14 if version == Version::V5 && header.remaining_len == 1 => frame = padded_disconnect(frame[2]),
        12 if header.remaining_len != 0 => return Err(Malformed::Rule("PINGREQ has a body")),
        _ => {}
    }
    let pkid = publish_pkid(&frame, header)?;
    let packet = match version {
        Version::V311 => V4.read_mut(&mut frame, usize::MAX)?,
        Version::V5 => V5.read_mut(&mut frame, usize::MAX)?,
    };
    Ok(match packet {
        Packet::Connect(connect, properties, will, will_properties, login) => Incoming::Connect(Box::new(
            read_connect(version, connect, properties, will, will_properties, login)?,
        )),
        Packet::Publish(publish, properties) => Incoming::Publish(Publish {
            dup: header.byte1 & 0b1000 != 0,
            qos: codec::qos((header.byte1 >> 1) & 3).ok_or(Malformed::Rule("QoS 3"))?,
            pkid,
            retain: publish.retain,
            topic: utf8(&publish.topic)?.into(),
            payload: publish.payload,
            properties: properties.map(Box::new),
        }),
        Packet::PubAck(p, _) => Incoming::PubAck(not_zero(p.pkid)?),
        Packet::PubRec(p, _) => {
            let taken = matches!(
                p.reason,
                PubRecReason::Success | PubRecReason::NoMatchingSubscribers
            );
            Incoming::PubRec(not_zero(p.pkid)?, taken)
        }
        Packet::PubRel(p, _) => Incoming::PubRel(not_zero(p.pkid)?),
        Packet::PubComp(p, _) => Incoming::PubComp(not_zero(p.pkid)?),
        Packet::Subscribe(subscribe, properties) => Incoming::Subscribe(Subscribe {
            pkid: not_zero(subscribe.pkid)?,
            id: match properties.and_then(|p| p.id) {
                Some(0) => return Err(Malformed::Rule("subscription identifier 0")),
                id => id,
            },
            filters: match subscribe.filters {
                filters if filters.is_empty() => return Err(Malformed::Rule("SUBSCRIBE without a filter")),
                filters => filters.into_iter().map(read_filter).collect(),
            },
        }),
        Packet::Unsubscribe(u, _) if u.filters.is_empty() => {
            return Err(Malformed::Rule("UNSUBSCRIBE without a filter"));
        }
        Packet::Unsubscribe(u, _) => Incoming::Unsubscribe(not_zero(u.pkid)?, u.filters),
        Packet::PingReq(_) => Incoming::PingReq,
        Packet::Disconnect(d, properties) => Incoming::Disconnect(Goodbye {
            with_will: d.reason_code != codec::DisconnectReasonCode::NormalDisconnection,
            session_expiry: properties.and_then(|p| p.session_expiry_interval),
        }),
        _ => return Err(Malformed::Rule("packet type is not for clients to send")),
    })
}

fn not_zero(pkid: u16) -> Result<u16, Malformed> {
    if pkid == 0 {
        Err(Malformed::Rule("packet id 0"))
    } else {
        Ok(pkid)
    }
}

fn utf8(bytes: &Bytes) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Rule("text is not UTF-8"))?;
    if text.contains('\0') {
        Err(Malformed::Rule("text has a NUL character"))
    } else {
        Ok(text)
    }
}

/// The codec reads the packet id but keeps it to itself.
fn publish_pkid(frame: &[u8], header: FixedHeader) -> Result<u16, Malformed> {
    if header.packet_type() != FixedHeader::PUBLISH || header.byte1 & 0b0110 == 0 {
        return Ok(0);
    }
    let body = &frame[header.header_len..];
    let cut = Malformed::Rule("PUBLISH is cut off");
    let topic_len = match body {
        [high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => return Err(cut),
    };
    match body.get(2 + topic_len..4 + topic_len) {
        Some([high, low]) => not_zero(u16::from_be_bytes([*high, *low])),
        _ => Err(cut),
    }
}

fn check_connect_flags(version: Version, body: &[u8]) -> Result<(), Malformed> {
    let Some(&flags) = body.get(7) else {
        return Err(Malformed::Rule("CONNECT is cut off"));
    };
    if flags & 1 != 0 {
        return Err(Malformed::Rule("reserved flag of CONNECT is set"));
    }
    if version == Version::V311 && flags & 0xC0 == 0x40 {
        return Err(Malformed::Rule("password without a user"));
    }
    Ok(())
}

fn padded_disconnect(reason: u8) -> BytesMut {
    BytesMut::from(&[0xE0, 2, reason, 0][..])
}

fn read_connect(
    version: Version,
    connect: codec::Connect,
    properties: Option<codec::ConnectProperties>,
    will: Option<codec::LastWill>,
    will_properties: Option<codec::LastWillProperties>,
    login: Option<codec::Login>,
) -> Result<Connect, Malformed> {
    if connect.client_id.contains('\0') {
        return Err(Malformed::Rule("client id has a NUL character"));
    }
    let will = will.map(|will| {
        let delay_seconds = will_properties
            .as_ref()
            .and_then(|p| p.delay_interval)
            .unwrap_or(0);
        let properties = will_properties.map(|p| {
            Box::new(PublishProperties {
                payload_format_indicator: p.payload_format_indicator,
                message_expiry_interval: p.message_expiry_interval,
                topic_alias: None,
                response_topic: p.response_topic,
                correlation_data: p.correlation_data,
                user_properties: p.user_properties,
                subscription_identifiers: Vec::new(),
                content_type: p.content_type,
            })
        });
        let publish = Publish {
            dup: false,
            qos: will.qos,
            pkid: 0,
            retain: will.retain,
            topic: utf8(&will.topic)?.into(),
            payload: will.message,
            properties,
        };
        Ok::<_, Malformed>(Will {
            publish,
            delay_seconds,
        })
    });
    let receive_maximum = match properties.as_ref().and_then(|p| p.receive_maximum) {
        Some(0) => return Err(Malformed::Rule("receive maximum 0")),
        maximum => maximum.unwrap_or(u16::MAX),
    };
    let max_packet_size = match properties.as_ref().and_then(|p| p.max_packet_size) {
        Some(0) => return Err(Malformed::Rule("maximum packet size 0")),
        size => size,
    };
    Ok(Connect {
        version,
        client_id: connect.client_id,
        clean_start: connect.clean_session,
        keep_alive: connect.keep_alive,
        login: login.map(|l| (l.username, l.password)),
        will: will.transpose()?,
        session_expiry: match version {
            Version::V311 => None,
            Version::V5 => Some(
                properties
                    .as_ref()
                    .and_then(|p| p.session_expiry_interval)
                    .unwrap_or(0),
            ),
        },
        receive_maximum,
        max_packet_size,
        enhanced_auth: properties.is_some_and(|p| p.authentication_method.is_some()),
    })
}

fn read_filter(filter: codec::Filter) -> Filter {
    Filter {
        path: filter.path,
        qos: filter.qos,
        no_local: filter.nolocal,
        retain_as_published: filter.preserve_retain,
        retain_handling: match filter.retain_forward_rule {
            RetainForwardRule::OnEverySubscribe => RetainHandling::Always,
            RetainForwardRule::OnNewSubscribe => RetainHandling::WhenNew,
            RetainForwardRule::Never => RetainHandling::Never,
        },
    }
}

/// Appends a packet to `out`. A packet the codec refuses to write is a bug of ours and is left out.
pub fn encode(version: Version, packet: Outgoing, out: &mut BytesMut) -> Result<(), Malformed> {
    let packet = match packet {
        Outgoing::ConnAck(session_present, code, properties) => Packet::ConnAck(
            ConnAck {
                session_present,
                code,
            },
            properties.map(|p| *p),
        ),
        Outgoing::Publish(publish) => write_publish(version, publish),
        Outgoing::PubAck(pkid, verdict) => Packet::PubAck(
            PubAck {
                pkid,
                reason: match verdict {
                    Verdict::Accepted => PubAckReason::Success,
                    Verdict::NotAuthorized => PubAckReason::NotAuthorized,
                },
            },
            None,
        ),
        Outgoing::PubRec(pkid, verdict) => Packet::PubRec(
            PubRec {
                pkid,
                reason: match verdict {
                    Verdict::Accepted => PubRecReason::Success,
                    Verdict::NotAuthorized => PubRecReason::NotAuthorized,
                },
            },
            None,
        ),
        Outgoing::PubRel(pkid) => Packet::PubRel(
            PubRel {
                pkid,
                reason: PubRelReason::Success,
            },
            None,
        ),
        Outgoing::PubComp(pkid, known) => {
            let reason = if known {
                PubCompReason::Success
            } else {
                PubCompReason::PacketIdentifierNotFound
            };
            Packet::PubComp(PubComp { pkid, reason }, None)
        }
        Outgoing::SubAck(pkid, verdicts) => {
            let return_codes = verdicts.into_iter().map(|v| subscribe_code(version, v)).collect();
            Packet::SubAck(SubAck { pkid, return_codes }, None)
        }
        Outgoing::UnsubAck(pkid, reasons) => Packet::UnsubAck(UnsubAck { pkid, reasons }, None),
        Outgoing::PingResp => {
            out.put_slice(&[0xD0, 0]);
            return Ok(());
        }
        Outgoing::Disconnect(reason) => {
            if version == Version::V5 {
                out.put_slice(&[0xE0, 2, reason as u8, 0]);
            }
            return Ok(());
        }
    };
    match version {
        Version::V311 => V4.write(packet, out)?,
        Version::V5 => V5.write(packet, out)?,
    };
    Ok(())
}

fn subscribe_code(version: Version, verdict: SubscribeVerdict) -> SubscribeReasonCode {
    match (version, verdict) {
        (_, SubscribeVerdict::Granted(qos)) => SubscribeReasonCode::Success(qos),
        (Version::V311, _) => SubscribeReasonCode::Failure,
        (Version::V5, SubscribeVerdict::NotAuthorized) => SubscribeReasonCode::NotAuthorized,
        (Version::V5, SubscribeVerdict::InvalidFilter) => SubscribeReasonCode::TopicFilterInvalid,
        (Version::V5, SubscribeVerdict::QuotaExceeded) => SubscribeReasonCode::QuotaExceeded,
    }
}

/// The codec's packet can be made with a QoS and a packet id only from its own serialised form.
fn write_publish(version: Version, publish: Publish) -> Packet {
    let mut form = BytesMut::with_capacity(5 + publish.topic.len() + publish.payload.len());
    form.put_u8(u8::from(publish.retain) | (publish.qos as u8) << 1 | u8::from(publish.dup) << 3);
    form.put_u16(publish.pkid);
    form.put_u16(u16::try_from(publish.topic.len()).expect("a topic came in with a 16-bit length"));
    form.put_slice(publish.topic.as_bytes());
    form.put_slice(&publish.payload);
    let properties = match version {
        Version::V311 => None,
        Version::V5 => publish.properties.map(|p| *p),
    };
    Packet::Publish(codec::Publish::deserialize(form.freeze()), properties)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(bytes: &[u8]) -> BytesMut {
        BytesMut::from(bytes)
    }

    #[test]
    fn publishes_survive_a_round_trip_in_both_versions() {
        for version in [Version::V311, Version::V5] {
            for (qos, pkid, dup) in [
                (QoS::AtMostOnce, 0, false),
                (QoS::AtLeastOnce, 7, true),
                (QoS::ExactlyOnce, 65_535, false),
            ] {
                let publish = Publish {
                    dup,
                    qos,
                    pkid,
                    retain: true,
                    topic: "a/b".into(),
                    payload: Bytes::from_static(b"21.3"),
                    properties: (version == Version::V5).then(|| {
                        Box::new(PublishProperties {
                            user_properties: vec![("k".into(), "v".into())],
                            subscription_identifiers: vec![],
                            message_expiry_interval: Some(60),
                            ..PublishProperties::default()
                        })
                    }),
                };
                let mut out = BytesMut::new();
                encode(version, Outgoing::Publish(publish.clone()), &mut out).unwrap();
                assert_eq!(decode(version, out), Ok(Incoming::Publish(publish)));
            }
        }
    }

    #[test]
    fn malformed_frames_are_refused() {
        let check = |version, bytes: &[u8]| {
            assert!(decode(version, frame(bytes)).is_err(), "{version:?} {bytes:02x?}");
        };
        for version in [Version::V311, Version::V5] {
            check(version, &[]);
            check(version, &[0x36, 0x05, 0, 1, b'a', 0, 1]); // QoS 3
            check(version, &[0x38, 0x03, 0, 1, b'a']); // DUP at QoS 0
            check(version, &[0x32, 0x05, 0, 1, b'a', 0, 0]); // packet id 0
            check(version, &[0x32, 0x03, 0, 1, b'a']); // packet id missing
            check(version, &[0x30, 0x04, 0, 9, b'a', b'b']); // topic longer than the frame
            check(version, &[0x30, 0x04, 0, 2, 0xC3, 0x28]); // topic is not UTF-8
            check(version, &[0x30, 0x04, 0, 2, b'a', 0]); // NUL in the topic
            check(version, &[0x80, 0x06, 0, 1, 0, 1, b'a', 0]); // SUBSCRIBE without its flag
            check(version, &[0x82, 0x02, 0, 1]); // SUBSCRIBE without a filter
            check(version, &[0x82, 0x06, 0, 1, 0, 1, b'a', 3]); // SUBSCRIBE at QoS 3
            check(version, &[0xA2, 0x02, 0, 1]); // UNSUBSCRIBE without a filter
            check(version, &[0x60, 0x02, 0, 1]); // PUBREL without its flag
            check(version, &[0x20, 0x02, 0, 0]); // CONNACK from a client
            check(version, &[0xB0, 0x03, 0, 1, 0]); // UNSUBACK from a client
            check(version, &[0x90, 0x04, 0, 1, 0, 0]); // SUBACK from a client
            check(version, &[0xD0, 0x00]); // PINGRESP from a client
            check(version, &[0xF0, 0x00]); // AUTH
            check(version, &[0x00, 0x00]); // type 0
            check(version, &[0xC0, 0x01, 0]); // PINGREQ with a body
            check(version, &[0x10, 0x00]); // empty CONNECT
        }
        check(
            Version::V311,
            &[0x10, 0x0C, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x03, 0, 0, 0, 0],
        ); // reserved flag
        check(
            Version::V311,
            &[
                0x10, 0x0E, 0, 4, b'M', b'Q', b'T', b'T', 4, 0x42, 0, 0, 0, 0, 0, 0,
            ],
        ); // password alone
    }

    #[test]
    fn a_disconnect_may_end_after_its_reason() {
        let goodbye = |bytes: &[u8]| decode(Version::V5, frame(bytes)).unwrap();
        let want = |with_will| {
            Incoming::Disconnect(Goodbye {
                with_will,
                session_expiry: None,
            })
        };
        assert_eq!(goodbye(&[0xE0, 0]), want(false));
        assert_eq!(goodbye(&[0xE0, 1, 0]), want(false));
        assert_eq!(goodbye(&[0xE0, 1, 4]), want(true));
        assert_eq!(goodbye(&[0xE0, 2, 4, 0]), want(true));
    }

    #[test]
    fn the_version_is_read_from_connect() {
        let connect = |name: &[u8], level: u8| {
            let mut bytes = vec![0x10, 0, 0, name.len() as u8];
            bytes.extend_from_slice(name);
            bytes.extend_from_slice(&[level, 2, 0, 60, 0, 0]);
            bytes[1] = (bytes.len() - 2) as u8;
            connect_version(&bytes)
        };
        assert_eq!(connect(b"MQTT", 4), Ok(Ok(Version::V311)));
        assert_eq!(connect(b"MQTT", 5), Ok(Ok(Version::V5)));
        assert_eq!(connect(b"MQTT", 6), Ok(Err(6)));
        assert_eq!(connect(b"MQIsdp", 3), Ok(Err(3)));
        assert!(connect(b"HTTP", 4).is_err());
        assert!(connect_version(&[0x30, 0]).is_err());
    }

    #[test]
    fn fixed_headers_wait_for_their_bytes_and_end_after_four() {
        assert_eq!(FixedHeader::peek(&[]), Ok(None));
        assert_eq!(FixedHeader::peek(&[0x30]), Ok(None));
        assert_eq!(FixedHeader::peek(&[0x30, 0x80]), Ok(None));
        let header = FixedHeader::peek(&[0x30, 0xFF, 0xFF, 0xFF, 0x7F])
            .unwrap()
            .unwrap();
        assert_eq!((header.remaining_len, header.header_len), (268_435_455, 5));
        assert!(FixedHeader::peek(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF]).is_err());
    }

    /// Random bytes and mutated packets never panic: the codec behind us has many `unreachable!`.
    #[test]
    fn hostile_bytes_never_panic() {
        use rand::{RngExt, SeedableRng};
        let mut random = rand::rngs::StdRng::seed_from_u64(1);
        let seeds: [&[u8]; 6] = [
            &[
                0x10, 0x10, 0, 4, b'M', b'Q', b'T', b'T', 5, 0xC6, 0, 60, 3, 0x21, 0, 9, 0, 1, b'a', 0, 0, 0,
                1,
            ],
            &[0x32, 0x0C, 0, 1, b'a', 0, 5, 5, 0x02, 0, 0, 0, 9, b'x'],
            &[0x82, 0x08, 0, 1, 2, 0x0B, 1, 0, 1, b'#', 0x2E],
            &[0x62, 0x04, 0, 1, 0x92, 0],
            &[0xE0, 0x07, 0, 5, 0x11, 0, 0, 0, 9],
            &[0xA2, 0x06, 0, 1, 0, 0, 1, b'#'],
        ];
        for round in 0..200_000_usize {
            let mut bytes = seeds[round % seeds.len()].to_vec();
            for _ in 0..random.random_range(0..6) {
                let at = random.random_range(0..bytes.len());
                bytes[at] = random.random();
            }
            bytes.truncate(random.random_range(2..=bytes.len()));
            if round % 2 == 0 {
                bytes[1] = (bytes.len() - 2) as u8; // a length that fits gets past the first check
            }
            for version in [Version::V311, Version::V5] {
                let _ = decode(version, frame(&bytes));
            }
            let _ = connect_version(&bytes);
        }
    }
}
