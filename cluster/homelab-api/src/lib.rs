//! The read API: what the house measured, as JSON over HTTP, for callers with a valid token and the right scope.
//!
//! It never writes: its database role can only select, its sessions are read-only, and it links no Kafka client. It
//! computes no sums either: those are the database's views; this crate checks parameters, asks, and answers.
//! docs/API.md has every path and field.

mod answer;
mod database;
mod devices;
mod energy;
mod events;
mod heatpump;
mod latest;
mod openapi;
mod plugs;
mod range;
mod settings;
mod temperature;
mod user;

use axum::Router;
use axum::extract::FromRef;
use database::Database;
use service::metrics::admin_router;
use service::server::{Listeners, serve};
use service::{Health, Lifecycle, Metrics, Verifier};
use tower_http::compression::CompressionLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;

pub use settings::Settings;

/// The statements behind two answers, for the benchmark that runs them without this service around them.
pub mod statements {
    pub use crate::energy::HOURLY as ENERGY_HISTORY;
    pub use crate::temperature::RAW_SQL as TEMPERATURE_HISTORY;
}

/// What handlers share.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) database: Database,
    verifier: Verifier,
}

impl FromRef<App> for Verifier {
    fn from_ref(app: &App) -> Self {
        app.verifier.clone()
    }
}

/// Starts the service on these sockets; it lives as long as the lifecycle.
pub fn run(settings: Settings, listeners: Listeners, lifecycle: &Lifecycle) -> anyhow::Result<()> {
    let (health, metrics) = (Health::new(lifecycle), Metrics::new("homelab_api"));
    let verifier = Verifier::start(settings.auth, lifecycle, &health, &metrics)?;
    let database = Database::new(settings.database);
    database.watch(&health);
    let public = router(App { database, verifier }, &health, &metrics)?;
    let admin = admin_router(&health, &metrics);
    tracing::info!(
        address = %listeners.public.local_addr()?,
        admin_address = %listeners.admin.local_addr()?,
        "homelab-api listens"
    );
    lifecycle.spawn("http", serve(listeners.public, public, lifecycle.token()));
    lifecycle.spawn("admin", serve(listeners.admin, admin, lifecycle.token()));
    Ok(())
}

/// The OpenAPI document, as `/openapi.json` answers it.
pub fn openapi() -> OpenApi {
    let (_, document) = api().split_for_parts();
    openapi::with_every_field(openapi::with_problems(document))
}

fn api() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::document())
        .merge(energy::router())
        .merge(heatpump::router())
        .merge(temperature::router())
        .merge(plugs::router())
        .merge(devices::router())
        .merge(events::router())
        .merge(user::router())
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
