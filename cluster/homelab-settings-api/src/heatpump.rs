//! `/api/v1/heatpump/settings`: what heat pumps report, and what is wanted of them.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::Serialize;
use service::extract::Path;
use service::scope::ReadSettings;
use service::{Problem, Scoped};
use sqlx::FromRow;
use sqlx::types::Json as Jsonb;
use telemetry::DeviceId;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::database::problem;

/// Devices answered at once; a house has one or two.
const MOST_DEVICES: i64 = 1_000;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(one))
}

/// One heat pump.
#[derive(Serialize, ToSchema)]
pub(crate) struct DeviceSettings {
    device_id: String,
    /// The agent the newest report came through.
    agent: String,
    reported: Settings,
    reported_at: DateTime<Utc>,
    /// Fields of open commands; never mixed with what is reported.
    #[schema(value_type = Object)]
    wanted: serde_json::Value,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct AllSettings {
    items: Vec<DeviceSettings>,
}

/// Settings in the pump's own steps; null where the pump never reported one.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct Settings {
    indoor_target_c: Option<i64>,
    mode: Option<i64>,
    curve: Option<i64>,
    curve_min: Option<i64>,
    curve_max: Option<i64>,
    curve_plus_5: Option<i64>,
    curve_zero: Option<i64>,
    curve_minus_5: Option<i64>,
    heat_stop_c: Option<i64>,
    integral: Option<i64>,
}

#[derive(FromRow)]
struct Row {
    device_id: String,
    agent: String,
    reported_at: DateTime<Utc>,
    #[sqlx(flatten)]
    settings: Settings,
    wanted: Jsonb<serde_json::Value>,
}

impl From<Row> for DeviceSettings {
    fn from(row: Row) -> Self {
        Self {
            device_id: row.device_id,
            agent: row.agent,
            reported: row.settings,
            reported_at: row.reported_at,
            wanted: row.wanted.0,
        }
    }
}

/// Of several open commands for one field the latest is wanted.
const SQL: &str = "
    select device_id, agent, reported_at, indoor_target_c, mode, curve, curve_min, curve_max, curve_plus_5, curve_zero,
        curve_minus_5, heat_stop_c, integral,
        coalesce((
            select jsonb_object_agg(field.key, field.value order by outbox.id)
            from outbox cross join lateral jsonb_each(outbox.wanted) as field
            where outbox.device_id = settings.device_id and outbox.kind = 'heatpump_settings'
                and outbox.status in ('pending', 'published')
        ), '{}') as wanted
    from settings where $1::text is null or device_id = $1
    order by device_id limit $2";

/// All heat pumps.
#[utoipa::path(get, path = "/api/v1/heatpump/settings", tag = "heatpump",
    security(("bearer" = ["read:settings"])), responses((status = 200, body = AllSettings)))]
async fn list(_: Scoped<ReadSettings>, State(app): State<App>) -> Result<Json<AllSettings>, Problem> {
    let rows: Vec<Row> = sqlx::query_as(SQL)
        .bind(None::<&str>)
        .bind(MOST_DEVICES)
        .fetch_all(&app.pool)
        .await
        .map_err(problem)?;
    Ok(Json(AllSettings {
        items: rows.into_iter().map(DeviceSettings::from).collect(),
    }))
}

/// One heat pump.
#[utoipa::path(get, path = "/api/v1/heatpump/settings/{device_id}", tag = "heatpump",
    params(("device_id" = String, Path, min_length = 1, max_length = 128)),
    security(("bearer" = ["read:settings"])),
    responses((status = 200, body = DeviceSettings),
        (status = 404, description = "The device never reported settings.", body = service::problem::ProblemBody,
            content_type = "application/problem+json")))]
async fn one(
    _: Scoped<ReadSettings>,
    State(app): State<App>,
    Path(device): Path<String>,
) -> Result<Json<DeviceSettings>, Problem> {
    let device = DeviceId::parse(device)
        .map_err(|error| Problem::field("device_id", format!("is invalid: {error}")))?;
    let row: Option<Row> = sqlx::query_as(SQL)
        .bind(device.as_str())
        .bind(1i64)
        .fetch_optional(&app.pool)
        .await
        .map_err(problem)?;
    let row = row.ok_or_else(|| Problem::not_found("this device never reported settings"))?;
    Ok(Json(row.into()))
}
