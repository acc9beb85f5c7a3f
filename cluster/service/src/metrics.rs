//! Metrics in Prometheus' text form, on a port of their own that no public route reaches.
//!
//! Every name is `<service>_<noun>_<unit>[_total]`: the service's part is added here, the rest is the caller's.

use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Router, response::Response};
use prometheus::core::Collector;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use crate::health::Health;

/// The metrics of one process. Clones share them; each instance of a service in a test has its own.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    prefix: &'static str,
}

macro_rules! metric {
    ($(#[$meta:meta])* $name:ident -> $type:ty) => {
        $(#[$meta])*
        pub fn $name(&self, name: &str, help: &str) -> $type {
            self.add(<$type>::with_opts(self.opts(name, help)))
        }
    };
    ($(#[$meta:meta])* $name:ident(labels) -> $type:ty) => {
        $(#[$meta])*
        pub fn $name(&self, name: &str, help: &str, labels: &[&str]) -> $type {
            self.add(<$type>::new(self.opts(name, help).into(), labels))
        }
    };
}

impl Metrics {
    /// `prefix` is the service's name with underscores, for example `homelab_api`.
    pub fn new(prefix: &'static str) -> Self {
        Self {
            registry: Registry::new(),
            prefix,
        }
    }

    metric!(
        /// A counter; its name ends in `_total`.
        counter -> IntCounter
    );
    metric!(
        /// A whole number that goes up and down.
        gauge -> IntGauge
    );
    metric!(
        /// A measured value that goes up and down.
        float_gauge -> Gauge
    );
    metric!(
        /// Counters by labels; the values of a label must be few and known.
        counters(labels) -> IntCounterVec
    );
    metric!(
        /// Whole numbers by labels.
        gauges(labels) -> IntGaugeVec
    );
    metric!(
        /// Measured values by labels.
        float_gauges(labels) -> GaugeVec
    );

    /// A histogram with these upper bounds.
    pub fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let opts = HistogramOpts::from(self.opts(name, help)).buckets(buckets.to_vec());
        self.add(Histogram::with_opts(opts))
    }

    /// Histograms by labels.
    pub fn histograms(&self, name: &str, help: &str, buckets: &[f64], labels: &[&str]) -> HistogramVec {
        let opts = HistogramOpts::from(self.opts(name, help)).buckets(buckets.to_vec());
        self.add(HistogramVec::new(opts, labels))
    }

    /// All metrics as text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            tracing::error!("cannot write the metrics: {error}");
        }
        text
    }

    fn opts(&self, name: &str, help: &str) -> Opts {
        Opts::new(format!("{}_{name}", self.prefix), help)
    }

    fn add<C: Collector + Clone + 'static>(&self, metric: prometheus::Result<C>) -> C {
        let metric = metric.expect("the name and the labels of a metric are written in the code");
        self.registry
            .register(Box::new(metric.clone()))
            .expect("every metric is made once a process");
        metric
    }
}

/// What the admin port serves: `/livez`, `/readyz`, `/health` and `/metrics`.
pub fn admin_router(health: &Health, metrics: &Metrics) -> Router {
    let metrics = metrics.clone();
    health
        .router()
        .route("/metrics", get(move || async move { text(metrics.render()) }))
}

fn text(body: String) -> Response {
    ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_carry_the_service_and_zero_is_reported() {
        let metrics = Metrics::new("homelab_api");
        metrics.counter("queries_total", "Queries sent to the database.");
        metrics
            .gauges("issuer_keys_count", "Keys.", &["issuer"])
            .with_label_values(&["a"])
            .set(2);
        metrics
            .histogram("query_duration_seconds", "Time.", &[0.1, 1.0])
            .observe(0.5);
        let text = metrics.render();
        for line in [
            "homelab_api_queries_total 0",
            r#"homelab_api_issuer_keys_count{issuer="a"} 2"#,
            r#"homelab_api_query_duration_seconds_bucket{le="1"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
