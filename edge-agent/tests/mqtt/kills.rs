//! The agent is killed at random moments under persistent subscribers: nothing acknowledged is missing for them, and
//! what is sent at QoS 2 comes once.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::{
    agent::DEADLINE,
    client::Client,
    process::{Process, connect_until},
    wire::{self, Connect, Message, PUBACK, PUBCOMP, PUBREC, PUBREL, Packet, Version},
};

/// Kills; each costs about half a second.
const KILLS: usize = 10;

/// What the test knows, shared by its clients.
#[derive(Default)]
struct Ledger {
    /// Ids that were acknowledged to their publishers.
    acknowledged: Mutex<BTreeSet<String>>,
    /// No further message is begun.
    enough: AtomicBool,
    /// Nobody is waited for any more.
    over: AtomicBool,
}

fn lock<T>(of: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    of.lock().expect("no client panics while it writes")
}

/// Publishes one message after the other, and sends each again until it is acknowledged.
async fn publish(address: SocketAddr, name: String, qos: u8, version: Version, ledger: Arc<Ledger>) {
    let connect = Connect::kept(version, &name);
    let mut next = 0_u32;
    // The message under way, and whether it was received (QoS 2).
    let mut open: Option<(String, bool)> = None;
    while let Some((mut client, _)) = connect_until(address, &connect, Instant::now() + DEADLINE).await {
        let mut dup = open.is_some();
        loop {
            let (text, released) = match open.take() {
                Some(open) => open,
                None if ledger.enough.load(Ordering::Relaxed) => return,
                None => {
                    next += 1;
                    (format!("{name}/{next}"), false)
                }
            };
            let pkid = 1 + (next % 1_000) as u16;
            let mut message = Message::new(&format!("load/{qos}"), &text, qos).pkid(pkid);
            message.dup = std::mem::take(&mut dup);
            let bytes = if released {
                wire::ack(PUBREL, pkid)
            } else {
                message.write(version)
            };
            open = Some((text.clone(), released));
            if !client.try_send(bytes).await || !settle(&mut client, pkid, &mut open, &ledger).await {
                break;
            }
        }
    }
}

/// Waits for the end of one exchange; `open` is what is left of it. False when the connection is lost.
async fn settle(client: &mut Client, pkid: u16, open: &mut Option<(String, bool)>, ledger: &Ledger) -> bool {
    loop {
        let Some(packet) = client.recv().await else {
            return false;
        };
        let Some((text, released)) = open else { return true };
        match packet {
            Packet::Ack(PUBACK, p, _) if p == pkid => {
                lock(&ledger.acknowledged).insert(text.clone());
                *open = None;
                return true;
            }
            Packet::Ack(PUBREC, p, _) if p == pkid => {
                lock(&ledger.acknowledged).insert(text.clone());
                *released = true;
                if !client.try_send(wire::ack(PUBREL, pkid)).await {
                    return false;
                }
            }
            Packet::Ack(PUBCOMP, p, _) if p == pkid => {
                *open = None;
                return true;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Subscribes once and takes what comes, coming and going; `got` counts it by its text.
async fn subscribe(
    address: SocketAddr,
    name: String,
    version: Version,
    ready: tokio::sync::oneshot::Sender<()>,
    got: Arc<Mutex<BTreeMap<String, u32>>>,
    ledger: Arc<Ledger>,
) {
    let connect = Connect::kept(version, &name);
    let (mut client, _) = Client::connect_with(address, &connect).await;
    assert_eq!(client.subscribe("load/#", 2).await, 2);
    ready.send(()).expect("the test waits");
    // QoS 2 messages that were taken and not released.
    let mut taken = HashSet::new();
    let mut stay = Instant::now() + Duration::from_millis(rand::random_range(50..400));
    loop {
        let received = tokio::select! {
            received = client.recv() => received,
            () = tokio::time::sleep_until(stay) => None,
        };
        let goes_on = match received {
            Some(Packet::Publish(message)) => {
                let text = message.text().to_owned();
                match message.qos {
                    1 => {
                        *lock(&got).entry(text).or_default() += 1;
                        client.try_send(wire::ack(PUBACK, message.pkid)).await
                    }
                    _ => {
                        if taken.insert(message.pkid) {
                            *lock(&got).entry(text).or_default() += 1;
                        }
                        client.try_send(wire::ack(PUBREC, message.pkid)).await
                    }
                }
            }
            Some(Packet::Ack(PUBREL, pkid, _)) => {
                taken.remove(&pkid);
                client.try_send(wire::ack(PUBCOMP, pkid)).await
            }
            Some(other) => panic!("{other:?}"),
            None => false,
        };
        if !goes_on {
            if ledger.over.load(Ordering::Relaxed) {
                return;
            }
            drop(client);
            tokio::time::sleep(Duration::from_millis(rand::random_range(0..200))).await;
            let Some((again, welcome)) = connect_until(address, &connect, Instant::now() + DEADLINE).await
            else {
                panic!("the agent lets nobody in");
            };
            assert!(welcome.present, "{name}: the session is there");
            client = again;
            stay = Instant::now() + Duration::from_millis(rand::random_range(50..1_000));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_missing_for_persistent_subscribers() {
    let mut agent = Process::start("").await;
    let ledger = Arc::new(Ledger::default());
    let mut subscribers = Vec::new();
    let mut tasks = tokio::task::JoinSet::new();
    for version in [Version::V3, Version::V5] {
        let got = Arc::new(Mutex::new(BTreeMap::new()));
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let name = format!("sub-{}", version as u8);
        tasks.spawn(subscribe(
            agent.mqtt,
            name,
            version,
            ready,
            got.clone(),
            ledger.clone(),
        ));
        is_ready.await.expect("it subscribes");
        subscribers.push(got);
    }
    let mut publishers = tokio::task::JoinSet::new();
    for n in 0..4_u8 {
        let version = if n < 2 { Version::V3 } else { Version::V5 };
        let name = format!("pub-{n}");
        publishers.spawn(publish(agent.mqtt, name, 1 + n % 2, version, ledger.clone()));
    }
    for _ in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(rand::random_range(100..500))).await;
        agent.kill();
        agent.run().await;
    }
    ledger.enough.store(true, Ordering::Relaxed);
    while let Some(publisher) = publishers.join_next().await {
        publisher.expect("no publisher fails");
    }
    let acknowledged = lock(&ledger.acknowledged).clone();
    assert!(acknowledged.len() > KILLS, "{}", acknowledged.len());
    let until = Instant::now() + DEADLINE;
    for (n, got) in subscribers.iter().enumerate() {
        loop {
            let missing: Vec<_> = {
                let got = lock(got);
                acknowledged
                    .iter()
                    .filter(|id| !got.contains_key(*id))
                    .cloned()
                    .collect()
            };
            if missing.is_empty() {
                break;
            }
            assert!(
                Instant::now() < until,
                "subscriber {n} never got {missing:?}: {}",
                agent.said()
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    // The agent lives until they have left: one of them may just be coming back.
    ledger.over.store(true, Ordering::Relaxed);
    while let Some(subscriber) = tasks.join_next().await {
        subscriber.expect("no subscriber fails");
    }
    agent.kill();
    // Publishers 1 and 3 send at QoS 2.
    for got in &subscribers {
        let got = lock(got);
        let twice: Vec<_> = got
            .iter()
            .filter(|(id, count)| **count > 1 && (id.starts_with("pub-1/") || id.starts_with("pub-3/")))
            .collect();
        assert!(twice.is_empty(), "{twice:?}");
    }
}
