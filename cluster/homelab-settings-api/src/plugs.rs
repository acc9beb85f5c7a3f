//! `/api/v1/plugs`: plugs and whether they are on.

use axum::Json;
use axum::extract::State;
use axum::routing::MethodRouter;
use chrono::{DateTime, Utc};
use serde::Serialize;
use service::scope::ReadPlugs;
use service::{Problem, Scoped};
use sqlx::FromRow;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::database::problem;

/// Plugs answered at once; a house has dozens at most.
const MOST_PLUGS: i64 = 1_000;

pub(crate) fn router() -> OpenApiRouter<App> {
    // Switching and schedules are paths that exist and take no method yet: 405, not 404.
    OpenApiRouter::new()
        .routes(routes!(list))
        .route("/api/v1/plugs/{plug_id}", MethodRouter::new())
        .route("/api/v1/plugs/{plug_id}/schedules", MethodRouter::new())
        .route("/api/v1/plugs/{plug_id}/schedules/{id}", MethodRouter::new())
}

/// One plug.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct Plug {
    plug_id: String,
    name: Option<String>,
    /// The agent the newest report came through.
    agent: Option<String>,
    /// Null until the plug has reported it.
    on: Option<bool>,
    reported_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Plugs {
    items: Vec<Plug>,
}

/// All plugs.
#[utoipa::path(get, path = "/api/v1/plugs", tag = "plugs",
    security(("bearer" = ["read:plugs"])), responses((status = 200, body = Plugs)))]
async fn list(_: Scoped<ReadPlugs>, State(app): State<App>) -> Result<Json<Plugs>, Problem> {
    let items = sqlx::query_as(
        "select plug_id, name, agent, is_on as \"on\", reported_at from power_plugs order by plug_id limit $1",
    )
    .bind(MOST_PLUGS)
    .fetch_all(&app.pool)
    .await
    .map_err(problem)?;
    Ok(Json(Plugs { items }))
}
