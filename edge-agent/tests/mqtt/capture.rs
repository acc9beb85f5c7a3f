//! What is captured, and that an acknowledgement waits for it.

use std::time::Duration;

use edge_agent::broker::{CaptureRefused, CapturedPayload};
use sha2::{Digest as _, Sha256};

use super::{
    agent::{Agent, Door},
    client::{Client, texts},
    wire::{self, BOTH, Connect, Message, PUBACK, PUBREC, Packet, Props, Version, prop},
};

/// Long enough for a wrong acknowledgement to arrive, short enough for a test.
const MOMENT: Duration = Duration::from_millis(150);

async fn silent(client: &mut Client) {
    let heard = tokio::time::timeout(MOMENT, client.recv()).await;
    assert!(heard.is_err(), "{heard:?} came before the disk had it");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_waits_for_the_disk() {
    let mut door = Door::open().await;
    for version in BOTH {
        for (qos, ack) in [(1, PUBACK), (2, PUBREC)] {
            let mut client = Client::connect(door.mqtt, version, "waiting").await;
            let mut watcher = Client::connect(door.mqtt, version, "watcher").await;
            watcher.subscribe("captured/x", 0).await;
            client
                .send(Message::new("captured/x", "21.3", qos).pkid(5).write(version))
                .await;
            let captured = door.next().await;
            assert_eq!(&*captured.topic, "captured/x");
            assert!(matches!(&captured.payload, CapturedPayload::Whole(p) if p == "21.3"));
            assert_eq!(watcher.message().await.text(), "21.3", "others need not wait");
            // Nor does what is not captured overtake it.
            client
                .send(Message::new("x", "later", 1).pkid(6).write(version))
                .await;
            silent(&mut client).await;
            captured.done.unwrap().send(Ok(())).unwrap();
            assert_eq!(client.recv().await, Some(Packet::Ack(ack, 5, 0)));
            assert_eq!(client.recv().await, Some(Packet::Ack(PUBACK, 6, 0)));
        }
        let mut client = Client::connect(door.mqtt, version, "best effort").await;
        client
            .send(Message::new("captured/x", "21.4", 0).write(version))
            .await;
        assert!(door.next().await.done.is_none(), "QoS 0 is captured too");
        client.ping().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_is_never_acknowledged() {
    let mut door = Door::open().await;
    for version in BOTH {
        for qos in 1..3 {
            for refused in [CaptureRefused::Full, CaptureRefused::Disk] {
                let kept = Connect::kept(version, &format!("refused{qos}"));
                let message = Message::new("captured/x", "21.3", qos).pkid(5);
                let (mut client, _) = Client::connect_with(door.mqtt, &kept).await;
                client.send(message.write(version)).await;
                door.next().await.done.unwrap().send(Err(refused)).unwrap();
                let reason = client.closed().await;
                assert_eq!(reason, (version == Version::V5).then_some(0x97));
                // Sent again, it goes to the disk again: nothing is known of it.
                let (mut client, _) = Client::connect_with(door.mqtt, &kept).await;
                client.send(message.dup().write(version)).await;
                let captured = door.next().await;
                silent(&mut client).await;
                captured.done.unwrap().send(Ok(())).unwrap();
                let ack = if qos == 1 { PUBACK } else { PUBREC };
                assert_eq!(client.recv().await, Some(Packet::Ack(ack, 5, 0)));
                client.send(wire::ack(wire::PUBREL, 5)).await;
                client.recv().await;
                client.disconnect().await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_lost_before_the_disk_answers_does_not_turn_a_resend_into_an_acknowledgement() {
    let mut door = Door::open().await;
    for version in BOTH {
        let mut watcher = Client::connect(door.mqtt, version, "watcher").await;
        watcher.subscribe("captured/x", 2).await;
        let kept = Connect::kept(version, &format!("lost{version:?}"));
        let message = Message::new("captured/x", "21.3", 2).pkid(5);
        let (mut client, _) = Client::connect_with(door.mqtt, &kept).await;
        client.send(message.write(version)).await;
        let first = door.next().await;
        drop(client);
        let (mut client, welcome) = Client::connect_with(door.mqtt, &kept).await;
        assert!(welcome.present);
        client.send(message.clone().dup().write(version)).await;
        let second = door.next().await;
        silent(&mut client).await;
        // Whichever becomes of the first, the second answers for the second.
        let _ = first.done.unwrap().send(Err(CaptureRefused::Disk));
        silent(&mut client).await;
        second.done.unwrap().send(Ok(())).unwrap();
        assert_eq!(client.recv().await, Some(Packet::Ack(PUBREC, 5, 0)));
        // Now it is known.
        client.send(message.dup().write(version)).await;
        assert_eq!(client.recv().await, Some(Packet::Ack(PUBREC, 5, 0)));
        assert!(door.captured.try_recv().is_err());
        assert_eq!(
            texts(&watcher.rest().await),
            ["21.3"],
            "subscribers saw it once all the while"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopping_agent_acknowledges_nothing_it_does_not_have() {
    let mut door = Door::open().await;
    let mut client = Client::connect(door.mqtt, Version::V5, "stopped").await;
    client
        .send(Message::new("captured/x", "21.3", 1).pkid(5).write(Version::V5))
        .await;
    let captured = door.next().await;
    drop(captured);
    assert_eq!(client.closed().await, Some(0x97));
    let mut client = Client::connect(door.mqtt, Version::V5, "stopped").await;
    client
        .send(Message::new("captured/x", "21.3", 1).pkid(5).write(Version::V5))
        .await;
    let _captured = door.next().await;
    door.stop();
    assert_eq!(client.closed().await, Some(0x8B));
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_disk_is_stuck_a_client_is_not_taken_for_silent() {
    let mut door = Door::open().await;
    let connect = Connect {
        keep_alive: 1,
        ..Connect::new(Version::V3, "patient")
    };
    let (mut client, _) = Client::connect_with(door.mqtt, &connect).await;
    // More than are taken at a time: the rest, and the pings behind, wait in the socket.
    for pkid in 1..=300_u16 {
        client
            .send(
                Message::new("captured/x", "21.3", 1)
                    .pkid(pkid)
                    .write(Version::V3),
            )
            .await;
    }
    let mut held = Vec::new();
    for _ in 0..6 {
        client.send(wire::PINGREQ).await;
        tokio::time::sleep(Duration::from_millis(500)).await;
        while let Ok(captured) = door.captured.try_recv() {
            held.push(captured);
        }
    }
    for captured in held {
        captured.done.unwrap().send(Ok(())).unwrap();
    }
    let answering = tokio::spawn(async move {
        while let Some(captured) = door.captured.recv().await {
            captured.done.unwrap().send(Ok(())).unwrap();
        }
    });
    for pkid in 1..=300_u16 {
        assert_eq!(client.answer_but_pong().await, Packet::Ack(PUBACK, pkid, 0));
    }
    answering.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_will_on_a_captured_topic_is_captured() {
    let mut door = Door::open().await;
    let connect = Connect::new(Version::V3, "dying").will("captured/will", b"gone", 1, false);
    let (client, _) = Client::connect_with(door.mqtt, &connect).await;
    drop(client);
    let captured = door.next().await;
    assert_eq!(&*captured.topic, "captured/will");
    assert!(captured.done.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn retained_replays_and_the_agents_own_messages_are_not_captured() {
    let mut door = Door::open().await;
    let mut client = Client::connect(door.mqtt, Version::V3, "client").await;
    client
        .send(
            Message::new("captured/x", "21.3", 0)
                .retained()
                .write(Version::V3),
        )
        .await;
    door.next().await;
    client.subscribe("captured/#", 1).await;
    assert_eq!(client.message().await.text(), "21.3");
    let payload = bytes::Bytes::from_static(b"own");
    assert_eq!(door.broker.publish_now("captured/own", payload), 1);
    assert_eq!(client.message().await.text(), "own");
    assert!(door.captured.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payload_above_the_limit_is_acknowledged_and_its_head_kept() {
    const LIMIT: usize = 256 * 1024;
    const MOST: usize = 16 * 1024 * 1024;
    let mut door = Door::open().await;
    for version in BOTH {
        let mut client = Client::connect(door.mqtt, version, "large").await;
        let mut watcher = Client::connect(door.mqtt, version, "watcher").await;
        watcher.subscribe("#", 0).await;
        for (len, qos) in [
            (LIMIT, 1),
            (LIMIT + 1, 1),
            (LIMIT + 1, 2),
            (LIMIT + 1, 0),
            (MOST, 1),
        ] {
            let payload: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
            let pkid = client.pkid();
            let message = Message::new("captured/large", &payload, qos).pkid(pkid);
            let message = if len > LIMIT { message.retained() } else { message };
            client.send(message.write(version)).await;
            let captured = door.next().await;
            match captured.payload {
                CapturedPayload::Whole(whole) => {
                    assert!(len == LIMIT && whole == payload, "{len}");
                    assert_eq!(watcher.message().await.payload.len(), len);
                }
                CapturedPayload::Truncated { head, length, sha256 } => {
                    assert!(len > LIMIT);
                    assert_eq!(&head[..], &payload[..4096]);
                    assert_eq!(length, len as u64);
                    assert_eq!(sha256[..], Sha256::digest(&payload)[..]);
                }
            }
            match captured.done {
                None => assert_eq!(qos, 0),
                Some(done) => {
                    done.send(Ok(())).unwrap();
                    client
                        .acknowledged(if qos == 1 { PUBACK } else { PUBREC }, pkid)
                        .await;
                }
            }
        }
        assert_eq!(watcher.rest().await, [], "what was not kept is not passed on");
        // Not captured: 5 says that it was not taken.
        let pkid = client.pkid();
        let message = Message::new("elsewhere", "x".repeat(LIMIT + 1), 1).pkid(pkid);
        client.send(message.write(version)).await;
        let reason = client.acknowledged(PUBACK, pkid).await;
        assert_eq!(reason, if version == Version::V5 { 0x97 } else { 0 });
        assert_eq!(watcher.rest().await, []);
        // Beyond the largest the connection ends, whether all of it comes or not.
        for (len, send) in [(MOST + 1, MOST + 1), (100_000_000, 1_000_000)] {
            let mut client = Client::connect(door.mqtt, version, "too large").await;
            let mut bytes = Message::new("captured/large", "", 0).write(version);
            let head = bytes.split_off(2);
            let mut packet = vec![0x30];
            packet.extend(wire::variable(head.len() + len));
            packet.extend(head);
            packet.extend(vec![b'x'; send]);
            let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &packet).await;
            let reason = client.closed().await;
            assert_eq!(reason, (version == Version::V5).then_some(0x95));
        }
        assert!(door.captured.try_recv().is_err());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_payload_is_a_publish_in_every_other_way() {
    let mut door = Door::open().await;
    let large = || "x".repeat(300 * 1024);
    let alias = |n: u32| Props::default().number(prop::ALIAS, n);
    let version = Version::V5;
    let mut client = Client::connect(door.mqtt, version, "large").await;
    // It sets and uses aliases.
    for (topic, alias) in [("captured/a", alias(1)), ("", alias(1))] {
        client
            .send(Message::new(topic, large(), 0).props(alias).write(version))
            .await;
        assert_eq!(&*door.next().await.topic, "captured/a");
    }
    client
        .send(Message::new("", "small", 0).props(alias(1)).write(version))
        .await;
    assert_eq!(&*door.next().await.topic, "captured/a");
    assert_eq!(
        client.publish(Message::new("cmnd/plug/POWER", large(), 1)).await,
        0x87
    );
    // Its QoS 2 id is remembered.
    let message = Message::new("captured/a", large(), 2).pkid(9);
    client.send(message.write(version)).await;
    door.next().await.done.unwrap().send(Ok(())).unwrap();
    client.acknowledged(PUBREC, 9).await;
    client.send(message.dup().write(version)).await;
    client.acknowledged(PUBREC, 9).await;
    assert!(door.captured.try_recv().is_err());
    // Its mistakes end the connection.
    let broken: [(Vec<u8>, u8); 4] = [
        (Message::new("a/#", large(), 0).write(version), 0x90),
        (Message::new("a\0b", large(), 0).write(version), 0x81),
        (Message::new("a", large(), 3).pkid(1).write(version), 0x81),
        (Message::new("a", large(), 1).write(version), 0x82),
    ];
    for (bytes, reason) in broken {
        let mut client = Client::connect(door.mqtt, version, "broken").await;
        let _ = tokio::io::AsyncWriteExt::write_all(&mut client.stream, &bytes).await;
        assert_eq!(client.closed().await, Some(reason));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_acknowledged_is_in_the_buffer_of_a_whole_agent() {
    let agent = Agent::start().await;
    let mut client = Client::connect(agent.mqtt, Version::V3, "device").await;
    for n in 0..50 {
        client
            .publish(Message::new("p/events/rpc", "{}", 1 + n % 2))
            .await;
        assert_eq!(agent.status().await["buffer"]["entries"], u64::from(n) + 1);
    }
    let oversize = "x".repeat(256 * 1024 + 1);
    client.publish(Message::new("p/events/rpc", oversize, 1)).await;
    assert_eq!(agent.status().await["buffer"]["entries"], 51);
    agent.stop().await;
}
