//! Packets of ours, written.

use bytes::{BufMut, BytesMut};
use rumqttd::protocol::{
    ConnAck, Packet, Protocol, PubAck, PubAckReason, PubComp, PubCompReason, PubRec, PubRecReason, PubRel,
    PubRelReason, SubAck, SubscribeReasonCode, UnsubAck, v4::V4, v5::V5,
};

use super::{Malformed, Outgoing, Publish, SubscribeVerdict, Verdict, Version, properties};

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
        Outgoing::Publish(publish) => {
            write_publish(version, &publish, out);
            return Ok(());
        }
        Outgoing::PubAck(pkid, verdict) => Packet::PubAck(
            PubAck {
                pkid,
                reason: match verdict {
                    Verdict::Accepted => PubAckReason::Success,
                    Verdict::NotAuthorized => PubAckReason::NotAuthorized,
                    Verdict::TooLarge => PubAckReason::QuotaExceeded,
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
                    Verdict::TooLarge => PubRecReason::QuotaExceeded,
                },
            },
            None,
        ),
        Outgoing::PubRel(pkid, known) => {
            let reason = if known {
                PubRelReason::Success
            } else {
                PubRelReason::PacketIdentifierNotFound
            };
            Packet::PubRel(PubRel { pkid, reason }, None)
        }
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
        // 0x80, "does not wish to reveal the reason": it tells a stranger nothing of what is guarded, and it is the code
        // the Eclipse interoperability suite wants of a refused subscription.
        (Version::V5, SubscribeVerdict::NotAuthorized) => SubscribeReasonCode::Unspecified,
        (Version::V5, SubscribeVerdict::InvalidFilter) => SubscribeReasonCode::TopicFilterInvalid,
        (Version::V5, SubscribeVerdict::QuotaExceeded) => SubscribeReasonCode::QuotaExceeded,
    }
}

/// Bytes of a whole PUBLISH packet.
pub fn publish_len(version: Version, publish: &Publish) -> usize {
    let body = publish_body_len(version, publish);
    1 + properties::variable_len(body) + body
}

fn publish_body_len(version: Version, publish: &Publish) -> usize {
    let pkid = if publish.pkid == 0 { 0 } else { 2 };
    let properties = match (version, &publish.properties) {
        (Version::V311, _) => 0,
        (Version::V5, None) => 1,
        (Version::V5, Some(p)) => {
            let len = properties::publish_len(p);
            properties::variable_len(len) + len
        }
    };
    2 + publish.topic.len() + pkid + properties + publish.payload.len()
}

fn write_publish(version: Version, publish: &Publish, out: &mut BytesMut) {
    let len = publish_body_len(version, publish);
    out.reserve(5 + len);
    out.put_u8(0x30 | u8::from(publish.dup) << 3 | (publish.qos as u8) << 1 | u8::from(publish.retain));
    properties::put_variable(len, out);
    out.put_u16(u16::try_from(publish.topic.len()).expect("topics are limited to far less"));
    out.put_slice(publish.topic.as_bytes());
    if publish.pkid != 0 {
        out.put_u16(publish.pkid);
    }
    if version == Version::V5 {
        match &publish.properties {
            None => out.put_u8(0),
            Some(p) => properties::put_publish(p, out),
        }
    }
    out.put_slice(&publish.payload);
}
