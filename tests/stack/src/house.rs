//! The simulated house of a stack: its history, produced into the topics, and its devices, which run as a task of this process.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use chrono::Utc;
use devices::Behaviour;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::kafka::Kafka;
use crate::stack::step;

/// The simulated house.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Devices {
    /// Chooses device ids, weather and habits; the same seed gives the same house.
    pub seed: u64,
    /// How far back its history goes when the stack starts.
    pub history: Duration,
    /// How much farther back a record every 15 minutes goes.
    pub older: Duration,
    /// How often its devices send.
    pub pace: devices::Pace,
}

impl Default for Devices {
    fn default() -> Devices {
        // Every chart of the first page is full: 24 hours, and the local day they began in.
        Devices {
            seed: 1,
            history: Duration::from_secs(26 * 60 * 60),
            older: Duration::ZERO,
            pace: devices::Pace::DEMO,
        }
    }
}

/// The longest step after which the energy between two readings does not count as estimated.
const OLDER_EVERY: Duration = Duration::from_secs(15 * 60);

/// Simulated devices that run as a task of this process.
pub(crate) struct House {
    pub(crate) house: Arc<devices::House>,
    pub(crate) pump: watch::Sender<Behaviour>,
    pub(crate) plugs: watch::Sender<Behaviour>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl House {
    /// Starts its devices at an agent.
    pub(crate) fn start(house: Arc<devices::House>, pace: devices::Pace, agent: SocketAddr) -> House {
        let stop = CancellationToken::new();
        let (pump, of_the_pump) = watch::channel(Behaviour::Applies);
        let (plugs, of_the_plugs) = watch::channel(Behaviour::Applies);
        let options = devices::Options {
            pace,
            pump: of_the_pump,
            plugs: of_the_plugs,
            ..devices::Options::new(agent.to_string(), house.clone())
        };
        let running = devices::run(options, stop.clone());
        let task = tokio::spawn(async move {
            if let Err(error) = running.await {
                eprintln!("stack: the simulated devices ended: {error:#}");
            }
        });
        House {
            house,
            pump,
            plugs,
            stop,
            task,
        }
    }

    /// Ends them, in order.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        let _ended = self.task.await;
    }
}

/// An agent stamps what it receives with the time it has, so the past goes into the topics directly.
pub(crate) async fn history(kafka: &Kafka, house: &Arc<devices::House>, devices: Devices) -> Result<()> {
    let to = Utc::now();
    let from = to - devices.history;
    let produce = async {
        // Painting the house's days and producing both take the processor for a while; neither can be awaited.
        tokio::task::block_in_place(|| {
            let older = devices::sparse(house, from - devices.older, from, OLDER_EVERY);
            let records = older.chain(devices::backfill(house, from, to));
            kafka.produce(records.map(|record| {
                let topic = telemetry::topic::of(record.reading.kind());
                let json = serde_json::to_string(&record).expect("a record is plain JSON");
                (topic, record.device_id.to_string(), json)
            }))
        })
    };
    step("history of the simulated house", "produced", produce).await?;
    Ok(())
}
