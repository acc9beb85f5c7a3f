//! `make bench-edge`: what edge-agent costs and how fast it is, against Mosquitto and Redpanda Connect.
//!
//! Everything runs on one machine in one run, against the same real Kafka, which syncs every batch as Redpanda does. Prints
//! one JSON line. It asserts nothing: a figure that is missed is a figure.

mod agent;
mod far_end;
mod load;
mod peer;
mod process;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use stack::guardian;
use stack::kafka::{Choice, Kafka};
use telemetry::topic;

use agent::Agent;
use far_end::Topic;
use load::{FRAME_BYTES, Outcome, Plan};
use peer::{Care, Peer};

/// Nothing has arrived for this long: nothing will.
const QUIET: Duration = Duration::from_secs(5);
const DRAIN_WITHIN: Duration = Duration::from_secs(240);
const CLIENTS: u64 = 50;

/// Measures edge-agent and prints one JSON line.
#[derive(Parser)]
#[command(name = "bench-edge", version)]
struct Cli {
    /// The agent's binary; a release build.
    #[arg(long)]
    agent: PathBuf,
    /// Redpanda Connect's binary; without it there is no comparison.
    #[arg(long)]
    connect: Option<PathBuf>,
    /// Why there is no Redpanda Connect; printed with the figures.
    #[arg(long, default_value = "no binary was given")]
    connect_missing: String,
    /// The static binary for the Pi, whose size is printed.
    #[arg(long)]
    binary: Option<PathBuf>,
    /// Messages of the comparison.
    #[arg(long, default_value_t = 200_000)]
    messages: u64,
    /// Messages of the comparison that the peer gets; it is slower.
    #[arg(long, default_value_t = 20_000)]
    peer_messages: u64,
    /// Messages of the backlog.
    #[arg(long, default_value_t = 1_000_000)]
    backlog: u64,
    /// Seconds of each paced measurement.
    #[arg(long, default_value_t = 15)]
    seconds: u64,
}

#[derive(Serialize)]
struct Figures {
    bench: &'static str,
    /// CPU per message, ours / the safest peer's: target at most 0.2.
    cpu_ratio: Option<f64>,
    /// Messages a second from publish to Kafka, ours / the safest peer's: target at least 5.
    rate_ratio: Option<f64>,
    /// Publish to PUBACK at 1,000 messages/s of 100 clients: targets under 5 and under 20.
    puback_p50_ms: f64,
    puback_p99_ms: f64,
    /// A backlog to Kafka: target at least 20,000.
    drain_per_s: f64,
    /// Targets under 20 and under 64.
    rss_idle_mb: f64,
    rss_backlog_mb: f64,
    /// Start with the backlog: target under 2.
    open_s: f64,
    /// Bytes written for a byte of payload at 5,000 messages/s, removal included: target under 3.
    write_amplification: f64,
    /// KiB written for one message on its own, removal included: target under 8.
    alone_kib: f64,
    /// The static binary: target under 10.
    binary_mb: Option<f64>,
    binary_note: String,
    backlog_messages: u64,
    ours: Side,
    peer_default: Option<Side>,
    peer_safest: Option<Side>,
    peer_note: String,
    load_average: String,
}

/// One way from publish to Kafka.
#[derive(Serialize)]
struct Side {
    /// Messages a second that reached Kafka, from the first publish to the last arrival.
    rate_per_s: f64,
    /// Messages a second that were acknowledged to the publishers.
    acknowledged_per_s: f64,
    cpu_us_per_message: f64,
    /// Acknowledged and never arrived, without anybody being killed.
    lost_undisturbed: u64,
    /// Acknowledged and never arrived after a SIGKILL in the middle, of how many.
    lost_in_kill: u64,
    acknowledged_in_kill: u64,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    ensure!(
        cli.agent.is_file(),
        "no binary of the agent at {}",
        cli.agent.display()
    );
    let run = guardian::run()?;
    let outcome = measure(&cli).await;
    run.end();
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&outcome?)?)?;
    Ok(())
}

async fn measure(cli: &Cli) -> Result<Figures> {
    let run = guardian::run()?;
    let kafka = Kafka::choose(Choice::Real, &run.data("kafka")?).await?;
    kafka.create_topics(&topic::ALL).await?;
    let energy = Topic::new(kafka.bootstrap(), topic::ENERGY, 3)?;

    let agent = Agent::start(&cli.agent, kafka.bootstrap()).await?;
    // The producer has connected and the consumer of commands has its partition.
    load::run(agent.mqtt, plan("warm", 10, 100, None)).await?;
    agent.drained(0, DRAIN_WITHIN).await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let rss_idle_mb = process::rss_mb(agent.pid().await?)?;
    say(&format!("idle: {rss_idle_mb:.1} MB"));

    let alone_kib = alone(&agent).await?;
    say(&format!("alone: {alone_kib:.1} KiB a message"));

    let paced = load::run(agent.mqtt, plan("pace", 100, 10 * cli.seconds, Some(1_000.0))).await?;
    let (puback_p50_ms, puback_p99_ms) = (paced.percentile_ms(0.5), paced.percentile_ms(0.99));
    say(&format!("PUBACK: {puback_p50_ms:.2} ms, {puback_p99_ms:.2} ms"));
    agent.drained(0, DRAIN_WITHIN).await?;

    let write_amplification = amplification(&agent, cli.seconds).await?;
    say(&format!("write amplification: {write_amplification:.2}"));

    let ours = ours(&agent, &energy, cli.messages).await?;
    say(&format!(
        "agent: {:.0} messages/s, {:.1} us each, {} of {} lost in the kill",
        ours.rate_per_s, ours.cpu_us_per_message, ours.lost_in_kill, ours.acknowledged_in_kill
    ));

    // The peers come before the backlog, which fills the disk's cache and Kafka's log.
    let mut peers = Vec::new();
    let mut peer_note = "Mosquitto, benthos v4.27.0 (mqtt, kafka_franz)".to_owned();
    match (&cli.connect, peer::program()) {
        (Some(connect), Ok(_)) => {
            for care in [Care::Default, Care::Safest] {
                let side = theirs(&kafka, connect, care, cli.peer_messages).await?;
                say(&format!(
                    "peer, {}: {:.0} messages/s, {:.1} us each, {} lost, {} of {} lost in the kill",
                    care.name(),
                    side.rate_per_s,
                    side.cpu_us_per_message,
                    side.lost_undisturbed,
                    side.lost_in_kill,
                    side.acknowledged_in_kill
                ));
                peers.push(side);
            }
        }
        (None, _) => peer_note = cli.connect_missing.clone(),
        (_, Err(missing)) => peer_note = format!("{missing:#}"),
    }

    let backlog = backlog(&agent, &kafka, cli.backlog).await?;
    say(&format!(
        "backlog of {}: {:.1} MB, open in {:.2} s, drained at {:.0}/s",
        cli.backlog, backlog.rss_mb, backlog.open_s, backlog.drain_per_s
    ));
    agent.stop().await;

    let (binary_mb, binary_note) = match &cli.binary {
        Some(binary) => match std::fs::metadata(binary) {
            Ok(file) => (Some(round(file.len() as f64 / 1e6)), String::new()),
            Err(_) => (None, format!("{} is not there: make release", binary.display())),
        },
        None => (None, "no static binary was named".to_owned()),
    };
    let peer_safest = peers.pop();
    let peer_default = peers.pop();
    let load_average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(Figures {
        bench: "edge",
        cpu_ratio: peer_safest
            .as_ref()
            .map(|peer| round(ours.cpu_us_per_message / peer.cpu_us_per_message)),
        rate_ratio: peer_safest
            .as_ref()
            .map(|peer| round(ours.rate_per_s / peer.rate_per_s)),
        puback_p50_ms: round(puback_p50_ms),
        puback_p99_ms: round(puback_p99_ms),
        drain_per_s: backlog.drain_per_s.round(),
        rss_idle_mb: round(rss_idle_mb),
        rss_backlog_mb: round(backlog.rss_mb),
        open_s: round(backlog.open_s),
        write_amplification: round(write_amplification),
        alone_kib: round(alone_kib),
        binary_mb,
        binary_note,
        backlog_messages: cli.backlog,
        ours,
        peer_default,
        peer_safest,
        peer_note,
        load_average: load_average.trim().to_owned(),
    })
}

fn plan(name: &str, clients: u64, each: u64, rate: Option<f64>) -> Plan<'_> {
    Plan {
        clients,
        each,
        rate,
        name,
    }
}

/// Messages that come one at a time, each with its removal behind it before the next.
async fn alone(agent: &Agent) -> Result<f64> {
    const MESSAGES: u64 = 10;
    let pids = [agent.pid().await?];
    let before = process::used(&pids)?;
    load::run(agent.mqtt, plan("alone", 1, MESSAGES, Some(0.4))).await?;
    agent.drained(0, DRAIN_WITHIN).await?;
    // The last removal is written within a second or two.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let written = (process::used(&pids)? - before).written;
    Ok(written as f64 / 1024.0 / MESSAGES as f64)
}

async fn amplification(agent: &Agent, seconds: u64) -> Result<f64> {
    let pids = [agent.pid().await?];
    let before = process::used(&pids)?;
    let sent = load::run(agent.mqtt, plan("wear", 100, 50 * seconds, Some(5_000.0))).await?;
    agent.drained(0, DRAIN_WITHIN).await?;
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let written = (process::used(&pids)? - before).written;
    Ok(written as f64 / (sent.acknowledged.len() * FRAME_BYTES) as f64)
}

async fn ours(agent: &Agent, energy: &Topic, messages: u64) -> Result<Side> {
    let pids = [agent.pid().await?];
    let from = energy.ends()?;
    let before = process::used(&pids)?;
    let begin = Instant::now();
    let sent = load::run(agent.mqtt, plan("rate", CLIENTS, messages / CLIENTS, None)).await?;
    let count = sent.acknowledged.len() as u64;
    let (came, at) = energy.arrived(&from, count, QUIET).await?;
    let side = side(begin, at, &sent, came, process::used(&pids)? - before);

    let from = energy.ends()?;
    let restart = async || agent.kill_and_restart().await.map(|_| ());
    let (lost, acknowledged) = killed(agent.mqtt, energy, &from, restart).await?;
    agent.drained(0, DRAIN_WITHIN).await?;
    Ok(Side {
        lost_in_kill: lost,
        acknowledged_in_kill: acknowledged,
        ..side
    })
}

async fn theirs(kafka: &Kafka, connect: &Path, care: Care, messages: u64) -> Result<Side> {
    let name = format!("bench-{}", care.name());
    kafka.create_topics(&[(name.as_str(), 3)]).await?;
    let topic = Topic::new(kafka.bootstrap(), &name, 3)?;
    let peer = Peer::start(connect, kafka.bootstrap(), &name, care).await?;
    let pids = peer.pids().await?;
    let from = topic.ends()?;
    let before = process::used(&pids)?;
    let begin = Instant::now();
    let sent = load::run(peer.mqtt, plan("rate", CLIENTS, messages / CLIENTS, None)).await?;
    let (came, at) = topic
        .arrived(&from, sent.acknowledged.len() as u64, QUIET)
        .await?;
    let side = side(begin, at, &sent, came, process::used(&pids)? - before);

    let from = topic.ends()?;
    let restart = async || peer.kill_and_restart().await;
    let (lost, acknowledged) = killed(peer.mqtt, &topic, &from, restart).await?;
    peer.stop().await;
    Ok(Side {
        lost_in_kill: lost,
        acknowledged_in_kill: acknowledged,
        ..side
    })
}

fn side(begin: Instant, at: Instant, sent: &Outcome, came: u64, used: process::Used) -> Side {
    let count = sent.acknowledged.len() as u64;
    Side {
        rate_per_s: (came as f64 / at.duration_since(begin).as_secs_f64()).round(),
        acknowledged_per_s: (count as f64 / sent.took.as_secs_f64()).round(),
        cpu_us_per_message: round(used.cpu.as_secs_f64() * 1e6 / came.max(1) as f64),
        lost_undisturbed: count.saturating_sub(came),
        lost_in_kill: 0,
        acknowledged_in_kill: 0,
    }
}

/// 1,000 messages a second, killed after two seconds of four; counts what was acknowledged and never arrived.
async fn killed(
    mqtt: std::net::SocketAddr,
    topic: &Topic,
    from: &[i64],
    restart: impl AsyncFn() -> Result<()>,
) -> Result<(u64, u64)> {
    let plan = plan("kill", CLIENTS, 80, Some(1_000.0));
    let load = load::publish(load::connect(mqtt, plan).await?, plan);
    let kill = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        restart().await
    };
    let (sent, restarted) = tokio::join!(load, kill);
    restarted?;
    let sent = sent?;
    topic.arrived(from, u64::MAX, QUIET).await?;
    let found = tokio::task::block_in_place(|| topic.frames(from))?;
    let lost = sent
        .acknowledged
        .iter()
        .filter(|frame| !found.contains(frame))
        .count();
    Ok((lost as u64, sent.acknowledged.len() as u64))
}

struct Backlog {
    rss_mb: f64,
    open_s: f64,
    drain_per_s: f64,
}

async fn backlog(agent: &Agent, kafka: &Kafka, messages: u64) -> Result<Backlog> {
    let part = kafka
        .part()
        .context("a broker of our own is needed for a backlog")?;
    part.stop().await;
    load::run(agent.mqtt, plan("hold", CLIENTS, messages / CLIENTS, None)).await?;
    let rss_mb = process::rss_mb(agent.pid().await?)?;
    let open_s = agent.kill_and_restart().await?.as_secs_f64();
    let held = agent.backlog().await?;
    ensure!(held > 0, "nothing is held");
    part.restart().await?;
    // Starting the JVM and the agent's next attempt to connect are not the drain's.
    agent.drained(held - 1, DRAIN_WITHIN).await?;
    let (begin, left) = (Instant::now(), agent.backlog().await?);
    let end = agent.drained(0, DRAIN_WITHIN).await?;
    Ok(Backlog {
        rss_mb,
        open_s,
        drain_per_s: left as f64 / end.duration_since(begin).as_secs_f64(),
    })
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Progress, so that minutes of silence are none.
fn say(text: &str) {
    eprintln!("bench-edge: {text}");
}
