//! The edge agent: an MQTT broker that keeps every reading on disk and forwards it to Redpanda.
//!
//! The way of a reading, in the order of the modules:
//!
//! ```text
//! broker   a device publishes; the topic is captured
//! intake   the payload, as sent, with a stamp of `clock`, becomes an entry
//! buffer   a group commit puts it on disk; now, and only now, the device gets its PUBACK
//! forward  oldest first: the time is settled, `decode` makes records of it, Redpanda confirms, the entry is removed
//! command  the other way: what the settings API wants of a device, at most once
//! admin    what an operator sees of all this
//! ```
//!
//! `broker`, `buffer` and `forward` do not know each other; this file joins them. The agent never drops a message it has
//! acknowledged, never decodes before the disk, and never sets a device's command topics on another device's word.

pub mod admin;
pub mod broker;
pub mod buffer;
pub mod clock;
pub mod command;
pub mod config;
pub mod decode;
pub mod devices;
pub mod forward;
pub mod intake;
pub mod message;
pub mod presence;
pub mod recovery;
pub mod redelivery;
mod tasks;
mod timekeeping;
pub mod topic_filter;

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{net::TcpListener, sync::Notify};
use tokio_util::sync::CancellationToken;

use broker::{Access, Broker, Users};
use config::Config;
use tasks::Tasks;

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
    mqtt: TcpListener,
    admin: TcpListener,
    reload: Arc<Notify>,
}

/// Opens the buffer and binds the ports. Ports may be 0: see [`Agent::mqtt_address`].
pub async fn build(config: Config) -> anyhow::Result<Agent> {
    std::fs::create_dir_all(&config.data_dir)
        .with_context(|| format!("data_dir: creating {}", config.data_dir.display()))?;
    let buffer = recovery::open(&config.data_dir, &config.buffer)?;
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
        reload: Arc::default(),
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

    /// Each time it is notified, users and access lists are read again; if they cannot be used, the old ones stay.
    pub fn reload(&self) -> Arc<Notify> {
        self.reload.clone()
    }

    /// Runs until `stop`, or until a part of it fails, which is an error.
    pub async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let Agent {
            config,
            buffer: recovery::Opened { buffer, damaged },
            mqtt,
            admin,
            reload,
        } = self;
        let (data_dir, bootstrap) = (config.data_dir.clone(), config.kafka_bootstrap);
        let boot_id = clock::boot_id();
        let (clock, timeline) = timekeeping::begin(config.clock_source, &buffer, &boot_id).await?;
        let decoders = Arc::new(config.decoders);

        let (captures, presence) = (decoders.clone(), presence::Presence::default());
        let settings = broker::Settings {
            access: Access::with_users(config.anonymous, config.users),
            captures: Box::new(move |topic| captures.captures(topic) || presence.covers(topic)),
            max_connections: config.max_connections,
        };
        let (broker, captured) = Broker::new(settings, clock.clone());
        let progress = Arc::new(forward::Progress::default());
        let devices = Arc::new(devices::Devices::default());

        let tasks = Tasks::new(stop.clone());
        let taken = Arc::new(intake::Counters::default());
        let intake = intake::Intake::new(buffer.clone(), config.buffer.max_bytes, taken.clone())?;
        let intake = tokio::spawn(intake.run(captured));
        tasks.spawn("mqtt", {
            let (broker, stop) = (broker.clone(), stop.clone());
            async move {
                broker.serve(mqtt, stop).await;
                Ok(())
            }
        });
        tasks.spawn(
            "users",
            keep_users(config.users_file, broker.clone(), reload, stop.clone()),
        );
        let lane = forward::Settings {
            agent: config.agent.clone(),
            bootstrap: bootstrap.clone(),
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
                devices.clone(),
                stop.clone(),
            ),
        );
        tasks.spawn(
            "clock",
            timekeeping::keep(
                config.clock_source,
                clock.clone(),
                timeline.clone(),
                buffer.clone(),
                boot_id,
                stop.clone(),
            ),
        );
        let commanded = Arc::new(command::Counters::default());
        let commands = command::Commands {
            agent: config.agent.clone(),
            bootstrap: bootstrap.clone(),
            broker: broker.clone(),
            buffer: buffer.clone(),
            clock: clock.clone(),
            devices: devices.clone(),
            counters: commanded.clone(),
        };
        tasks.spawn("commands", commands.run(stop.clone()));
        let salvage = Arc::new(recovery::Salvage::default());
        tasks.spawn(
            "salvage",
            recovery::run(
                damaged,
                buffer.clone(),
                timeline.clone(),
                salvage.clone(),
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
                salvage,
                devices,
                commanded,
                taken,
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
        if outcome.as_ref().is_err_and(is_damage) {
            recovery::mark_damaged(&data_dir);
        }
        outcome
    }
}

/// Reads users and access lists again whenever `reload` is notified.
async fn keep_users(
    file: Option<PathBuf>,
    broker: Arc<Broker>,
    reload: Arc<Notify>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = reload.notified() => {}
        }
        let Some(file) = &file else {
            tracing::info!("there is no mqtt.users_file to read again");
            continue;
        };
        match Users::load(file) {
            Ok(users) => {
                broker.replace_users(users);
                tracing::info!("users and access lists were read again");
            }
            Err(error) => tracing::error!(%error, "users and access lists cannot be used; the old ones stay"),
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
