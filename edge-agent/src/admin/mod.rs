//! The operator's view: `/livez`, `/readyz`, `/metrics`, `/status` and `/devices` on a port of its own.
//!
//! Read only, and never a payload or a secret. Bind it to loopback or to a network only Prometheus reaches.

mod metrics;
mod rates;

use std::sync::{Arc, Mutex, atomic::Ordering};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::{Broker, Refusal},
    buffer::Buffer,
    clock,
    clock::Timeline,
    command,
    devices::Devices,
    forward::Progress,
    intake,
    kafka::Kafka,
    losses::{Losses, Reason},
    recovery::Salvage,
    watchdog::Stages,
};
use metrics::Metrics;
pub use rates::Rates;

/// What the pages are made from.
pub struct Sources {
    /// Name of this agent.
    pub agent: String,
    /// The broker.
    pub broker: Arc<Broker>,
    /// The buffer.
    pub buffer: Buffer,
    /// How Redpanda is reached.
    pub kafka: Kafka,
    /// The lane to Redpanda.
    pub progress: Arc<Progress>,
    /// The clock.
    pub clock: Arc<clock::Clock>,
    /// Times of messages.
    pub timeline: Arc<Mutex<Timeline>>,
    /// What is salvaged of damaged buffers.
    pub salvage: Arc<Salvage>,
    /// Who was heard.
    pub devices: Arc<Devices>,
    /// What was commanded.
    pub commanded: Arc<command::Counters>,
    /// What was taken in.
    pub taken: Arc<intake::Counters>,
    /// What may hang.
    pub stages: Arc<Stages>,
    /// What was lost.
    pub losses: Arc<Losses>,
    /// What came and went lately.
    pub rates: Arc<Rates>,
    /// When the agent started.
    pub started: std::time::Instant,
}

/// Serves until `stop`.
pub async fn serve(listener: TcpListener, sources: Sources, stop: CancellationToken) -> std::io::Result<()> {
    let shared = Arc::new(Shared {
        metrics: Metrics::new(),
        sources,
    });
    let router = Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .route("/devices", get(devices))
        .with_state(shared);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

struct Shared {
    metrics: Metrics,
    sources: Sources,
}

/// Alive means: no stage hangs.
async fn livez(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    answer(shared.sources.stages.hanging())
}

/// Ready means: what devices send is kept. Redpanda away is no reason, a disk that cannot be written is one.
async fn readyz(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    answer(shared.failing())
}

fn answer(failing: Vec<&'static str>) -> impl IntoResponse {
    if failing.is_empty() {
        (StatusCode::OK, Json(json!({"status": "ok"})))
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(json!({"status": "unavailable", "failing": failing})),
        )
    }
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<Value> {
    Json(shared.status())
}

async fn devices(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let Sources {
        agent,
        devices,
        broker,
        ..
    } = &shared.sources;
    Json(json!({
        "agent": agent,
        "time": chrono::Utc::now(),
        "devices": devices.all(),
        "clients": broker.visitors.clients(),
        "not_let_in": broker.visitors.strangers(),
        "not_decoded": devices.undecoded(),
    }))
}

async fn metrics(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    match shared.metrics.render(&shared.sources) {
        Ok(text) => (
            StatusCode::OK,
            [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
            text,
        )
            .into_response(),
        Err(error) => {
            tracing::error!(%error, "metrics could not be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

impl Shared {
    fn failing(&self) -> Vec<&'static str> {
        if self.sources.buffer.is_broken() || self.sources.buffer.refusing().is_some() {
            vec!["buffer"]
        } else {
            Vec::new()
        }
    }

    fn status(&self) -> Value {
        let Sources {
            agent,
            broker,
            buffer,
            progress,
            clock,
            started,
            ..
        } = &self.sources;
        let (buffered, mqtt) = (buffer.stats(), broker.stats());
        let count = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
        json!({
            "agent": agent,
            "version": env!("CARGO_PKG_VERSION"),
            "uptime_seconds": started.elapsed().as_secs(),
            "failing": self.failing(),
            "buffer": {
                "entries": buffered.entries,
                "bytes_on_disk": buffered.bytes_on_disk,
                "oldest_age_seconds": self.sources.oldest_age_seconds(),
                "failed_commits": buffered.failed_commits,
                "refusing": buffer.refusing().map(|why| why.to_string()),
                "lost": Reason::ALL.map(|reason| (reason.word(), self.sources.losses.count(reason))).into_iter()
                    .collect::<std::collections::BTreeMap<_, _>>(),
                "salvaged": count(&self.sources.salvage.messages),
                "damaged_buffers_waiting": count(&self.sources.salvage.waiting),
                "epoch": format!("{:08x}", buffer.epoch()),
            },
            "forward": {
                "to": self.sources.kafka.description(),
                "reachable": !progress.unreachable.load(Ordering::Relaxed),
                "delivered": count(&progress.delivered),
                "dead_letters": count(&progress.dead_letters),
                "restarts": count(&progress.restarts),
                "refused_batches": count(&progress.refused_batches),
                "blocked": progress.blocked(),
                "last_error": progress.last_error(),
                "last_error_at": progress.last_error_at(),
            },
            "rates": self.sources.rates.current(),
            "mqtt": {
                "connected": mqtt.connected,
                "sessions": mqtt.sessions,
                "retained": mqtt.retained,
                "backlog": mqtt.backlog,
                "received": count(&broker.counters.received),
                "captured": count(&broker.counters.captured),
                "denied": count(&broker.counters.denied),
                "queue_full": mqtt.queue_full,
                "slow_subscribers": mqtt.slow_subscribers,
                "sessions_evicted": mqtt.sessions_evicted,
                "retained_refused": mqtt.retained_refused,
                "failed_logins": count(&broker.counters.failed_logins),
                "throttled": count(&broker.counters.throttled),
                "refusals": Refusal::ALL.map(|reason| (reason.word(), broker.visitors.refusals(reason))).into_iter()
                    .collect::<std::collections::BTreeMap<_, _>>(),
                "store": {
                    "bytes_on_disk": count(&broker.store.bytes),
                    "commits": count(&broker.store.commits),
                    "failed_commits": count(&broker.store.failed),
                    "replaced": count(&broker.store.replaced),
                    "unreadable": count(&broker.store.unreadable),
                },
                "redelivered": count(&self.sources.taken.redelivered),
                "refused": count(&self.sources.taken.refused),
            },
            "commands": {
                "published": count(&self.sources.commanded.published),
                "not_published": count(&self.sources.commanded.not_published),
                "malformed": count(&self.sources.commanded.malformed),
            },
            "devices": self.sources.devices.all(),
            "clock": {
                "synced": clock.is_synced(),
                "segment": clock.segment().0,
                "steps": clock.steps().0,
                "last_step_seconds": clock.steps().1,
                "unsynced_messages": count(&progress.unsynced),
            },
        })
    }
}

impl Sources {
    /// Age of the oldest message not confirmed; `None` when there is none or its age is not known.
    fn oldest_age_seconds(&self) -> Option<f64> {
        let stamp = self.progress.oldest()?;
        let resolved = self.timeline.lock().ok()?.resolve(stamp)?;
        Some((chrono::Utc::now() - resolved.time).as_seconds_f64().max(0.0))
    }
}
