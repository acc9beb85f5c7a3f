//! What outlives the agent: retained messages, sessions, and messages that wait for absent clients.

use std::time::Duration;

use super::{
    agent::{DEADLINE, status_until},
    client::{Client, sorted, texts},
    process::Process,
    wire::{self, BOTH, Connect, Message, Packet, Props, Version, prop},
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let mut agent = Process::start("").await;
    for version in BOTH {
        let kept = Connect::kept(version, &format!("kept-{}", version as u8));
        let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
        assert_eq!(
            client
                .subscribe_with(&Props::default(), &[("one/+", 1), ("two/#", 2), ("gone", 2)])
                .await,
            [1, 2, 2]
        );
        assert_eq!(
            client.unsubscribe(&["gone"]).await.len(),
            usize::from(version == Version::V5)
        );
        client.disconnect().await;
        let mut other = Client::connect(agent.mqtt, version, "other").await;
        for n in 0..20 {
            other
                .publish(Message::new("one/x", format!("one {n:02}"), 1))
                .await;
            other
                .publish(Message::new("two/x", format!("two {n:02}"), 2))
                .await;
        }
        // More than one part of the store, and more than a page of it.
        other
            .publish(Message::new("two/large", "x".repeat(200 * 1024), 1))
            .await;
        other.publish(Message::new("gone", "x", 1)).await;
        other.publish(Message::new("r/a", "first", 1).retained()).await;
        other.publish(Message::new("r/a", "second", 2).retained()).await;
        other.publish(Message::new("r/b", "cleared", 1).retained()).await;
        other.publish(Message::new("r/b", "", 1).retained()).await;

        agent.kill();
        agent.run().await;

        let (mut client, welcome) = Client::connect_with(agent.mqtt, &kept).await;
        assert!(welcome.present);
        let messages = client.rest().await;
        let of = |topic: &str| -> Vec<String> {
            let found = messages.iter().filter(|m| m.topic == topic);
            found.map(|m| m.text().to_owned()).collect()
        };
        let wanted = |name: &str| (0..20).map(|n| format!("{name} {n:02}")).collect::<Vec<_>>();
        assert_eq!(of("one/x"), wanted("one"));
        assert_eq!(of("two/x"), wanted("two"));
        assert_eq!(
            of("two/large").iter().map(String::len).collect::<Vec<_>>(),
            [200 * 1024]
        );
        assert_eq!(messages.len(), 41, "and nothing of the filter that is gone");
        assert!(
            messages
                .iter()
                .all(|m| m.qos == if m.topic == "two/x" { 2 } else { 1 })
        );
        let mut late = Client::connect(agent.mqtt, version, "late").await;
        late.subscribe("r/#", 2).await;
        let retained = late.rest().await;
        assert_eq!(texts(&retained), ["second"]);
        assert!(retained[0].retain && retained[0].qos == 2);
        // What was taken does not come again.
        client.disconnect().await;
        agent.kill();
        agent.run().await;
        let (mut client, welcome) = Client::connect_with(agent.mqtt, &kept).await;
        assert!(welcome.present);
        assert_eq!(client.rest().await, []);
        // A clean start ends it for good.
        client.disconnect().await;
        let clean = Connect::new(version, &kept.id);
        Client::connect_with(agent.mqtt, &clean)
            .await
            .0
            .disconnect()
            .await;
        let mut other = Client::connect(agent.mqtt, version, "other").await;
        other.publish(Message::new("r/a", "", 1).retained()).await;
        agent.kill();
        agent.run().await;
        let (_, welcome) = Client::connect_with(agent.mqtt, &kept).await;
        assert!(!welcome.present);
        let (client, _) = Client::connect_with(agent.mqtt, &clean).await;
        client.disconnect().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_options_and_expiry_are_kept() {
    let mut agent = Process::start("").await;
    let kept = Connect::kept(Version::V5, "kept");
    let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
    let id = Props::default().number(prop::SUBSCRIPTION_ID, 77);
    client.subscribe_with(&id, &[("a/#", 1 | 0x08)]).await;
    client.disconnect().await;
    let short = Connect {
        clean: false,
        ..Connect::new(Version::V5, "short").number(prop::SESSION_EXPIRY, 2)
    };
    let (mut client, _) = Client::connect_with(agent.mqtt, &short).await;
    client.subscribe("a/#", 1).await;
    client.disconnect().await;
    let mut other = Client::connect(agent.mqtt, Version::V5, "other").await;
    let expiring = |seconds: u32| Props::default().number(prop::MESSAGE_EXPIRY, seconds);
    let rich = expiring(1_000)
        .user("k", "v")
        .bytes(prop::CORRELATION_DATA, [0, 255]);
    other
        .publish(Message::new("a/1", "rich", 1).retained().props(rich.clone()))
        .await;
    other
        .publish(Message::new("a/2", "short", 1).retained().props(expiring(1)))
        .await;
    agent.kill();
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    agent.run().await;
    let (mut client, welcome) = Client::connect_with(agent.mqtt, &kept).await;
    assert!(welcome.present);
    let messages = client.rest().await;
    assert_eq!(texts(&messages), ["rich"]);
    let message = &messages[0];
    assert!(message.retain, "retain as published");
    assert_eq!(message.props.numbers(prop::SUBSCRIPTION_ID), [77]);
    assert_eq!(message.props.users(), rich.users());
    assert_eq!(
        message.props.get(prop::CORRELATION_DATA),
        rich.get(prop::CORRELATION_DATA)
    );
    let left = message
        .props
        .get_number(prop::MESSAGE_EXPIRY)
        .expect("what is left");
    assert!((900..=998).contains(&left), "{left}");
    let (mut client, welcome) = Client::connect_with(agent.mqtt, &short).await;
    assert!(!welcome.present, "it ended while the agent was away");
    client.subscribe("a/#", 1).await;
    assert_eq!(texts(&client.rest().await), ["rich"]);
}

/// MQTT 5, 3.1.2.5: a server may defer wills over its restart, and no more.
#[tokio::test(flavor = "multi_thread")]
async fn a_delayed_will_is_published_after_a_restart_and_only_once() {
    let mut agent = Process::start("").await;
    let dying = |id: &str, topic: &'static str, delay: u32| {
        let mut connect = Connect::kept(Version::V5, id).will(topic, b"bye", 1, true);
        if let Some(will) = &mut connect.will {
            will.props = Props::default().number(prop::WILL_DELAY, delay);
        }
        connect
    };
    for (id, topic, delay) in [("gone", "will/gone", 2), ("waits", "will/waits", 1_000)] {
        let (client, _) = Client::connect_with(agent.mqtt, &dying(id, topic, delay)).await;
        drop(client);
    }
    status_until(agent.admin, "the loss of both", |status| {
        status["mqtt"]["connected"] == 0
    })
    .await;
    // What is acknowledged now is on disk, and all that was noted before it.
    let mut other = Client::connect(agent.mqtt, Version::V5, "other").await;
    other.publish(Message::new("x", "x", 1).retained()).await;
    agent.kill();
    agent.run().await;
    let mut watcher = Client::connect(agent.mqtt, Version::V5, "watcher").await;
    watcher.subscribe("will/#", 1).await;
    let will = watcher.message().await;
    assert_eq!((will.topic.as_str(), will.text()), ("will/gone", "bye"));
    watcher.publish(Message::new("x", "y", 1).retained()).await;
    agent.kill();
    agent.run().await;
    let mut watcher = Client::connect(agent.mqtt, Version::V5, "watcher").await;
    watcher.subscribe("will/#", 1).await;
    let retained = watcher.message().await;
    assert!(retained.retain && retained.topic == "will/gone");
    // The housekeeping, once a second, would publish it by now.
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(watcher.rest().await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_qos_2_exchange_goes_on_after_a_kill_where_it_stopped() {
    let mut agent = Process::start("").await;
    for version in BOTH {
        let kept = Connect::kept(version, &format!("two-{}", version as u8));
        let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
        client.subscribe("a", 2).await;
        // Towards the client: one is sent, one is received and not completed.
        let mut other = Client::connect(agent.mqtt, version, "other").await;
        other.publish(Message::new("a", "sent", 2)).await;
        other.publish(Message::new("a", "received", 2)).await;
        let sent = message(&mut client).await;
        let received = message(&mut client).await;
        client.send(wire::ack(wire::PUBREC, received.pkid)).await;
        client.acknowledged(wire::PUBREL, received.pkid).await;
        // From it: acknowledged and not released.
        client
            .send(Message::new("a", "mine", 2).pkid(7).write(version))
            .await;
        client.acknowledged(wire::PUBREC, 7).await;
        agent.kill();
        agent.run().await;
        let (mut client, welcome) = Client::connect_with(agent.mqtt, &kept).await;
        assert!(welcome.present);
        let again = message(&mut client).await;
        assert_eq!((again.text(), again.pkid, again.dup), ("sent", sent.pkid, true));
        assert_eq!(
            client.acknowledged(wire::PUBREL, received.pkid).await,
            0,
            "only its release comes again"
        );
        client.send(wire::ack(wire::PUBCOMP, received.pkid)).await;
        client.take(&again).await;
        assert_eq!(message(&mut client).await.text(), "mine");
        let mine = client.messages.pop_back();
        assert_eq!(mine, None);
        // The resend of what was acknowledged is not passed on again.
        client
            .send(Message::new("a", "mine", 2).pkid(7).dup().write(version))
            .await;
        assert_eq!(client.acknowledged(wire::PUBREC, 7).await, 0);
        client.send(wire::ack(wire::PUBREL, 7)).await;
        assert_eq!(client.acknowledged(wire::PUBCOMP, 7).await, 0);
        client.ping().await;
        assert!(client.messages.is_empty(), "{:?}", client.messages);
    }
}

async fn message(client: &mut Client) -> Message {
    match client.messages.pop_front() {
        Some(message) => message,
        None => match client.recv().await {
            Some(Packet::Publish(message)) => message,
            other => panic!("{other:?} instead of a message"),
        },
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_change_is_not_written() {
    let agent = Process::start("").await;
    let store = agent.data_dir().join("sessions");
    // Clean sessions, QoS 0, and messages that are taken at once.
    let mut reader = Client::connect(agent.mqtt, Version::V3, "reader").await;
    reader.subscribe("live/#", 2).await;
    let mut other = Client::connect(agent.mqtt, Version::V3, "other").await;
    for n in 0..50 {
        other.publish(Message::new("live/x", "x", n % 3)).await;
        reader.message().await;
    }
    assert!(!store.exists(), "nothing is to be kept, so there is no store");
    other.publish(Message::new("r", "kept", 1).retained()).await;
    assert!(store.exists());
    let kept = Connect::kept(Version::V3, "kept");
    let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
    client.subscribe("live/#", 0).await;
    // Changes that nobody waits for are written within moments.
    let quiet = async || {
        let until = tokio::time::Instant::now() + DEADLINE;
        let mut before = agent.written_bytes();
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            let now = agent.written_bytes();
            if now == before {
                return now;
            }
            assert!(tokio::time::Instant::now() < until, "it never rests");
            before = now;
        }
    };
    let before = quiet().await;
    for n in 0..50 {
        other.publish(Message::new("r", "kept", 1).retained()).await;
        other.publish(Message::new("live/x", "x", n % 3)).await;
        client.subscribe("live/#", 0).await;
        reader.message().await;
        client.message().await;
    }
    assert_eq!(quiet().await, before);
}

/// What a disk leaves that was full while sled wrote a snapshot.
#[tokio::test(flavor = "multi_thread")]
async fn an_empty_snapshot_costs_no_session_and_no_retained_message() {
    let mut agent = Process::start("").await;
    let kept = Connect::kept(Version::V5, "kept");
    let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
    client.subscribe("a", 1).await;
    client.disconnect().await;
    let mut other = Client::connect(agent.mqtt, Version::V3, "other").await;
    other.publish(Message::new("a", "letter", 1).retained()).await;
    agent.kill();
    // The second start has a snapshot of the first.
    agent.run().await;
    agent.kill();
    let store = agent.data_dir().join("sessions");
    std::fs::write(store.join("snap.7FFFFFFFFFFFFFFF.generating"), b"").expect("an empty snapshot");
    agent.run().await;
    assert!(!store.with_extension("damaged").exists(), "{}", agent.said());
    let (mut client, welcome) = Client::connect_with(agent.mqtt, &kept).await;
    assert!(welcome.present);
    assert_eq!(texts(&client.rest().await), ["letter"]);
    let mut late = Client::connect(agent.mqtt, Version::V3, "late").await;
    late.subscribe("a", 1).await;
    assert_eq!(texts(&late.rest().await), ["letter"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_store_is_moved_aside_and_reported() {
    let mut agent = Process::start("").await;
    let mut other = Client::connect(agent.mqtt, Version::V3, "other").await;
    other.publish(Message::new("r", "kept", 1).retained()).await;
    agent.kill();
    let store = agent.data_dir().join("sessions");
    std::fs::write(store.join("conf"), b"this is no configuration of sled").expect("the file is overwritten");
    agent.run().await;
    assert!(store.with_extension("damaged").join("db").exists());
    assert!(agent.said().contains("moved aside"), "{}", agent.said());
    let mut late = Client::connect(agent.mqtt, Version::V3, "late").await;
    late.subscribe("r", 1).await;
    assert_eq!(late.rest().await, []);
    late.publish(Message::new("r", "new", 1).retained()).await;
    agent.kill();
    agent.run().await;
    let mut late = Client::connect(agent.mqtt, Version::V3, "late").await;
    late.subscribe("r", 1).await;
    assert_eq!(sorted(&late.rest().await), ["new"]);
}
