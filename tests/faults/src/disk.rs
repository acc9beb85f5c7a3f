//! The disk fills up under the agent, by its own buffer or by somebody else's file; the agent is killed and started again
//! on the full disk, goes on serving subscribers and its admin port, drains when Kafka is there again, and takes messages
//! again without hands.
//!
//! The disk is a tmpfs of its own, which is really full for every call. Where nothing may be mounted ([`crate::namespaces`])
//! this part is left out, and says so.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use stack::{guardian, kafka::Kafka, part::eventually};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    process::Command,
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::{
    Report,
    agent::{Agent, Settings},
    client::{self, Client, Task},
    far_end, fleet,
    ledger::Ledger,
    packet,
};

/// Size of the disk: a handful of the buffer's segments.
const DISK_MIB: u64 = 24;
const FULL_WITHIN: Duration = Duration::from_secs(60);
const SETTLE_WITHIN: Duration = Duration::from_secs(90);

/// A small disk, taken away when it is dropped.
struct Disk {
    folder: PathBuf,
}

impl Disk {
    /// None where nothing may be mounted.
    async fn new(folder: PathBuf) -> Result<Option<Disk>> {
        std::fs::create_dir_all(&folder)?;
        let size = format!("size={DISK_MIB}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&folder);
        mount
            .stdin(std::process::Stdio::null())
            .stderr(std::process::Stdio::null());
        let mounted = mount.status().await.is_ok_and(|status| status.success());
        Ok(mounted.then_some(Disk { folder }))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever still has it open ends with this run.
        let _gone = std::process::Command::new("umount")
            .arg("-l")
            .arg(&self.folder)
            .status();
    }
}

/// Writes to `path` until nothing more fits.
fn fill(path: &std::path::Path) -> Result<()> {
    use std::io::Write as _;
    let mut file = std::fs::File::create(path)?;
    while file.write_all(&[0xa5; 4096]).is_ok() {}
    Ok(())
}

/// A message goes from one client to another on a topic that is not captured.
async fn routed(agent: SocketAddr) -> Result<()> {
    let connect = async |name: &str| {
        let mut stream = TcpStream::connect(agent).await?;
        stream.write_all(&packet::connect(name, true)).await?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).await?;
        ensure!(answer == [0x20, 2, 0, 0], "{name} is refused with {answer:?}");
        anyhow::Ok(stream)
    };
    let all = async {
        let (mut reader, mut writer) = (connect("listener").await?, connect("speaker").await?);
        reader.write_all(b"\x82\x08\x00\x01\x00\x03a/b\x00").await?;
        let mut suback = [0; 5];
        reader.read_exact(&mut suback).await?;
        writer.write_all(b"\x30\x07\x00\x03a/b\x68\x69").await?;
        let mut message = [0; 9];
        reader.read_exact(&mut message).await?;
        ensure!(
            &message == b"\x30\x07\x00\x03a/b\x68\x69",
            "another message: {message:?}"
        );
        Ok(())
    };
    timeout(Duration::from_secs(10), all).await?
}

/// Fills the disk `times` times.
///
/// # Errors
/// When the agent does not start on a full disk or nothing is settled in time.
pub async fn run(times: u64) -> Result<Report> {
    let run = guardian::run()?;
    let Some(disk) = Disk::new(run.data("disk")?).await? else {
        eprintln!("faults: no full disk: neither root nor a user namespace may mount one here");
        return Ok(Report::default());
    };
    let kafka = Kafka::start(&run.data("kafka-disk")?).await?;
    kafka.create_topics(&telemetry::topic::ALL).await?;
    let broker = kafka.part().context("this Kafka is ours")?;
    let agent = Agent::start(&Settings {
        name: "agent-disk".into(),
        data: disk.folder.join("data"),
        bootstrap: kafka.bootstrap().parse()?,
        wrapper: Vec::new(),
    })
    .await?;
    let ledger = Arc::new(Ledger::default());
    let (task, tasks) = watch::channel(Task::Publish);
    let mut clients = JoinSet::new();
    for device in fleet::fleet(24, 10) {
        clients.spawn(Client::new(device, agent.mqtt, ledger.clone(), tasks.clone()).run());
    }
    for time in 0..times {
        broker.signal(Signal::STOP).await?;
        // Every second time somebody else's file takes what is left.
        let other = disk.folder.join("other");
        if time % 2 == 1 {
            fill(&other)?;
        }
        eventually("a full disk", FULL_WITHIN, async || {
            let status = agent.status().await?;
            Ok(status["buffer"]["refusing"].is_string().then_some(()))
        })
        .await?;
        agent.part.kill().await;
        agent.part.restart().await?;
        // It is not ready, because it cannot keep what devices send, but it is there.
        eventually("a start on a full disk", FULL_WITHIN, async || {
            Ok(agent.backlog().await)
        })
        .await
        .with_context(|| format!("time {time}"))?;
        routed(agent.mqtt)
            .await
            .context("a subscriber of an agent with a full disk")?;
        broker.signal(Signal::CONT).await?;
        let before = ledger.count();
        eventually(
            "acknowledgements when there is room again",
            SETTLE_WITHIN,
            async || Ok((ledger.count() > before + 100).then_some(())),
        )
        .await?;
        let ended = agent.ended().await;
        ensure!(
            ended.is_none(),
            "the agent ended by itself with {ended:?} on a full disk"
        );
        if other.exists() {
            std::fs::remove_file(other)?;
        }
        agent.part.kill().await;
        agent.part.restart().await?;
        agent
            .ready()
            .await
            .with_context(|| format!("after the disk was full, time {time}"))?;
    }
    client::settle(&task, &mut clients, SETTLE_WITHIN).await?;
    agent.drained(SETTLE_WITHIN).await?;
    let bootstrap = kafka.bootstrap().to_owned();
    let found = tokio::task::spawn_blocking(move || far_end::read(&bootstrap)).await??;
    let mut report = far_end::judge(&found, &ledger);
    report.kills = 2 * times;
    agent.part.stop().await;
    kafka.stop().await;
    Ok(report)
}
