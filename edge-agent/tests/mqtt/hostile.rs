//! Clients that mean harm, or are broken: only their own connections pay. A bystander is served all the while.

use std::time::{Duration, Instant};

use edge_agent::broker::Limits;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::io::AsyncWriteExt as _;

use super::{
    agent::{Agent, DEADLINE, Door},
    client::Client,
    wire::{
        self, BOTH, Connect, DISCONNECT, Message, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Props, Version,
        prop,
    },
};

/// A bystander that waits for longer than this, on however slow a machine, waits for somebody else's connection to end.
const SERVED_WITHIN: Duration = Duration::from_secs(15);

/// Somebody who is served while others misbehave.
pub struct Bystander {
    pub client: Client,
    pub worst: Duration,
}

impl Bystander {
    pub async fn arrive(door: &Door) -> Self {
        let mut client = Client::connect(door.mqtt, Version::V3, "bystander").await;
        client.subscribe("bystander", 1).await;
        Self {
            client,
            worst: Duration::ZERO,
        }
    }

    /// One message to itself.
    pub async fn is_served(&mut self) {
        let begun = Instant::now();
        self.client.publish(Message::new("bystander", "x", 1)).await;
        assert_eq!(self.client.message().await.text(), "x");
        self.worst = self.worst.max(begun.elapsed());
    }

    pub fn never_waited(&self) {
        assert!(self.worst < SERVED_WITHIN, "{:?}", self.worst);
    }
}

/// A session with something of everything.
fn session(version: Version) -> Vec<Vec<u8>> {
    let connect = match version {
        Version::V3 => Connect::new(version, "session").will("w", b"will", 1, true),
        Version::V5 => Connect::new(version, "session")
            .will("w", b"will", 1, true)
            .number(prop::SESSION_EXPIRY, 0)
            .number(prop::RECEIVE_MAXIMUM, 5)
            .number(prop::MAX_PACKET, 1_000),
    };
    let id = Props::default().number(prop::SUBSCRIPTION_ID, 7);
    let props = Props::default()
        .number(prop::MESSAGE_EXPIRY, 60)
        .user("key", "value");
    vec![
        connect.write(),
        wire::subscribe(version, 1, &id, &[("s/#", 2), ("s/+/x", 1)]),
        Message::new("s/1", "zero", 0).props(props.clone()).write(version),
        Message::new("s/1/x", "one", 1)
            .pkid(2)
            .props(props.clone())
            .write(version),
        Message::new("captured/x", "two", 2)
            .pkid(3)
            .props(props)
            .write(version),
        wire::ack(PUBREL, 3),
        wire::ack(PUBACK, 1),
        wire::ack(PUBREC, 2),
        wire::unsubscribe(version, 4, &["s/#"]),
        wire::PINGREQ.to_vec(),
        DISCONNECT.to_vec(),
    ]
}

/// Says yes for the disk, for as long as the door is open.
pub fn keep(door: &mut Door) -> tokio::task::JoinHandle<u64> {
    let (_, empty) = tokio::sync::mpsc::channel(1);
    let mut captured = std::mem::replace(&mut door.captured, empty);
    tokio::spawn(async move {
        let mut count = 0;
        while let Some(message) = captured.recv().await {
            count += 1;
            if let Some(done) = message.done {
                // Its sender may be gone.
                let _ = done.send(Ok(()));
            }
        }
        count
    })
}

/// Writes as much as the broker takes, and waits until it has closed the connection.
async fn throw(door: &Door, bytes: &[u8]) {
    let mut client = Client::open(door.mqtt, Version::V3).await;
    // The broker may close before it has read everything.
    let _ = tokio::time::timeout(DEADLINE, client.stream.write_all(bytes)).await;
    let _ = client.stream.shutdown().await;
    drain(&mut client).await;
}

async fn drain(client: &mut Client) {
    let mut sink = [0; 4096];
    let emptied = async {
        while let Ok(n) = tokio::io::AsyncReadExt::read(&mut client.stream, &mut sink).await {
            if n == 0 {
                break;
            }
        }
    };
    tokio::time::timeout(DEADLINE, emptied)
        .await
        .expect("the broker closes the connection");
}

/// Resident memory of this process, in bytes.
pub fn resident_bytes() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = text
        .split(' ')
        .nth(1)
        .expect("a second field")
        .parse()
        .expect("a number");
    pages * 4096
}

#[tokio::test(flavor = "multi_thread")]
async fn half_a_connect_and_silence_end_in_time() {
    let limits = Limits {
        connect: Duration::from_millis(300),
        ..Limits::default()
    };
    let door = Door::open_with(limits, 1_000).await;
    let connect = Connect::new(Version::V5, "half").write();
    for cut in [0, 1, 2, 10, connect.len() - 1] {
        let mut client = Client::open(door.mqtt, Version::V5).await;
        client.send(&connect[..cut]).await;
        let begun = Instant::now();
        assert_eq!(client.recv().await, None);
        assert!(begun.elapsed() < SERVED_WITHIN);
    }
    // A byte now and then does not help.
    let mut client = Client::open(door.mqtt, Version::V5).await;
    for byte in &connect[..connect.len() - 1] {
        if client.stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    assert_eq!(client.recv().await, None);
    Bystander::arrive(&door).await.is_served().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_connect_ends_at_once() {
    let limits = Limits {
        connect: Duration::from_secs(600),
        ..Limits::default()
    };
    let door = Door::open_with(limits, 1_000).await;
    let mut bystander = Bystander::arrive(&door).await;
    let publish = Message::new("a", "x", 0).write(Version::V3);
    let mut cases: Vec<Vec<u8>> = session(Version::V3)[1..].to_vec();
    cases.extend([
        publish,
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3],
        vec![0; 100],
        vec![0xFF; 100],
        vec![0x10, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F],
        vec![0x10, 0xFF, 0xFF, 0xFF, 0x7F],
        vec![0x10, 0x80, 0x80, 0x40],
        vec![0x10, 0],
        vec![0x11, 0],
        wire::packet(0x10, [0, 4, b'M', b'Q', b'T', b'T', 4]),
        wire::packet(0x10, [0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 9, b'x']),
        wire::packet(0x10, [0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, 0xFF]),
        wire::packet(0x10, [0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 0, 0, 1, b'x', 0]),
        wire::packet(0x10, [0, 4, b'M', b'Q', b'T', b'T', 4, 3, 0, 0, 0, 1, b'x']),
        wire::packet(
            0x10,
            [
                0, 4, b'M', b'Q', b'T', b'T', 4, 0x1E, 0, 0, 0, 1, b'x', 0, 1, b'w', 0, 0,
            ],
        ),
    ]);
    for bytes in cases {
        // The connection is left open on our side: the broker closes it, and long before the time for CONNECT.
        let mut client = Client::open(door.mqtt, Version::V3).await;
        let begun = Instant::now();
        client.send(&bytes).await;
        drain(&mut client).await;
        assert!(begun.elapsed() < SERVED_WITHIN, "{bytes:02x?}");
        bystander.is_served().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_packets_cost_their_sender_the_connection() {
    let door = Door::open().await;
    let mut bystander = Bystander::arrive(&door).await;
    let deep = "/".repeat(65_000);
    let text = |bytes: &[u8]| {
        let mut body = wire::text(bytes);
        body.push(0);
        wire::packet(0x30, body)
    };
    for version in BOTH {
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("QoS 3", vec![0x36, 5, 0, 1, b'a', 0, 1]),
            ("DUP at QoS 0", vec![0x38, 3, 0, 1, b'a']),
            ("packet id 0", Message::new("a", "x", 1).write(version)),
            (
                "packet id 0 in SUBSCRIBE",
                wire::subscribe(version, 0, &Props::default(), &[("a", 0)]),
            ),
            (
                "packet id 0 in UNSUBSCRIBE",
                wire::unsubscribe(version, 0, &["a"]),
            ),
            ("packet id 0 in PUBREL", wire::ack(PUBREL, 0)),
            ("overlong UTF-8", text(&[0xC0, 0x80])),
            ("a surrogate", text(&[0xED, 0xA0, 0x80])),
            ("half a character", text(&[b'a', 0xE2, 0x82])),
            ("NUL", text(b"a\0b")),
            (
                "a wildcard in a topic",
                Message::new("a/+/b", "x", 0).write(version),
            ),
            ("an empty topic", Message::new("", "x", 0).write(version)),
            ("65,000 slashes", Message::new(&deep, "x", 0).write(version)),
            ("a topic beyond the packet", vec![0x30, 3, 0xFF, 0xFF, b'a']),
            ("an empty PUBLISH", vec![0x30, 0]),
            (
                "SUBSCRIBE to nothing",
                wire::subscribe(version, 1, &Props::default(), &[]),
            ),
            ("SUBSCRIBE without its flag", vec![0x80, 2, 0, 1]),
            (
                "SUBSCRIBE at QoS 3",
                wire::subscribe(version, 1, &Props::default(), &[("a", 3)]),
            ),
            (
                "NUL in a filter",
                wire::subscribe(version, 1, &Props::default(), &[("a\0", 0)]),
            ),
            (
                "reserved bits",
                wire::subscribe(version, 1, &Props::default(), &[("a", 0xC0)]),
            ),
            ("UNSUBSCRIBE from nothing", wire::unsubscribe(version, 1, &[])),
            ("CONNACK", vec![0x20, 2, 0, 0]),
            ("type 0", vec![0, 0]),
            ("AUTH", vec![0xF0, 0]),
            ("PINGREQ with a body", vec![0xC0, 1, 0]),
            ("five bytes of length", vec![0x30, 0x80, 0x80, 0x80, 0x80, 1]),
            ("a PUBACK of 256 MB", vec![0x40, 0xFF, 0xFF, 0xFF, 0x7F]),
            ("a SUBSCRIBE of 1 MB", vec![0x82, 0x80, 0x80, 0x40]),
        ];
        for (what, bytes) in cases {
            let mut client = Client::connect(door.mqtt, version, "malformed").await;
            client.send(&bytes).await;
            let reason = client.closed().await;
            assert_eq!(reason.is_some(), version == Version::V5, "{what}");
            assert!(reason.is_none_or(|r| r >= 0x80), "{what}: {reason:x?}");
        }
        bystander.is_served().await;
    }
    bystander.never_waited();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_may_be_cut_at_every_byte() {
    let mut door = Door::open().await;
    keep(&mut door);
    let mut bystander = Bystander::arrive(&door).await;
    for version in BOTH {
        let bytes = session(version).concat();
        for cut in 0..=bytes.len() {
            throw(&door, &bytes[..cut]).await;
        }
        // Sent byte by byte it works.
        let mut client = Client::open(door.mqtt, version).await;
        for byte in &bytes[..bytes.len() - 2] {
            client.send([*byte]).await;
        }
        assert!(matches!(
            client.recv().await,
            Some(Packet::ConnAck { code: 0, .. })
        ));
        bystander.is_served().await;
    }
    door.until("only the bystander is left", |s| s.connected == 1)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mutated_sessions_harm_nobody_else() {
    let agent = Agent::start().await;
    let mut door = Door::open().await;
    keep(&mut door);
    let mut bystander = Bystander::arrive(&door).await;
    let mut random = StdRng::seed_from_u64(3);
    let before = resident_bytes();
    for round in 0..3_000 {
        let mut packets = session(BOTH[round % 2]);
        // Mostly behind a sound CONNECT, where there is more to reach.
        let first = usize::from(random.random_range(0..4) > 0);
        for _ in 0..random.random_range(1..4) {
            let victim = random.random_range(first..packets.len());
            match random.random_range(0..5) {
                0 => {
                    let other = random.random_range(first..packets.len());
                    packets.swap(victim, other);
                }
                1 => {
                    let copy = packets[victim].clone();
                    packets.push(copy);
                }
                2 => {
                    let cut = random.random_range(0..packets[victim].len());
                    packets[victim].truncate(cut.max(1));
                }
                _ => {
                    let at = random.random_range(0..packets[victim].len());
                    packets[victim][at] = random.random();
                }
            }
        }
        throw(&door, &packets.concat()).await;
        if round % 100 == 0 {
            bystander.is_served().await;
        }
    }
    bystander.is_served().await;
    bystander.never_waited();
    door.until("only the bystander is left", |s| s.connected == 1)
        .await;
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_filters_are_granted_and_no_more() {
    let door = Door::open().await;
    let mut bystander = Bystander::arrive(&door).await;
    for version in BOTH {
        let refused = if version == Version::V5 { 0x97 } else { 0x80 };
        let filters: Vec<String> = (0..10_002).map(|n| format!("house/{n}/+/x")).collect();
        let filters: Vec<(&str, u8)> = filters.iter().map(|f| (f.as_str(), 1)).collect();
        let mut client = Client::connect(door.mqtt, version, "greedy").await;
        // All in one packet.
        let codes = client.subscribe_with(&Props::default(), &filters).await;
        assert!(codes[..10_000].iter().all(|c| *c == 1));
        assert_eq!(codes[10_000..], [refused; 2]);
        bystander.is_served().await;
        client.publish(Message::new("house/9999/a/x", "found", 1)).await;
        assert_eq!(client.message().await.text(), "found");
    }
    bystander.never_waited();
}

/// Retained messages are what a topic costs; beyond the limit they are refused, counted, and still delivered to those who
/// listen now.
#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_topics_are_retained_and_no_more() {
    const TOPICS: usize = 10_000;
    const BEYOND: usize = 500;
    let door = Door::open().await;
    let mut bystander = Bystander::arrive(&door).await;
    let mut listener = Client::connect(door.mqtt, Version::V3, "listener").await;
    listener.subscribe(&format!("t/{TOPICS}/#"), 0).await;
    let mut client = Client::connect(door.mqtt, Version::V3, "greedy").await;
    for n in 0..TOPICS + BEYOND {
        let message = Message::new(&format!("t/{n}"), "x", 0).retained();
        client.send(message.write(Version::V3)).await;
    }
    // Acknowledged behind all of them.
    client.publish(Message::new("done", "x", 1)).await;
    let stats = door.broker.stats();
    assert_eq!((stats.retained, stats.retained_refused), (TOPICS, BEYOND as u64));
    assert_eq!(listener.message().await.topic, format!("t/{TOPICS}"));
    bystander.is_served().await;
    // Topics that nobody retains and nobody listens to cost nothing.
    for n in 0..TOPICS {
        let message = Message::new(&format!("fleeting/{n}"), "x", 0);
        client.send(message.write(Version::V3)).await;
    }
    client.publish(Message::new("done", "x", 1)).await;
    assert_eq!(door.broker.stats().retained, TOPICS);
    bystander.is_served().await;
    bystander.never_waited();
}

/// At QoS 1 an id that is used again before its time is another message, at QoS 2 the same one (MQTT 4.3.3): whatever
/// its sender meant, nobody else notices.
#[tokio::test(flavor = "multi_thread")]
async fn a_packet_id_used_again_before_its_time_harms_nobody() {
    for version in BOTH {
        let mut door = Door::open().await;
        let captured = keep(&mut door);
        let mut bystander = Bystander::arrive(&door).await;
        let mut listener = Client::connect(door.mqtt, version, "listener").await;
        listener.subscribe("captured/#", 0).await;
        let mut client = Client::connect(door.mqtt, version, "reuses").await;
        let send = |text: &str, qos: u8| Message::new("captured/x", text, qos).pkid(7).write(version);
        client.send([send("one", 1), send("two", 1)].concat()).await;
        for text in ["one", "two"] {
            client.acknowledged(PUBACK, 7).await;
            assert_eq!(listener.message().await.text(), text);
        }
        client.send([send("three", 2), send("four", 2)].concat()).await;
        client.acknowledged(PUBREC, 7).await;
        client.acknowledged(PUBREC, 7).await;
        client.send(wire::ack(PUBREL, 7)).await;
        client.acknowledged(PUBCOMP, 7).await;
        client.send(send("five", 2)).await;
        client.acknowledged(PUBREC, 7).await;
        for text in ["three", "five"] {
            assert_eq!(listener.message().await.text(), text);
        }
        bystander.is_served().await;
        bystander.never_waited();
        drop((client, listener, bystander, door));
        assert!(captured.await.expect("no panic") >= 4);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_that_is_never_released_is_bounded() {
    let door = Door::open().await;
    let mut client = Client::connect(door.mqtt, Version::V3, "unreleased").await;
    for pkid in 1..=2_048 {
        client
            .send(Message::new("a", "x", 2).pkid(pkid).write(Version::V3))
            .await;
        client.acknowledged(PUBREC, pkid).await;
    }
    client
        .send(Message::new("a", "x", 2).pkid(2_049).write(Version::V3))
        .await;
    client.closed().await;
}
