//! Redpanda is away for long: the backlog grows far beyond what fits into memory, the agent's memory does not, and when
//! Redpanda is there again everything goes out in order while readings keep coming in.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use stack::{guardian, kafka::Kafka, part::eventually};
use tokio::{sync::watch, task::JoinSet};

use crate::{
    Report,
    agent::{Agent, Settings},
    client::{self, Client, Task},
    far_end, fleet,
    ledger::Ledger,
};

/// Resident memory with any backlog. Twice what is measured for a million messages (docs/PERFORMANCE.md), for debug builds
/// are larger.
const RSS_KIB: u64 = 128 * 1024;
/// What it may grow by from a third of the backlog to all of it.
const GROWTH_KIB: u64 = 32 * 1024;
const PAUSE_MS: u64 = 2;
const GROWS_WITHIN: Duration = Duration::from_secs(300);
const SETTLE_WITHIN: Duration = Duration::from_secs(90);
const DRAIN_WITHIN: Duration = Duration::from_secs(300);

/// Lets `messages` wait.
///
/// # Errors
/// When a part does not start, memory grows with the backlog, or it is not drained in time.
pub async fn run(messages: u64) -> Result<Report> {
    let run = guardian::run()?;
    let kafka = Kafka::start(&run.data("kafka-backlog")?).await?;
    kafka.create_topics(&telemetry::topic::ALL).await?;
    let broker = kafka.part().context("this Kafka is ours")?;
    broker.kill().await;
    let agent = Agent::start(&Settings {
        name: "agent-backlog".into(),
        data: run.data("agent-backlog")?.join("data"),
        bootstrap: kafka.bootstrap().parse()?,
        wrapper: Vec::new(),
    })
    .await?;
    let ledger = Arc::new(Ledger::default());
    let (task, tasks) = watch::channel(Task::Publish);
    let mut clients = JoinSet::new();
    // Every eighth of them sends blobs of 140 KiB, which the disk of a test has no room for.
    let devices = fleet::fleet(32, PAUSE_MS)
        .into_iter()
        .filter(|device| device.kind != fleet::Kind::Blob);
    for device in devices {
        clients.spawn(Client::new(device, agent.mqtt, ledger.clone(), tasks.clone()).run());
    }
    let grown = async |share: u64| {
        eventually("a backlog", GROWS_WITHIN, async || {
            let backlog = agent.backlog().await.unwrap_or(0);
            Ok((backlog >= messages * share / 3).then_some(()))
        })
        .await
    };
    grown(1).await?;
    let early = resident_kib(&agent).await?;
    grown(3).await?;
    let late = resident_kib(&agent).await?;
    eprintln!(
        "faults: {messages} messages wait; {early} KiB resident with a third of them, {late} KiB with all"
    );
    ensure!(late < RSS_KIB, "{late} KiB resident");
    ensure!(
        late < early + GROWTH_KIB,
        "memory grows with the backlog: {early} KiB, then {late} KiB"
    );
    let status = agent.status().await?;
    ensure!(status["forward"]["reachable"] == false, "{status}");

    broker.restart().await?;
    eventually(
        "the backlog to shrink while readings come in",
        DRAIN_WITHIN,
        async || {
            Ok(agent
                .backlog()
                .await
                .is_some_and(|backlog| backlog < messages / 2)
                .then_some(()))
        },
    )
    .await?;
    client::settle(&task, &mut clients, SETTLE_WITHIN).await?;
    agent.drained(DRAIN_WITHIN).await?;
    let drained = resident_kib(&agent).await?;
    ensure!(
        drained < RSS_KIB,
        "{drained} KiB resident after the backlog was drained"
    );
    let bootstrap = kafka.bootstrap().to_owned();
    let found = tokio::task::spawn_blocking(move || far_end::read(&bootstrap)).await??;
    let report = far_end::judge(&found, &ledger);
    agent.part.stop().await;
    kafka.stop().await;
    Ok(report)
}

/// Resident memory of the agent.
async fn resident_kib(agent: &Agent) -> Result<u64> {
    let pid = agent.part.pid().await.context("the agent runs")?;
    let text = std::fs::read_to_string(format!("/proc/{pid}/status"))
        .context("resident memory is read from /proc, which needs Linux")?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok());
    number.context("/proc says nothing of resident memory")
}
