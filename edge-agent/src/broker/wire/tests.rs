//! Frames that are sound, and frames that are not.

use bytes::{Bytes, BytesMut};

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
            0x10, 0x10, 0, 4, b'M', b'Q', b'T', b'T', 5, 0xC6, 0, 60, 3, 0x21, 0, 9, 0, 1, b'a', 0, 0, 0, 1,
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
