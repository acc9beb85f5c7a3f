//! Simulated devices of one house, over real MQTT: room sensors that wake, send and sleep, an electricity meter
//! every second, a heat pump and two plugs that do with what they are told as [`Behaviour`] says.
//!
//! Everything they measure comes from [`House`], a pure function of seed and time, so a restarted device goes on
//! where it would have been, and [`backfill`] gives the hours before in the same counters. The devices never
//! talk to anything but the MQTT broker, store nothing, and know nothing of agents or databases. They are
//! believable, not exact: no test should depend on a value, only on what [`House`] says it is.
//!
//! ```no_run
//! # async fn example() -> anyhow::Result<()> {
//! use std::sync::Arc;
//! let house = Arc::new(devices::House::new(1));
//! let stop = tokio_util::sync::CancellationToken::new();
//! let options = devices::Options::new("127.0.0.1:1883", house.clone());
//! devices::run(options, stop.clone()).await
//! # }
//! ```

mod backfill;
mod behaviour;
mod house;
mod inventory;
mod meter;
mod mqtt;
mod plug;
mod pump;
mod sensor;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use chrono::Utc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use backfill::{backfill, sparse};
pub use behaviour::Behaviour;
pub use house::{Appliance, Counters, Grid, House, MeterKind, Pump};
pub use inventory::{Inventory, Room};

/// What to simulate, and against which broker.
#[derive(Clone)]
pub struct Options {
    /// MQTT broker, `host:port`.
    pub address: String,
    /// User and password; `None` connects without.
    pub credentials: Option<Credentials>,
    /// The house the devices are in.
    pub house: Arc<House>,
    /// How often they send.
    pub pace: Pace,
    /// What the heat pump does with writes; can be changed while it runs.
    pub pump: watch::Receiver<Behaviour>,
    /// What both plugs do with commands; can be changed while they run.
    pub plugs: watch::Receiver<Behaviour>,
}

/// User and password of the devices.
#[derive(Clone)]
pub struct Credentials {
    /// User.
    pub user: String,
    /// Password. Never printed.
    pub password: String,
}

impl Options {
    /// Anonymous devices at the pace of the demo that do what they are told.
    pub fn new(address: impl Into<String>, house: Arc<House>) -> Self {
        Self {
            address: address.into(),
            credentials: None,
            house,
            pace: Pace::DEMO,
            pump: watch::channel(Behaviour::Applies).1,
            plugs: watch::channel(Behaviour::Applies).1,
        }
    }
}

/// Time between two messages of each kind of device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Electricity meter.
    pub meter: Duration,
    /// Heat pump.
    pub pump: Duration,
    /// Room sensors; also the `wakeup_period` they report.
    pub room: Duration,
    /// Plugs.
    pub plug: Duration,
}

impl Pace {
    /// As the real devices do, with room sensors on USB.
    pub const REAL: Pace = Pace {
        meter: Duration::from_secs(1),
        pump: Duration::from_secs(30),
        room: Duration::from_secs(600),
        plug: Duration::from_secs(300),
    };
    /// Quick enough to watch.
    pub const DEMO: Pace = Pace {
        meter: Duration::from_secs(1),
        pump: Duration::from_secs(5),
        room: Duration::from_secs(20),
        plug: Duration::from_secs(10),
    };
}

/// Runs all devices of the house until `stop`; then they disconnect, within about two seconds. A broker that is
/// away is tried again for ever. An error means that the options are wrong or a device's task died.
pub async fn run(options: Options, stop: CancellationToken) -> anyhow::Result<()> {
    let broker = mqtt::Broker::new(&options.address, options.credentials.clone())?;
    let inventory = Inventory::of(&options.house);
    let Options {
        house,
        pace,
        pump,
        plugs,
        ..
    } = options;
    // Summing the counters of the year so far takes up to a second in a debug build: not on a thread others wait for.
    let warm = house.clone();
    tokio::task::spawn_blocking(move || warm.grid(Utc::now()))
        .await
        .context("the house cannot be computed")?;
    let mut tasks = JoinSet::new();
    let rooms = inventory.rooms.len() as u32;
    for (number, room) in inventory.rooms.iter().enumerate() {
        // Spread over the period, so that the sensors do not wake together.
        let first = pace.room * number as u32 / rooms;
        tasks.spawn(sensor::run(
            broker.clone(),
            house.clone(),
            room.clone(),
            pace.room,
            first,
            stop.clone(),
        ));
    }
    tasks.spawn(meter::run(
        broker.clone(),
        house.clone(),
        pace.meter,
        stop.clone(),
    ));
    tasks.spawn(pump::run(
        broker.clone(),
        house.clone(),
        pace.pump,
        pump,
        stop.clone(),
    ));
    let plug = || plug::Setup {
        broker: broker.clone(),
        house: house.clone(),
        period: pace.plug,
        behaviour: plugs.clone(),
        stop: stop.clone(),
    };
    tasks.spawn(plug::run_tasmota(plug()));
    tasks.spawn(plug::run_shelly(plug()));
    while let Some(ended) = tasks.join_next().await {
        ended.context("a device's task died")?;
    }
    Ok(())
}

/// A value as a device sends it: with so many decimals.
fn rounded(value: f64, decimals: i32) -> f64 {
    let scale = 10_f64.powi(decimals);
    (value * scale).round() / scale
}
