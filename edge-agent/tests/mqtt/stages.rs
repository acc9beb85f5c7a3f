//! A part of the agent that dies takes the agent with it, visibly, so that systemd starts it again: never does an agent stand
//! there that takes readings and forwards none.

use super::{
    client::{Client, texts},
    process::Process,
    wire::{Connect, Message, Version},
};

/// Parts that are tasks. `mqtt` is the front door with what routes messages behind it.
const PARTS: [&str; 10] = [
    "mqtt", "intake", "buffer", "forward", "clock", "commands", "losses", "rules", "salvage", "admin",
];
/// `EX_SOFTWARE`: systemd's `Restart=on-failure` starts it again.
const BROKEN: i32 = 70;

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_part_ends_the_agent_with_a_code_that_starts_it_again() {
    let mut agent = Process::start("").await;
    let kept = Connect::kept(Version::V5, "kept");
    let (mut client, _) = Client::connect_with(agent.mqtt, &kept).await;
    client.subscribe("a", 1).await;
    client.disconnect().await;
    for part in PARTS {
        let mut publisher = Client::connect(agent.mqtt, Version::V5, "publisher").await;
        publisher.publish(Message::new("a", part, 1)).await;
        assert_eq!(agent.die_of(part).await, Some(BROKEN), "{part}: {}", agent.said());
        let said = agent.said();
        assert!(said.contains(&format!("{part} panicked")), "{part}: {said}");
        agent.run().await;
    }
    // What was acknowledged before each death is there.
    let (mut client, welcome) = Client::connect_with(agent.mqtt, &kept).await;
    assert!(welcome.present);
    assert_eq!(texts(&client.message_list(PARTS.len()).await), PARTS);
}
