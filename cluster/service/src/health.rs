//! Liveness and readiness. The process is live while it answers; it is ready while every named check is well and
//! no stop was asked for. The answer names what fails.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;

use crate::lifecycle::Lifecycle;

/// A probe that takes longer than this has failed.
const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// Time between two probes: short enough that readiness follows the truth within a Kubernetes probe period.
const PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// The checks of one process. Clones share them.
#[derive(Clone)]
pub struct Health {
    checks: Arc<Mutex<Vec<Check>>>,
    lifecycle: Lifecycle,
}

/// One named check; whoever owns the part it stands for sets it.
#[derive(Clone, Debug)]
pub struct Check {
    name: &'static str,
    well: Arc<AtomicBool>,
}

impl Check {
    /// Sets whether the part works, and logs a change of it once.
    pub fn set(&self, well: bool) {
        if self.well.swap(well, Ordering::Relaxed) != well {
            if well {
                tracing::info!(check = self.name, "{} is well", self.name);
            } else {
                tracing::warn!(check = self.name, "{} fails", self.name);
            }
        }
    }

    /// Whether the part works.
    pub fn is_well(&self) -> bool {
        self.well.load(Ordering::Relaxed)
    }
}

#[derive(Serialize)]
struct Status {
    status: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failing: Vec<&'static str>,
}

impl Health {
    /// No checks yet: ready until the lifecycle stops.
    pub fn new(lifecycle: &Lifecycle) -> Self {
        Self {
            checks: Arc::default(),
            lifecycle: lifecycle.clone(),
        }
    }

    /// Adds a check; it fails until it is set.
    pub fn check(&self, name: &'static str) -> Check {
        let check = Check {
            name,
            well: Arc::new(AtomicBool::new(false)),
        };
        self.lock().push(check.clone());
        check
    }

    /// Adds a check that is set by `probe`, run now and then every two seconds; a probe that hangs has failed.
    pub fn probe<F>(&self, name: &'static str, probe: impl FnMut() -> F + Send + 'static) -> Check
    where
        F: Future<Output = bool> + Send + 'static,
    {
        self.probe_every(PROBE_INTERVAL, PROBE_LIMIT, name, probe)
    }

    fn probe_every<F>(
        &self,
        interval: Duration,
        limit: Duration,
        name: &'static str,
        mut probe: impl FnMut() -> F + Send + 'static,
    ) -> Check
    where
        F: Future<Output = bool> + Send + 'static,
    {
        let check = self.check(name);
        let (own, stop) = (check.clone(), self.lifecycle.token());
        self.lifecycle.spawn("health probe", async move {
            loop {
                own.set(tokio::time::timeout(limit, probe()).await.unwrap_or(false));
                tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    () = tokio::time::sleep(interval) => {}
                }
            }
        });
        check
    }

    /// Names of the checks that fail; empty means ready.
    pub fn failing(&self) -> Vec<&'static str> {
        let mut failing: Vec<_> = self
            .lock()
            .iter()
            .filter(|c| !c.is_well())
            .map(|c| c.name)
            .collect();
        if self.lifecycle.token().is_cancelled() {
            failing.push("stopping");
        }
        failing
    }

    /// `/livez`, `/readyz` and `/health` (the same as `/readyz`), without a token.
    pub fn router<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        Router::new()
            .route(
                "/livez",
                get(|| async {
                    Json(Status {
                        status: "ok",
                        failing: Vec::new(),
                    })
                }),
            )
            .route("/readyz", get(ready))
            .route("/health", get(ready))
            .with_state(self.clone())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Check>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ready(State(health): State<Health>) -> Response {
    let failing = health.failing();
    if failing.is_empty() {
        Json(Status {
            status: "ok",
            failing,
        })
        .into_response()
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            Json(Status {
                status: "unavailable",
                failing,
            }),
        )
            .into_response()
    }
}

#[cfg(test)]
mod tests {
    use axum::body::{Body, to_bytes};
    use axum::http::Request;
    use tower::ServiceExt;

    use super::*;

    async fn answer(health: &Health, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = health.router::<()>().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        (
            status,
            String::from_utf8(to_bytes(response.into_body(), 1 << 16).await.unwrap().to_vec()).unwrap(),
        )
    }

    #[tokio::test]
    async fn readiness_names_what_fails() {
        let lifecycle = Lifecycle::new();
        let health = Health::new(&lifecycle);
        let ok = (200, r#"{"status":"ok"}"#.to_owned());
        assert_eq!(answer(&health, "/readyz").await, ok);
        let database = health.check("database");
        let failing = |names: &str| (503, format!(r#"{{"status":"unavailable","failing":[{names}]}}"#));
        assert_eq!(answer(&health, "/readyz").await, failing(r#""database""#));
        assert_eq!(answer(&health, "/livez").await, ok);
        database.set(true);
        assert_eq!(answer(&health, "/health").await, ok);
        lifecycle.stop();
        assert_eq!(answer(&health, "/readyz").await, failing(r#""stopping""#));
        assert_eq!(answer(&health, "/livez").await, ok);
    }

    #[tokio::test]
    async fn a_probe_that_hangs_has_failed() {
        let lifecycle = Lifecycle::new();
        let health = Health::new(&lifecycle);
        let hang = Arc::new(AtomicBool::new(false));
        let hangs = hang.clone();
        let short = Duration::from_millis(20);
        let check = health.probe_every(short, short, "database", move || {
            let hangs = hangs.load(Ordering::Relaxed);
            async move { if hangs { std::future::pending().await } else { true } }
        });
        let until = async |want: bool| {
            tokio::time::timeout(Duration::from_secs(30), async {
                while check.is_well() != want {
                    tokio::time::sleep(short).await;
                }
            })
            .await
            .expect("the check changes");
        };
        until(true).await;
        hang.store(true, Ordering::Relaxed);
        until(false).await;
        hang.store(false, Ordering::Relaxed);
        until(true).await;
    }
}
