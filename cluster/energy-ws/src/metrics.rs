//! What the service counts.

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};
use service::{Check, Health};

use crate::protocol::{Close, Skipped};
use crate::stream::Stream;

/// Buckets of the time from the broker's append to the ring, in seconds.
const DELAY_SECONDS: [f64; 9] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 5.0];

/// All metrics, and the two checks of readiness besides the issuer's.
pub struct Metrics {
    /// Messages of records sent, over all clients.
    pub messages_sent: IntCounter,
    /// Tokens that were not accepted.
    pub refused_tokens: IntCounter,
    /// Handshakes refused for their origin.
    pub refused_origins: IntCounter,
    /// Gaps clients were told of.
    pub gaps: IntCounter,
    /// Times a partition did not go on with the next offset.
    pub breaks: IntCounter,
    /// Records that came again under the same id and were not sent again.
    pub repeated: IntCounter,
    /// Times a session fell behind the ring and went on from the window.
    pub catch_ups: IntCounter,
    /// Open connections.
    pub clients: IntGauge,
    /// Time from the broker's append to the ring.
    pub delay: Histogram,
    /// Errors the consumer reported.
    pub consume_errors: IntCounter,
    records: IntCounterVec,
    skipped: IntCounterVec,
    closes: IntCounterVec,
    broker_up: IntGauge,
    broker: Check,
    streams: Check,
}

impl Metrics {
    /// Registers every metric and both checks; the known labels are there from the start, at zero.
    pub fn new(metrics: &service::Metrics, health: &Health) -> Self {
        let records = metrics.counters(
            "records_total",
            "Records read from Kafka and sent on.",
            &["stream"],
        );
        let skipped = metrics.counters("records_skipped_total", "Records that are not sent.", &["reason"]);
        let closes = metrics.counters(
            "closes_total",
            "Connections that ended, by close code.",
            &["code"],
        );
        for stream in Stream::ALL {
            records.with_label_values(&[stream.name()]);
        }
        for reason in Skipped::ALL {
            skipped.with_label_values(&[reason.as_str()]);
        }
        for close in Close::ALL {
            closes.with_label_values(&[&close.code().to_string()]);
        }
        closes.with_label_values(&["client"]);
        Self {
            messages_sent: metrics.counter(
                "messages_sent_total",
                "Messages of records sent, over all clients.",
            ),
            refused_tokens: metrics.counter("refused_tokens_total", "Tokens that were not accepted."),
            refused_origins: metrics.counter("refused_origins_total", "Handshakes refused for their origin."),
            gaps: metrics.counter("gaps_total", "Gaps clients were told of."),
            breaks: metrics.counter(
                "breaks_total",
                "Times records were deleted before they were read, or a topic was made anew.",
            ),
            catch_ups: metrics.counter(
                "catch_ups_total",
                "Times a session fell behind the ring and went on from the window.",
            ),
            repeated: metrics.counter(
                "records_repeated_total",
                "Records that came again under the same id and were not sent again.",
            ),
            clients: metrics.gauge("clients_count", "Open connections."),
            delay: metrics.histogram(
                "delay_seconds",
                "Time from the broker's append of a record to its being offered to clients.",
                &DELAY_SECONDS,
            ),
            consume_errors: metrics.counter("consume_errors_total", "Errors the consumer reported."),
            records,
            skipped,
            closes,
            broker_up: metrics.gauge("broker_up", "1 while a broker is connected."),
            broker: health.check("broker"),
            streams: health.check("streams"),
        }
    }

    /// A record was sent on.
    pub fn record(&self, stream: Stream) {
        self.records.with_label_values(&[stream.name()]).inc();
    }

    /// A record is not sent.
    pub fn skipped(&self, reason: Skipped) {
        self.skipped.with_label_values(&[reason.as_str()]).inc();
    }

    /// A connection ended, with a close code of ours or by the client.
    pub fn closed(&self, code: &str) {
        self.closes.with_label_values(&[code]).inc();
    }

    /// A broker is connected, or none is.
    pub fn broker_is(&self, up: bool) {
        self.broker.set(up);
        self.broker_up.set(up.into());
    }

    /// The window holds what was in the topics at the start.
    pub fn streams_loaded(&self) {
        self.streams.set(true);
    }
}
