//! The fine print of QoS 1 and 2 in both directions: resends, packet ids, order.

use super::{
    agent::Agent,
    client::{Client, texts},
    wire::{self, BOTH, Connect, Message, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Version},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_qos_2_message_is_published_once_however_often_it_is_sent() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut watcher = Client::connect(agent.mqtt, version, "watcher").await;
        watcher.subscribe("a", 2).await;
        let kept = Connect::kept(version, "resending");
        let message = Message::new("a", "once", 2).pkid(9);
        let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
        client.send(message.write(version)).await;
        client.acknowledged(PUBREC, 9).await;
        // Sent again on the same connection, and on the next.
        client.send(message.clone().dup().write(version)).await;
        assert_eq!(client.acknowledged(PUBREC, 9).await, 0);
        drop(client);
        let (mut client, welcome) = Client::connect_with(agent.mqtt, &kept).await;
        assert!(welcome.present);
        client.send(message.clone().dup().write(version)).await;
        assert_eq!(client.acknowledged(PUBREC, 9).await, 0);
        client.send(wire::ack(PUBREL, 9)).await;
        assert_eq!(client.acknowledged(PUBCOMP, 9).await, 0);
        // The PUBCOMP may be lost: PUBREL is sent again, and answered again.
        drop(client);
        let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
        client.send(wire::ack(PUBREL, 9)).await;
        let unknown = if version == Version::V5 { 0x92 } else { 0 };
        assert_eq!(client.acknowledged(PUBCOMP, 9).await, unknown);
        assert_eq!(texts(&watcher.rest().await), ["once"]);
        // The id is free for another message.
        client
            .send(Message::new("a", "next", 2).pkid(9).write(version))
            .await;
        client.acknowledged(PUBREC, 9).await;
        assert_eq!(texts(&watcher.rest().await), ["next"]);
        client.disconnect().await;
        Client::connect(agent.mqtt, version, "resending")
            .await
            .disconnect()
            .await;
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clean_session_forgets_packet_ids() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut watcher = Client::connect(agent.mqtt, version, "watcher").await;
        watcher.subscribe("a", 2).await;
        for text in ["first", "second"] {
            let mut client = Client::connect(agent.mqtt, version, "forgetful").await;
            client
                .send(Message::new("a", text, 2).pkid(9).write(version))
                .await;
            client.acknowledged(PUBREC, 9).await;
        }
        assert_eq!(texts(&watcher.rest().await), ["first", "second"]);
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_towards_a_client_resumes_where_it_stopped() {
    let agent = Agent::start().await;
    for version in BOTH {
        let kept = Connect::kept(version, "resuming");
        let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
        client.subscribe("a", 2).await;
        let mut other = Client::connect(agent.mqtt, version, "other").await;
        for text in ["one", "two"] {
            other.publish(Message::new("a", text, 2)).await;
        }
        let mut ids = Vec::new();
        for wanted in ["one", "two"] {
            match client.recv().await {
                Some(Packet::Publish(m)) => {
                    assert_eq!((m.text(), m.dup), (wanted, false));
                    ids.push(m.pkid);
                }
                other => panic!("{other:?}"),
            }
        }
        assert_ne!(ids[0], ids[1]);
        client.send(wire::ack(PUBREC, ids[0])).await;
        assert_eq!(client.recv().await, Some(Packet::Ack(PUBREL, ids[0], 0)));
        drop(client);
        // Of the first only PUBREL is sent again, of the second the message; the ids stay.
        let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
        assert_eq!(client.recv().await, Some(Packet::Ack(PUBREL, ids[0], 0)));
        match client.recv().await {
            Some(Packet::Publish(m)) => assert_eq!((m.text(), m.dup, m.pkid), ("two", true, ids[1])),
            other => panic!("{other:?}"),
        }
        client.send(wire::ack(PUBCOMP, ids[0])).await;
        client.send(wire::ack(PUBREC, ids[1])).await;
        assert_eq!(client.recv().await, Some(Packet::Ack(PUBREL, ids[1], 0)));
        client.send(wire::ack(PUBCOMP, ids[1])).await;
        client.disconnect().await;
        let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
        assert_eq!(client.rest().await, []);
        client.disconnect().await;
        Client::connect(agent.mqtt, version, "resuming")
            .await
            .disconnect()
            .await;
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledgements_come_in_the_order_of_their_publishes() {
    let agent = Agent::start().await;
    for version in BOTH {
        let mut client = Client::connect(agent.mqtt, version, "ordered").await;
        // Captured ones wait for the disk; those between them do not overtake.
        let mut bytes = Vec::new();
        let mut wanted = Vec::new();
        for pkid in 1..=90_u16 {
            let topic = if pkid % 3 == 0 { "x/y" } else { "p/events/rpc" };
            let qos = if pkid % 2 == 0 { 1 } else { 2 };
            bytes.extend(Message::new(topic, "{}", qos).pkid(pkid).write(version));
            wanted.push(Packet::Ack(if qos == 1 { PUBACK } else { PUBREC }, pkid, 0));
        }
        client.send(bytes).await;
        for packet in wanted {
            assert_eq!(client.recv().await, Some(packet));
        }
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_to_nothing_are_answered_and_do_no_harm() {
    let agent = Agent::start().await;
    for version in BOTH {
        let unknown = if version == Version::V5 { 0x92 } else { 0 };
        let mut client = Client::connect(agent.mqtt, version, "confused").await;
        client.send(wire::ack(PUBACK, 77)).await;
        client.send(wire::ack(PUBCOMP, 78)).await;
        client.send(wire::ack(PUBREC, 79)).await;
        assert_eq!(client.recv().await, Some(Packet::Ack(PUBREL, 79, unknown)));
        client.send(wire::ack(PUBREL, 80)).await;
        assert_eq!(client.recv().await, Some(Packet::Ack(PUBCOMP, 80, unknown)));
        client.ping().await;
        // The wrong acknowledgement for a message is a broken rule.
        for (qos, wrong) in [(2, PUBACK), (1, PUBREC), (2, PUBCOMP)] {
            let mut client = Client::connect(agent.mqtt, version, "wrong").await;
            client.subscribe("a", 2).await;
            let pkid = client.pkid();
            client
                .send(Message::new("a", "x", qos).pkid(pkid).write(version))
                .await;
            while client.messages.is_empty() {
                match client.recv().await {
                    Some(Packet::Publish(message)) => client.messages.push_back(message),
                    Some(Packet::Ack(PUBREC, p, 0)) => client.send(wire::ack(PUBREL, p)).await,
                    Some(_) => {}
                    None => panic!("closed too early"),
                }
            }
            let message = client.messages.pop_front().unwrap();
            client.send(wire::ack(wrong, message.pkid)).await;
            let reason = client.closed().await;
            assert_eq!(
                reason,
                (version == Version::V5).then_some(0x82),
                "{wrong:#x} at QoS {qos}"
            );
        }
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_may_refuse_a_qos_2_message() {
    let agent = Agent::start().await;
    let version = Version::V5;
    let mut client = Client::connect(agent.mqtt, version, "refusing").await;
    client.subscribe("a", 2).await;
    client.publish(Message::new("a", "unwanted", 2)).await;
    client.ping().await;
    let message = client.messages.pop_front().expect("it came before the pong");
    let mut body = message.pkid.to_be_bytes().to_vec();
    body.extend([0x97, 0]);
    client.send(wire::packet(PUBREC, body)).await;
    client.ping().await;
    assert_eq!(client.rest().await, [], "no PUBREL, and it is over");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packet_ids_towards_a_client_are_used_again_but_never_twice_at_a_time() {
    let agent = Agent::start().await;
    let mut client = Client::connect(agent.mqtt, Version::V3, "ids").await;
    client.subscribe("a", 1).await;
    let mut other = Client::connect(agent.mqtt, Version::V3, "other").await;
    // One message stays open while all ids go by.
    other.publish(Message::new("a", "open", 1)).await;
    let Some(Packet::Publish(open)) = client.recv().await else {
        panic!("no message")
    };
    let mut sent = 0_u32;
    let mut seen = 0_u32;
    while seen < 70_000 {
        let mut burst = Vec::new();
        for _ in 0..50 {
            sent += 1;
            burst.extend(
                Message::new("a", sent.to_string(), 1)
                    .pkid((sent % 60_000) as u16 + 1)
                    .write(Version::V3),
            );
        }
        other.send(burst).await;
        let mut acks = Vec::new();
        for _ in 0..50 {
            let Some(Packet::Publish(message)) = client.recv().await else {
                panic!("no message")
            };
            seen += 1;
            assert_ne!(message.pkid, open.pkid);
            assert_eq!(message.text(), seen.to_string());
            acks.extend(wire::ack(PUBACK, message.pkid));
        }
        client.send(acks).await;
        for _ in 0..50 {
            assert!(matches!(other.recv().await, Some(Packet::Ack(PUBACK, _, 0))));
        }
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_over_connection_changes_nothing_any_more() {
    let agent = Agent::start().await;
    for version in BOTH {
        let kept = Connect::kept(version, "taken");
        let (mut old, _) = Client::connect_with(agent.mqtt, &kept).await;
        old.subscribe("a", 1).await;
        let (mut new, welcome) = Client::connect_with(agent.mqtt, &kept).await;
        assert!(welcome.present);
        let reason = old.closed().await;
        assert_eq!(reason, (version == Version::V5).then_some(0x8E));
        new.publish(Message::new("a", "x", 1)).await;
        assert_eq!(texts(&new.rest().await), ["x"]);
        // Twenty clients fight for one id; one is left, and served.
        let mut fighters = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (kept, address) = (kept.clone(), agent.mqtt);
            fighters.spawn(async move { Client::connect_with(address, &kept).await.0 });
        }
        let clients = fighters.join_all().await;
        let mut open = 0;
        for mut client in clients {
            client.send(wire::PINGREQ).await;
            if client.recv().await == Some(Packet::PingResp) {
                client.send(wire::PINGREQ).await;
                open += usize::from(client.recv().await == Some(Packet::PingResp));
            }
        }
        assert_eq!(open, 1);
        Client::connect(agent.mqtt, version, "taken")
            .await
            .disconnect()
            .await;
    }
    agent.stop().await;
}
