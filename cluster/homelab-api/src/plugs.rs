//! `/api/v1/plugs/{device_id}/history`: energy, power and on-time by the hour.

use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service::extract::{Path, Query};
use service::scope::ReadPlugs;
use service::{Problem, Scoped};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::answer::{Columns, Wish};
use crate::database::problem;
use crate::range::{Limits, device_id, range};

const HISTORY: Limits = Limits::days(1, 31, "31 days");

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(history))
}

/// Hours of one plug.
#[derive(Serialize, ToSchema)]
pub(crate) struct PlugSeries {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    device_id: String,
    items: Vec<PlugHour>,
}

/// One hour.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct PlugHour {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    energy_kwh: Option<f64>,
    average_power_w: Option<f64>,
    /// A state holds until the next reading, at most 5 minutes.
    on_hours: Option<f64>,
    count: i64,
    /// A gain spans more than 15 minutes without a reading.
    estimated: bool,
}

impl Columns for PlugHour {
    const COLUMNS: &[&str] = &[
        "start",
        "end",
        "energy_kwh",
        "average_power_w",
        "on_hours",
        "count",
        "estimated",
    ];
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// Start of the first hour, included.
    #[param(format = "date-time")]
    from: Option<String>,
    /// End, not included; now by default.
    #[param(format = "date-time")]
    to: Option<String>,
}

/// Hours of one plug.
#[utoipa::path(get, path = "/api/v1/plugs/{device_id}/history", tag = "plugs",
    params(("device_id" = String, Path, min_length = 1, max_length = 128), HistoryQuery),
    security(("bearer" = ["read:plugs"])), responses(
    (status = 200, content((PlugSeries = "application/json"), (String = "text/csv"))),
    (status = 304, description = "What `If-None-Match` names is still right."),
))]
async fn history(
    _: Scoped<ReadPlugs>,
    State(app): State<App>,
    Path(device): Path<String>,
    Query(query): Query<HistoryQuery>,
    wish: Wish,
) -> Result<Response, Problem> {
    const SQL: &str = "
        select hour_start as start, hour_end as \"end\", energy_wh / 1000 as energy_kwh, average_power_w, on_hours, count,
            coalesce(estimated, false) as estimated
        from plug_hourly where device_id = $1 and hour_start >= $2 and hour_start < $3
        order by hour_start";
    let now = Utc::now();
    let range = range(query.from.as_deref(), query.to.as_deref(), now, HISTORY)?;
    device_id(Some(&device))?;
    let items = sqlx::query_as(SQL)
        .bind(&device)
        .bind(range.from)
        .bind(range.to)
        .fetch_all(app.database.pool())
        .await
        .map_err(problem)?;
    let series = PlugSeries {
        from: range.from,
        to: range.to,
        device_id: device,
        items,
    };
    wish.answer(range, now, &series, &series.items)
}
