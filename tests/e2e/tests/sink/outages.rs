//! The database or the broker is away: the sink keeps its place, its group and its memory limit, and goes on by itself.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stack::part::{eventually, get_is_ok};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::world::{Sink, WITHIN, World, load, with_own_world, with_world};

/// A link to the database that can be cut.
struct Proxy {
    address: SocketAddr,
    open: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Proxy {
    async fn start(target: SocketAddr) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (open, is_open) = watch::channel(true);
        let task = tokio::spawn(async move {
            while let Ok((mut inner, _)) = listener.accept().await {
                let mut is_open = is_open.clone();
                // Ends with its connections, at the latest with the test program.
                tokio::spawn(async move {
                    if !*is_open.borrow_and_update() {
                        return;
                    }
                    let Ok(mut outer) = TcpStream::connect(target).await else {
                        return;
                    };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut inner, &mut outer) => {}
                        _ = is_open.wait_for(|open| !open) => {}
                    }
                });
            }
        });
        Ok(Proxy { address, open, task })
    }

    fn cut(&self) {
        self.open.send_replace(false);
    }

    fn mend(&self) {
        self.open.send_replace(true);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[test]
fn the_database_may_go_and_come_back() -> Result<()> {
    with_world(async |world: &'static World| {
        let (prefix, group) = ("away", "away");
        let database = world.database("sink_away").await?;
        let direct = database.sink_url.clone();
        let target = world.postgres.address();
        let proxy = Proxy::start(target).await?;
        let url = direct.replace(&target.to_string(), &proxy.address.to_string());
        ensure!(url != direct, "the URL does not hold the address");

        let sink = world.sink(group, &url).await?;
        sink.part.ready_http(WITHIN, sink.admin, "/readyz").await?;
        let (records, ids) = load(prefix, 20_000);

        // Away for longer than the sink waits before it pauses its partitions, with more than two batches to do.
        proxy.cut();
        let (first, rest) = records.split_at(6_000);
        world.produce(first).await?;
        eventually("readiness to name the database", WITHIN, async || {
            let (status, body) = sink.readiness().await?;
            Ok((status == 503 && body.contains("\"database\"")).then_some(()))
        })
        .await?;
        ensure!(
            get_is_ok(sink.admin, "/livez").await,
            "a database that is away is no reason to be restarted"
        );
        eventually("the pause", WITHIN, async || {
            let log = tokio::fs::read_to_string(sink.part.log()).await?;
            Ok(log.contains("reading is paused").then_some(()))
        })
        .await?;
        ensure!(
            database.rows("energy_consumption", prefix).await?.is_empty(),
            "nothing can have been written"
        );
        ensure!(sink.metric("redpanda_sink_behind_seconds").await? >= 1.0);
        proxy.mend();
        sink.part.ready_http(WITHIN, sink.admin, "/readyz").await?;

        // Cut again and again in the middle of transactions and commits.
        let cutting = async {
            for pause in [40, 90, 15, 130, 60, 25, 110, 75] {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                proxy.cut();
                tokio::time::sleep(Duration::from_millis(20)).await;
                proxy.mend();
            }
            Ok(())
        };
        tokio::try_join!(async { world.produce(rest).await.map(|_| ()) }, cutting)?;
        world.caught_up(group).await?;
        database.holds_exactly(prefix, &ids).await?;
        ensure!(sink.metric("redpanda_sink_database_failures_total").await? >= 1.0);

        // SIGTERM ends it in bounded time, with the database away as well.
        proxy.cut();
        world.produce(&load("away-late", 10).0).await?;
        let begin = Instant::now();
        sink.part.stop().await;
        ensure!(
            begin.elapsed() < Duration::from_secs(10),
            "the stop took {:?}",
            begin.elapsed()
        );
        Ok(())
    })
}

/// What the sink may take (issue 4); these are test builds, which are larger than what is released.
const MOST_MB: f64 = 64.0;

/// Largest resident memory of a process so far in MB, as the kernel counts it.
async fn peak_mb(sink: &Sink) -> Result<f64> {
    let pid = sink.part.pid().await.context("the sink does not run")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes: f64 = line
        .and_then(|line| line.split_whitespace().next())
        .context("no VmHWM")?
        .parse()?;
    Ok(kilobytes / 1_024.0)
}

/// A backlog many times the memory limit, with the database away: paused, the sink holds what it held at the pause, however
/// long that lasts, and is still a member of its group, so nothing is given to anybody else or read again from the start.
#[test]
fn a_backlog_while_the_database_is_away_stays_in_the_broker() -> Result<()> {
    with_own_world("memory", async |world| {
        let (prefix, group) = ("memory", "memory");
        let database = world.database("sink_memory").await?;
        let target = world.postgres.address();
        let proxy = Proxy::start(target).await?;
        let url = database
            .sink_url
            .replace(&target.to_string(), &proxy.address.to_string());
        let sink = world.sink(group, &url).await?;
        sink.part.ready_http(WITHIN, sink.admin, "/readyz").await?;
        proxy.cut();
        // 3 kB each that no reader knows: more than 120 MB in all.
        let (mut records, ids) = load(prefix, 36_000);
        let padding = format!(",\"padding\":\"{}\"}}", "x".repeat(3_000));
        for (_, _, value) in &mut records {
            value.pop();
            value.extend_from_slice(padding.as_bytes());
        }
        for part in records.chunks(4_000) {
            world.produce(part).await?;
        }
        eventually("the pause", WITHIN, async || {
            let log = tokio::fs::read_to_string(sink.part.log()).await?;
            Ok(log.contains("reading is paused").then_some(()))
        })
        .await?;
        // Longer than the group waits for a member that says nothing.
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_secs(10) {
            ensure!(
                get_is_ok(sink.admin, "/livez").await,
                "the sink lives while it waits"
            );
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let rebalances = sink.metric("redpanda_sink_rebalances_total").await?;
        let away = peak_mb(&sink).await?;
        proxy.mend();
        world.caught_up(group).await?;
        database.holds_exactly(prefix, &ids).await?;
        ensure!(
            sink.metric("redpanda_sink_rebalances_total").await? == rebalances,
            "the sink lost its partitions while it waited"
        );
        let after = peak_mb(&sink).await?;
        eprintln!("VmHWM {away:.1} MB while the database was away, {after:.1} MB after catching up");
        ensure!(
            away < MOST_MB && after < MOST_MB,
            "{away:.1} MB while the database was away, {after:.1} MB after it"
        );
        sink.part.stop().await;
        Ok(())
    })
}

/// The broker is killed, away for longer than the group's session, and back: the sink says so, lives on, and goes on from
/// where it was.
#[test]
fn the_broker_may_go_and_come_back() -> Result<()> {
    with_own_world("broker", async |world| {
        let (prefix, group) = ("broker", "broker");
        let database = world.database("sink_broker").await?;
        let (records, ids) = load(prefix, 8_000);
        let (early, late) = records.split_at(records.len() * 3 / 4);
        world.produce(early).await?;
        let sink = world.sink(group, &database.sink_url).await?;
        world.caught_up(group).await?;
        let ignored = sink.metric("redpanda_sink_rows_ignored_total").await?;
        let committed = world.all_committed(group).await?;
        let log_before = tokio::fs::read_to_string(sink.part.log()).await?.len();

        let broker = world.kafka.part().context("a broker of the test's own")?;
        broker.kill().await;
        eventually("readiness to name the broker", WITHIN, async || {
            let (status, body) = sink.readiness().await?;
            Ok((status == 503 && body.contains("\"broker\"")).then_some(()))
        })
        .await?;
        ensure!(
            get_is_ok(sink.admin, "/livez").await,
            "a broker that is away is no reason to be restarted"
        );
        broker.restart().await?;
        world.produce(late).await?;
        sink.part.ready_http(WITHIN, sink.admin, "/readyz").await?;
        world.caught_up(group).await?;
        database.holds_exactly(prefix, &ids).await?;
        // What was committed before is not read again. The late records may be read twice: the group's session has ended,
        // and what is read before the sink has joined again is written, but can't be committed.
        let again = sink.metric("redpanda_sink_rows_ignored_total").await? - ignored;
        let log = tokio::fs::read_to_string(sink.part.log()).await?;
        ensure!(
            again <= 2.0 * late.len() as f64,
            "{again} rows were read again; the sink's log:\n{log}"
        );
        for line in log[log_before..].lines() {
            let line: Value = serde_json::from_str(line)?;
            if line["message"] == "reading begins" {
                let topic = line["topic"].as_str().context("a topic")?.to_owned();
                let partition = i32::try_from(line["partition"].as_i64().context("a partition")?)?;
                let offset = line["offset"].as_i64().context("an offset")?;
                let kept = committed.get(&(topic, partition));
                ensure!(
                    kept.is_none_or(|kept| offset >= *kept),
                    "it had committed {kept:?}: {line}"
                );
            }
        }
        sink.part.stop().await;
        Ok(())
    })
}
