//! Reads the `homelab` topics from Redpanda and writes each record once into its table in TimescaleDB.
//!
//! Exactly one row (DESIGN, P2): the topics are delivered at least once, every row has the identity of its record
//! (device, time, id), and an insert that finds it there leaves it alone. Offsets are stored only after the
//! transaction that holds the rows is committed, so a kill, a rebalance or a lost connection at any instant leads
//! to records that are read again, never to one that is missing.
//!
//! One bad record never stops the rest (P5): what classification or the database refuses goes to
//! `homelab.dead-letter`, acknowledged by the broker before its offset is stored.
//!
//! ```text
//! consume (librdkafka's queue, 8 MiB) -> Batch (1,000 records, 1 MiB, 100 ms; more while a backlog is there)
//!    ^                                      -> write (one transaction)
//!    ^                                                                             |  dead letters
//!    +--------------------------- offsets are stored <-----------------------------+
//! ```
//!
//! It never updates or deletes a row, never decodes a device's payload, never skips a record, and never gives up
//! on a database or a broker that is away.

mod batch;
mod bisect;
mod classify;
mod config;
mod consume;
mod copy;
mod dead_letter;
mod metrics;
pub mod replay;
mod salvage;
mod table;
mod write;

use std::sync::Arc;

use anyhow::Context;
use service::{Health, Lifecycle, metrics::admin_router, server};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use config::Settings;

/// Binds the admin port and starts the sink on `lifecycle`.
pub async fn build(settings: Settings, lifecycle: Lifecycle) -> anyhow::Result<()> {
    let admin = server::bind(settings.metrics_address).await?;
    run(settings, admin, lifecycle)
}

/// Starts consumer, writer and admin port on `lifecycle`; `admin` is the caller's, already bound.
pub fn run(settings: Settings, admin: TcpListener, lifecycle: Lifecycle) -> anyhow::Result<()> {
    let health = Health::new(&lifecycle);
    let registry = service::Metrics::new("redpanda_sink");
    let metrics = Arc::new(metrics::Metrics::new(&registry, &health));

    let dead_letters = dead_letter::DeadLetters::new(&settings.kafka)
        .context("cannot create the producer of dead letters")?;
    let consumer = consume::consumer(&settings.kafka, &settings.kafka_group, metrics.clone())
        .context("cannot create the consumer")?;
    let writer = write::Writer::new(settings.database, dead_letters, metrics.clone());

    // One batch with the writer, one being filled: more would be memory without speed.
    let (batches, to_write) = mpsc::channel(1);
    let (done, written) = mpsc::channel(1);
    let stop = lifecycle.token();
    // The stop reaches the consumer; the writer may finish its batch and is cut off by the consumer, which waits
    // for it in bounded time.
    let cut = CancellationToken::new();
    lifecycle.spawn(
        "consume",
        consume::run(consumer, batches, written, metrics, stop.clone(), cut.clone()),
    );
    lifecycle.spawn("write", async move {
        writer.run(to_write, done, cut).await;
        Ok(())
    });
    lifecycle.spawn(
        "admin",
        server::serve(admin, admin_router(&health, &registry), stop),
    );
    tracing::info!(group = settings.kafka_group, "redpanda-sink runs");
    Ok(())
}
