//! What holds for MQTT 3.1.1 and 5 alike: the tests of the Eclipse Paho suite for 3.1.1 (`client_test.py`), run with
//! both versions.

use std::time::{Duration, Instant};

use super::{
    agent::Agent,
    client::{Client, sorted, texts},
    wire::{self, BOTH, Connect, Message, Packet, Version},
};

const TOPICS: [&str; 5] = ["TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA"];
const WILD_TOPICS: [&str; 7] = ["TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#"];

#[tokio::test(flavor = "multi_thread")]
async fn basic() {
    let agent = Agent::start().await;
    for version in BOTH {
        Client::connect(agent.mqtt, version, "basic")
            .await
            .disconnect()
            .await;
        let (mut client, welcome) = Client::connect_with(agent.mqtt, &Connect::new(version, "basic")).await;
        assert!(!welcome.present);
        assert_eq!(client.subscribe(TOPICS[0], 2).await, 2);
        for qos in 0..3 {
            assert_eq!(
                client
                    .publish(Message::new(TOPICS[0], format!("qos {qos}"), qos))
                    .await,
                0
            );
        }
        let messages = client.rest().await;
        assert_eq!(sorted(&messages), ["qos 0", "qos 1", "qos 2"]);
        assert!(
            messages
                .iter()
                .all(|m| m.topic == TOPICS[0] && !m.retain && !m.dup)
        );
        assert_eq!(
            messages.iter().map(|m| m.qos).collect::<Vec<_>>(),
            [0, 1, 2],
            "delivered at the QoS of the publish, in order"
        );
        // A second CONNECT on a connection is the end of it.
        client.send(Connect::new(version, "basic").write()).await;
        let reason = client.closed().await;
        assert_eq!(reason, (version == Version::V5).then_some(0x82));
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_protocol_is_refused() {
    let agent = Agent::start().await;
    let connect = |name: &str, level: u8| {
        let mut body = wire::text(name);
        body.extend([level, 2, 0, 0]);
        if level >= 5 {
            body.push(0);
        }
        body.extend(wire::text("another"));
        wire::packet(0x10, body)
    };
    let mut client = Client::open(agent.mqtt, Version::V3).await;
    client.send(connect("hj", 4)).await;
    assert_eq!(client.recv().await, None);
    for (name, level, version, code) in [
        ("MQIsdp", 3, Version::V3, 1),
        ("MQTT", 3, Version::V3, 1),
        ("MQTT", 6, Version::V5, 0x84),
        // A bridge of Mosquitto's, which comes again without the highest bit.
        ("MQTT", 0x84, Version::V3, 1),
    ] {
        let mut client = Client::open(agent.mqtt, version).await;
        client.send(connect(name, level)).await;
        match client.recv().await {
            Some(Packet::ConnAck {
                present: false,
                code: c,
                ..
            }) => assert_eq!(c, code, "{name} {level}"),
            other => panic!("{name} {level}: {other:?}"),
        }
        assert_eq!(client.recv().await, None);
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_messages() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut client = Client::connect(agent.mqtt, version, "retained").await;
        for (qos, topic) in [(0, TOPICS[1]), (1, TOPICS[2]), (2, TOPICS[3])] {
            client
                .publish(Message::new(topic, format!("qos {qos}"), qos).retained())
                .await;
        }
        assert_eq!(client.subscribe(WILD_TOPICS[5], 2).await, 2);
        let messages = client.rest().await;
        assert_eq!(sorted(&messages), ["qos 0", "qos 1", "qos 2"]);
        for message in &messages {
            assert!(message.retain, "{message:?}");
            assert_eq!(message.text(), format!("qos {}", message.qos));
        }
        client.disconnect().await;

        // An empty payload clears; nothing is left for the next subscriber.
        let mut client = Client::connect(agent.mqtt, version, "retained").await;
        for (qos, topic) in [(0, TOPICS[1]), (1, TOPICS[2]), (2, TOPICS[3])] {
            client.publish(Message::new(topic, "", qos).retained()).await;
        }
        client.subscribe(WILD_TOPICS[5], 2).await;
        assert_eq!(client.rest().await, []);
        client.disconnect().await;
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_message_is_live_first_and_replaced_by_the_next() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut live = Client::connect(agent.mqtt, version, "live").await;
        live.subscribe("r/#", 1).await;
        let mut client = Client::connect(agent.mqtt, version, "publisher").await;
        for text in ["one", "two", ""] {
            client.publish(Message::new("r/x", text, 1).retained()).await;
            if !text.is_empty() {
                let mut late = Client::connect(agent.mqtt, version, "late").await;
                late.subscribe("r/#", 0).await;
                let messages = late.rest().await;
                assert_eq!(texts(&messages), [text]);
                assert!(
                    messages[0].retain && messages[0].qos == 0,
                    "at the subscription's QoS"
                );
            }
        }
        let messages = live.rest().await;
        assert_eq!(
            texts(&messages),
            ["one", "two", ""],
            "the clearing message is a message too"
        );
        assert!(
            messages.iter().all(|m| !m.retain),
            "to an existing subscription the flag is not set"
        );
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offline_message_queueing() {
    let agent = Agent::start().await;
    for version in BOTH {
        let kept = Connect::kept(version, "offline");
        let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
        client.subscribe(WILD_TOPICS[5], 2).await;
        client.disconnect().await;

        let mut other = Client::connect(agent.mqtt, version, "other").await;
        for (qos, topic) in [(0, TOPICS[1]), (1, TOPICS[2]), (2, TOPICS[3])] {
            other
                .publish(Message::new(topic, format!("qos {qos}"), qos))
                .await;
        }
        let (mut client, welcome) = Client::connect_with(agent.mqtt, &kept).await;
        assert!(welcome.present);
        let messages = client.rest().await;
        let texts = sorted(&messages);
        assert!(
            texts == ["qos 1", "qos 2"] || texts == ["qos 0", "qos 1", "qos 2"],
            "{texts:?}"
        );
        client.disconnect().await;

        // A clean session begins anew and says so.
        let (mut client, welcome) = Client::connect_with(agent.mqtt, &Connect::new(version, "offline")).await;
        assert!(!welcome.present);
        other.publish(Message::new(TOPICS[1], "nobody asked", 1)).await;
        assert_eq!(client.rest().await, []);
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_session_is_not_found_again() {
    let agent = Agent::start().await;
    for version in BOTH {
        let (mut first, _) = Client::connect_with(agent.mqtt, &Connect::new(version, "clean")).await;
        first.subscribe("a", 1).await;
        // Taken over, not disconnected: the clean session ends all the same.
        let (mut second, welcome) = Client::connect_with(agent.mqtt, &Connect::kept(version, "clean")).await;
        assert!(!welcome.present, "{version:?}");
        second.publish(Message::new("a", "x", 1)).await;
        assert_eq!(second.rest().await, [], "{version:?}");
        first.closed().await;
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn will_message() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut watcher = Client::connect(agent.mqtt, version, "watcher").await;
        watcher.subscribe(TOPICS[2], 2).await;
        let with_will = Connect::new(version, "dying").will(TOPICS[2], b"will message", 2, true);

        // The connection is lost: the will is published, and kept.
        let (client, _) = Client::connect_with(agent.mqtt, &with_will).await;
        drop(client);
        let message = watcher.message().await;
        assert_eq!(
            (message.text(), message.qos, message.retain),
            ("will message", 2, false)
        );
        let mut late = Client::connect(agent.mqtt, version, "late").await;
        late.subscribe(TOPICS[2], 1).await;
        assert!(late.message().await.retain);
        late.publish(Message::new(TOPICS[2], "", 1).retained()).await;
        assert_eq!(texts(&watcher.rest().await), [""]);

        // A broken rule loses the connection too.
        let (mut client, _) = Client::connect_with(agent.mqtt, &with_will).await;
        client.send([0xF0, 0]).await;
        client.closed().await;
        assert_eq!(watcher.message().await.text(), "will message");

        // A goodbye does not.
        let (client, _) = Client::connect_with(agent.mqtt, &with_will).await;
        client.disconnect().await;
        assert_eq!(watcher.rest().await, []);

        // A take-over does.
        let (mut old, _) = Client::connect_with(agent.mqtt, &with_will).await;
        let (new, _) = Client::connect_with(agent.mqtt, &with_will).await;
        assert_eq!(watcher.message().await.text(), "will message");
        let reason = old.closed().await;
        assert_eq!(reason, (version == Version::V5).then_some(0x8E));
        new.disconnect().await;
        late.publish(Message::new(TOPICS[2], "", 1).retained()).await;
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_subscriptions() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut client = Client::connect(agent.mqtt, version, "overlapping").await;
        let codes = client
            .subscribe_with(
                &wire::Props::default(),
                &[(WILD_TOPICS[6], 2), (WILD_TOPICS[0], 1)],
            )
            .await;
        assert_eq!(codes, [2, 1]);
        client
            .publish(Message::new(TOPICS[3], "overlapping topic filters", 2))
            .await;
        let messages = client.rest().await;
        assert_eq!(messages.len(), 1, "one message for all that match");
        assert_eq!(messages[0].qos, 2, "at the highest QoS");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keepalive() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut watcher = Client::connect(agent.mqtt, version, "watcher").await;
        watcher.subscribe(TOPICS[4], 2).await;
        let connect = Connect {
            keep_alive: 1,
            ..Connect::new(version, "silent").will(TOPICS[4], b"keepalive expiry", 0, false)
        };
        let (mut client, _) = Client::connect_with(agent.mqtt, &connect).await;
        let begun = Instant::now();
        // Whatever is sent counts, PINGREQ or not.
        tokio::time::sleep(Duration::from_millis(700)).await;
        client.ping().await;
        tokio::time::sleep(Duration::from_millis(1_000)).await;
        client.publish(Message::new("x", "alive", 0)).await;
        let spoke = Instant::now();
        let reason = client.closed().await;
        let silent = spoke.elapsed();
        assert!(begun.elapsed() > Duration::from_millis(3_000));
        assert!(
            silent > Duration::from_millis(1_300) && silent < Duration::from_millis(5_000),
            "1.5 times the keep-alive: {silent:?}"
        );
        assert_eq!(reason, (version == Version::V5).then_some(0x8D));
        assert_eq!(watcher.message().await.text(), "keepalive expiry");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn redelivery_on_reconnect() {
    let agent = Agent::start().await;
    for version in BOTH {
        let kept = Connect::kept(version, "redelivery");
        let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
        client.subscribe(WILD_TOPICS[6], 2).await;
        let mut other = Client::connect(agent.mqtt, version, "other").await;
        other.publish(Message::new(TOPICS[1], "first", 1)).await;
        other.publish(Message::new(TOPICS[3], "second", 2)).await;
        for wanted in ["first", "second"] {
            match client.recv().await {
                Some(Packet::Publish(m)) => assert_eq!((m.text(), m.dup), (wanted, false)),
                other => panic!("{other:?}"),
            }
        }
        // Neither was acknowledged.
        drop(client);
        let (mut client, welcome) = Client::connect_with(agent.mqtt, &kept).await;
        assert!(welcome.present);
        let messages = client.message_list(2).await;
        assert_eq!(texts(&messages), ["first", "second"], "{version:?}");
        assert!(messages.iter().all(|m| m.dup));
        client.disconnect().await;
        let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
        assert_eq!(client.rest().await, [], "acknowledged at last");
        let (_, welcome) = Client::connect_with(agent.mqtt, &Connect::new(version, "redelivery")).await;
        assert!(!welcome.present);
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zero_length_client_id() {
    let agent = Agent::start().await;
    // 3.1.1: only for a session that is not kept.
    let kept = Connect {
        clean: false,
        ..Connect::new(Version::V3, "")
    };
    let (mut client, welcome) = Client::try_connect(agent.mqtt, &kept).await;
    assert_eq!(welcome.expect("an answer").code, 2);
    assert_eq!(client.recv().await, None);
    for version in BOTH {
        let (mut one, _) = Client::connect_with(agent.mqtt, &Connect::new(version, "")).await;
        let (mut two, _) = Client::connect_with(agent.mqtt, &Connect::new(version, "")).await;
        one.ping().await;
        two.ping().await;
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dollar_topics() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut client = Client::connect(agent.mqtt, version, "dollar").await;
        for filter in ["#", "+/#", "+/B"] {
            client.subscribe(filter, 2).await;
        }
        for qos in 0..3 {
            client.publish(Message::new("$TopicA/B", "dollar", qos)).await;
        }
        assert_eq!(client.rest().await, []);
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_subscription_is_answered_as_such() {
    let agent = Agent::start().await;
    let deep = "/".repeat(65_000);
    let cases = [
        "a/#/b",
        "a+",
        "",
        "$share/g",
        "$share//a",
        "$share/+/a",
        deep.as_str(),
    ];
    for version in BOTH {
        let mut client = Client::connect(agent.mqtt, version, "refused").await;
        let code = if version == Version::V3 { 0x80 } else { 0x8F };
        for filter in cases {
            assert_eq!(client.subscribe(filter, 1).await, code, "{filter:.20}");
        }
        // One bad filter does not spoil its neighbours, and codes are in order.
        let codes = client
            .subscribe_with(&wire::Props::default(), &[("a", 2), ("a/#/b", 0), ("b", 1)])
            .await;
        assert_eq!(codes, [2, code, 1]);
        client.publish(Message::new("a", "x", 0)).await;
        assert_eq!(client.rest().await.len(), 1);
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unsubscribe() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut client = Client::connect(agent.mqtt, version, "unsubscribe").await;
        for topic in &TOPICS[..3] {
            client.subscribe(topic, 2).await;
        }
        let codes = client.unsubscribe(&[TOPICS[0]]).await;
        let again = client.unsubscribe(&[TOPICS[0], TOPICS[1]]).await;
        if version == Version::V5 {
            assert_eq!(codes, [0]);
            assert_eq!(again, [0x11, 0]);
        } else {
            assert!(codes.is_empty());
            assert!(again.is_empty());
        }
        for topic in &TOPICS[..3] {
            client.publish(Message::new(topic, "x", 1)).await;
        }
        let messages = client.rest().await;
        assert_eq!(messages.len(), 1);
        assert_eq!(messages[0].topic, TOPICS[2]);
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribing_again_replaces_and_sends_retained_again() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut client = Client::connect(agent.mqtt, version, "again").await;
        client.publish(Message::new("a", "kept", 1).retained()).await;
        for qos in [2, 0, 1] {
            assert_eq!(client.subscribe("a", qos).await, qos);
            let messages = client.rest().await;
            assert_eq!(messages.len(), 1);
            assert_eq!(messages[0].qos, qos.min(1));
        }
        client.publish(Message::new("a", "live", 2)).await;
        let messages = client.rest().await;
        assert_eq!((messages.len(), messages[0].qos), (1, 1), "the last QoS counts");
    }
    agent.stop().await;
}
