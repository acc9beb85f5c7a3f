//! `/api/v1/heatpump/settings`: what heat pumps report, and what is wanted of them.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use service::extract::{Json as Body, Path, Query};
use service::scope::{ReadSettings, WriteSettings};
use service::{Problem, Scoped};
use sqlx::types::Json as Jsonb;
use sqlx::{FromRow, PgConnection};
use telemetry::DeviceId;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::database::problem;
use crate::outbox::{self, Accepted, Entries, EntryWithHistory, Kind, Page, Wish};
use crate::precondition::{idempotency_key, if_match, tag};
use crate::wanted;

/// Devices answered at once; a house has one or two.
const MOST_DEVICES: i64 = 1_000;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one, change))
        .routes(routes!(commands))
        .routes(routes!(command))
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
    wanted: Value,
}

impl DeviceSettings {
    /// The tag of its values: when they were reported, and through which agent, does not matter.
    fn tag(&self) -> HeaderValue {
        tag(&(&self.device_id, &self.reported, &self.wanted))
    }
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
    wanted: Jsonb<Value>,
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

/// One heat pump. `ETag` names its reported and wanted values, not their time.
#[utoipa::path(get, path = "/api/v1/heatpump/settings/{device_id}", tag = "heatpump",
    params(("device_id" = String, Path, min_length = 1, max_length = 128)),
    security(("bearer" = ["read:settings"])),
    responses((status = 200, body = DeviceSettings,
            headers(("ETag" = String, description = "For If-Match of a change."))),
        (status = 404, description = "The device never reported settings.", body = service::problem::ProblemBody,
            content_type = "application/problem+json")))]
async fn one(
    _: Scoped<ReadSettings>,
    State(app): State<App>,
    Path(device): Path<String>,
) -> Result<Response, Problem> {
    let device = device_id(device)?;
    let mut connection = app.pool.acquire().await.map_err(problem)?;
    let settings = read(&mut connection, &device).await?;
    Ok(([(header::ETAG, settings.tag())], Json(settings)).into_response())
}

/// What may be wanted; only the fields to change are present, at least one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the schema of a body that is checked field by field")]
struct SettingsChange {
    /// Wanted indoor temperature, degrees Celsius.
    #[schema(minimum = 15, maximum = 30)]
    indoor_target_c: Option<i64>,
    /// 0 off, 1 auto, 2 compressor only, 3 auxiliary only, 4 hot water only.
    #[schema(minimum = 0, maximum = 4)]
    mode: Option<i64>,
    /// Heat curve.
    #[schema(minimum = 10, maximum = 70)]
    curve: Option<i64>,
    /// Lowest supply temperature, degrees Celsius; not above the highest.
    #[schema(minimum = 10, maximum = 50)]
    curve_min: Option<i64>,
    /// Highest supply temperature, degrees Celsius.
    #[schema(minimum = 20, maximum = 75)]
    curve_max: Option<i64>,
    /// Correction of the curve at +5 degrees outside.
    #[schema(minimum = -10, maximum = 10)]
    curve_plus_5: Option<i64>,
    /// Correction of the curve at 0 degrees outside.
    #[schema(minimum = -10, maximum = 10)]
    curve_zero: Option<i64>,
    /// Correction of the curve at -5 degrees outside.
    #[schema(minimum = -10, maximum = 10)]
    curve_minus_5: Option<i64>,
    /// Outdoor temperature above which heating stops, degrees Celsius.
    #[schema(minimum = 0, maximum = 40)]
    heat_stop_c: Option<i64>,
    /// Integral at which the compressor starts.
    #[schema(minimum = 1, maximum = 200)]
    integral: Option<i64>,
}

/// Wants other settings. Accepted is not applied: follow the command at `Location`, or as `outbox_changed` on the live stream.
#[utoipa::path(patch, path = "/api/v1/heatpump/settings/{device_id}", tag = "heatpump",
    params(("device_id" = String, Path, min_length = 1, max_length = 128),
        ("Idempotency-Key" = Option<String>, Header, max_length = 128, description = "Names this wish: sent again, it is the same command."),
        ("If-Match" = Option<String>, Header, description = "The ETag the change is based on.")),
    request_body = SettingsChange,
    security(("bearer" = ["write:settings"])),
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The command."))),
        (status = 404, description = "The device never reported settings.", body = service::problem::ProblemBody,
            content_type = "application/problem+json"),
        (status = 409, description = "The Idempotency-Key is in use by another request that came at the same time.",
            body = service::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "If-Match names another state.", body = service::problem::ProblemBody,
            content_type = "application/problem+json"),
        (status = 422, description = "The Idempotency-Key was used for another request.",
            body = service::problem::ProblemBody, content_type = "application/problem+json")))]
async fn change(
    caller: Scoped<WriteSettings>,
    State(app): State<App>,
    Path(device): Path<String>,
    headers: HeaderMap,
    Body(body): Body<Value>,
) -> Result<Response, Problem> {
    let device = device_id(device)?;
    let key = idempotency_key(&headers)?;
    let requested_by = &caller.claims.subject;
    let mut transaction = app.pool.begin().await.map_err(problem)?;
    // Changes of one device are accepted one after the other. Read after the lock is held: a statement that waits for a lock
    // sees the open commands as they were before.
    sqlx::query("select from settings where device_id = $1 for update")
        .bind(device.as_str())
        .execute(&mut *transaction)
        .await
        .map_err(problem)?;
    let kind = Kind::HeatpumpSettings;
    let earlier = outbox::earlier(
        &mut transaction,
        key.as_deref(),
        requested_by,
        kind,
        device.as_str(),
        &body,
    );
    if let Some(earlier) = earlier.await? {
        return Ok(outbox::accepted(kind, earlier));
    }
    let settings = read(&mut transaction, &device).await?;
    if_match(&headers, &settings.tag())?;
    let wanted = wanted::check(body, &settings.current())?;
    let wish = Wish {
        kind,
        device: device.as_str(),
        agent: &settings.agent,
        wanted: &wanted,
        requested_by,
        schedule: None,
        idempotency_key: key.as_deref(),
        expiry: app.pace.expiry,
    };
    let accepted = outbox::add(&mut transaction, &wish)
        .await
        .map_err(outbox::conflict)?;
    transaction.commit().await.map_err(problem)?;
    Ok(outbox::accepted(kind, accepted))
}

/// The commands of a heat pump, newest first.
#[utoipa::path(get, path = "/api/v1/heatpump/settings/{device_id}/outbox", tag = "heatpump",
    params(("device_id" = String, Path, min_length = 1, max_length = 128), Page),
    security(("bearer" = ["read:settings"])), responses((status = 200, body = Entries)))]
async fn commands(
    _: Scoped<ReadSettings>,
    State(app): State<App>,
    Path(device): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<Entries>, Problem> {
    let device = device_id(device)?;
    Ok(Json(
        outbox::page(&app.pool, Kind::HeatpumpSettings, device.as_str(), &page).await?,
    ))
}

/// One command, with every state it was in.
#[utoipa::path(get, path = "/api/v1/heatpump/settings/outbox/{id}", tag = "heatpump",
    params(("id" = i64, Path)),
    security(("bearer" = ["read:settings"])),
    responses((status = 200, body = EntryWithHistory),
        (status = 404, description = "There is no such command.", body = service::problem::ProblemBody,
            content_type = "application/problem+json")))]
async fn command(
    _: Scoped<ReadSettings>,
    State(app): State<App>,
    Path(id): Path<i64>,
) -> Result<Json<EntryWithHistory>, Problem> {
    Ok(Json(
        outbox::one(&app.pool, Kind::HeatpumpSettings, None, id).await?,
    ))
}

impl DeviceSettings {
    /// What holds or will hold: reported values under those already wanted.
    fn current(&self) -> Map<String, Value> {
        let mut current = match serde_json::to_value(&self.reported) {
            Ok(Value::Object(fields)) => fields,
            _ => Map::new(),
        };
        if let Value::Object(wanted) = &self.wanted {
            current.extend(wanted.clone());
        }
        current
    }
}

fn device_id(text: String) -> Result<DeviceId, Problem> {
    DeviceId::parse(text).map_err(|error| Problem::field("device_id", format!("is invalid: {error}")))
}

async fn read(connection: &mut PgConnection, device: &DeviceId) -> Result<DeviceSettings, Problem> {
    let row: Option<Row> = sqlx::query_as(SQL)
        .bind(device.as_str())
        .bind(1i64)
        .fetch_optional(connection)
        .await
        .map_err(problem)?;
    row.map(DeviceSettings::from)
        .ok_or_else(|| Problem::not_found("this device never reported settings"))
}
