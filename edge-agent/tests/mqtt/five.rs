//! What MQTT 5 added: the rest of the Eclipse Paho suite for it (`client_test5.py`).

use std::time::{Duration, Instant};

use super::{
    agent::Agent,
    client::{Client, sorted, texts},
    wire::{self, Connect, Message, Props, Value, Version::V5, prop},
};

const NO_LOCAL: u8 = 0x04;
const AS_PUBLISHED: u8 = 0x08;
const RETAINED_WHEN_NEW: u8 = 0x10;
const RETAINED_NEVER: u8 = 0x20;

fn five(id: &str) -> Connect {
    Connect::new(V5, id)
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_travel_with_the_message() {
    let agent = Agent::start().await;
    let mut client = Client::connect(agent.mqtt, V5, "properties").await;
    client.subscribe("a/#", 2).await;
    let props = Props::default()
        .number(prop::PAYLOAD_FORMAT, 1)
        .bytes(prop::CONTENT_TYPE, "text/plain")
        .bytes(prop::RESPONSE_TOPIC, "answers/here")
        .bytes(prop::CORRELATION_DATA, [0, 159, 146, 150])
        .user("a", "2")
        .user("c", "3")
        .user("a", "1");
    for qos in 0..3 {
        let message = Message::new("a/b", "text", qos).props(props.clone());
        client.publish(message).await;
    }
    for message in client.message_list(3).await {
        assert_eq!(message.props.get_number(prop::PAYLOAD_FORMAT), Some(1));
        for id in [prop::CONTENT_TYPE, prop::RESPONSE_TOPIC, prop::CORRELATION_DATA] {
            assert_eq!(message.props.get(id), props.get(id));
        }
        assert_eq!(message.props.users(), props.users(), "all of them, in order");
    }
    // Kept with a retained message, and left out for 3.1.1.
    client
        .publish(Message::new("a/r", "kept", 1).retained().props(props.clone()))
        .await;
    let mut late = Client::connect(agent.mqtt, V5, "late").await;
    late.subscribe("a/r", 1).await;
    assert_eq!(late.message().await.props.users(), props.users());
    let mut old = Client::connect(agent.mqtt, wire::Version::V3, "old").await;
    old.subscribe("a/r", 1).await;
    assert_eq!(old.message().await.text(), "kept");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn session_expiry() {
    let agent = Agent::start().await;
    let of = |seconds: u32| Connect {
        clean: false,
        ..five("expiring").number(prop::SESSION_EXPIRY, seconds)
    };
    // No expiry: the session ends with its connection.
    let (client, welcome) = Client::connect_with(agent.mqtt, &of(0)).await;
    assert!(!welcome.present);
    client.disconnect().await;
    let (mut client, welcome) = Client::connect_with(agent.mqtt, &of(5)).await;
    assert!(!welcome.present);
    client.subscribe("a", 2).await;
    client.disconnect().await;
    // Back in time.
    let (client, welcome) = Client::connect_with(agent.mqtt, &of(1)).await;
    assert!(welcome.present);
    client.disconnect().await;
    agent
        .until("the session expires", |s| s["mqtt"]["sessions"] == 0)
        .await;
    let (client, welcome) = Client::connect_with(agent.mqtt, &of(0xFFFF_FFFF)).await;
    assert!(!welcome.present);
    client.disconnect().await;
    let (mut client, welcome) = Client::connect_with(agent.mqtt, &of(1_000)).await;
    assert!(welcome.present, "for ever is longer than this test");
    // DISCONNECT may shorten it.
    let goodbye = |seconds: u32| {
        let mut body = vec![0];
        body.extend(Props::default().number(prop::SESSION_EXPIRY, seconds).write());
        wire::packet(0xE0, body)
    };
    client.send(goodbye(0)).await;
    assert_eq!(client.closed().await, None);
    let (mut client, welcome) = Client::connect_with(agent.mqtt, &of(0)).await;
    assert!(!welcome.present);
    // But not bring to life what was to end: a protocol error, and no goodbye.
    client.send(goodbye(10)).await;
    assert_eq!(client.closed().await, Some(0x82));
    let (_, welcome) = Client::connect_with(agent.mqtt, &of(0)).await;
    assert!(!welcome.present);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shared_subscriptions() {
    let agent = Agent::start().await;
    let mut one = Client::connect(agent.mqtt, V5, "one").await;
    let mut two = Client::connect(agent.mqtt, V5, "two").await;
    let mut all = Client::connect(agent.mqtt, V5, "all").await;
    let mut publisher = Client::connect(agent.mqtt, V5, "publisher").await;
    publisher
        .publish(Message::new("a/old", "kept", 1).retained())
        .await;
    for client in [&mut one, &mut two] {
        assert_eq!(client.subscribe("$share/group/a/+", 2).await, 2);
    }
    all.subscribe("a/+", RETAINED_NEVER).await;
    for n in 0..20 {
        publisher
            .publish(Message::new("a/b", format!("{n:02}"), n % 3))
            .await;
    }
    let (a, b, c) = (one.rest().await, two.rest().await, all.rest().await);
    assert!(!a.is_empty() && !b.is_empty(), "both take part");
    assert_eq!(
        a.len() + b.len(),
        20,
        "each once; retained messages are not for shared ones"
    );
    assert_eq!(c.len(), 20);
    // A plain subscription of a member is another one (4.8.2).
    assert_eq!(one.subscribe("c/#", 1).await, 1);
    assert_eq!(one.subscribe("$share/group/c/+", 1).await, 1);
    publisher.publish(Message::new("c/d", "both", 1)).await;
    assert_eq!(texts(&one.rest().await), ["both", "both"]);
    // A member that leaves leaves it all to the others.
    assert_eq!(two.unsubscribe(&["$share/group/a/+"]).await, [0]);
    publisher.publish(Message::new("a/b", "x", 1)).await;
    assert_eq!(texts(&one.rest().await), ["x"]);
    assert_eq!(two.rest().await, []);
    // No-local makes no sense there (MQTT 5, 3.8.3.1).
    let pkid = one.pkid();
    one.send(wire::subscribe(
        V5,
        pkid,
        &Props::default(),
        &[("$share/g/b", NO_LOCAL)],
    ))
    .await;
    assert_eq!(one.closed().await, Some(0x82));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn will_with_properties() {
    let agent = Agent::start().await;
    let mut watcher = Client::connect(agent.mqtt, V5, "watcher").await;
    watcher.subscribe("gone", 2).await;
    let mut connect = five("dying").will("gone", b"bye", 1, false);
    if let Some(will) = &mut connect.will {
        will.props = Props::default()
            .user("a", "2")
            .bytes(prop::CONTENT_TYPE, "text/plain");
    }
    let (client, _) = Client::connect_with(agent.mqtt, &connect).await;
    drop(client);
    let message = watcher.message().await;
    assert_eq!(message.props.users(), [("a".into(), "2".into())]);
    assert_eq!(
        message.props.get(prop::CONTENT_TYPE),
        Some(&Value::Bytes(b"text/plain".to_vec()))
    );
    assert_eq!(message.props.get(prop::WILL_DELAY), None);
    // DISCONNECT with reason 4 asks for it.
    let (mut client, _) = Client::connect_with(agent.mqtt, &connect).await;
    client.send([0xE0, 1, 4]).await;
    client.closed().await;
    assert_eq!(watcher.message().await.text(), "bye");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn will_delay() {
    let agent = Agent::start().await;
    let mut watcher = Client::connect(agent.mqtt, V5, "watcher").await;
    watcher.subscribe("gone", 2).await;
    let dying = |delay: u32, expiry: u32, clean: bool| {
        let mut connect = five("dying")
            .will("gone", b"bye", 1, false)
            .number(prop::SESSION_EXPIRY, expiry);
        connect.clean = clean;
        if let Some(will) = &mut connect.will {
            will.props = Props::default().number(prop::WILL_DELAY, delay);
        }
        connect
    };
    // After the delay.
    let (client, _) = Client::connect_with(agent.mqtt, &dying(2, 100, true)).await;
    drop(client);
    let begun = Instant::now();
    assert_eq!(watcher.message().await.text(), "bye");
    assert!(begun.elapsed() > Duration::from_millis(1_900) && begun.elapsed() < Duration::from_secs(6));
    // At once when the session ends at once, whatever the delay.
    let (client, _) = Client::connect_with(agent.mqtt, &dying(1_000, 0, true)).await;
    drop(client);
    assert_eq!(watcher.message().await.text(), "bye");
    // When the session ends before the delay.
    let (client, _) = Client::connect_with(agent.mqtt, &dying(1_000, 1, true)).await;
    drop(client);
    assert_eq!(watcher.message().await.text(), "bye");
    // Not when the client is back in time.
    let (client, _) = Client::connect_with(agent.mqtt, &dying(2, 100, true)).await;
    drop(client);
    let (client, welcome) = Client::connect_with(agent.mqtt, &dying(1_000, 100, false)).await;
    assert!(welcome.present);
    // A clean start ends the old session, and its delayed will is due.
    drop(client);
    let (client, welcome) = Client::connect_with(agent.mqtt, &dying(1_000, 100, true)).await;
    assert!(!welcome.present);
    assert_eq!(watcher.message().await.text(), "bye");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(
        watcher.rest().await,
        [],
        "the will of the one that came back is not published"
    );
    client.disconnect().await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publication_expiry() {
    let agent = Agent::start().await;
    let kept = Connect::kept(V5, "expiry");
    let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
    client.subscribe("a/#", 2).await;
    client.disconnect().await;
    let mut other = Client::connect(agent.mqtt, V5, "other").await;
    let of = |text: &str, seconds: u32| {
        Message::new("a/b", text, 1).props(Props::default().number(prop::MESSAGE_EXPIRY, seconds))
    };
    for message in [of("one", 1), of("two", 5), of("three", 100)] {
        other.publish(message).await;
    }
    other.publish(Message::new("a/b", "four", 2)).await;
    let mut there = Client::connect(agent.mqtt, V5, "there").await;
    there.subscribe("now/#", 1).await;
    let mut at_once = of("at once", 1);
    at_once.topic = "now/a".into();
    other.publish(at_once).await;
    let left = there.rest().await[0].props.get_number(prop::MESSAGE_EXPIRY);
    assert_eq!(left, Some(1), "what was just sent has not run out");
    let mut retained = of("retained", 1).retained();
    retained.topic = "r".into();
    other.publish(retained.clone()).await;
    retained.props = Props::default().number(prop::MESSAGE_EXPIRY, 50);
    retained.topic = "s".into();
    other.publish(retained).await;
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
    let messages = client.rest().await;
    assert_eq!(texts(&messages), ["two", "three", "four"]);
    let left: Vec<_> = messages
        .iter()
        .map(|m| m.props.get_number(prop::MESSAGE_EXPIRY))
        .collect();
    assert!(left[0].is_some_and(|n| (1..=3).contains(&n)), "{left:?}");
    assert!(left[1].is_some_and(|n| (90..=98).contains(&n)), "{left:?}");
    assert_eq!(left[2], None);
    client.subscribe("r", 1).await;
    client.subscribe("s", 1).await;
    let messages = client.rest().await;
    assert_eq!(messages.len(), 1);
    let left = messages[0]
        .props
        .get_number(prop::MESSAGE_EXPIRY)
        .expect("what is left of 50");
    assert!((40..=48).contains(&left), "{left}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscribe_options() {
    let agent = Agent::start().await;
    let mut client = Client::connect(agent.mqtt, V5, "options").await;
    let mut other = Client::connect(agent.mqtt, V5, "other").await;
    // No local.
    client.subscribe("n/#", 2 | NO_LOCAL).await;
    other.subscribe("n/#", 2).await;
    client.publish(Message::new("n/1", "mine", 1)).await;
    other.publish(Message::new("n/1", "theirs", 1)).await;
    assert_eq!(texts(&client.rest().await), ["theirs"]);
    assert_eq!(texts(&other.rest().await), ["mine", "theirs"]);
    client.publish(Message::new("n/2", "kept", 1).retained()).await;
    client.subscribe("n/2", 2 | NO_LOCAL).await;
    assert_eq!(client.rest().await, [], "nor a retained one of its own");
    // Retain as published.
    client.subscribe("p/#", 2 | AS_PUBLISHED).await;
    other.subscribe("p/#", 2).await;
    other.publish(Message::new("p/1", "retained", 1).retained()).await;
    other.publish(Message::new("p/1", "plain", 1)).await;
    let flags = |messages: &[Message]| messages.iter().map(|m| m.retain).collect::<Vec<_>>();
    assert_eq!(flags(&client.rest().await), [true, false]);
    let live: Vec<_> = other
        .rest()
        .await
        .into_iter()
        .filter(|m| m.topic == "p/1")
        .collect();
    assert_eq!(flags(&live), [false, false]);
    // Retain handling.
    let mut late = Client::connect(agent.mqtt, V5, "late").await;
    late.subscribe("p/1", 1 | RETAINED_WHEN_NEW).await;
    assert_eq!(texts(&late.rest().await), ["retained"]);
    late.subscribe("p/1", 1 | RETAINED_WHEN_NEW).await;
    assert_eq!(late.rest().await, [], "not new");
    late.subscribe("p/1", 1).await;
    assert_eq!(texts(&late.rest().await), ["retained"]);
    late.unsubscribe(&["p/1"]).await;
    late.subscribe("p/1", 1 | RETAINED_NEVER).await;
    assert_eq!(late.rest().await, []);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn assigned_client_id() {
    let agent = Agent::start().await;
    let connect = Connect {
        clean: false,
        ..five("").number(prop::SESSION_EXPIRY, 100)
    };
    let (client, welcome) = Client::connect_with(agent.mqtt, &connect).await;
    let Some(Value::Bytes(id)) = welcome.props.get(prop::ASSIGNED_ID).cloned() else {
        panic!("no assigned id in {welcome:?}");
    };
    client.disconnect().await;
    let id = String::from_utf8(id).unwrap();
    let (_, welcome) = Client::connect_with(agent.mqtt, &Connect { id, ..connect }).await;
    assert!(welcome.present, "the session goes by that name");
    assert_eq!(welcome.props.get(prop::ASSIGNED_ID), None);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn subscription_identifiers() {
    let agent = Agent::start().await;
    let mut client = Client::connect(agent.mqtt, V5, "identifiers").await;
    let id = |n: u32| Props::default().number(prop::SUBSCRIPTION_ID, n);
    client.subscribe_with(&id(456_789), &[("a/#", 2)]).await;
    client.subscribe_with(&id(2), &[("a/b", 1)]).await;
    client.subscribe("a/+", 0).await;
    client.publish(Message::new("a/b", "both", 1)).await;
    client.publish(Message::new("a/c", "one", 1)).await;
    let messages = client.rest().await;
    assert_eq!(texts(&messages), ["both", "one"]);
    assert_eq!(messages[0].props.numbers(prop::SUBSCRIPTION_ID), [2, 456_789]);
    assert_eq!(messages[1].props.numbers(prop::SUBSCRIPTION_ID), [456_789]);
    // Kept with the session, given with retained messages, replaced with the subscription.
    client.publish(Message::new("a/r", "kept", 1).retained()).await;
    client.rest().await;
    client.subscribe_with(&id(7), &[("a/r", 1)]).await;
    client.subscribe_with(&id(8), &[("a/r", 1)]).await;
    let messages = client.rest().await;
    let ids: Vec<_> = messages
        .iter()
        .map(|m| m.props.numbers(prop::SUBSCRIPTION_ID))
        .collect();
    assert_eq!(ids, [[7], [8]]);
    client.publish(Message::new("a/r", "live", 1)).await;
    assert_eq!(
        client.rest().await[0].props.numbers(prop::SUBSCRIPTION_ID),
        [8, 456_789]
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn request_and_response() {
    let agent = Agent::start().await;
    let mut asking = Client::connect(agent.mqtt, V5, "asking").await;
    let mut answering = Client::connect(agent.mqtt, V5, "answering").await;
    asking.subscribe("answers/1", 2).await;
    answering.subscribe("questions", 2).await;
    let props = Props::default()
        .bytes(prop::RESPONSE_TOPIC, "answers/1")
        .bytes(prop::CORRELATION_DATA, "334");
    asking
        .publish(Message::new("questions", "how much?", 1).props(props))
        .await;
    let question = answering.message().await;
    let Some(Value::Bytes(topic)) = question.props.get(prop::RESPONSE_TOPIC) else {
        panic!("{question:?}");
    };
    let topic = std::str::from_utf8(topic).unwrap();
    let correlation = Props(vec![(
        prop::CORRELATION_DATA,
        question.props.get(prop::CORRELATION_DATA).unwrap().clone(),
    )]);
    answering
        .publish(Message::new(topic, "42", 1).props(correlation.clone()))
        .await;
    let answer = asking.message().await;
    assert_eq!((answer.text(), &answer.props), ("42", &correlation));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn client_topic_alias() {
    let agent = Agent::start().await;
    let (mut client, welcome) = Client::connect_with(agent.mqtt, &five("alias")).await;
    let maximum = welcome
        .props
        .get_number(prop::ALIAS_MAXIMUM)
        .expect("aliases are offered");
    assert!(maximum > 0);
    client.subscribe("#", 2).await;
    let alias = |n: u32| Props::default().number(prop::ALIAS, n);
    client
        .publish(Message::new("a/b", "set", 0).props(alias(1)))
        .await;
    client.publish(Message::new("", "used", 1).props(alias(1))).await;
    client
        .publish(Message::new("c", "set again", 2).props(alias(1)))
        .await;
    client
        .publish(Message::new("", "used again", 2).props(alias(1)))
        .await;
    client
        .publish(Message::new("d", "last", 1).props(alias(maximum)))
        .await;
    let messages = client.rest().await;
    let topics: Vec<_> = messages.iter().map(|m| m.topic.as_str()).collect();
    assert_eq!(topics, ["a/b", "a/b", "c", "c", "d"]);
    assert!(messages.iter().all(|m| m.props.get(prop::ALIAS).is_none()));
    // It ends with the connection.
    for (topic, number, reason) in [("", 1, 0x82), ("x", 0, 0x94), ("x", maximum + 1, 0x94)] {
        let mut client = Client::connect(agent.mqtt, V5, "alias").await;
        client
            .publish(Message::new(topic, "x", 0).props(alias(number)))
            .await;
        assert_eq!(client.closed().await, Some(reason), "{topic:?} {number}");
    }
    let mut client = Client::connect(agent.mqtt, V5, "alias").await;
    client.publish(Message::new("", "no alias", 0)).await;
    assert_eq!(client.closed().await, Some(0x82));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn server_topic_alias() {
    let agent = Agent::start().await;
    let (mut client, _) =
        Client::connect_with(agent.mqtt, &five("alias").number(prop::ALIAS_MAXIMUM, 2)).await;
    client.subscribe("a/+", 2).await;
    for topic in ["a/1", "a/1", "a/2", "a/3", "a/2"] {
        client.publish(Message::new(topic, "x", 1)).await;
    }
    let messages = client.message_list(5).await;
    let seen: Vec<_> = messages
        .iter()
        .map(|m| (m.topic.as_str(), m.props.get_number(prop::ALIAS)))
        .collect();
    assert_eq!(
        seen,
        [
            ("a/1", Some(1)),
            ("", Some(1)),
            ("a/2", Some(2)),
            ("a/3", None),
            ("", Some(2))
        ]
    );
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn several_messages_wait_in_order_of_arrival() {
    let agent = Agent::start().await;
    let kept = Connect::kept(V5, "order");
    let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
    client.subscribe("a/#", 2).await;
    client.disconnect().await;
    let mut other = Client::connect(agent.mqtt, V5, "other").await;
    for n in 0..300 {
        other
            .publish(Message::new(
                &format!("a/{}", n % 7),
                format!("{n:03}"),
                1 + (n % 2) as u8,
            ))
            .await;
    }
    let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
    let messages = client.rest().await;
    assert_eq!(messages.len(), 300);
    assert_eq!(texts(&messages), sorted(&messages));
    agent.stop().await;
}
