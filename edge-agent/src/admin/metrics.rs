//! `/metrics`: the parts' own counters in the form Prometheus reads, filled when they are asked for.
//!
//! Labels have few known values; those of devices are bounded as the devices remembered are. Nothing is counted here.

use std::sync::{Mutex, PoisonError, atomic::Ordering};

use prometheus::{Encoder, Gauge, GaugeVec, IntCounter, IntGauge, Registry, TextEncoder};

use super::{Sources, rates::Current};
use crate::{broker::Refusal, devices::Known, losses::Reason};

/// Reads one figure from its part.
type Read = Box<dyn Fn(&Sources) -> u64 + Send + Sync>;
/// Reads one rate.
type ReadRate = fn(&Current) -> f64;
/// Reads what is known of a device, if it is.
type ReadDevice = fn(&Known) -> Option<f64>;

/// Metrics are filled from the parts' own counters when they are asked for.
pub struct Metrics {
    registry: Registry,
    scrape: Mutex<()>,
    counters: Vec<(IntCounter, Read)>,
    gauges: Vec<(IntGauge, Read)>,
    rates: Vec<(Gauge, ReadRate)>,
    by_device: Vec<(GaugeVec, ReadDevice)>,
}

impl Metrics {
    /// All at zero.
    pub fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::new(),
            scrape: Mutex::default(),
            counters: Vec::new(),
            gauges: Vec::new(),
            rates: Vec::new(),
            by_device: Vec::new(),
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
        metrics.counter(
            "mqtt_address_refusals_total",
            "Client connections refused because their address had too many.",
            |s| load(&s.broker.counters.address_refusals),
        );
        metrics.counter(
            "mqtt_failed_logins_total",
            "Logins with a wrong user or password, or not checked because there were too many of them.",
            |s| load(&s.broker.counters.failed_logins),
        );
        metrics.counter(
            "mqtt_throttled_messages_total",
            "Messages after which their address was read more slowly.",
            |s| load(&s.broker.counters.throttled),
        );
        metrics.counter(
            "mqtt_slow_subscribers_total",
            "Times a subscriber began to lose messages because its queue was full.",
            |s| s.broker.stats().slow_subscribers,
        );
        metrics.counter(
            "mqtt_store_commits_total",
            "Commits of sessions and retained messages.",
            |s| load(&s.broker.store.commits),
        );
        metrics.counter(
            "mqtt_store_failed_commits_total",
            "Commits of sessions and retained messages the disk refused.",
            |s| load(&s.broker.store.failed),
        );
        metrics.counter(
            "mqtt_store_replaced_total",
            "Damaged stores of sessions that were moved aside.",
            |s| load(&s.broker.store.replaced),
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
        metrics.counter(
            "mqtt_evicted_sessions_total",
            "Sessions of absent clients, with what waited for them, that made room for new ones.",
            |s| s.broker.stats().sessions_evicted,
        );
        metrics.counter(
            "mqtt_retained_refused_messages_total",
            "Retained messages for which there was no room.",
            |s| s.broker.stats().retained_refused,
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
            "forward_refused_batches_total",
            "Batches Redpanda refused whole, whose records were then sent one by one.",
            |s| load(&s.progress.refused_batches),
        );
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
        for reason in Reason::ALL {
            let help = "Messages refused, dropped or damaged.";
            metrics.labelled_counter(
                "buffer_lost_messages_total",
                help,
                reason.word(),
                move |s: &Sources| s.losses.count(reason),
            );
        }
        for reason in Refusal::ALL {
            let help = "What was refused to MQTT clients: connections, messages, subscriptions.";
            metrics.labelled_counter("mqtt_refusals_total", help, reason.word(), move |s: &Sources| {
                s.broker.visitors.refusals(reason)
            });
        }
        metrics.gauge("buffer_refusing", "1 while captured messages are refused.", |s| {
            u64::from(s.buffer.refusing().is_some())
        });
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
        metrics.counter(
            "clock_steps_total",
            "Times the wall clock was stepped while it was known.",
            |s| s.clock.steps().0,
        );
        metrics.rate(
            "buffer_committed_messages_per_second",
            "Messages committed to disk, over the last minute.",
            |current| current.in_per_second,
        );
        metrics.rate(
            "forward_delivered_messages_per_second",
            "Messages confirmed by Redpanda, over the last minute.",
            |current| current.out_per_second,
        );
        metrics.labelled_gauge(
            "device_last_seen_timestamp_seconds",
            "When a reading of the device was decoded last.",
            |known| Some(known.last_seen?.timestamp_micros() as f64 / 1e6),
        );
        metrics.labelled_gauge(
            "device_online",
            "1 for a device that said it is there, 0 for one that went.",
            |known| Some(if known.presence?.online { 1.0 } else { 0.0 }),
        );
        metrics.gauge("clock_synced", "1 once the wall clock is known.", |s| {
            u64::from(s.clock.is_synced())
        });
        metrics
    }

    fn counter(&mut self, name: &str, help: &str, read: impl Fn(&Sources) -> u64 + Send + Sync + 'static) {
        let counter = IntCounter::new(format!("edge_agent_{name}"), help).expect("the name is a constant");
        self.registry
            .register(Box::new(counter.clone()))
            .expect("every name is used once");
        self.counters.push((counter, Box::new(read)));
    }

    fn labelled_counter(
        &mut self,
        name: &str,
        help: &str,
        reason: &str,
        read: impl Fn(&Sources) -> u64 + Send + Sync + 'static,
    ) {
        let options = prometheus::Opts::new(format!("edge_agent_{name}"), help).const_label("reason", reason);
        let counter = IntCounter::with_opts(options).expect("name and label are constants");
        self.registry
            .register(Box::new(counter.clone()))
            .expect("every name is used once with a label");
        self.counters.push((counter, Box::new(read)));
    }

    fn gauge(&mut self, name: &str, help: &str, read: impl Fn(&Sources) -> u64 + Send + Sync + 'static) {
        let gauge = IntGauge::new(format!("edge_agent_{name}"), help).expect("the name is a constant");
        self.registry
            .register(Box::new(gauge.clone()))
            .expect("every name is used once");
        self.gauges.push((gauge, Box::new(read)));
    }

    fn rate(&mut self, name: &str, help: &str, read: ReadRate) {
        let gauge = Gauge::new(format!("edge_agent_{name}"), help).expect("the name is a constant");
        self.registry
            .register(Box::new(gauge.clone()))
            .expect("every name is used once");
        self.rates.push((gauge, read));
    }

    /// One value for each device.
    fn labelled_gauge(&mut self, name: &str, help: &str, read: ReadDevice) {
        let options = prometheus::Opts::new(format!("edge_agent_{name}"), help);
        let gauge = GaugeVec::new(options, &["device"]).expect("name and label are constants");
        self.registry
            .register(Box::new(gauge.clone()))
            .expect("every name is used once");
        self.by_device.push((gauge, read));
    }

    /// The page.
    pub fn render(&self, sources: &Sources) -> prometheus::Result<Vec<u8>> {
        // Two scrapes at once would count twice, and see half of the devices.
        let _one = self.scrape.lock().unwrap_or_else(PoisonError::into_inner);
        for (counter, read) in &self.counters {
            counter.inc_by(read(sources).saturating_sub(counter.get()));
        }
        for (gauge, read) in &self.gauges {
            gauge.set(i64::try_from(read(sources)).unwrap_or(i64::MAX));
        }
        let current = sources.rates.current();
        for (gauge, read) in &self.rates {
            gauge.set(read(&current));
        }
        let devices = sources.devices.all();
        for (gauge, read) in &self.by_device {
            gauge.reset();
            for known in &devices {
                if let Some(value) = read(known) {
                    gauge.with_label_values(&[known.device_id.as_str()]).set(value);
                }
            }
        }
        let mut out = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut out)?;
        Ok(out)
    }
}

fn load(counter: &std::sync::atomic::AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
