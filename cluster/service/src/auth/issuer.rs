//! One issuer's keys: fetched at start, refreshed now and then, fetched again when a token names an unknown key.
//!
//! One task an issuer does every fetch, so two never run at once and a caller that goes away interrupts none. A
//! failed fetch keeps the keys there are. How often callers can cause a fetch is bounded by a budget.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus::{IntCounterVec, IntGaugeVec};
use reqwest::{Client, Url};
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::keys::Keys;
use super::settings::{IssuerSettings, Pace};
use crate::backoff::Backoff;
use crate::health::Check;

/// Time for one fetch, discovery included; below the limit of a request that waits for it.
const FETCH_LIMIT: Duration = Duration::from_secs(5);
/// Largest discovery document or key set read; real ones have a few kilobytes.
const DOCUMENT_BYTES: usize = 1024 * 1024;

/// Why a fetch failed.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("no answer within {} s", FETCH_LIMIT.as_secs())]
    TooSlow,
    #[error("{0}")]
    Http(#[from] reqwest::Error),
    #[error("{0} answered {1}")]
    Status(Url, u16),
    #[error("{0} has more than {DOCUMENT_BYTES} bytes")]
    TooLarge(Url),
    #[error("{0} is not what it should be: {1}")]
    Malformed(Url, serde_json::Error),
    #[error("the discovery document is of issuer {0:?}, not of the configured one")]
    OtherIssuer(String),
    #[error("the discovery document has no usable jwks_uri: {0:?}")]
    NoKeysUrl(String),
    #[error("{0} has no key for RS256, ES256 or EdDSA")]
    NoKeys(Url),
}

pub(super) struct Issuer {
    settings: IssuerSettings,
    pace: Pace,
    client: Client,
    state: watch::Sender<State>,
    requests: Mutex<Requests>,
    wanted: Notify,
    metrics: IssuerMetrics,
}

#[derive(Clone, Default)]
struct State {
    keys: Option<Arc<Keys>>,
    /// Fetches finished, well or not.
    fetches: u64,
}

/// What callers may ask of the fetching task.
struct Requests {
    in_flight: bool,
    budget: f64,
    counted_at: Instant,
}

#[derive(Clone)]
pub(super) struct IssuerMetrics {
    pub(super) fetches: IntCounterVec,
    pub(super) refused: IntCounterVec,
    pub(super) keys: IntGaugeVec,
}

impl Issuer {
    pub(super) fn new(settings: IssuerSettings, pace: Pace, client: Client, metrics: IssuerMetrics) -> Self {
        let name = &[settings.issuer.as_str()];
        for outcome in ["ok", "failed"] {
            metrics.fetches.with_label_values(&[name[0], outcome]);
        }
        metrics.refused.with_label_values(name);
        metrics.keys.with_label_values(name);
        let budget = f64::from(pace.refetch_burst);
        Self {
            settings,
            pace,
            client,
            state: watch::Sender::new(State::default()),
            requests: Mutex::new(Requests {
                in_flight: false,
                budget,
                counted_at: Instant::now(),
            }),
            wanted: Notify::new(),
            metrics,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.settings.issuer
    }

    /// The keys there are now.
    pub(super) fn keys(&self) -> Option<Arc<Keys>> {
        self.state.borrow().keys.clone()
    }

    /// Asks for a fetch because the keys there are do not do, and waits for it. Joins the fetch that runs; without
    /// budget it returns at once, and the keys stay what they are.
    pub(super) async fn refetch(&self) {
        let fetched = {
            let mut requests = self.requests();
            if !requests.in_flight {
                if !requests.take(Instant::now(), &self.pace) {
                    self.metrics.refused.with_label_values(&[self.name()]).inc();
                    return;
                }
                requests.in_flight = true;
                self.wanted.notify_one();
            }
            self.state.borrow().fetches
        };
        let mut state = self.state.subscribe();
        // The task answers every request it was woken for; the limit is for a process that is stopping.
        let _ = tokio::time::timeout(FETCH_LIMIT * 2, state.wait_for(|state| state.fetches > fetched)).await;
    }

    /// Fetches until `stop`. `check` turns well with the first keys and stays so through an outage.
    pub(super) async fn run(&self, check: Check, stop: CancellationToken) -> anyhow::Result<()> {
        let mut backoff = Backoff::new(self.pace.retry_first, self.pace.retry_cap);
        let mut keys_url = None;
        loop {
            self.requests().in_flight = true;
            let fetched = tokio::select! {
                () = stop.cancelled() => return Ok(()),
                fetched = tokio::time::timeout(FETCH_LIMIT, self.fetch(&mut keys_url)) => {
                    fetched.unwrap_or(Err(FetchError::TooSlow))
                }
            };
            let pause = match &fetched {
                Ok(keys) => {
                    backoff.reset();
                    self.metrics
                        .keys
                        .with_label_values(&[self.name()])
                        .set(keys.len() as i64);
                    check.set(true);
                    self.pace.refresh
                }
                Err(error) => {
                    // The address may have moved: the next fetch asks the discovery document again.
                    keys_url = None;
                    tracing::warn!(
                        issuer = self.name(),
                        "cannot fetch the keys of {}: {error}",
                        self.name()
                    );
                    backoff.next_pause()
                }
            };
            let outcome = if fetched.is_ok() { "ok" } else { "failed" };
            self.metrics
                .fetches
                .with_label_values(&[self.name(), outcome])
                .inc();
            self.finish(fetched.ok());
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
                () = self.wanted.notified() => {}
            }
        }
    }

    /// Publishes the outcome and ends the flight in one step, so that a caller never waits for a fetch that is over.
    fn finish(&self, keys: Option<Keys>) {
        let mut requests = self.requests();
        self.state.send_modify(|state| {
            state.fetches += 1;
            if let Some(keys) = keys {
                state.keys = Some(Arc::new(keys));
            }
        });
        requests.in_flight = false;
    }

    async fn fetch(&self, keys_url: &mut Option<Url>) -> Result<Keys, FetchError> {
        let url = match (&self.settings.jwks_url, &keys_url) {
            (Some(url), _) | (None, Some(url)) => url.clone(),
            (None, None) => self.discover().await?,
        };
        let document = self.get(url.clone()).await?;
        let keys = Keys::from_json(&document).map_err(|error| FetchError::Malformed(url.clone(), error))?;
        let keys = keys.ok_or_else(|| FetchError::NoKeys(url.clone()))?;
        *keys_url = Some(url);
        Ok(keys)
    }

    async fn discover(&self) -> Result<Url, FetchError> {
        #[derive(Deserialize)]
        struct Discovery {
            issuer: String,
            jwks_uri: String,
        }
        let base = self.settings.issuer.trim_end_matches('/');
        let url: Url = format!("{base}/.well-known/openid-configuration")
            .parse()
            .expect("the issuer was checked");
        let document = self.get(url.clone()).await?;
        let found: Discovery =
            serde_json::from_slice(&document).map_err(|error| FetchError::Malformed(url, error))?;
        if found.issuer != self.settings.issuer {
            return Err(FetchError::OtherIssuer(found.issuer));
        }
        match Url::parse(&found.jwks_uri) {
            Ok(url) if matches!(url.scheme(), "http" | "https") => Ok(url),
            _ => Err(FetchError::NoKeysUrl(found.jwks_uri)),
        }
    }

    async fn get(&self, url: Url) -> Result<Vec<u8>, FetchError> {
        let mut response = self
            .client
            .get(url.clone())
            .header("accept", "application/json")
            .send()
            .await?;
        if !response.status().is_success() {
            return Err(FetchError::Status(url, response.status().as_u16()));
        }
        let mut document = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if document.len() + chunk.len() > DOCUMENT_BYTES {
                return Err(FetchError::TooLarge(url));
            }
            document.extend_from_slice(&chunk);
        }
        Ok(document)
    }

    fn requests(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Requests {
    /// A bucket of `refetch_burst` fetches that refills one every `refetch_interval`.
    fn take(&mut self, now: Instant, pace: &Pace) -> bool {
        let refilled =
            now.duration_since(self.counted_at).as_secs_f64() / pace.refetch_interval.as_secs_f64();
        self.budget = (self.budget + refilled).min(f64::from(pace.refetch_burst));
        self.counted_at = now;
        let may = self.budget >= 1.0;
        if may {
            self.budget -= 1.0;
        }
        may
    }
}
