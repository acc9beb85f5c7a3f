//! Live readings and events from Redpanda to authenticated WebSocket clients. The interface is docs/API.md.
//!
//! One consumer for the whole process, however many clients: it reads all partitions without a consumer group and
//! gives each record, written as JSON once, to every client that wants it. A bounded window of recent records lets
//! a client that reconnects with its last cursor have what it missed, once and in order per device; what is older is
//! a `gap`, and the client asks homelab-api.
//!
//! ```text
//! Kafka -> feed -> hub: window (2,000 records a partition) -> a client that comes back
//!                     \ ring (4,096 records)               -> sessions: scope, device filter -> sockets
//! ```
//!
//! It never waits for a slow client, never lets a connection outlive its token, never believes a header as proof of
//! identity, never logs a token, and never writes to Kafka or to a database.

mod config;
mod feed;
mod handshake;
mod hub;
mod metrics;
mod position;
mod protocol;
mod seats;
mod session;
mod stream;

use std::sync::Arc;

use anyhow::Context;
use axum::Router;
use axum::routing::get;
use rustix::process::{Resource, getrlimit, setrlimit};
use service::{Health, Lifecycle, Verifier, http, metrics::admin_router, server};
use tokio::net::TcpListener;

pub use config::Settings;

/// The bound ports.
pub struct Sockets {
    /// For clients.
    pub public: TcpListener,
    /// For probes and metrics.
    pub admin: TcpListener,
}

/// Binds both ports and starts the service on `lifecycle`.
pub async fn build(settings: Settings, lifecycle: Lifecycle) -> anyhow::Result<()> {
    keep_messages_out_of_the_log();
    allow_open_files();
    let sockets = Sockets {
        public: server::bind(settings.listen_address).await?,
        admin: server::bind(settings.metrics_address).await?,
    };
    run(settings, sockets, lifecycle)
}

/// At `trace` tungstenite logs every message it reads, tokens among them. It is the one part here that logs through the
/// `log` crate and knows messages, so that crate ends at `debug`, whatever `LOG_LEVEL` says.
fn keep_messages_out_of_the_log() {
    log::set_max_level(log::max_level().min(log::LevelFilter::Debug));
}

/// A shell's usual limit of 1,024 open files is below the [`seats::CONNECTIONS`] there may be; what the system allows
/// beyond it is taken. Where it allows no more, connections wait in the kernel's queue.
fn allow_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files stays as it is: {error}");
    }
}

/// Starts feed, public and admin port on `lifecycle`; the sockets are the caller's, already bound.
pub fn run(settings: Settings, sockets: Sockets, lifecycle: Lifecycle) -> anyhow::Result<()> {
    let health = Health::new(&lifecycle);
    let registry = service::Metrics::new("energy_ws");
    let stop = lifecycle.token();
    let shared = Arc::new(session::Shared {
        hub: hub::Hub::default(),
        verifier: Verifier::start(settings.auth, &lifecycle, &health, &registry)?,
        seats: seats::Seats::new(settings.user_connections),
        metrics: metrics::Metrics::new(&registry, &health),
        ping_after: settings.ping_after,
        stop: stop.clone(),
    });
    let consumer = feed::consumer(&settings.kafka, shared.clone()).context("cannot create the consumer")?;
    let door = handshake::Door {
        shared: shared.clone(),
        lifecycle: lifecycle.clone(),
        allowed_origins: settings.allowed_origins.into(),
    };
    let router = Router::new()
        .route("/ws/energy", get(handshake::connect))
        .with_state(door)
        .merge(health.router());
    let router = http::shell(router, &registry);

    lifecycle.spawn("feed", feed::run(consumer, shared, stop.clone()));
    lifecycle.spawn("public", server::serve(sockets.public, router, stop.clone()));
    lifecycle.spawn(
        "admin",
        server::serve(sockets.admin, admin_router(&health, &registry), stop),
    );
    tracing::info!("energy-ws runs");
    Ok(())
}
