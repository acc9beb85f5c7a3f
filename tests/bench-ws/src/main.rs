//! What energy-ws costs, and how quick it and the way of a command are, as one JSON line on standard output. `make bench-ws`
//! runs it.
//!
//! Real Kafka and PostgreSQL and release builds of the services on this machine; the clients are in this process, and the broker, the
//! service and the clients share the processors: the figures hold for this run and this machine. It judges nothing,
//! keeps nothing, and never leaves 127.0.0.1.

mod bare;
mod client;
mod command;
mod world;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::json;
use stack::part::Part;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::client::{Client, Frames};
use crate::world::World;

/// Clients of the latency figure, and readings a second: the load.
const CLIENTS: usize = 500;
const READINGS_PER_SECOND: u32 = 10;
/// How long that load lasts: 100,000 frames.
const LOAD_SECONDS: u32 = 20;
/// Clients at saturation; the bare broadcast has as many.
const CROWD: usize = 200;
/// Records of one round at saturation: fewer than energy-ws keeps for a client that is behind, so none is cut off.
const ROUND_RECORDS: usize = 3_000;
/// Rounds of each; the median counts.
const ROUNDS: usize = 5;
/// Idle clients of the memory figure.
const IDLE: usize = 1_000;
/// Changes of a setting, one after the other.
const COMMANDS: usize = 300;
/// Far beyond what anything here takes.
const WITHIN: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    match std::env::args().nth(1).as_deref() {
        Some("bare") => runtime.block_on(bare::serve()),
        Some(other) => anyhow::bail!("unknown argument {other}"),
        None => runtime.block_on(measure()),
    }
}

async fn measure() -> Result<()> {
    world::allow_open_files()?;
    let world = World::start().await?;
    eprintln!("bench-ws: memory of {IDLE} idle clients");
    let client_rss_kb = idle_memory(&world).await?;
    eprintln!("bench-ws: {CLIENTS} clients, {READINGS_PER_SECOND} readings/s for {LOAD_SECONDS} s");
    let mut delays = delays(&world).await?;
    delays.sort_unstable();
    eprintln!("bench-ws: {ROUNDS} rounds at saturation, {CROWD} clients, {ROUND_RECORDS} records each");
    let rates = saturation(&world).await?;
    eprintln!("bench-ws: {COMMANDS} changes of a setting, one after the other");
    let mut commands = command::delays(&world, COMMANDS).await?;
    commands.sort_unstable();
    let figures = json!({
        "bench": "ws",
        "frame_p50_ms": milliseconds(&delays, 0.50),
        "frame_p99_ms": milliseconds(&delays, 0.99),
        "frame_max_ms": milliseconds(&delays, 1.0),
        "frames": delays.len(),
        // Against the better of the two.
        "broadcast_ratio": round(rates.ours / rates.plain.max(rates.gathering), 2),
        "messages_per_s": rates.ours.round(),
        "bare_messages_per_s": rates.plain.round(),
        "bare_gathering_messages_per_s": rates.gathering.round(),
        "client_rss_kb": round(client_rss_kb, 1),
        "command_p50_ms": milliseconds(&commands, 0.50),
        "command_p99_ms": milliseconds(&commands, 0.99),
        "command_max_ms": milliseconds(&commands, 1.0),
        "commands": commands.len(),
        "clients": CLIENTS,
        "processors": std::thread::available_parallelism()?.get(),
    });
    world::print(&figures)?;
    world.stop().await;
    Ok(())
}

/// Resident memory for each client that is connected, authenticated, subscribed to everything, and hears nothing.
async fn idle_memory(world: &World) -> Result<f64> {
    let service = world.service().await?;
    // The first clients pay for what all share: allocator arenas, the verifier's keys, the runtime's threads.
    let _first = try_join_all((0..8).map(|_| service.client())).await?;
    let before = service.resident_kb().await?;
    let clients = try_join_all((0..IDLE).map(|_| service.client())).await?;
    let after = service.resident_kb().await?;
    drop(clients);
    service.part.stop().await;
    Ok(after.saturating_sub(before) as f64 / IDLE as f64)
}

/// From handing a record to the producer until a client has read its frame, for every frame, in microseconds.
async fn delays(world: &World) -> Result<Vec<u64>> {
    let service = world.service().await?;
    let clients = try_join_all((0..CLIENTS).map(|_| service.client())).await?;
    let epoch = Instant::now();
    let count = (READINGS_PER_SECOND * LOAD_SECONDS) as usize;
    let reading = clients
        .into_iter()
        .map(|client| tokio::spawn(client.delays(epoch, count)))
        .collect::<Vec<_>>();
    let begin = tokio::time::Instant::now();
    for number in 0..READINGS_PER_SECOND * LOAD_SECONDS {
        tokio::time::sleep_until(begin + Duration::from_secs(1) / READINGS_PER_SECOND * number).await;
        // The moment travels in the id.
        let sent_us = u64::try_from(epoch.elapsed().as_micros())?;
        world.produce(number as usize, &sent_us.to_string())?;
    }
    let mut all = Vec::with_capacity(count * CLIENTS);
    for client in reading {
        all.extend(timeout(WITHIN, client).await.context("frames are missing")???);
    }
    ensure!(all.len() == count * CLIENTS);
    service.part.stop().await;
    Ok(all)
}

/// Messages a second over all clients, medians of the rounds.
struct Rates {
    ours: f64,
    plain: f64,
    gathering: f64,
}

/// energy-ws and both bare broadcasts, in turns.
async fn saturation(world: &World) -> Result<Rates> {
    let service = world.service().await?;
    let clients = try_join_all((0..CROWD).map(|_| service.client())).await?;
    let mut ours: Vec<Frames> = clients.into_iter().map(Client::into_frames).collect();
    let mut plain = Bare::start(world, false).await?;
    let mut gathering = Bare::start(world, true).await?;
    let mut our_rates = Vec::new();
    for round in 0..ROUNDS {
        // Frozen while the records are written, so that neither the producer nor the broker's writing is measured.
        service.part.signal(rustix::process::Signal::STOP).await?;
        for number in 0..ROUND_RECORDS {
            world.produce(number, &format!("s{round}.{number}"))?;
        }
        world.flush().await?;
        let counting = count(ours);
        service.part.signal(rustix::process::Signal::CONT).await?;
        let (rate, back) = counting.await?;
        ours = back;
        our_rates.push(rate);
        plain.round().await?;
        gathering.round().await?;
    }
    service.part.stop().await;
    eprintln!(
        "bench-ws: messages/s: energy-ws {our_rates:.0?}, bare {:.0?}, bare and gathering {:.0?}",
        plain.rates, gathering.rates
    );
    Ok(Rates {
        ours: median(&mut our_rates),
        plain: plain.stop().await,
        gathering: gathering.stop().await,
    })
}

/// A bare broadcast with its clients.
struct Bare {
    part: Part,
    trigger: TcpStream,
    clients: Vec<Frames>,
    rates: Vec<f64>,
}

impl Bare {
    async fn start(world: &World, gathers: bool) -> Result<Bare> {
        let (part, address) = world.bare(gathers).await?;
        let clients = try_join_all((0..CROWD).map(|_| client::bare(address))).await?;
        Ok(Bare {
            part,
            trigger: TcpStream::connect(address).await?,
            clients,
            rates: Vec::new(),
        })
    }

    async fn round(&mut self) -> Result<()> {
        let counting = count(std::mem::take(&mut self.clients));
        bare::begin(&mut self.trigger).await?;
        let (rate, back) = counting.await?;
        self.clients = back;
        self.rates.push(rate);
        Ok(())
    }

    /// Ends it; the median of its rounds.
    async fn stop(mut self) -> f64 {
        self.part.stop().await;
        median(&mut self.rates)
    }
}

/// Reads a round with every client; the rate is from the first frame of any to the last of all.
fn count(clients: Vec<Frames>) -> impl Future<Output = Result<(f64, Vec<Frames>)>> {
    let first = Arc::new(std::sync::OnceLock::new());
    let number = clients.len();
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|mut frames| {
            let first = first.clone();
            tokio::spawn(async move {
                frames.read(ROUND_RECORDS, &first).await?;
                anyhow::Ok(frames)
            })
        })
        .collect();
    async move {
        let mut back = Vec::with_capacity(number);
        for task in tasks {
            back.push(timeout(WITHIN, task).await.context("frames are missing")???);
        }
        let first: &Instant = first.get().context("no frame")?;
        Ok((
            (number * ROUND_RECORDS) as f64 / first.elapsed().as_secs_f64(),
            back,
        ))
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    values[values.len() / 2]
}

/// The value below which `share` of the sorted `micros` lie, in milliseconds.
fn milliseconds(micros: &[u64], share: f64) -> f64 {
    let place = ((micros.len() as f64 * share).ceil() as usize).clamp(1, micros.len());
    round(micros[place - 1] as f64 / 1_000.0, 2)
}

fn round(value: f64, digits: i32) -> f64 {
    let factor = 10_f64.powi(digits);
    (value * factor).round() / factor
}
