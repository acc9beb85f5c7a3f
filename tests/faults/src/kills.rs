//! The agent is killed again and again while clients publish, and meanwhile Kafka and the links have troubles of
//! their own.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use stack::{guardian, kafka::Kafka, port};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    Report,
    agent::{Agent, Settings, kafka_behind},
    client::{self, Client, Task},
    far_end, fleet,
    ledger::Ledger,
    link::{Link, State},
};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// SIGKILLs.
    pub kills: u64,
    /// Clients.
    pub clients: usize,
    /// Mean pause of a client between publishes.
    pub pause_ms: u64,
}

/// From one kill to the next, at most. A third of them come within a tenth of it, in the middle of a start.
const UPTIME_MS: u64 = 900;
/// Kafka and the links are left alone for the first part of the kills, so that nothing hides behind their troubles.
const CALM_SHARE: u64 = 4;
/// After the last kill: clients settle what they have, the agent forwards it.
const SETTLE_WITHIN: Duration = Duration::from_secs(90);
const DRAIN_WITHIN: Duration = Duration::from_secs(180);

/// Runs the plan and counts.
///
/// # Errors
/// When a part does not start, the agent ends by itself, or nothing is settled in time.
pub async fn run(plan: Plan) -> Result<Report> {
    let run = guardian::run()?;
    let (kafka_link, device_link) = (port::free()?, port::free()?);
    let (kafka, behind) = kafka_behind(&run.data("kafka")?, kafka_link).await?;
    let to_kafka = Link::start(kafka_link, behind).await?;
    let agent = Agent::start(&Settings {
        name: "agent".into(),
        data: run.data("agent")?.join("data"),
        bootstrap: kafka_link,
        wrapper: Vec::new(),
    })
    .await?;
    let to_agent = Link::start(device_link, agent.mqtt).await?;

    let ledger = Arc::new(Ledger::default());
    let (task, tasks) = watch::channel(Task::Publish);
    let mut clients = JoinSet::new();
    for (n, device) in fleet::fleet(plan.clients, plan.pause_ms).into_iter().enumerate() {
        // Every second one through a link that fails.
        let address = if n % 2 == 0 { agent.mqtt } else { device_link };
        clients.spawn(Client::new(device, address, ledger.clone(), tasks.clone()).run());
    }

    let kills = async {
        for kill in 0..plan.kills {
            let most = if rand::random_bool(0.3) {
                UPTIME_MS / 10
            } else {
                UPTIME_MS
            };
            if most == UPTIME_MS {
                agent
                    .ready()
                    .await
                    .with_context(|| format!("after {kill} kills"))?;
            }
            sleep(Duration::from_millis(rand::random_range(0..most))).await;
            if let Some(code) = agent.ended().await {
                bail!("the agent ended by itself with code {code} after {kill} kills");
            }
            agent.part.kill().await;
            agent.part.restart().await?;
        }
        Ok(())
    };
    let (calm, rest) = watch::channel(false);
    let calm_for = Duration::from_millis(plan.kills * UPTIME_MS / 2 / CALM_SHARE);
    let kills = async {
        let outcome = kills.await;
        calm.send_replace(true);
        outcome
    };
    let (outcome, troubles) = tokio::join!(kills, troubles(&kafka, &to_kafka, &to_agent, calm_for, rest));
    outcome?;
    troubles?;
    agent.ready().await.context("after the last kill")?;

    client::settle(&task, &mut clients, SETTLE_WITHIN).await?;
    agent.drained(DRAIN_WITHIN).await?;
    let status = agent.status().await?;
    let bootstrap = kafka.bootstrap().to_owned();
    let found = tokio::task::spawn_blocking(move || far_end::read(&bootstrap)).await??;
    let mut report = far_end::judge(&found, &ledger);
    report.kills = plan.kills;
    eprintln!(
        "faults: {} records for {} messages; the agent says {status}",
        found.len(),
        report.acknowledged
    );
    agent.part.stop().await;
    kafka.stop().await;
    Ok(report)
}

/// One trouble after the other, and sometimes two at once, until the kills are over. Everything works again at the end.
async fn troubles(
    kafka: &Kafka,
    to_kafka: &Link,
    to_agent: &Link,
    calm: Duration,
    mut over: watch::Receiver<bool>,
) -> Result<()> {
    let broker = kafka.part().context("this Kafka is ours")?;
    let pause = async |over: &mut watch::Receiver<bool>, most: Duration| {
        let pause = most.mul_f64(rand::random::<f64>());
        // Over means over: the pause is cut short.
        let _ = timeout(pause, over.wait_for(|over| *over)).await;
    };
    let _ = timeout(calm, over.wait_for(|over| *over)).await;
    while !*over.borrow() {
        let second = Duration::from_secs(1);
        if rand::random_bool(0.3) {
            to_agent.set(*pick(&[State::Cut, State::HalfOpen, State::Slow]));
        }
        match rand::random_range(0..8) {
            0 | 1 => {
                broker.signal(Signal::STOP).await?;
                pause(&mut over, 3 * second).await;
                broker.signal(Signal::CONT).await?;
            }
            2 => {
                broker.kill().await;
                pause(&mut over, 2 * second).await;
                broker.restart().await?;
            }
            3 => {
                broker.stop().await;
                pause(&mut over, 2 * second).await;
                broker.restart().await?;
            }
            other => {
                to_kafka.set(*pick(&[State::Cut, State::HalfOpen, State::Slow]));
                pause(&mut over, 3 * second).await;
                if other == 7 {
                    // What was half open is not continued but lost.
                    to_kafka.set(State::Cut);
                }
            }
        }
        to_kafka.set(State::Open);
        pause(&mut over, second).await;
        to_agent.set(State::Open);
        pause(&mut over, 2 * second).await;
    }
    to_kafka.set(State::Open);
    to_agent.set(State::Open);
    Ok(())
}

fn pick<T>(of: &[T]) -> &T {
    &of[rand::random_range(0..of.len())]
}
