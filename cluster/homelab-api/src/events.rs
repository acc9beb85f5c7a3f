//! `/api/v1/events`: losses, clock steps, online changes: the gaps a chart must draw.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service::extract::Query;
use service::scope::AnyReading;
use service::{Problem, Scoped};
use sqlx::FromRow;
use telemetry::Kind;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::database::problem;
use crate::devices::kinds_of;
use crate::range::{Limits, device_id, range};

const EVENTS: Limits = Limits::days(7, 800, "800 days");
/// Events answered at once, the newest of the range. A quiet house has a few a day.
const MOST_EVENTS: i64 = 1_000;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(events))
}

/// One event.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct Event {
    id: String,
    time: DateTime<Utc>,
    /// buffer_loss, clock_step, device_online, command_outcome or outbox_changed.
    r#type: String,
    agent: Option<String>,
    device_id: Option<String>,
    /// Fields of the type.
    #[schema(value_type = Object)]
    details: serde_json::Value,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Events {
    items: Vec<Event>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct EventsQuery {
    /// Included; 7 days before `to` by default.
    #[param(format = "date-time")]
    from: Option<String>,
    /// Not included; now by default.
    #[param(format = "date-time")]
    to: Option<String>,
    /// One device; all by default.
    #[param(min_length = 1, max_length = 128)]
    device_id: Option<String>,
}

/// Events of the devices whose kinds the token covers, and those of no device, oldest first; of more than 1,000 the
/// newest. A device that never sent a reading has no kind: its events need all four scopes.
#[utoipa::path(get, path = "/api/v1/events", tag = "devices", params(EventsQuery),
    security(("bearer" = ["read:energy"]), ("bearer" = ["read:heatpump"]), ("bearer" = ["read:temperature"]), ("bearer" = ["read:plugs"])),
    responses((status = 200, body = Events)))]
async fn events(
    caller: Scoped<AnyReading>,
    State(app): State<App>,
    Query(query): Query<EventsQuery>,
) -> Result<Json<Events>, Problem> {
    const SQL: &str = "
        select id, time, type, agent, device_id, details from events
        where time >= $1 and time < $2 and ($3::text is null or device_id = $3)
            and (
                device_id is null
                or exists (select from device_spans as s where s.device_id = events.device_id and s.kind = any($4))
                or $5 and not exists (select from device_spans as s where s.device_id = events.device_id)
            )
        order by time desc, id desc limit $6";
    let range = range(query.from.as_deref(), query.to.as_deref(), Utc::now(), EVENTS)?;
    let device = device_id(query.device_id.as_deref())?;
    let kinds = kinds_of(&caller.claims);
    let all_kinds = kinds.len() == Kind::ALL.len();
    let mut items: Vec<Event> = sqlx::query_as(SQL)
        .bind(range.from)
        .bind(range.to)
        .bind(device.as_ref().map(|id| id.as_str()))
        .bind(kinds)
        .bind(all_kinds)
        .bind(MOST_EVENTS)
        .fetch_all(app.database.pool())
        .await
        .map_err(problem)?;
    items.reverse();
    Ok(Json(Events { items }))
}
