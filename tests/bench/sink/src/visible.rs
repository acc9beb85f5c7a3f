//! How long a reading takes from the producer to a row that a query finds, at a steady 1,000 records a second.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use chrono::{DateTime, Utc};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Row};
use telemetry::topic;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::sink::Sink;
use crate::{World, rows, sink};

/// Records a second.
const RATE: u32 = 1_000;
/// They are sent in ticks of this length, for a timer of one record each would be late more often than not.
const TICK: Duration = Duration::from_millis(10);
/// Seconds at the start that are not counted: the sink prepares its statements.
const WARM_UP_SECONDS: u32 = 3;
/// How long the last record may take.
const WITHIN: Duration = Duration::from_secs(30);
const DATABASE: &str = "bench_visible";

/// Latencies in milliseconds.
pub struct Visible {
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Runs a sink while records come for `seconds`, after the warm-up.
///
/// A record's time is when it was handed to the producer. Records of a meter come in order and a batch is committed at
/// once, so whatever is not newer than the newest row of its meter is visible: that is what is asked, again and again.
pub async fn latencies(world: &World, seconds: u32) -> Result<Visible> {
    world.database(DATABASE).await?;
    sink::begin_at_end(&world.kafka, DATABASE)?;
    let sink = Sink::start(world, DATABASE).await?;
    let mut database = PgConnection::connect(&world.postgres.url("api", DATABASE)).await?;

    let bootstrap = world.kafka.bootstrap().to_owned();
    // Joining the group takes the broker some seconds by its own settings, which are not steady running: a first record
    // waits for them.
    produce(bootstrap.clone(), 1).await?;
    let begin = Instant::now();
    while sqlx::query("select from energy_consumption limit 1")
        .fetch_optional(&mut database)
        .await?
        .is_none()
    {
        ensure!(
            begin.elapsed() < WITHIN,
            "the first record did not become visible"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let count = (WARM_UP_SECONDS + seconds) * RATE;
    let producing = tokio::spawn(produce(bootstrap, count));
    let meters: Vec<String> = (0..4).map(rows::device).collect();
    let mut newest: Vec<Option<DateTime<Utc>>> = vec![None; meters.len()];
    // When the rows up to a time of a meter were first seen, meter by meter.
    let mut seen: Vec<Vec<(DateTime<Utc>, DateTime<Utc>)>> = vec![Vec::new(); meters.len()];
    let mut sent = None;
    let mut deadline = None;
    let mut producing = Some(producing);
    loop {
        for (at, meter) in meters.iter().enumerate() {
            let row = sqlx::query("select max(time) as newest from energy_consumption where device_id = $1")
                .bind(meter)
                .fetch_one(&mut database)
                .await?;
            let found: Option<DateTime<Utc>> = row.try_get("newest")?;
            if let Some(found) = found
                && newest[at] != Some(found)
            {
                newest[at] = Some(found);
                seen[at].push((found, Utc::now()));
            }
        }
        if let Some(task) = producing.take_if(|task| task.is_finished()) {
            sent = Some(task.await??);
            deadline = Some(Instant::now() + WITHIN);
        }
        if let Some(sent) = &sent {
            let last = |at: usize| sent.iter().rev().find(|(meter, _)| *meter == at);
            if (0..meters.len()).all(|at| last(at).is_none_or(|(_, time)| newest[at] >= Some(*time))) {
                break;
            }
        }
        ensure!(
            deadline.is_none_or(|deadline| Instant::now() < deadline),
            "not all records became visible"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    sink.stop().await;
    drop(database);
    world.drop_database(DATABASE).await?;

    let sent = sent.context("the loop ends when all are sent")?;
    let mut latencies: Vec<f64> = Vec::new();
    for (meter, time) in &sent[(WARM_UP_SECONDS * RATE) as usize..] {
        let at = seen[*meter].partition_point(|(newest, _)| newest < time);
        let (_, when) = seen[*meter].get(at).context("every record was seen")?;
        latencies.push((*when - time).as_seconds_f64() * 1_000.0);
    }
    latencies.sort_by(f64::total_cmp);
    let percentile = |share: f64| latencies[((latencies.len() - 1) as f64 * share) as usize];
    Ok(Visible {
        p50_ms: percentile(0.5),
        p99_ms: percentile(0.99),
    })
}

/// Sends `count` records at the rate; answers meter and time of each, in order.
async fn produce(bootstrap: String, count: u32) -> Result<Vec<(usize, DateTime<Utc>)>> {
    let producer: ThreadedProducer<_> = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        // As the agent's.
        .set("linger.ms", "2")
        .create()?;
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let in_tick = RATE * u32::try_from(TICK.as_millis())? / 1_000;
    let mut sent = Vec::new();
    for number in 0..count {
        if number % in_tick == 0 {
            tick.tick().await;
        }
        let now = Utc::now();
        // The wire carries microseconds.
        let time = DateTime::from_timestamp_micros(now.timestamp_micros()).context("a time")?;
        let meter = rows::device(number);
        let value = rows::record_at(number, time).to_string();
        producer
            .send(BaseRecord::to(topic::ENERGY).key(&meter).payload(&value))
            .map_err(|(error, _)| error)?;
        sent.push((usize::try_from(number % 4)?, time));
    }
    producer.flush(WITHIN)?;
    Ok(sent)
}
