//! Who is let in, and what they may do then: users, access lists with the user and the client id in them, wills, and new
//! users at SIGHUP.

use super::{
    agent::Agent,
    client::{Client, texts},
    doors::write,
    wire::{Connect, Message, Version, Version::V3, Version::V5},
};

const PASSWORD: &str = "correct-horse";

/// Connects and answers CONNACK's code.
async fn code(agent: &Agent, connect: &Connect) -> Option<u8> {
    Client::try_connect(agent.mqtt, connect)
        .await
        .1
        .map(|welcome| welcome.code)
}

fn users(more: &str) -> String {
    let hash = edge_agent::broker::hash_password(PASSWORD).expect("it hashes");
    format!("[[users]]\nname = \"p1\"\npassword_hash = {hash:?}\n{more}")
}

/// Publishes and subscribes: the reason codes of PUBACK and SUBACK.
async fn may(client: &mut Client, topic: &str) -> (u8, u8) {
    let granted = client.subscribe(topic, 1).await;
    (client.publish(Message::new(topic, "x", 1)).await, granted)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_what_its_list_says_with_its_name_and_its_client_id_in_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let list = "[[access]]\nuser = \"p1\"\npublish = [\"of/%u/#\", \"id/%c\"]\nsubscribe = [\"of/%u/#\", \"id/%c\"]\n\
                [[access]]\npublish = [\"open/#\"]\nsubscribe = [\"open/#\"]\n";
    let file = write(folder.path(), "users.toml", &users(list));
    let agent = Agent::start_with(&format!("users_file = {file:?}")).await;
    let (mut client, _) =
        Client::connect_with(agent.mqtt, &Connect::new(V5, "c1").login("p1", PASSWORD)).await;
    for (topic, want) in [
        ("of/p1/a", (0, 1)),
        ("id/c1", (0, 1)),
        ("of/p2/a", (0x87, 0x80)),
        ("id/c2", (0x87, 0x80)),
        ("open/a", (0x87, 0x80)),
    ] {
        assert_eq!(may(&mut client, topic).await, want, "{topic}");
    }
    // The wildcard that is wider than the list is not granted.
    for filter in ["#", "of/#", "id/+"] {
        assert_eq!(client.subscribe(filter, 1).await, 0x80, "{filter}");
    }
    // A client id cannot widen its own list.
    for id in ["+", "#", "c1/../+"] {
        let (mut client, _) =
            Client::connect_with(agent.mqtt, &Connect::new(V5, id).login("p1", PASSWORD)).await;
        assert_eq!(may(&mut client, "id/c1").await, (0x87, 0x80), "{id}");
    }
    let mut anonymous = Client::connect(agent.mqtt, V5, "nobody").await;
    assert_eq!(may(&mut anonymous, "open/a").await, (0, 1));
    assert_eq!(may(&mut anonymous, "of/p1/a").await, (0x87, 0x80));
    // In 3.1.1 there is no word for it: the publish is answered and goes nowhere, the subscription is refused.
    let mut old = Client::connect(agent.mqtt, V3, "old").await;
    assert_eq!(may(&mut old, "of/p1/a").await, (0, 0x80));
    assert_eq!(texts(&client.message_list(2).await), ["x", "x"]);
    client.ping().await;
    assert!(client.messages.is_empty(), "only what was allowed came");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_logins_are_refused_by_name_and_a_will_is_judged_at_the_door() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(folder.path(), "users.toml", &users(""));
    let agent = Agent::start_with(&format!("anonymous = \"never\"\nusers_file = {file:?}")).await;
    let with =
        |version: Version, user: &str, password: &str| Connect::new(version, "c").login(user, password);
    for (connect, want) in [
        (with(V5, "p1", PASSWORD), 0),
        (with(V3, "p1", PASSWORD), 0),
        (with(V5, "p1", "wrong"), 0x86),
        (with(V3, "p1", "wrong"), 4),
        (with(V5, "nobody", PASSWORD), 0x86),
        (Connect::new(V5, "c"), 0x87),
        (Connect::new(V3, "c"), 5),
        (
            with(V5, "p1", PASSWORD).will("cmnd/plug/POWER", b"ON", 1, false),
            0x87,
        ),
        (
            with(V3, "p1", PASSWORD).will("thermiq_heatpump/write", b"{}", 1, false),
            5,
        ),
    ] {
        assert_eq!(code(&agent, &connect).await, Some(want), "{connect:?}");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn new_users_and_lists_are_in_force_for_the_next_connection_and_a_broken_file_changes_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = write(folder.path(), "users.toml", &users(""));
    let agent = Agent::start_with(&format!("anonymous = \"never\"\nusers_file = {file:?}")).await;
    let known = Connect::new(V5, "c").login("p1", PASSWORD);
    let hash = edge_agent::broker::hash_password("another").expect("it hashes");
    let both = users(&format!("[[users]]\nname = \"p2\"\npassword_hash = {hash:?}\n"));
    let new = Connect::new(V5, "d").login("p2", "another");
    assert_eq!(code(&agent, &new).await, Some(0x86));
    write(folder.path(), "users.toml", &both);
    agent.reload.notify_one();
    let until = tokio::time::Instant::now() + super::agent::DEADLINE;
    // Wrong logins are few and slow on purpose, so it is not asked often.
    while code(&agent, &new).await != Some(0) {
        assert!(tokio::time::Instant::now() < until, "the new user is not let in");
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    }
    write(folder.path(), "users.toml", "[[users]]\nname = 5\n");
    agent.reload.notify_one();
    // The reload is over when a later one is: a sound file with one user less.
    assert_eq!(code(&agent, &known).await, Some(0));
    write(folder.path(), "users.toml", &users(""));
    agent.reload.notify_one();
    let until = tokio::time::Instant::now() + super::agent::DEADLINE;
    while code(&agent, &new).await == Some(0) {
        assert!(
            tokio::time::Instant::now() < until,
            "the user that is gone is let in"
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(code(&agent, &known).await, Some(0));
    agent.stop().await;
}
