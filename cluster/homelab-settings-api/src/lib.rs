//! The settings API: what heat pumps and plugs report about their settings, and the commands that change them.
//!
//! A change is written to the outbox in the transaction that accepts it, sent by the [`relay`], and confirmed by the device's
//! own telemetry alone ([`progress`]). Reported values come from telemetry alone, and a value that is wanted is never shown as
//! reported. This crate never talks to a device and never reads the database of readings. docs/API.md has every path and field.

mod consume;
mod database;
mod form;
mod heatpump;
mod openapi;
mod outbox;
mod plugs;
mod precondition;
mod progress;
mod relay;
mod reported;
mod schedules;
mod settings;
mod wanted;

use axum::Router;
use axum::extract::FromRef;
use consume::{Reader, ReportedMetrics};
use relay::{Relay, RelayMetrics};
use service::metrics::admin_router;
use service::server::{Listeners, serve};
use service::{Health, Lifecycle, Metrics, Verifier};
use sqlx::PgPool;
use tower_http::compression::CompressionLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use settings::{Pace, Settings};

/// What handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) pool: PgPool,
    verifier: Verifier,
    pub(crate) pace: Pace,
}

impl FromRef<App> for Verifier {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

/// Starts the service on these sockets; it lives as long as the lifecycle.
pub fn run(settings: Settings, listeners: Listeners, lifecycle: &Lifecycle) -> anyhow::Result<()> {
    let (health, metrics) = (Health::new(lifecycle), Metrics::new("homelab_settings_api"));
    let verifier = Verifier::start(settings.auth, lifecycle, &health, &metrics)?;
    let pool = database::pool(settings.database.clone());
    let check = database::watch(&pool, &health);
    let reader = Reader::new(
        &settings.kafka,
        &settings.kafka_group,
        pool.clone(),
        check,
        &health,
        ReportedMetrics::new(&metrics),
        settings.pace.wait,
    )?;
    let relay = Relay::new(
        &settings.kafka,
        pool.clone(),
        settings.database,
        settings.pace,
        RelayMetrics::new(&metrics),
    )?;
    let schedules = schedules::run::keep(pool.clone(), settings.pace, lifecycle.token());
    let app = App {
        pool,
        verifier,
        pace: settings.pace,
    };
    let public = router(app, &health, &metrics)?;
    let admin = admin_router(&health, &metrics);
    tracing::info!(
        address = %listeners.public.local_addr()?,
        admin_address = %listeners.admin.local_addr()?,
        "homelab-settings-api listens"
    );
    lifecycle.spawn("reader", reader.run(lifecycle.token()));
    lifecycle.spawn("relay", relay.run(lifecycle.token()));
    lifecycle.spawn("schedules", schedules);
    lifecycle.spawn("http", serve(listeners.public, public, lifecycle.token()));
    lifecycle.spawn("admin", serve(listeners.admin, admin, lifecycle.token()));
    Ok(())
}

/// The OpenAPI document, as `/openapi.json` answers it.
pub fn openapi() -> OpenApi {
    let (_, document) = api().split_for_parts();
    openapi::with_problems(document)
}

fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::document())
        .merge(heatpump::router())
        .merge(plugs::router())
        .merge(schedules::router())
}

fn router(app: App, health: &Health, metrics: &Metrics) -> anyhow::Result<Router> {
    let (api, _) = api().split_for_parts();
    let document = service::openapi::answer(openapi().to_json()?);
    let router = api
        .with_state(app)
        .merge(health.router())
        .route("/openapi.json", document);
    Ok(service::http::shell(router, metrics).layer(CompressionLayer::new()))
}
