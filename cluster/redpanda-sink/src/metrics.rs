//! What the sink counts, and the two checks readiness is made of. Lag and broker state come from librdkafka's
//! statistics, the rest from the pipeline.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
use service::{Check, Health};

use crate::classify::{Reason, Source};
use crate::write::Written;

/// Buckets of the insert time in seconds: from one small batch on fast storage to the limit of an attempt.
const INSERT_SECONDS: [f64; 11] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0];

/// Buckets of the batch size: from the trickle of a quiet house to a batch that takes no more.
const BATCH_RECORDS: [f64; 6] = [1.0, 10.0, 100.0, 1_000.0, 2_000.0, 4_000.0];

/// `oldest_appended_ms` while nothing is in hand.
const NOTHING_IN_HAND: i64 = i64::MAX;

/// All metrics of the sink.
pub struct Metrics {
    rows_inserted: IntCounter,
    duplicates: IntCounter,
    batches: IntCounter,
    batch_records: Histogram,
    copied_rows: IntCounter,
    insert_seconds: Histogram,
    dead_letters: IntCounterVec,
    lag: IntGaugeVec,
    seconds_behind: IntGauge,
    database_up: IntGauge,
    broker_up: IntGauge,
    /// Failed attempts at the database.
    pub database_failures: IntCounter,
    /// Errors the consumer reported.
    pub consume_errors: IntCounter,
    /// Times partitions were given or taken.
    pub rebalances: IntCounter,
    oldest_appended_ms: AtomicI64,
    database: Check,
    broker: Check,
}

impl Metrics {
    /// Registers every metric and both checks; the known labels are there from the start, at zero.
    pub fn new(metrics: &service::Metrics, health: &Health) -> Self {
        let dead_letters = metrics.counters(
            "dead_letters_total",
            "Records written to the dead letters.",
            &["reason"],
        );
        let lag = metrics.gauges(
            "lag_records",
            "Records in this replica's partitions that are not in the database yet.",
            &["topic"],
        );
        for reason in Reason::ALL {
            dead_letters.with_label_values(&[reason.as_str()]);
        }
        for source in Source::ALL {
            lag.with_label_values(&[source.topic()]);
        }
        Self {
            rows_inserted: metrics.counter("rows_inserted_total", "Rows that were new."),
            duplicates: metrics.counter("rows_ignored_total", "Rows that were in the database already."),
            batches: metrics.counter("batches_total", "Batches written."),
            batch_records: metrics.histogram(
                "batch_records",
                "Records of a batch; more than 1,000 only while catching up.",
                &BATCH_RECORDS,
            ),
            copied_rows: metrics.counter(
                "copied_rows_total",
                "Rows that went by COPY, as they do while catching up; those that were there already included.",
            ),
            insert_seconds: metrics.histogram(
                "insert_duration_seconds",
                "Time of one transaction, a batch each.",
                &INSERT_SECONDS,
            ),
            dead_letters,
            lag,
            seconds_behind: metrics.gauge(
                "behind_seconds",
                "Age of the oldest record that was read and is not in the database yet; 0 when there is none.",
            ),
            database_up: metrics.gauge("database_up", "1 while the database answers."),
            broker_up: metrics.gauge("broker_up", "1 while a broker is connected."),
            database_failures: metrics.counter("database_failures_total", "Failed attempts at the database."),
            consume_errors: metrics.counter("consume_errors_total", "Errors the consumer reported."),
            rebalances: metrics.counter("rebalances_total", "Times partitions were given or taken."),
            oldest_appended_ms: AtomicI64::new(NOTHING_IN_HAND),
            database: health.check("database"),
            broker: health.check("broker"),
        }
    }

    /// A batch of so many records is in the database.
    pub fn batch_written(&self, records: usize, written: &Written) {
        self.batch_records.observe(records as f64);
        self.rows_inserted.inc_by(written.inserted);
        self.duplicates.inc_by(written.duplicates);
        self.copied_rows.inc_by(written.copied);
        self.batches.inc();
    }

    /// A transaction was committed after this time.
    pub fn insert_took(&self, time: Duration) {
        self.insert_seconds.observe(time.as_secs_f64());
    }

    /// A dead letter is in its topic.
    pub fn dead_letter(&self, reason: Reason) {
        self.dead_letters.with_label_values(&[reason.as_str()]).inc();
    }

    /// How many records of a topic, over the partitions of this replica, are not stored yet.
    pub fn lag_is(&self, source: Source, records: i64) {
        self.lag.with_label_values(&[source.topic()]).set(records);
    }

    /// The database answered, or did not.
    pub fn database_is(&self, up: bool) {
        self.database.set(up);
        self.database_up.set(up.into());
    }

    /// A broker is connected, or none is.
    pub fn broker_is(&self, up: bool) {
        self.broker.set(up);
        self.broker_up.set(up.into());
    }

    /// When the broker appended the oldest record in hand; none when nothing is in hand.
    pub fn oldest_in_hand_is(&self, appended_ms: Option<i64>) {
        self.oldest_appended_ms
            .store(appended_ms.unwrap_or(NOTHING_IN_HAND), Ordering::Relaxed);
    }

    /// Brings `behind_seconds` up to `now_ms`.
    pub fn refresh_behind(&self, now_ms: i64) {
        let oldest = self.oldest_appended_ms.load(Ordering::Relaxed);
        self.seconds_behind
            .set(now_ms.saturating_sub(oldest).max(0) / 1_000);
    }
}

#[cfg(test)]
mod tests {
    use service::Lifecycle;

    use super::*;

    #[test]
    fn seconds_behind_grow_with_the_clock_and_fall_to_zero() {
        let metrics = Metrics::new(&service::Metrics::new("test"), &Health::new(&Lifecycle::new()));
        let check = |oldest, now, want| {
            metrics.oldest_in_hand_is(oldest);
            metrics.refresh_behind(now);
            assert_eq!(metrics.seconds_behind.get(), want);
        };
        check(None, 1_000_000, 0);
        check(Some(990_000), 1_000_000, 10);
        check(Some(990_000), 1_060_500, 70);
        // A broker whose clock is ahead makes nobody late.
        check(Some(1_070_000), 1_060_500, 0);
        check(None, 1_060_500, 0);
    }
}
