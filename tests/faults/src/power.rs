//! Power cuts: the agent's writes are recorded, and the disk is rebuilt as it could look at random instants. Readings in the
//! buffer are asked for, and sessions and retained messages of MQTT (`post`).
//!
//! What is found there is read with the agent's own recovery and buffer, in a process of its own, which is the way the
//! agent starts; what it must hold is what clients had been told by then and Kafka had not got yet.

use std::{collections::HashSet, path::Path, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use edge_agent::{
    broker,
    buffer::{self, Buffer, Found, Limits, Sequence},
    message::Message,
    recovery,
};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use stack::{guardian, kafka::Kafka, part::eventually};
use tokio::{process::Command, sync::watch, task::JoinSet, time::timeout};

use crate::{
    Report,
    agent::{Agent, Settings},
    client::{self, Client, Task},
    far_end,
    fleet::{self, Identity},
    ledger::Ledger,
    post::{self, Post},
    recording::{self, Recording},
};

/// How much is tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Power cuts.
    pub cuts: u64,
    /// Messages acknowledged in the recording.
    pub messages: u64,
    /// Clients.
    pub clients: usize,
    /// Makes a run with the same recording the same.
    pub seed: u64,
}

const RECORD_WITHIN: Duration = Duration::from_secs(120);
const SETTLE_WITHIN: Duration = Duration::from_secs(60);
/// Half of the cuts come within this after an acknowledgement was read, when the promise is youngest.
const JUST_AFTER_US: u64 = 300;
/// How likely a sector that is not safe is lost; each cut takes one of them.
const LOST_SHARES: [f64; 4] = [1.0, 0.5, 0.1, 0.0];
/// The message a start leaves behind for the next one to find.
const OWN: &str = "taken after the cut";
/// Says that the buffer was replaced.
const DAMAGED: &str = "damaged buffer";
/// An agent starts within a second.
const INSPECT_WITHIN: Duration = Duration::from_secs(30);

/// Whether strace works here; it needs Linux and the right to trace.
pub async fn can_record() -> bool {
    let tried = Command::new("strace")
        .args(["-f", "--seccomp-bpf", "-qq", "-o", "/dev/null", "true"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await;
    tried.is_ok_and(|status| status.success())
}

/// Records a run and cuts the power. `inspector` is this crate's program.
///
/// # Errors
/// When a part does not start, or what is left after a cut cannot be opened.
pub async fn run(plan: Plan, inspector: &Path) -> Result<Report> {
    let run = guardian::run()?;
    let folder = run.data("power")?;
    let data = folder.join("data");
    let output = folder.join("trace");
    let kafka = Kafka::start(&run.data("kafka-power")?).await?;
    kafka.create_topics(&telemetry::topic::ALL).await?;
    let agent = Agent::start(&Settings {
        name: "agent-power".into(),
        data: data.clone(),
        bootstrap: kafka.bootstrap().parse()?,
        wrapper: recording::wrapper(&output),
    })
    .await?;
    let ledger = Arc::new(Ledger::default());
    let (task, tasks) = watch::channel(Task::Publish);
    let mut clients = JoinSet::new();
    for device in fleet::fleet(plan.clients, 15) {
        clients.spawn(Client::new(device, agent.mqtt, ledger.clone(), tasks.clone()).run());
    }
    let (post, mut pairs) = Post::start(agent.mqtt, &tasks);
    // A third with Kafka there, a third with Kafka away so that a backlog grows, a third while it is drained.
    let until = async |share: u64| {
        eventually("acknowledgements", RECORD_WITHIN, async || {
            Ok((ledger.count() >= plan.messages * share / 3).then_some(()))
        })
        .await
    };
    let broker = kafka.part().context("this Kafka is ours")?;
    until(1).await?;
    broker.signal(rustix::process::Signal::STOP).await?;
    until(2).await?;
    broker.signal(rustix::process::Signal::CONT).await?;
    until(3).await?;
    client::settle(&task, &mut clients, SETTLE_WITHIN).await?;
    while let Some(pair) = pairs.join_next().await {
        pair?.context("a reader and its writer")?;
    }
    agent.drained(SETTLE_WITHIN).await?;
    agent.part.stop().await;
    let bootstrap = kafka.bootstrap().to_owned();
    let found = tokio::task::spawn_blocking(move || far_end::read(&bootstrap)).await??;
    kafka.stop().await;

    let mut report = far_end::judge(&found, &ledger);
    report.acknowledged += post.acknowledged();
    let recording = Recording::read(&output, &data)?;
    recording.check_against(&data)?;
    let (writes, syncs) = recording.counts();
    ensure!(syncs > 10, "only {syncs} syncs were recorded");
    eprintln!(
        "faults: recorded {writes} writes and {syncs} syncs for {} readings and {} letters and retained values",
        ledger.count(),
        post.acknowledged()
    );
    let mut random = StdRng::seed_from_u64(plan.seed);
    let instants = recording.instants();
    let (told, told_by_post) = (ledger.times(), post.times());
    for cut in 0..plan.cuts {
        let just_after = |times: &[u64], random: &mut StdRng| {
            times[random.random_range(0..times.len())] + random.random_range(0..JUST_AFTER_US)
        };
        let at_us = match cut % 4 {
            0 => just_after(&told, &mut random),
            2 => just_after(&told_by_post, &mut random),
            _ => instants[random.random_range(0..instants.len())],
        };
        let lost = LOST_SHARES[random.random_range(0..LOST_SHARES.len())];
        let left = folder.join(format!("cut-{cut}"));
        recording.cut(at_us, &left, lost, &mut random)?;
        let before = report.clone();
        one(
            inspector,
            &left,
            at_us,
            &ledger,
            &post,
            &far_end::until(&found, at_us),
            &mut report,
        )
        .await
        .with_context(|| {
            format!(
                "cut {cut} at {at_us}, lost share {lost}, kept in {}",
                left.display()
            )
        })?;
        report.power_cuts += 1;
        if (report.missing, report.invented) == (before.missing, before.invented) {
            std::fs::remove_dir_all(&left)?;
        } else {
            eprintln!(
                "faults: cut {cut} at {at_us}, lost share {lost}, kept in {}",
                left.display()
            );
        }
    }
    Ok(report)
}

async fn one(
    inspector: &Path,
    left: &Path,
    at_us: u64,
    ledger: &Ledger,
    post: &Post,
    in_kafka: &HashSet<Identity>,
    report: &mut Report,
) -> Result<()> {
    let lines = inspected(inspector, left).await?;
    let again = inspected(inspector, left).await.context("at the second start")?;
    let gone: Vec<_> = lines
        .iter()
        .filter(|line| *line != DAMAGED && !again.contains(line))
        .collect();
    ensure!(
        gone.is_empty() && again.iter().filter(|line| *line == OWN).count() == 1,
        "{} lines after the cut, {} after the next start, gone are {gone:?}, damage {} and {}",
        lines.len(),
        again.len(),
        lines.iter().any(|line| line == DAMAGED),
        again.iter().any(|line| line == DAMAGED)
    );
    let mut there = HashSet::new();
    let mut in_sessions = post::Found::default();
    for line in lines {
        match line.split(' ').collect::<Vec<_>>()[..] {
            ref words if in_sessions.take(words) => {}
            ["message", device, n] => {
                let identity = Identity {
                    device: device.to_owned(),
                    n: n.parse()?,
                };
                if !ledger.was_sent(&identity) {
                    report.invented += 1;
                    report.example(|| format!("{identity:?} was never sent (cut at {at_us})"));
                }
                there.insert(identity);
            }
            _ if line == DAMAGED => report.damaged += 1,
            _ => {
                report.invented += 1;
                report.example(|| format!("{line} (cut at {at_us})"));
            }
        }
    }
    post.judge(&in_sessions, at_us, report);
    for lost in ledger.until(at_us) {
        if !there.contains(&lost) && !in_kafka.contains(&lost) {
            report.missing += 1;
            report.example(|| format!("{lost:?} was acknowledged before the cut at {at_us} and is gone"));
        }
    }
    Ok(())
}

/// A process of its own for each start: sled lets go of its file only when the process has ended.
async fn inspected(inspector: &Path, left: &Path) -> Result<Vec<String>> {
    let mut command = Command::new(inspector);
    command
        .arg("inspect")
        .arg(left)
        .kill_on_drop(true)
        .stdin(Stdio::null());
    let output = timeout(INSPECT_WITHIN, command.output())
        .await
        .context("it does not start in time")??;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "it does not start: {}: {errors}",
        output.status
    );
    let text = String::from_utf8(output.stdout)?;
    Ok(text
        .lines()
        .filter(|line| !line.is_empty())
        .map(str::to_owned)
        .collect())
}

/// What the agent's own recovery finds in `data`, one line each. It then takes a message, as the agent would.
///
/// # Errors
/// When it cannot be opened.
pub async fn inspect(data: &Path) -> Result<Vec<String>> {
    let limits = Limits {
        max_bytes: 1 << 30,
        commit_interval: Duration::from_millis(1),
        commit_bytes: 32 * 1024,
        when_full: buffer::WhenFull::Reject,
    };
    let opened = recovery::open(data, &limits)?;
    let mut lines = Vec::new();
    for damaged in &opened.damaged {
        lines.push(DAMAGED.to_owned());
        salvaged(damaged, &mut lines)?;
    }
    lines.extend(whole(&opened.buffer)?.iter().map(|bytes| line(bytes)));
    opened.buffer.append(OWN.into()).await?;
    opened.buffer.close();
    sessions(data, &mut lines)?;
    Ok(lines)
}

fn sessions(data: &Path, lines: &mut Vec<String>) -> Result<()> {
    let held = broker::Store::open(&data.join("sessions"))?.held();
    let text = |payload: &[u8]| String::from_utf8_lossy(payload).into_owned();
    if held.replaced || held.unreadable > 0 {
        lines.push(format!(
            "the store of sessions was damaged: replaced {}, unreadable {}",
            held.replaced, held.unreadable
        ));
    }
    for session in held.sessions {
        let client = &session.client;
        lines.extend(
            session
                .filters
                .iter()
                .map(|filter| format!("session {client} {filter}")),
        );
        let letters = session.messages.iter();
        lines.extend(letters.map(|(_, payload)| format!("letter {client} {}", text(payload))));
    }
    lines.extend(
        held.retained
            .iter()
            .map(|(topic, payload)| format!("retained {topic} {}", text(payload))),
    );
    Ok(())
}

fn whole(buffer: &Buffer) -> Result<Vec<Vec<u8>>> {
    let mut all = Vec::new();
    let mut next = buffer.head();
    loop {
        let batch = buffer.read(next, 1 << 20)?;
        ensure!(
            batch.corrupt.is_empty(),
            "the buffer holds damage: {:?}",
            batch.corrupt
        );
        all.extend(batch.entries.into_iter().map(|entry| entry.bytes.to_vec()));
        match batch.next {
            Some(Sequence(n)) if n > next.0 => next = Sequence(n),
            _ => return Ok(all),
        }
    }
}

fn salvaged(damaged: &Path, lines: &mut Vec<String>) -> Result<()> {
    buffer::salvage(damaged, |found| {
        if let Found::Entries { entries, .. } = found {
            lines.extend(entries.iter().map(|entry| line(&entry.bytes)));
        }
        true
    })
    .with_context(|| format!("salvaging {}", damaged.display()))
}

fn line(bytes: &[u8]) -> String {
    if bytes == OWN.as_bytes() {
        return OWN.to_owned();
    }
    let identity = Message::decode(bytes.to_vec().into())
        .map_err(|error| error.to_string())
        .and_then(|message| fleet::of_message(&message.topic, &message.body));
    match identity {
        Ok(Identity { device, n }) => format!("message {device} {n}"),
        Err(what) => format!("unknown: {what}"),
    }
}
