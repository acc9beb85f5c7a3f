//! The edge agent: an MQTT broker that keeps every reading on disk and forwards it to Redpanda.
//!
//! The way of a reading, in the order of the modules:
//!
//! ```text
//! broker   a device publishes; the topic is captured
//! intake   the payload, as sent, with a stamp of `clock`, becomes an entry
//! buffer   a group commit puts it on disk; now, and only now, the device gets its PUBACK
//! forward  oldest first: the time is settled, `decode` makes records of it, Redpanda confirms, the entry is removed
//! admin    what an operator sees of all this
//! ```
//!
//! `broker`, `buffer` and `forward` do not know each other; this file joins them. The agent never drops a message it has
//! acknowledged, never decodes before the disk, and never sets a device's command topics on another device's word.

pub mod admin;
pub mod broker;
pub mod buffer;
pub mod clock;
pub mod config;
pub mod decode;
pub mod forward;
pub mod intake;
pub mod message;
pub mod topic_filter;

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use broker::{Access, Broker};
use buffer::Buffer;
use clock::{Change, Clock, Segment, Timeline};
use config::Config;

/// Exit code for a configuration that cannot be used (`EX_USAGE`).
pub const EXIT_CONFIG: i32 = 64;
/// Exit code when the agent can no longer keep its promises and wants to be started again (`EX_SOFTWARE`).
pub const EXIT_BROKEN: i32 = 70;

/// How often the clocks are compared.
const CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// A stop that takes longer is cut short; everything acknowledged is on disk anyway.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// An agent that is bound and open, not yet running.
pub struct Agent {
    config: Config,
    buffer: Buffer,
    mqtt: TcpListener,
    admin: TcpListener,
}

/// Opens the buffer and binds the ports. Ports may be 0: see [`Agent::mqtt_address`].
pub async fn build(config: Config) -> anyhow::Result<Agent> {
    let dir = config.data_dir.join("buffer");
    let buffer = Buffer::open(&dir, config.buffer.clone()).context("opening the buffer")?;
    let bind = |what: &'static str, address: SocketAddr| async move {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("{what}: binding {address}"))
    };
    let mqtt = bind("mqtt.listen", config.mqtt_listen).await?;
    let admin = bind("admin.listen", config.admin_listen).await?;
    Ok(Agent {
        config,
        buffer,
        mqtt,
        admin,
    })
}

impl Agent {
    /// Where MQTT clients connect.
    pub fn mqtt_address(&self) -> std::io::Result<SocketAddr> {
        self.mqtt.local_addr()
    }

    /// Where `/status` is served.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Runs until `stop`, or until a part of it fails, which is an error.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Agent {
            config,
            buffer,
            mqtt,
            admin,
        } = self;
        let boot_id = clock::boot_id();
        let (clock, timeline) = open_clock(&config, &buffer, &boot_id).await?;
        let decoders = Arc::new(config.decoders);

        let captures = decoders.clone();
        let settings = broker::Settings {
            access: Access::new(config.anonymous),
            captures: Box::new(move |topic| captures.captures(topic)),
            max_connections: config.max_connections,
        };
        let (broker, captured) = Broker::new(settings, clock.clone());
        let progress = Arc::new(forward::Progress::default());

        let tasks = Tasks::new(stop.clone());
        let intake = tokio::spawn(intake::run(captured, buffer.clone(), config.buffer.max_bytes));
        tasks.spawn("mqtt", {
            let (broker, stop) = (broker.clone(), stop.clone());
            async move {
                broker.serve(mqtt, stop).await;
                Ok(())
            }
        });
        let lane = forward::Settings {
            agent: config.agent.clone(),
            bootstrap: config.kafka_bootstrap,
            clock_wait: config.clock_wait,
            boot_id: boot_id.clone(),
            locations: config.locations,
        };
        tasks.spawn(
            "forward",
            forward::run(
                lane,
                decoders,
                buffer.clone(),
                timeline.clone(),
                progress.clone(),
                stop.clone(),
            ),
        );
        tasks.spawn(
            "clock",
            keep_clock(
                config.clock_source,
                clock.clone(),
                timeline.clone(),
                buffer.clone(),
                boot_id,
                stop.clone(),
            ),
        );
        tasks.spawn("admin", {
            let sources = admin::Sources {
                agent: config.agent,
                broker,
                buffer: buffer.clone(),
                progress,
                clock,
                timeline,
                started: std::time::Instant::now(),
            };
            let stop = stop.clone();
            async move {
                admin::serve(admin, sources, stop)
                    .await
                    .context("serving the admin port")
            }
        });
        let outcome = tasks.wait().await;

        // The broker is gone, so the intake ends when it has handed over what was captured.
        if tokio::time::timeout(STOP_LIMIT, intake).await.is_err() {
            tracing::warn!("captured messages were still waiting at the stop; their devices send them again");
        }
        tokio::task::spawn_blocking(move || buffer.close())
            .await
            .context("closing the buffer")?;
        outcome
    }
}

/// The tasks of the agent: the first that fails stops all.
struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
    failure: Arc<Mutex<Option<anyhow::Error>>>,
}

impl Tasks {
    fn new(stop: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop,
            failure: Arc::default(),
        }
    }

    fn spawn(&self, name: &'static str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (stop, failure) = (self.stop.clone(), self.failure.clone());
        let work = tokio::spawn(work);
        self.tracker.spawn(async move {
            let outcome = match work.await {
                Ok(Ok(())) if stop.is_cancelled() => return,
                Ok(Ok(())) => anyhow::anyhow!("{name} ended by itself"),
                Ok(Err(error)) => error.context(name),
                Err(panic) => anyhow::anyhow!("{name} panicked: {panic}"),
            };
            if let Ok(mut first) = failure.lock() {
                first.get_or_insert(outcome);
            }
            stop.cancel();
        });
    }

    async fn wait(self) -> anyhow::Result<()> {
        self.tracker.close();
        self.stop.cancelled().await;
        if tokio::time::timeout(STOP_LIMIT, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("some parts did not stop in time");
        }
        match self.failure.lock() {
            Ok(mut failure) => failure.take().map_or(Ok(()), Err),
            Err(_) => anyhow::bail!("the record of failures is damaged by a panic"),
        }
    }
}

/// Begins a clock segment of this process and puts it on disk, before anything is stamped with it.
async fn open_clock(
    config: &Config,
    buffer: &Buffer,
    boot_id: &str,
) -> anyhow::Result<(Arc<Clock>, Arc<Mutex<Timeline>>)> {
    let mut timeline = Timeline::load(
        buffer
            .values(clock::KEY_PREFIX)
            .context("reading the clock's segments")?,
    );
    let id = timeline.next_segment();
    let clock = Clock::new(id);
    let reading = clock::read_machine(config.clock_source);
    let changed = timeline.note(id, Segment::begin(boot_id, reading));
    store_segments(buffer, changed).await?;
    if let Some(change) = clock.compare(reading) {
        clock.apply(change);
    }
    Ok((Arc::new(clock), Arc::new(Mutex::new(timeline))))
}

async fn store_segments(buffer: &Buffer, changed: Vec<(clock::SegmentId, Segment)>) -> anyhow::Result<()> {
    let values = changed
        .into_iter()
        .map(|(id, segment)| (Segment::key(id), Some(segment.encode())))
        .collect();
    buffer.put(values).await.context("writing the clock's offset")
}

/// Watches the clocks: a wall clock that becomes known, or steps, is on disk before any message goes out with it.
async fn keep_clock(
    source: clock::Source,
    clock: Arc<Clock>,
    timeline: Arc<Mutex<Timeline>>,
    buffer: Buffer,
    boot_id: String,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let mut interval = tokio::time::interval(CLOCK_INTERVAL);
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            _ = interval.tick() => {}
        }
        let reading = clock::read_machine(source);
        let Some(change) = clock.compare(reading) else {
            continue;
        };
        let (id, segment) = match change {
            Change::Synchronised {
                segment: id,
                offset_us,
            } => {
                tracing::info!("the wall clock is synchronised");
                let known = timeline.lock().ok().and_then(|t| t.get(id).cloned());
                let begun = known.unwrap_or_else(|| Segment::begin(&boot_id, reading));
                (
                    id,
                    Segment {
                        offset_us: Some(offset_us),
                        ..begun
                    },
                )
            }
            Change::Stepped {
                segment: id,
                step_seconds,
                ..
            } => {
                tracing::warn!(step_seconds, "the wall clock was stepped");
                (id, Segment::begin(&boot_id, reading))
            }
        };
        // The timeline learns of it only after the disk: until then messages wait.
        let mut next = timeline
            .lock()
            .map_err(|_| anyhow::anyhow!("the timeline is damaged by a panic"))?
            .clone();
        let changed = next.note(id, segment);
        store_segments(&buffer, changed.clone()).await?;
        let mut timeline = timeline
            .lock()
            .map_err(|_| anyhow::anyhow!("the timeline is damaged by a panic"))?;
        for (id, segment) in changed {
            timeline.note(id, segment);
        }
        clock.apply(change);
    }
}
