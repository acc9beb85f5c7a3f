//! What of the broker is fuzzed: both packet readers, from the bytes as they come to packets, and the form of what is kept.

use bytes::BytesMut;

use super::{
    reader::{Frame, Frames},
    store::form::{self, Now, SessionRecord},
    subscriptions::{parse_filter, sound_topic},
    wire::{self, Incoming, Outgoing, Publish, Version},
};

/// Bytes come in pieces of this size: frames begin and end anywhere in them.
const PIECE: usize = 61;
/// The place of a message; any will do.
const PLACE: u64 = 7;

/// A connection in version 3.1.1.
pub fn mqtt_3(bytes: &[u8]) {
    connection(Version::V311, bytes);
}

/// A connection in version 5.
pub fn mqtt_5(bytes: &[u8]) {
    connection(Version::V5, bytes);
}

/// The first packet is read as CONNECT is, the others in the version, until one is refused.
fn connection(version: Version, bytes: &[u8]) {
    let mut frames = Frames::default();
    let mut known = None;
    for piece in bytes.chunks(PIECE) {
        frames.buffer.extend_from_slice(piece);
        loop {
            match frames.next(known) {
                Err(_) => return,
                Ok(None) => break,
                Ok(Some(Frame::Packet(frame))) if known.is_none() => {
                    if let Ok(Ok(said)) = wire::connect_version(&frame) {
                        let _refused_or_not = wire::decode(said, frame);
                    }
                    known = Some(version);
                }
                Ok(Some(Frame::Packet(frame))) => match wire::decode(version, frame) {
                    Ok(packet) => look(version, packet),
                    Err(_) => return,
                },
                Ok(Some(Frame::Oversize(oversize))) => {
                    let (publish, _) = oversize.finish();
                    assert!(publish.payload.is_empty(), "the payload was thrown away");
                }
            }
        }
    }
}

fn look(version: Version, packet: Incoming) {
    match packet {
        Incoming::Publish(publish) => {
            let _sound = sound_topic(&publish.topic);
            let mut written = BytesMut::new();
            wire::encode(version, Outgoing::Publish(publish.clone()), &mut written)
                .expect("what was read can be written");
            assert_eq!(written.len(), wire::publish_len(version, &publish), "{publish:?}");
            if version == Version::V311 {
                assert_eq!(wire::decode(version, written), Ok(Incoming::Publish(publish)));
            }
        }
        Incoming::Subscribe(subscribe) => {
            for filter in subscribe.filters {
                let _parsed = parse_filter(&filter.path);
            }
        }
        _ => {}
    }
}

/// The form of sessions on disk; the first byte says of what.
pub fn sessions(bytes: &[u8]) {
    let Some((kind, value)) = bytes.split_first() else {
        return;
    };
    let now = Now::read();
    let same = |one: &Publish, other: &Publish| {
        assert_eq!(
            (&one.topic, &one.payload, one.qos),
            (&other.topic, &other.payload, other.qos)
        );
    };
    match kind % 6 {
        0 => {
            if let Some(record) = SessionRecord::read(value) {
                assert_eq!(SessionRecord::read(&record.write()), Some(record));
            }
        }
        1 => {
            if let Some((filter, subscription)) = form::read_filter(value) {
                let written = form::write_filter(&filter, &subscription);
                assert_eq!(form::read_filter(&written), Some((filter, subscription)));
            }
        }
        2 => {
            if let Some(message) = form::read_retained(value, now) {
                let again = form::read_retained(&form::write_retained(&message, now), now);
                same(
                    &again.expect("what was written can be read").publish,
                    &message.publish,
                );
            }
        }
        3 => {
            if let Some(delivery) = form::read_delivery(value, PLACE, now) {
                let again = form::read_delivery(&form::write_delivery(&delivery, now), PLACE, now);
                let again = again.expect("what was written can be read");
                assert_eq!((again.topic, again.payload), (delivery.topic, delivery.payload));
            }
        }
        4 => {
            if let Some((will, due_ms)) = form::read_will(value, now) {
                let written = form::write_will(&will, None, now);
                let (again, _) = form::read_will(&written, now).expect("what was written can be read");
                assert_eq!(again.delay_seconds, will.delay_seconds);
                assert!(due_ms != Some(u64::MAX), "which stands for none");
                same(&again.publish, &will.publish);
            }
        }
        _ => {
            if let Some((place, released)) = form::read_outgoing(value) {
                let written = form::write_outgoing(place, released);
                assert_eq!(form::read_outgoing(&written), Some((place, released)));
            }
        }
    }
}
