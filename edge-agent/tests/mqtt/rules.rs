//! What MQTT 5 agrees on and forbids: sizes, windows, and the reasons given when a rule is broken.

use super::{
    agent::Agent,
    client::{Client, texts},
    wire::{self, Connect, Message, Packet, Props, Version::V5, prop},
};

fn five(id: &str) -> Connect {
    Connect::new(V5, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn maximum_packet_size() {
    let agent = Agent::start().await;
    let (mut client, welcome) =
        Client::connect_with(agent.mqtt, &five("small").number(prop::MAX_PACKET, 64)).await;
    assert!(welcome.props.get_number(prop::MAX_PACKET).expect("told") >= 256 * 1024);
    client.subscribe("a/#", 2).await;
    let mut other = Client::connect(agent.mqtt, V5, "other").await;
    // 1 + 1 + 2 + 3 + 2 + 1 bytes come before the payload at QoS 1.
    for (len, qos) in [(54, 1), (55, 1), (56, 0), (57, 0), (10, 2)] {
        other.publish(Message::new("a/b", "x".repeat(len), qos)).await;
    }
    let heavy = Props::default().user("key", &"v".repeat(60));
    other
        .publish(Message::new("a/b", "heavy", 1).props(heavy.clone()))
        .await;
    other
        .publish(Message::new("a/r", "heavy", 1).retained().props(heavy))
        .await;
    other.publish(Message::new("a/b", "end", 1)).await;
    let lengths: Vec<_> = client.rest().await.iter().map(|m| m.payload.len()).collect();
    assert_eq!(
        lengths,
        [54, 56, 10, 3],
        "what is too large is left out, the rest is not held up"
    );
    client.subscribe("a/r", 1).await;
    assert_eq!(client.rest().await, []);
    // Nor may an alias of ours add what is too much.
    let connect = five("small alias")
        .number(prop::MAX_PACKET, 64)
        .number(prop::ALIAS_MAXIMUM, 5);
    let (mut aliased, _) = Client::connect_with(agent.mqtt, &connect).await;
    aliased.subscribe("a/+", 1).await;
    for (topic, len) in [
        ("a/1", 54),
        ("a/1", 49),
        ("a/1", 54),
        ("a/2", 52),
        ("a/2", 45),
        ("a/2", 54),
    ] {
        other.publish(Message::new(topic, "x".repeat(len), 1)).await;
        let message = aliased.message().await;
        assert_eq!(message.payload.len(), len);
        assert!(message.write(V5).len() <= 64, "{message:?}");
    }
    // Nor may what waits from another connection break the new limit.
    let kept = Connect::kept(V5, "shrinking");
    let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
    client.subscribe("s", 1).await;
    for text in ["x".repeat(100), "short".into()] {
        other.publish(Message::new("s", text, 1)).await;
        client.recv().await;
    }
    drop(client);
    let (mut client, _) = Client::connect_with(agent.mqtt, &kept.clone().number(prop::MAX_PACKET, 64)).await;
    assert_eq!(texts(&client.rest().await), ["short"]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_control_towards_the_client() {
    let agent = Agent::start().await;
    let kept = Connect::kept(V5, "window");
    let (mut client, _) =
        Client::connect_with(agent.mqtt, &kept.clone().number(prop::RECEIVE_MAXIMUM, 3)).await;
    client.subscribe("a", 2).await;
    let mut other = Client::connect(agent.mqtt, V5, "other").await;
    for n in 0..8 {
        other.publish(Message::new("a", n.to_string(), 1 + n % 2)).await;
    }
    client.ping().await;
    other.publish(Message::new("a", "end", 0)).await;
    client.ping().await;
    assert_eq!(texts(client.messages.make_contiguous()), ["0", "1", "2"]);
    // A place is free at PUBACK and at PUBCOMP, not at PUBREC.
    let first = client.messages.pop_front().unwrap();
    client.take(&first).await;
    assert_eq!(next(&mut client).await.text(), "3");
    let second = client.messages.pop_front().unwrap();
    client.send(wire::ack(wire::PUBREC, second.pkid)).await;
    client.acknowledged(wire::PUBREL, second.pkid).await;
    client.ping().await;
    client.ping().await;
    assert_eq!(texts(client.messages.make_contiguous()), ["2"]);
    client.send(wire::ack(wire::PUBCOMP, second.pkid)).await;
    assert_eq!(next(&mut client).await.text(), "4");
    // A smaller window on the next connection holds for what is sent again, too.
    drop(client);
    let (mut client, welcome) =
        Client::connect_with(agent.mqtt, &kept.number(prop::RECEIVE_MAXIMUM, 1)).await;
    assert!(welcome.present);
    client.ping().await;
    client.ping().await;
    assert_eq!(texts(client.messages.make_contiguous()), ["2"]);
    let messages = client.message_list(6).await;
    assert_eq!(texts(&messages), ["2", "3", "4", "5", "6", "7"]);
    assert_eq!(
        messages.iter().map(|m| m.dup).collect::<Vec<_>>(),
        [true, true, true, false, false, false]
    );
    assert_eq!(client.rest().await, [], "QoS 0 is for the connection it came on");
    agent.stop().await;
}

async fn next(client: &mut Client) -> Message {
    match client.recv().await {
        Some(Packet::Publish(message)) => message,
        other => panic!("{other:?} instead of a message"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn flow_control_towards_the_broker() {
    let agent = Agent::start().await;
    let (mut client, welcome) = Client::connect_with(agent.mqtt, &five("pushy")).await;
    let maximum = welcome.props.get_number(prop::RECEIVE_MAXIMUM).expect("told") as u16;
    // As many QoS 2 messages as allowed, none released.
    for pkid in 1..=maximum {
        client.send(Message::new("a", "x", 2).pkid(pkid).write(V5)).await;
        assert_eq!(client.acknowledged(wire::PUBREC, pkid).await, 0);
    }
    client.ping().await;
    // A resend is not one more; one more is.
    client
        .send(Message::new("a", "x", 2).pkid(1).dup().write(V5))
        .await;
    assert_eq!(client.acknowledged(wire::PUBREC, 1).await, 0);
    client.send(wire::ack(wire::PUBREL, 1)).await;
    assert_eq!(client.acknowledged(wire::PUBCOMP, 1).await, 0);
    client.publish(Message::new("a", "x", 1)).await;
    client
        .send(Message::new("a", "x", 2).pkid(maximum + 1).write(V5))
        .await;
    assert_eq!(client.acknowledged(wire::PUBREC, maximum + 1).await, 0);
    client
        .send(Message::new("a", "x", 1).pkid(maximum + 2).write(V5))
        .await;
    assert_eq!(client.closed().await, Some(0x93));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_keep_alive() {
    let agent = Agent::start().await;
    let told = async |version, keep_alive| {
        let connect = Connect {
            keep_alive,
            ..Connect::new(version, "alive")
        };
        let (_, welcome) = Client::connect_with(agent.mqtt, &connect).await;
        welcome.props.get_number(prop::SERVER_KEEP_ALIVE)
    };
    assert_eq!(told(V5, 120).await, Some(60));
    assert_eq!(told(V5, 61).await, Some(60));
    for keep_alive in [0, 1, 60] {
        assert_eq!(told(V5, keep_alive).await, None, "its own stands");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_is_refused_by_name() {
    let agent = Agent::start().await;
    let long_id = "i".repeat(10_000);
    let will = |topic| five("refused").will(topic, b"x", 1, false);
    let cases = [
        (
            Connect {
                props: Props::default().bytes(prop::AUTH_METHOD, "SCRAM-SHA-1"),
                ..five("refused")
            },
            0x8C,
        ),
        (will("a/#"), 0x90),
        (will("a\0"), 0x81),
        (five(&long_id), 0x85),
        (five("line\nbreak"), 0x85),
        (five("refused").number(prop::RECEIVE_MAXIMUM, 0), 0x82),
        (five("refused").number(prop::MAX_PACKET, 0), 0x82),
        (five("refused").number(prop::ALIAS, 1), 0x81),
        (
            five("refused")
                .number(prop::SESSION_EXPIRY, 1)
                .number(prop::SESSION_EXPIRY, 2),
            0x82,
        ),
    ];
    for (connect, code) in cases {
        let (mut client, welcome) = Client::try_connect(agent.mqtt, &connect).await;
        assert_eq!(welcome.map(|w| w.code), Some(code), "{connect:.100?}");
        assert_eq!(client.recv().await, None);
    }
    // Publishing where one may not.
    let mut client = Client::connect(agent.mqtt, V5, "denied").await;
    for qos in 1..3 {
        assert_eq!(
            client.publish(Message::new("cmnd/plug/POWER", "ON", qos)).await,
            0x87
        );
    }
    client.ping().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_rules_end_with_their_reason() {
    let agent = Agent::start().await;
    let subscribe = |props: Props| wire::subscribe(V5, 1, &props, &[("a", 0)]);
    let with = |props: Props| Message::new("a", "x", 0).props(props).write(V5);
    let two_byte_length = {
        // One property that is longer than the properties say: it would eat the payload.
        let mut body = wire::text("a");
        body.extend([1, 1, 0, 0, 0]);
        wire::packet(0x30, body)
    };
    let cases: [(&str, Vec<u8>, u8); 14] = [
        ("AUTH", vec![0xF0, 0], 0x82),
        ("SUBACK", vec![0x90, 4, 0, 1, 0, 0], 0x82),
        ("PINGRESP", vec![0xD0, 0], 0x82),
        ("PUBREL without its flag", vec![0x60, 2, 0, 1], 0x81),
        ("QoS 3", vec![0x36, 4, 0, 1, b'a', 0], 0x81),
        ("wildcard in a topic", Message::new("a/#", "x", 0).write(V5), 0x90),
        (
            "identifier 0",
            subscribe(Props::default().number(prop::SUBSCRIPTION_ID, 0)),
            0x82,
        ),
        (
            "two identifiers",
            subscribe(
                Props::default()
                    .number(prop::SUBSCRIPTION_ID, 1)
                    .number(prop::SUBSCRIPTION_ID, 2),
            ),
            0x82,
        ),
        (
            "reserved option bits",
            wire::subscribe(V5, 1, &Props::default(), &[("a", 0x40)]),
            0x81,
        ),
        (
            "identifier in PUBLISH",
            with(Props::default().number(prop::SUBSCRIPTION_ID, 1)),
            0x82,
        ),
        (
            "alias twice",
            with(Props::default().number(prop::ALIAS, 1).number(prop::ALIAS, 1)),
            0x82,
        ),
        (
            "format 2",
            with(Props::default().number(prop::PAYLOAD_FORMAT, 2)),
            0x82,
        ),
        (
            "wildcard in a response topic",
            with(Props::default().bytes(prop::RESPONSE_TOPIC, "a/+")),
            0x82,
        ),
        ("properties that end inside one", two_byte_length, 0x81),
    ];
    for (what, bytes, reason) in cases {
        let mut client = Client::connect(agent.mqtt, V5, "breaking").await;
        client.send(bytes).await;
        assert_eq!(client.closed().await, Some(reason), "{what}");
    }
    agent.stop().await;
}
