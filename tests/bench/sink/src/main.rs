//! `make bench-sink`: how fast redpanda-sink catches up, how soon a reading is visible, and what poison costs.
//!
//! Everything runs on one machine in one run, against the same real Kafka and PostgreSQL: what the sink is compared
//! with (psql's `\copy`, Redpanda Connect) does the same work on the same rows into the same table, an empty copy of
//! the migrated database each. Prints one JSON line. It asserts nothing: a figure that is missed is a figure.

mod connect;
mod rows;
mod sink;
mod visible;

use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde::Serialize;
use stack::guardian;
use stack::kafka::{Choice, Kafka};
use stack::postgres::Postgres;
use telemetry::topic;

use rows::Poison;

/// Measures redpanda-sink and prints one JSON line.
#[derive(Parser)]
#[command(name = "bench-sink", version)]
struct Cli {
    /// Records to catch up, against psql's \copy of the same rows.
    #[arg(long, default_value_t = 1_000_000)]
    records: u32,
    /// Records of the runs with and without poison.
    #[arg(long, default_value_t = 200_000)]
    poison_records: u32,
    /// Seconds of steady 1,000 records a second.
    #[arg(long, default_value_t = 30)]
    steady_seconds: u32,
    /// The sink's binary; a release build.
    #[arg(long)]
    sink: PathBuf,
    /// Redpanda Connect's binary; without it there is no comparison with it.
    #[arg(long)]
    connect: Option<PathBuf>,
    /// Why there is no Redpanda Connect; printed with the figures.
    #[arg(long, default_value = "no binary was given")]
    connect_missing: String,
}

#[derive(Serialize)]
struct Figures {
    bench: &'static str,
    records: u32,
    /// Catching up, against \copy: target at least 0.7.
    copy_ratio: f64,
    copy_rows_per_s: f64,
    sink_rows_per_s: f64,
    /// The sink's largest resident memory while catching up: target under 64.
    sink_rss_mb: f64,
    /// Against Redpanda Connect: target at least 5. None where it could not be had.
    connect_ratio: Option<f64>,
    connect_rows_per_s: Option<f64>,
    connect_note: String,
    /// From the producer to a row that a query finds, at a steady 1,000 records a second: target under 300.
    visible_p99_ms: f64,
    visible_p50_ms: f64,
    /// Throughput with 1 % poison of every kind against the same number of clean records: target at least 0.5.
    poison_ratio: f64,
    /// The same with 1 % of records that only the database refuses, the most expensive kind.
    poison_refused_ratio: f64,
    load_average: String,
}

/// What every measurement works with.
pub struct World {
    kafka: Kafka,
    postgres: Postgres,
    sink: PathBuf,
}

impl World {
    /// An empty, migrated database with one constraint that the sink knows nothing of.
    async fn database(&self, name: &str) -> Result<()> {
        self.postgres
            .psql("postgres", &format!("create database {name} template telemetry"))
            .await?;
        let forbid = format!(
            "alter table energy_consumption add constraint of_the_bench check (power_w <> {})",
            rows::FORBIDDEN_POWER_W
        );
        self.postgres.psql(name, &forbid).await.map(|_| ())
    }

    /// Gives the disk back, and settles what the server still has to write, so that it is not the next one's.
    async fn drop_database(&self, name: &str) -> Result<()> {
        self.postgres
            .psql("postgres", &format!("drop database {name} with (force)"))
            .await?;
        self.postgres.psql("postgres", "checkpoint").await.map(|_| ())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let cli = Cli::parse();
    ensure!(
        cli.sink.is_file(),
        "no binary of the sink at {}",
        cli.sink.display()
    );
    let run = guardian::run()?;
    let outcome = measure(&cli).await;
    run.end();
    let figures = outcome?;
    writeln!(std::io::stdout(), "{}", serde_json::to_string(&figures)?)?;
    Ok(())
}

async fn measure(cli: &Cli) -> Result<Figures> {
    let run = guardian::run()?;
    let kafka = Kafka::choose(Choice::Real, &run.data("kafka")?).await?;
    kafka.create_topics(&topic::ALL).await?;
    let postgres = Postgres::start(&run.data("postgres")?).await?;
    let world = World {
        kafka,
        postgres,
        sink: cli.sink.clone(),
    };

    say(&format!("producing {} records", cli.records));
    rows::produce(&world.kafka, 0..cli.records, Poison::None)?;

    say("psql \\copy");
    let copied = copy(&world, cli.records).await?;
    let copy_rows_per_s = f64::from(cli.records) / copied.as_secs_f64();
    say(&format!("{copy_rows_per_s:.0} rows/s"));

    say("the sink");
    let sink = sink::catch_up(&world, "bench_sink", &[0; 3], cli.records, 0).await?;
    let sink_rows_per_s = sink.rate;
    say(&format!("{sink_rows_per_s:.0} rows/s, {:.1} MB", sink.rss_mb));

    let (connect_rows_per_s, connect_note) = match &cli.connect {
        Some(binary) => {
            say("Redpanda Connect");
            let rate = connect::rows_per_s(&world, binary, cli.records).await?;
            say(&format!("{rate:.0} rows/s"));
            (
                Some(rate),
                "benthos v4.27.0, sql_insert, batches of 1,000".to_owned(),
            )
        }
        None => (None, cli.connect_missing.clone()),
    };

    let mut rates = Vec::new();
    let mut first = cli.records;
    for (name, poison) in [
        ("bench_clean", Poison::None),
        ("bench_poison", Poison::Mixed),
        ("bench_refused", Poison::Refused),
    ] {
        say(&format!("{name}, {} records", cli.poison_records));
        let from = sink::ends(&world.kafka)?;
        let last = first + cli.poison_records;
        let letters = rows::produce(&world.kafka, first..last, poison)?;
        first = last;
        let caught_up = sink::catch_up(&world, name, &from, cli.poison_records - letters, letters).await?;
        say(&format!("{:.0} records/s", caught_up.rate));
        rates.push(caught_up.rate);
    }

    say("1,000 records a second");
    let visible = visible::latencies(&world, cli.steady_seconds).await?;
    let load_average = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    Ok(Figures {
        bench: "sink",
        records: cli.records,
        copy_ratio: round(sink_rows_per_s / copy_rows_per_s),
        copy_rows_per_s: copy_rows_per_s.round(),
        sink_rows_per_s: sink_rows_per_s.round(),
        sink_rss_mb: round(sink.rss_mb),
        connect_ratio: connect_rows_per_s.map(|rate| round(sink_rows_per_s / rate)),
        connect_rows_per_s: connect_rows_per_s.map(f64::round),
        connect_note,
        visible_p99_ms: round(visible.p99_ms),
        visible_p50_ms: round(visible.p50_ms),
        poison_ratio: round(rates[1] / rates[0]),
        poison_refused_ratio: round(rates[2] / rates[0]),
        load_average: load_average.trim().to_owned(),
    })
}

/// The same rows from a file, the way an operator would load them.
async fn copy(world: &World, records: u32) -> Result<Duration> {
    let file = guardian::run()?.data("copy")?.join("energy.tsv");
    rows::write_copy_file(&file, records).context("cannot write the file for \\copy")?;
    world.database("bench_copy").await?;
    let statement = format!(
        "\\copy energy_consumption ({}) from '{}'",
        rows::COLUMNS.join(", "),
        file.display()
    );
    let begin = Instant::now();
    world.postgres.psql("bench_copy", &statement).await?;
    let took = begin.elapsed();
    world.drop_database("bench_copy").await?;
    std::fs::remove_file(file)?;
    Ok(took)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}

/// Progress, so that minutes of silence are none.
fn say(text: &str) {
    eprintln!("bench-sink: {text}");
}
