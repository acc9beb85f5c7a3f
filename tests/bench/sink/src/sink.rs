//! One run of redpanda-sink over what is in the topic.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use stack::kafka::Kafka;
use stack::part::Part;
use stack::{http, port};
use telemetry::topic;
use tokio::process::Command;

use crate::World;

/// The sink is asked this often how far it is: often enough for a run of seconds, seldom enough to cost it nothing.
const POLL: Duration = Duration::from_millis(100);
/// A million rows at a tenth of the speed that is expected.
const WITHIN: Duration = Duration::from_secs(600);
/// An admin request to the broker.
const ASK: Duration = Duration::from_secs(10);

/// A sink that runs.
pub struct Sink {
    part: Part,
    metrics: String,
}

/// How a run went.
pub struct CaughtUp {
    /// Records a second after the first batch; starting the process and joining the group are not in it.
    pub rate: f64,
    /// Largest resident memory.
    pub rss_mb: f64,
}

impl Sink {
    /// Starts the sink in `group` on the database of that name.
    pub async fn start(world: &World, database: &str) -> Result<Sink> {
        let admin = port::free()?;
        let mut command = Command::new(&world.sink);
        command
            .env("KAFKA_BOOTSTRAP", world.kafka.bootstrap())
            .env("KAFKA_GROUP", database)
            .env("DATABASE_URL", world.postgres.url("sink", database))
            .env("METRICS_ADDRESS", admin.to_string());
        let part = Part::start(database, command).await?;
        part.ready_http(Duration::from_secs(60), admin, "/readyz").await?;
        Ok(Sink {
            part,
            metrics: format!("http://{admin}/metrics"),
        })
    }

    /// Rows inserted and dead letters written.
    async fn done(&self) -> Result<(f64, f64)> {
        let text = http::client()?.get(&self.metrics).send().await?.text().await?;
        let sum = |name: &str| {
            text.lines()
                .filter(|line| line.starts_with(name))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
                .sum()
        };
        Ok((
            sum("redpanda_sink_rows_inserted_total"),
            sum("redpanda_sink_dead_letters_total"),
        ))
    }

    /// Largest resident memory so far, from the kernel.
    async fn rss_mb(&self) -> Result<f64> {
        let pid = self.part.pid().await.context("the sink does not run")?;
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes: f64 = line
            .and_then(|line| line.split_whitespace().next())
            .context("no VmHWM")?
            .parse()?;
        Ok(kilobytes / 1_024.0)
    }

    /// Stops it.
    pub async fn stop(self) {
        self.part.stop().await;
    }
}

/// Runs a sink from the offsets `from` of the energy topic until it has inserted `rows` and written `letters`.
/// Database and group have the same name; the database is made and dropped here.
pub async fn catch_up(
    world: &World,
    database: &str,
    from: &[i64; 3],
    rows: u32,
    letters: u32,
) -> Result<CaughtUp> {
    world.database(database).await?;
    begin_at(&world.kafka, database, from)?;
    let starting = Instant::now();
    let sink = Sink::start(world, database).await?;
    let mut begin: Option<(Instant, f64)> = None;
    let rate = loop {
        let (inserted, written) = sink.done().await?;
        ensure!(
            inserted <= f64::from(rows) && written <= f64::from(letters),
            "{inserted} rows and {written} letters of {rows} and {letters}"
        );
        let done = inserted + written;
        match begin {
            None if done > 0.0 => begin = Some((Instant::now(), done)),
            Some((begin, before)) if done >= f64::from(rows + letters) => {
                break (done - before) / begin.elapsed().as_secs_f64();
            }
            _ => {}
        }
        ensure!(starting.elapsed() < WITHIN, "{inserted} rows of {rows} in time");
        tokio::time::sleep(POLL).await;
    };
    let rss_mb = sink.rss_mb().await?;
    sink.stop().await;
    world.drop_database(database).await?;
    Ok(CaughtUp { rate, rss_mb })
}

/// The offsets after the last record of each partition of the energy topic.
pub fn ends(kafka: &Kafka) -> Result<[i64; 3]> {
    let consumer = consumer(kafka, "bench-that-never-commits")?;
    let mut ends = [0; 3];
    for (partition, end) in (0..).zip(&mut ends) {
        *end = consumer.fetch_watermarks(topic::ENERGY, partition, ASK)?.1;
    }
    Ok(ends)
}

/// Commits where a group begins, before anybody joins it.
fn begin_at(kafka: &Kafka, group: &str, from: &[i64; 3]) -> Result<()> {
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in (0..).zip(from) {
        offsets.add_partition_offset(topic::ENERGY, partition, Offset::Offset(*offset))?;
    }
    consumer(kafka, group)?.commit(&offsets, CommitMode::Sync)?;
    Ok(())
}

/// The same, where the topic ends now.
pub fn begin_at_end(kafka: &Kafka, group: &str) -> Result<()> {
    begin_at(kafka, group, &ends(kafka)?)
}

fn consumer(kafka: &Kafka, group: &str) -> Result<BaseConsumer> {
    Ok(ClientConfig::new()
        .set("bootstrap.servers", kafka.bootstrap())
        .set("group.id", group)
        .create()?)
}
