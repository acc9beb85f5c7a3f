//! Many clients, and much of everything: floods, slow readers, a thousand connections.

use std::time::Duration;

use edge_agent::broker::Limits;
use tokio::io::AsyncWriteExt as _;

use super::{
    agent::{DEADLINE, Door},
    client::Client,
    hostile::{Bystander, keep, resident_bytes},
    wire::{self, BOTH, Connect, Message, PUBACK, Packet, Version},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_connections_at_once() {
    // Both ends of them are in this process.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("up to the hard limit");
    let door = Door::open_with(Limits::default(), 1_000).await;
    let mut bystander = Bystander::arrive(&door).await;
    let mut arriving = tokio::task::JoinSet::new();
    for n in 0..999 {
        let address = door.mqtt;
        arriving.spawn(async move {
            let mut client = Client::connect(address, BOTH[n % 2], &format!("many-{n}")).await;
            client.subscribe("all", 1).await;
            client.publish(Message::new(&format!("one/{n}"), "x", 1)).await;
            client
        });
    }
    let mut clients = arriving.join_all().await;
    assert_eq!(door.broker.stats().connected, 1_000);
    bystander.client.publish(Message::new("all", "hello", 1)).await;
    for client in &mut clients {
        assert_eq!(client.message().await.text(), "hello");
    }
    bystander.is_served().await;
    // One more waits until another leaves.
    let mut one_more = Client::open(door.mqtt, Version::V3).await;
    one_more.send(Connect::new(Version::V3, "one more").write()).await;
    let waiting = tokio::time::timeout(Duration::from_millis(200), one_more.recv()).await;
    assert!(waiting.is_err());
    clients.pop().expect("there are many").disconnect().await;
    assert!(matches!(
        one_more.recv().await,
        Some(Packet::ConnAck { code: 0, .. })
    ));
    drop(clients);
    drop(one_more);
    door.until("all are gone", |s| s.connected == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_never_reads_is_cut_off_and_nobody_waits_for_it() {
    let door = Door::open().await;
    let mut bystander = Bystander::arrive(&door).await;
    let mut publisher = Client::connect(door.mqtt, Version::V3, "publisher").await;
    let mut reader = Client::connect(door.mqtt, Version::V3, "reader").await;
    reader.subscribe("flood", 0).await;
    let before = resident_bytes();
    for qos in 0..2 {
        let mut deaf = Client::connect(door.mqtt, Version::V5, "deaf").await;
        deaf.subscribe("flood", qos).await;
        let payload = "x".repeat(64 * 1024);
        for _ in 0..400 {
            publisher.publish(Message::new("flood", &payload, 1)).await;
            assert_eq!(reader.message().await.payload.len(), payload.len());
        }
        bystander.is_served().await;
        door.until("the deaf one is gone", |s| s.connected == 3).await;
    }
    assert!(door.broker.stats().queue_full >= 1);
    bystander.never_waited();
    let grown = resident_bytes().saturating_sub(before);
    assert!(grown < 200 << 20, "{grown} bytes");
}

/// Beyond the bound of an absent session's queue messages are lost to it. It keeps the oldest, in order, the loss is
/// counted, and a client of version 5 is told of it when it comes back.
#[tokio::test(flavor = "multi_thread")]
async fn an_absent_subscriber_is_never_skipped_in_silence() {
    const QUEUE: usize = 10_000;
    const BEYOND: usize = 7;
    for version in BOTH {
        let door = Door::open().await;
        let kept = Connect::kept(version, "absent");
        let (mut absent, welcome) = Client::connect_with(door.mqtt, &kept).await;
        assert!(welcome.props.users().is_empty());
        absent.subscribe("a", 1).await;
        absent.disconnect().await;
        door.until("it is away", |s| s.connected == 0).await;
        let mut publisher = Client::connect(door.mqtt, version, "publisher").await;
        for n in 0..QUEUE + BEYOND {
            publisher.publish(Message::new("a", n.to_string(), 1)).await;
        }
        let stats = door.broker.stats();
        assert_eq!((stats.queue_full, stats.slow_subscribers), (BEYOND as u64, 1));
        let (mut back, welcome) = Client::connect_with(door.mqtt, &kept).await;
        assert!(welcome.present);
        let told = match version {
            Version::V3 => Vec::new(),
            Version::V5 => vec![("lost-messages".to_owned(), BEYOND.to_string())],
        };
        assert_eq!(welcome.props.users(), told);
        for n in 0..QUEUE {
            assert_eq!(back.message().await.text(), n.to_string());
        }
        publisher.publish(Message::new("a", "after", 1)).await;
        assert_eq!(back.message().await.text(), "after");
        back.disconnect().await;
        let (_, welcome) = Client::connect_with(door.mqtt, &kept).await;
        assert!(welcome.props.users().is_empty(), "it is told once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_publishes_and_never_reads_is_cut_off() {
    let limits = Limits {
        write: Duration::from_millis(500),
        ..Limits::default()
    };
    let mut door = Door::open_with(limits, 10).await;
    keep(&mut door);
    let mut bystander = Bystander::arrive(&door).await;
    let mut deaf = Client::connect(door.mqtt, Version::V3, "deaf").await;
    let pings = wire::PINGREQ.repeat(10_000);
    let flood = async {
        // 40 MB of answers it does not take.
        for _ in 0..2_000 {
            if deaf.stream.write_all(&pings).await.is_err() {
                return;
            }
        }
        panic!("the broker took it all");
    };
    tokio::time::timeout(DEADLINE, flood)
        .await
        .expect("cut off in time");
    bystander.is_served().await;
    door.until("the deaf one is gone", |s| s.connected == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_qos_0_leaves_room_for_others() {
    let mut door = Door::open().await;
    let kept = keep(&mut door);
    let mut bystander = Bystander::arrive(&door).await;
    let mut flooding = tokio::task::JoinSet::new();
    for n in 0..4 {
        let address = door.mqtt;
        flooding.spawn(async move {
            let mut client = Client::connect(address, Version::V3, &format!("flood-{n}")).await;
            let burst = Message::new("captured/flood", "{\"n\":1}", 0)
                .write(Version::V3)
                .repeat(1_000);
            for _ in 0..50 {
                client.send(&burst).await;
            }
            client.ping().await;
        });
    }
    while !flooding.is_empty() {
        bystander.is_served().await;
        let _ = tokio::time::timeout(Duration::from_millis(5), flooding.join_next()).await;
    }
    bystander.never_waited();
    drop(bystander);
    let stats = door
        .broker
        .counters
        .captured
        .load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(stats, 200_000);
    kept.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_keeps_up_with_a_fast_publisher() {
    let door = Door::open().await;
    for qos in 0..2 {
        let mut reader = Client::connect(door.mqtt, Version::V3, "reader").await;
        reader.subscribe("fast", qos).await;
        let address = door.mqtt;
        let publishing = tokio::spawn(async move {
            let mut client = Client::connect(address, Version::V3, "publisher").await;
            for n in 0..300_u16 {
                // A hundred at a time, as a client with a window would.
                let mut burst = Vec::new();
                for i in 1..=100 {
                    burst.extend(Message::new("fast", format!("{n}"), 1).pkid(i).write(Version::V3));
                }
                client.send(burst).await;
                for i in 1..=100 {
                    assert_eq!(client.recv().await, Some(Packet::Ack(PUBACK, i, 0)));
                }
            }
        });
        for n in 0..300 {
            for _ in 0..100 {
                assert_eq!(reader.message().await.text(), n.to_string());
            }
        }
        publishing.await.unwrap();
    }
    assert_eq!(door.broker.stats().queue_full, 0);
}
