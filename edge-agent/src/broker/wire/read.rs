//! Packets of theirs, read and checked.

use bytes::{Bytes, BytesMut};
use rumqttd::protocol::{self as codec, Packet, Protocol, PubRecReason, RetainForwardRule, v4::V4, v5::V5};

use super::{
    Connect, Filter, FixedHeader, Goodbye, Incoming, Malformed, Publish, PublishProperties, RetainHandling,
    Subscribe, Version, Will,
    properties::{self, Kind, Walk},
};

/// Version asked for by a whole CONNECT frame. `Err` with the level for one that is not spoken.
pub fn connect_version(frame: &[u8]) -> Result<Result<Version, u8>, Malformed> {
    let header = FixedHeader::peek(frame)?.ok_or(Malformed::Form("frame is cut off"))?;
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
        _ => Err(Malformed::Form("protocol name is not MQTT")),
    }
}

/// Reads one whole frame.
pub fn decode(version: Version, mut frame: BytesMut) -> Result<Incoming, Malformed> {
    let header = FixedHeader::peek(&frame)?.ok_or(Malformed::Form("frame is cut off"))?;
    if header.frame_len() != frame.len() {
        return Err(Malformed::Form("frame has the wrong length"));
    }
    header.check()?;
    match header.packet_type() {
        1 => check_connect(version, &frame[header.header_len..])?,
        // The codec wants properties after the reason; the standard lets them be left out.
        14 if version == Version::V5 && header.remaining_len == 1 => frame = padded_disconnect(frame[2]),
        12 if header.remaining_len != 0 => return Err(Malformed::Form("PINGREQ has a body")),
        8 => check_options(version, &frame[header.header_len..])?,
        _ => {}
    }
    if version == Version::V5 {
        check_properties(&frame, header)?;
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
            qos: codec::qos((header.byte1 >> 1) & 3).ok_or(Malformed::Form("QoS 3"))?,
            pkid,
            retain: publish.retain,
            topic: utf8(&publish.topic)?.into(),
            // A copy of its own: a slice would keep the whole read buffer alive for as long as a small message waits.
            payload: Bytes::copy_from_slice(&publish.payload),
            properties: properties.map(|p| {
                Box::new(PublishProperties {
                    correlation_data: p.correlation_data.map(|data| Bytes::copy_from_slice(&data)),
                    ..p
                })
            }),
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
            id: properties.and_then(|p| p.id),
            filters: match subscribe.filters {
                filters if filters.is_empty() => return Err(Malformed::Rule("SUBSCRIBE without a filter")),
                filters => filters.into_iter().map(read_filter).collect(),
            },
        }),
        Packet::Unsubscribe(u, _) if u.filters.is_empty() => {
            return Err(Malformed::Rule("UNSUBSCRIBE without a filter"));
        }
        Packet::Unsubscribe(u, _) => {
            u.filters.iter().try_for_each(|f| no_nul(f))?;
            Incoming::Unsubscribe(not_zero(u.pkid)?, u.filters)
        }
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
    let text = std::str::from_utf8(bytes).map_err(|_| Malformed::Form("text is not UTF-8"))?;
    no_nul(text)?;
    Ok(text)
}

fn no_nul(text: &str) -> Result<(), Malformed> {
    if text.contains('\0') {
        Err(Malformed::Form("text has a NUL character"))
    } else {
        Ok(())
    }
}

/// The codec reads the packet id but keeps it to itself.
fn publish_pkid(frame: &[u8], header: FixedHeader) -> Result<u16, Malformed> {
    if header.packet_type() != FixedHeader::PUBLISH || header.byte1 & 0b0110 == 0 {
        return Ok(0);
    }
    let body = &frame[header.header_len..];
    let cut = Malformed::Form("PUBLISH is cut off");
    let topic_len = match body {
        [high, low, ..] => usize::from(u16::from_be_bytes([*high, *low])),
        _ => return Err(cut),
    };
    match body.get(2 + topic_len..4 + topic_len) {
        Some([high, low]) => not_zero(u16::from_be_bytes([*high, *low])),
        _ => Err(cut),
    }
}

/// What the codec does not look at in a CONNECT: reserved flags, and that nothing follows its last field.
fn check_connect(version: Version, body: &[u8]) -> Result<(), Malformed> {
    let mut walk = Walk::new(body);
    walk.skip(7)?;
    let flags = walk.u8()?;
    walk.skip(2)?;
    if flags & 1 != 0 {
        return Err(Malformed::Form("reserved flag of CONNECT is set"));
    }
    if version == Version::V311 && flags & 0xC0 == 0x40 {
        return Err(Malformed::Rule("password without a user"));
    }
    if version == Version::V5 {
        properties::check(Kind::Connect, &mut walk)?;
    }
    walk.text()?; // client id
    if flags & 0x04 != 0 {
        if version == Version::V5 {
            properties::check(Kind::Will, &mut walk)?;
        }
        walk.text()?; // topic
        walk.bytes()?; // payload
    }
    if flags & 0x80 != 0 {
        walk.text()?; // user
    }
    if flags & 0x40 != 0 {
        walk.bytes()?; // password
    }
    walk.end("bytes follow the last field of CONNECT")
}

/// Reserved bits of a SUBSCRIBE's options, which the codec ignores.
fn check_options(version: Version, body: &[u8]) -> Result<(), Malformed> {
    let mut walk = Walk::new(body);
    walk.skip(2)?;
    let reserved = match version {
        Version::V311 => 0xFC,
        Version::V5 => {
            properties::check(Kind::Subscribe, &mut walk)?;
            0xC0
        }
    };
    while !walk.is_empty() {
        walk.text()?;
        if walk.u8()? & reserved != 0 {
            return Err(Malformed::Form("reserved bits of a subscription are set"));
        }
    }
    Ok(())
}

/// The properties of a version 5 packet; those of CONNECT and SUBSCRIBE were looked at before.
fn check_properties(frame: &[u8], header: FixedHeader) -> Result<(), Malformed> {
    let mut walk = Walk::new(&frame[header.header_len..]);
    let (before, kind) = match header.packet_type() {
        FixedHeader::PUBLISH => {
            walk.text()?;
            (if header.byte1 & 0b0110 == 0 { 0 } else { 2 }, Kind::Publish)
        }
        4..=7 if header.remaining_len > 3 => (3, Kind::Acknowledgement),
        10 => (2, Kind::Unsubscribe),
        14 if header.remaining_len > 1 => (1, Kind::Disconnect),
        _ => return Ok(()),
    };
    walk.skip(before)?;
    properties::check(kind, &mut walk)?;
    if matches!(kind, Kind::Acknowledgement | Kind::Disconnect) {
        walk.end("bytes follow the properties")?;
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
                correlation_data: p.correlation_data.map(|data| Bytes::copy_from_slice(&data)),
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
            payload: Bytes::copy_from_slice(&will.message),
            properties,
        };
        Ok::<_, Malformed>(Will {
            publish,
            delay_seconds,
        })
    });
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
        receive_maximum: properties
            .as_ref()
            .and_then(|p| p.receive_maximum)
            .unwrap_or(u16::MAX),
        max_packet_size: properties.as_ref().and_then(|p| p.max_packet_size),
        topic_alias_max: properties.as_ref().and_then(|p| p.topic_alias_max).unwrap_or(0),
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
