//! The operator's view: `/livez`, `/readyz`, `/metrics` and `/status` on a port of its own.
//!
//! Read only, and never a payload or a secret. Bind it to loopback or to a network only Prometheus reaches.

use std::sync::{Arc, Mutex, atomic::Ordering};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus::{Encoder, IntCounter, IntGauge, Registry, TextEncoder};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    broker::Broker, buffer::Buffer, clock, clock::Timeline, command, devices::Devices, forward::Progress,
    intake, recovery::Salvage,
};

/// What the pages are made from.
pub struct Sources {
    /// Name of this agent.
    pub agent: String,
    /// The broker.
    pub broker: Arc<Broker>,
    /// The buffer.
    pub buffer: Buffer,
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
        .route("/livez", get(|| async { Json(json!({"status": "ok"})) }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/status", get(status))
        .with_state(shared);
    axum::serve(listener, router)
        .with_graceful_shutdown(async move { stop.cancelled().await })
        .await
}

struct Shared {
    metrics: Metrics,
    sources: Sources,
}

/// Ready means: what devices send is kept. Redpanda away is no reason, a disk that cannot be written is one.
async fn readyz(State(shared): State<Arc<Shared>>) -> impl IntoResponse {
    let failing = shared.failing();
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
        if self.sources.buffer.is_broken() {
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
                "salvaged": count(&self.sources.salvage.messages),
                "damaged_buffers_waiting": count(&self.sources.salvage.waiting),
                "epoch": format!("{:08x}", buffer.epoch()),
            },
            "forward": {
                "reachable": !progress.unreachable.load(Ordering::Relaxed),
                "delivered": count(&progress.delivered),
                "dead_letters": count(&progress.dead_letters),
                "restarts": count(&progress.restarts),
                "last_error": progress.last_error(),
            },
            "mqtt": {
                "connected": mqtt.connected,
                "sessions": mqtt.sessions,
                "retained": mqtt.retained,
                "backlog": mqtt.backlog,
                "received": count(&broker.counters.received),
                "captured": count(&broker.counters.captured),
                "denied": count(&broker.counters.denied),
                "redelivered": count(&self.sources.taken.redelivered),
                "refused": count(&self.sources.taken.refused),
            },
            "commands": {
                "published": count(&self.sources.commanded.published),
                "not_published": count(&self.sources.commanded.not_published),
                "malformed": count(&self.sources.commanded.malformed),
            },
            "devices": self.sources.devices.all().into_iter().map(|(device, seen)| json!({
                "device_id": device,
                "family": seen.family,
                "last_seen": seen.last_seen,
            })).collect::<Vec<_>>(),
            "clock": { "synced": clock.is_synced(), "segment": clock.segment().0 },
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

/// Reads one figure from its part.
type Read = fn(&Sources) -> u64;

/// Metrics are filled from the parts' own counters when they are asked for.
struct Metrics {
    registry: Registry,
    counters: Vec<(IntCounter, Read)>,
    gauges: Vec<(IntGauge, Read)>,
}

impl Metrics {
    fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::new(),
            counters: Vec::new(),
            gauges: Vec::new(),
        };
        metrics.counter("mqtt_connections_total", "Client connections accepted.", |s| {
            load(&s.broker.counters.connections)
        });
        metrics.counter(
            "mqtt_refused_connections_total",
            "Client connections refused.",
            |s| load(&s.broker.counters.refused_connections),
        );
        metrics.counter(
            "mqtt_protocol_errors_total",
            "Connections closed for a broken rule of MQTT.",
            |s| load(&s.broker.counters.protocol_errors),
        );
        metrics.counter("mqtt_received_messages_total", "Publishes received.", |s| {
            load(&s.broker.counters.received)
        });
        metrics.counter(
            "mqtt_captured_messages_total",
            "Publishes received on captured topics.",
            |s| load(&s.broker.counters.captured),
        );
        metrics.counter(
            "mqtt_denied_messages_total",
            "Publishes the sender had no right to.",
            |s| load(&s.broker.counters.denied),
        );
        metrics.counter(
            "mqtt_oversize_messages_total",
            "Payloads above the capture limit.",
            |s| load(&s.broker.counters.oversize),
        );
        metrics.counter(
            "mqtt_routed_messages_total",
            "Messages routed to subscribers.",
            |s| s.broker.stats().routed,
        );
        metrics.counter(
            "mqtt_queue_full_messages_total",
            "Messages lost to subscribers whose queue was full.",
            |s| s.broker.stats().queue_full,
        );
        metrics.counter(
            "mqtt_undeliverable_messages_total",
            "Messages expired or too large for a subscriber.",
            |s| s.broker.stats().undeliverable,
        );
        metrics.counter("buffer_commits_total", "Group commits.", |s| {
            s.buffer.stats().commits
        });
        metrics.counter(
            "buffer_committed_messages_total",
            "Messages committed to disk.",
            |s| s.buffer.stats().committed_entries,
        );
        metrics.counter(
            "buffer_failed_commits_total",
            "Group commits the disk refused.",
            |s| s.buffer.stats().failed_commits,
        );
        metrics.counter(
            "forward_delivered_messages_total",
            "Messages confirmed by Redpanda.",
            |s| load(&s.progress.delivered),
        );
        metrics.counter("forward_records_total", "Records produced.", |s| {
            load(&s.progress.records)
        });
        metrics.counter(
            "forward_nothing_messages_total",
            "Messages with nothing to record.",
            |s| load(&s.progress.nothing),
        );
        metrics.counter("forward_dead_letters_total", "Dead letters written.", |s| {
            load(&s.progress.dead_letters)
        });
        metrics.counter(
            "forward_unreadable_messages_total",
            "Buffered messages that could not be read.",
            |s| load(&s.progress.unreadable),
        );
        metrics.counter("forward_restarts_total", "Times forwarding began again.", |s| {
            load(&s.progress.restarts)
        });
        metrics.counter(
            "intake_redelivered_messages_total",
            "Redeliveries recognised.",
            |s| load(&s.taken.redelivered),
        );
        metrics.counter(
            "intake_refused_messages_total",
            "Captured messages that were not kept.",
            |s| load(&s.taken.refused),
        );
        metrics.counter(
            "commands_published_total",
            "Commands published to a device.",
            |s| load(&s.commanded.published),
        );
        metrics.counter(
            "commands_not_published_total",
            "Commands answered with another outcome.",
            |s| load(&s.commanded.not_published),
        );
        metrics.counter(
            "buffer_salvaged_messages_total",
            "Messages salvaged from damaged buffers.",
            |s| load(&s.salvage.messages),
        );
        metrics.counter(
            "forward_unsynced_messages_total",
            "Messages that went out without a known time.",
            |s| load(&s.progress.unsynced),
        );
        metrics.gauge("mqtt_connected_clients", "Clients connected.", |s| {
            s.broker.stats().connected as u64
        });
        metrics.gauge("mqtt_sessions", "Sessions kept.", |s| {
            s.broker.stats().sessions as u64
        });
        metrics.gauge("mqtt_retained_messages", "Retained messages.", |s| {
            s.broker.stats().retained as u64
        });
        metrics.gauge("buffer_messages", "Messages in the buffer.", |s| {
            s.buffer.stats().entries
        });
        metrics.gauge("buffer_disk_bytes", "Bytes of the buffer on disk.", |s| {
            s.buffer.stats().bytes_on_disk
        });
        metrics.gauge(
            "buffer_oldest_age_seconds",
            "Age of the oldest message not confirmed.",
            |s| s.oldest_age_seconds().unwrap_or(0.0) as u64,
        );
        metrics.gauge("forward_reachable", "1 while Redpanda is reached.", |s| {
            u64::from(!s.progress.unreachable.load(Ordering::Relaxed))
        });
        metrics.gauge("clock_synced", "1 once the wall clock is known.", |s| {
            u64::from(s.clock.is_synced())
        });
        metrics
    }

    fn counter(&mut self, name: &str, help: &str, read: Read) {
        let counter = IntCounter::new(format!("edge_agent_{name}"), help).expect("the name is a constant");
        self.registry
            .register(Box::new(counter.clone()))
            .expect("every name is used once");
        self.counters.push((counter, read));
    }

    fn gauge(&mut self, name: &str, help: &str, read: Read) {
        let gauge = IntGauge::new(format!("edge_agent_{name}"), help).expect("the name is a constant");
        self.registry
            .register(Box::new(gauge.clone()))
            .expect("every name is used once");
        self.gauges.push((gauge, read));
    }

    fn render(&self, sources: &Sources) -> prometheus::Result<Vec<u8>> {
        for (counter, read) in &self.counters {
            counter.inc_by(read(sources).saturating_sub(counter.get()));
        }
        for (gauge, read) in &self.gauges {
            gauge.set(i64::try_from(read(sources)).unwrap_or(i64::MAX));
        }
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

fn load(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
