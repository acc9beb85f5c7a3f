//! The edge agent: an MQTT broker that keeps every reading on disk and forwards it to Redpanda.
//!
//! The way of a reading, in the order of the modules:
//!
//! ```text
//! broker   a device publishes; the topic is captured
//! intake   the payload, as sent, with a stamp of `clock`, becomes an entry
//! buffer   a group commit puts it on disk; now, and only now, the device gets its PUBACK
//! forward  oldest first: the time is settled, `decode` makes records of it, Redpanda confirms, the entry is removed
//! losses   what could not be kept is counted and told
//! command  the other way: what the settings API wants of a device, at most once
//! admin    what an operator sees of all this; `control` and `cli` what an operator asks
//! ```
//!
//! `broker`, `buffer` and `forward` do not know each other; this file joins them. The agent never drops a message it has
//! acknowledged, never decodes before the disk, and never sets a device's command topics on another device's word.

pub mod admin;
pub mod broker;
pub mod buffer;
pub mod cli;
pub mod clock;
pub mod command;
pub mod config;
pub mod control;
pub mod dead_letters;
pub mod decode;
pub mod devices;
pub mod forward;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod intake;
pub mod kafka;
pub mod line;
pub mod losses;
pub mod message;
pub mod mqtt;
pub mod presence;
pub mod recovery;
pub mod redelivery;
pub mod rules;
mod tasks;
mod timekeeping;
pub mod topic_filter;
mod watchdog;

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::Context as _;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

use broker::{Access, Broker, Door, Tls};
use config::Config;
use rules::Rules;
use tasks::Tasks;
use timekeeping::Timekeeper;
use watchdog::Stages;

pub use watchdog::notify as tell_systemd;

/// Exit code of a question that no agent answers, or that it cannot answer without Redpanda (`EX_UNAVAILABLE`).
pub const EXIT_UNAVAILABLE: i32 = 69;
/// Exit code for a configuration that cannot be used (`EX_USAGE`).
pub const EXIT_CONFIG: i32 = 64;
/// Exit code when the agent can no longer keep its promises and wants to be started again (`EX_SOFTWARE`).
pub const EXIT_BROKEN: i32 = 70;

/// A stop that takes longer is cut short; everything acknowledged is on disk anyway.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// An agent that is bound and open, not yet running.
pub struct Agent {
    config: Config,
    buffer: recovery::Opened,
    /// None on a disk that is full.
    sessions: Option<broker::Store>,
    mqtt: TcpListener,
    tls: Option<(TcpListener, Arc<Tls>)>,
    websocket: Option<(TcpListener, Door)>,
    admin: TcpListener,
    reload: Arc<Notify>,
}

/// Opens the buffer and binds the ports. Ports may be 0: see [`Agent::mqtt_address`].
pub async fn build(config: Config) -> anyhow::Result<Agent> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("data_dir: creating {}", config.data_dir.display()))?;
    let buffer = recovery::open(&config.data_dir, &config.buffer)?;
    let sessions = match broker::Store::open(&config.data_dir.join("sessions")) {
        Ok(sessions) => Some(sessions),
        // What is buffered goes out all the same; that is what makes room.
        Err(error) if error.is_full_disk() => {
            tracing::error!(%error, "the disk is full: MQTT sessions and retained messages of before are there again after the next start");
            None
        }
        Err(error) => return Err(error).context("opening the store of MQTT sessions"),
    };
    let bind = |what: &'static str, address: SocketAddr| async move {
        TcpListener::bind(address)
            .await
            .with_context(|| format!("{what}: binding {address}"))
    };
    let mqtt = bind("mqtt.listen", config.mqtt.listen).await?;
    let tls = match &config.mqtt.tls {
        None => None,
        Some((listen, settings)) => {
            let keys = Tls::load(settings.clone()).context("mqtt.tls")?;
            Some((bind("mqtt.tls.listen", *listen).await?, Arc::new(keys)))
        }
    };
    let websocket = match &config.mqtt.websocket {
        None => None,
        Some(web) => {
            let listener = bind("mqtt.websocket.listen", web.listen).await?;
            let door = Door::Web {
                tls: tls.as_ref().map(|(_, keys)| keys.clone()).filter(|_| web.tls),
                allowed_origins: web.allowed_origins.clone().into(),
            };
            Some((listener, door))
        }
    };
    let admin = bind("admin.listen", config.admin_listen).await?;
    Ok(Agent {
        config,
        buffer,
        sessions,
        mqtt,
        tls,
        websocket,
        admin,
        reload: Arc::default(),
    })
}

impl Agent {
    /// Where MQTT clients connect.
    pub fn mqtt_address(&self) -> std::io::Result<SocketAddr> {
        self.mqtt.local_addr()
    }

    /// Where MQTT clients connect in TLS.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls.as_ref()?.0.local_addr().ok()
    }

    /// Where MQTT clients connect in WebSocket.
    pub fn websocket_address(&self) -> Option<SocketAddr> {
        self.websocket.as_ref()?.0.local_addr().ok()
    }

    /// Where `/status` is served.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin.local_addr()
    }

    /// Each time it is notified, users, access lists, routes and locations are read again; if anything of the configuration
    /// cannot be used, all of the old stays.
    pub fn reload(&self) -> Arc<Notify> {
        self.reload.clone()
    }

    /// Runs until `stop`, or until a part of it fails, which is an error.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Agent {
            config,
            buffer: recovery::Opened { buffer, damaged },
            sessions,
            mqtt,
            tls,
            websocket,
            admin,
            reload,
        } = self;
        let (data_dir, kafka) = (config.data_dir.clone(), config.kafka);
        let boot_id = clock::boot_id();
        let reading = clock::read_machine(config.clock_source);
        let timekeeper = Timekeeper::begin(reading, &buffer, &boot_id).await?;
        let (clock, timeline) = (timekeeper.clock.clone(), timekeeper.timeline.clone());
        let rules = Arc::new(Rules::new(config.decoders, config.locations));
        let mut stages = Stages::default();
        let (alive, pulse) = (stages.add("mqtt"), stages.add("intake"));

        let (captures, presence) = (rules.clone(), presence::Presence::default());
        let settings = broker::Settings {
            access: Access::with_users(config.anonymous, config.users),
            captures: Box::new(move |topic| {
                captures.current().decoders.captures(topic) || presence.covers(topic)
            }),
            max_connections: config.mqtt.max_connections,
            address_limits: config.mqtt.limits,
            store: sessions,
            alive: Box::new(move || alive.beat()),
        };
        let (broker, captured) = Broker::new(settings, clock.clone());
        let losses = Arc::new(losses::Losses::default());
        let progress = Arc::new(forward::Progress::new(losses.clone()));
        let devices = Arc::new(devices::Devices::default());

        let tasks = Tasks::new(stop.clone());
        let taken = Arc::new(intake::Counters::default());
        let intake = intake::Intake::new(buffer.clone(), taken.clone(), losses.clone(), pulse)?;
        let intake = intake.run(captured);
        #[cfg(debug_assertions)]
        let intake = tasks::mortal("intake", intake);
        let mut intake = tokio::spawn(intake);
        tasks.spawn("buffer", {
            let (buffer, stop) = (buffer.clone(), stop.clone());
            async move {
                tokio::select! {
                    () = stop.cancelled() => Ok(()),
                    () = buffer.ended() => anyhow::bail!("a thread of the buffer panicked"),
                }
            }
        });
        let reporter = losses::Reporter {
            losses: losses.clone(),
            buffer: buffer.clone(),
            clock: clock.clone(),
            timeline: timeline.clone(),
            max_age: config.max_age,
        };
        tasks.spawn("losses", reporter.run(stop.clone()));
        let keys = tls.as_ref().map(|(_, keys)| keys.clone());
        let mut doors = vec![(mqtt, Door::Plain)];
        doors.extend(tls.map(|(listener, keys)| (listener, Door::Tls(keys))));
        doors.extend(websocket);
        tasks.spawn("mqtt", {
            let (broker, stop) = (broker.clone(), stop.clone());
            async move {
                broker.serve(doors, stop).await;
                Ok(())
            }
        });
        tasks.spawn(
            "rules",
            keep_rules(
                config.file,
                rules.clone(),
                keys,
                broker.clone(),
                reload,
                stop.clone(),
            ),
        );
        let letters = dead_letters::DeadLetters {
            agent: config.agent.clone(),
            kafka: kafka.clone(),
            rules: rules.clone(),
            buffer: buffer.clone(),
            clock: clock.clone(),
        };
        match control::bind(&data_dir) {
            Ok(listener) => tasks.spawn("control", {
                let stop = stop.clone();
                async move {
                    control::serve(listener, letters, stop)
                        .await
                        .context("serving the control socket")
                }
            }),
            Err(error) => {
                tracing::warn!(%error, "the control socket cannot be made: edge-agent dead-letters will not be answered");
            }
        }
        let lane = forward::Settings {
            agent: config.agent.clone(),
            kafka: kafka.clone(),
            clock_wait: config.clock_wait,
            boot_id,
            rules,
            pulse: stages.add("forward"),
        };
        tasks.spawn(
            "forward",
            forward::run(
                lane,
                buffer.clone(),
                timeline.clone(),
                progress.clone(),
                devices.clone(),
                stop.clone(),
            ),
        );
        tasks.spawn(
            "clock",
            timekeeper.run(config.clock_source, stages.add("clock"), stop.clone()),
        );
        let commanded = Arc::new(command::Counters::default());
        let commands = command::Commands {
            agent: config.agent.clone(),
            kafka: kafka.clone(),
            broker: broker.clone(),
            buffer: buffer.clone(),
            clock: clock.clone(),
            devices: devices.clone(),
            counters: commanded.clone(),
            pulse: stages.add("commands"),
        };
        tasks.spawn("commands", commands.run(stop.clone()));
        tasks.spawn(
            "buffer",
            watchdog::probe_buffer(buffer.clone(), stages.add("buffer"), stop.clone()),
        );
        let stages = Arc::new(stages);
        tasks.spawn("watchdog", {
            let (buffer, progress, broker) = (buffer.clone(), progress.clone(), broker.clone());
            let line = move || {
                let reached = match progress.unreachable.load(Ordering::Relaxed) {
                    true => "Redpanda cannot be reached",
                    false => "Redpanda is reached",
                };
                let (waiting, clients) = (buffer.stats().entries, broker.stats().connected);
                format!("{waiting} messages wait, {clients} clients are connected, {reached}")
            };
            watchdog::run(stages.clone(), line, stop.clone())
        });
        let rates = Arc::new(admin::Rates::default());
        tasks.spawn("rates", {
            let (rates, buffer, progress) = (rates.clone(), buffer.clone(), progress.clone());
            let stop = stop.clone();
            let read = move || {
                let delivered = progress.delivered.load(Ordering::Relaxed);
                (buffer.stats().committed_entries, delivered)
            };
            async move {
                rates.keep(read, stop).await;
                Ok(())
            }
        });
        let salvage = Arc::new(recovery::Salvage::default());
        tasks.spawn(
            "salvage",
            recovery::run(
                damaged,
                buffer.clone(),
                timeline.clone(),
                salvage.clone(),
                losses.clone(),
                stop.clone(),
            ),
        );
        tasks.spawn("admin", {
            let sources = admin::Sources {
                agent: config.agent,
                broker,
                buffer: buffer.clone(),
                kafka,
                progress,
                clock,
                timeline,
                salvage,
                devices,
                commanded,
                taken,
                stages,
                losses,
                rates,
                started: std::time::Instant::now(),
            };
            let stop = stop.clone();
            async move {
                admin::serve(admin, sources, stop)
                    .await
                    .context("serving the admin port")
            }
        });
        // The intake ends by itself when the broker is gone, and never before.
        let mut intake_ended = false;
        tokio::select! {
            () = stop.cancelled() => {}
            _ = &mut intake => intake_ended = true,
        }
        stop.cancel();
        let mut outcome = tasks.wait().await;
        if intake_ended {
            outcome = outcome.and(Err(anyhow::anyhow!("the intake panicked")));
        }

        // The broker is gone, so the intake ends when it has handed over what was captured.
        if !intake_ended && tokio::time::timeout(STOP_LIMIT, &mut intake).await.is_err() {
            tracing::warn!("captured messages were still waiting at the stop; their devices send them again");
        }
        tokio::task::spawn_blocking(move || buffer.close())
            .await
            .context("closing the buffer")?;
        if outcome.as_ref().is_err_and(is_damage) {
            recovery::mark_damaged(&data_dir);
        }
        outcome
    }
}

/// Reads the configuration again whenever `reload` is notified and takes users, access lists, routes and locations from it;
/// and the keys of TLS. What cannot be used stays as it was.
async fn keep_rules(
    file: impl AsRef<Path>,
    rules: Arc<Rules>,
    keys: Option<Arc<Tls>>,
    broker: Arc<Broker>,
    reload: Arc<Notify>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = reload.notified() => {}
        }
        match keys.as_ref().map(|keys| keys.reload()) {
            None => {}
            Some(Ok(())) => tracing::info!("the keys of mqtt.tls were read again"),
            Some(Err(error)) => {
                tracing::error!(%error, "the keys of mqtt.tls cannot be used; the old ones stay");
            }
        }
        match Config::load(file.as_ref(), |name| std::env::var(name).ok()) {
            Ok(config) => {
                broker.replace_users(config.users);
                rules.replace(config.decoders, config.locations);
                tracing::info!(
                    "users, access lists, routes and locations were read again; other settings wait for a start"
                );
            }
            Err(error) => tracing::error!(%error, "the configuration cannot be used; the old one stays"),
        }
    }
}

/// True when a part failed because the buffer's files are damaged.
fn is_damage(error: &anyhow::Error) -> bool {
    let mut causes = error
        .chain()
        .filter_map(|cause| cause.downcast_ref::<buffer::BufferError>());
    causes.any(buffer::BufferError::is_damage)
}
