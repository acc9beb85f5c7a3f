//! `/api/v1/plugs`: plugs, whether they are on, and switching them.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};
use service::extract::{Json as Body, Path, Query};
use service::scope::{ReadPlugs, WritePlugs};
use service::{Problem, Scoped};
use sqlx::{FromRow, PgConnection};
use telemetry::DeviceId;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::database::problem;
use crate::form::{Form, boolean};
use crate::outbox::{self, Accepted, Entries, EntryWithHistory, Kind, Page, Wish};
use crate::precondition::{idempotency_key, if_match, tag};

/// Plugs answered at once; a house has dozens at most.
const MOST_PLUGS: i64 = 1_000;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(one, switch))
        .routes(routes!(commands))
        .routes(routes!(command))
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
    /// What an open command wants; null where there is none. Never mixed with what is reported.
    wanted_on: Option<bool>,
}

impl Plug {
    /// The tag of its state: when it was reported, and through which agent, does not matter.
    fn tag(&self) -> HeaderValue {
        tag(&(&self.plug_id, self.on, self.wanted_on))
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Plugs {
    items: Vec<Plug>,
}

const SQL: &str = "
    select plug_id, name, agent, is_on as \"on\", reported_at, (
            select (wanted -> 'on')::boolean from outbox
            where device_id = plug_id and kind = 'plug_power' and status in ('pending', 'published')
            order by id desc limit 1
        ) as wanted_on
    from power_plugs where $1::text is null or plug_id = $1
    order by plug_id limit $2";

/// All plugs.
#[utoipa::path(get, path = "/api/v1/plugs", tag = "plugs",
    security(("bearer" = ["read:plugs"])), responses((status = 200, body = Plugs)))]
async fn list(_: Scoped<ReadPlugs>, State(app): State<App>) -> Result<Json<Plugs>, Problem> {
    let items = sqlx::query_as(SQL)
        .bind(None::<&str>)
        .bind(MOST_PLUGS)
        .fetch_all(&app.pool)
        .await
        .map_err(problem)?;
    Ok(Json(Plugs { items }))
}

/// One plug. `ETag` names its state, not the time of it.
#[utoipa::path(get, path = "/api/v1/plugs/{plug_id}", tag = "plugs",
    params(("plug_id" = String, Path, min_length = 1, max_length = 128)),
    security(("bearer" = ["read:plugs"])),
    responses((status = 200, body = Plug, headers(("ETag" = String, description = "For If-Match of a change."))),
        (status = 404, description = "The plug never reported anything.", body = service::problem::ProblemBody,
            content_type = "application/problem+json")))]
async fn one(
    _: Scoped<ReadPlugs>,
    State(app): State<App>,
    Path(plug): Path<String>,
) -> Result<Response, Problem> {
    let plug = plug_id(plug)?;
    let mut connection = app.pool.acquire().await.map_err(problem)?;
    let plug = read(&mut connection, plug.as_str()).await?;
    Ok(([(header::ETAG, plug.tag())], Json(plug)).into_response())
}

/// What may be wanted of a plug.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the schema of a body that is checked field by field")]
struct Switch {
    on: bool,
}

/// Wants a plug on or off. Accepted is not switched: follow the command at `Location`, or as `outbox_changed` on the live stream.
#[utoipa::path(patch, path = "/api/v1/plugs/{plug_id}", tag = "plugs",
    params(("plug_id" = String, Path, min_length = 1, max_length = 128),
        ("Idempotency-Key" = Option<String>, Header, max_length = 128, description = "Names this wish: sent again, it is the same command."),
        ("If-Match" = Option<String>, Header, description = "The ETag the change is based on.")),
    request_body = Switch,
    security(("bearer" = ["write:plugs"])),
    responses((status = 202, body = Accepted, headers(("Location" = String, description = "The command."))),
        (status = 404, description = "The plug never reported anything.", body = service::problem::ProblemBody,
            content_type = "application/problem+json"),
        (status = 409, description = "The Idempotency-Key is in use by another request that came at the same time.",
            body = service::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "If-Match names another state.", body = service::problem::ProblemBody,
            content_type = "application/problem+json"),
        (status = 422, description = "The Idempotency-Key was used for another request.",
            body = service::problem::ProblemBody, content_type = "application/problem+json")))]
async fn switch(
    caller: Scoped<WritePlugs>,
    State(app): State<App>,
    Path(plug): Path<String>,
    headers: HeaderMap,
    Body(body): Body<Value>,
) -> Result<Response, Problem> {
    let plug = plug_id(plug)?;
    let key = idempotency_key(&headers)?;
    let requested_by = &caller.claims.subject;
    let mut transaction = app.pool.begin().await.map_err(problem)?;
    lock(&mut transaction, plug.as_str()).await.map_err(problem)?;
    let kind = Kind::PlugPower;
    let earlier = outbox::earlier(
        &mut transaction,
        key.as_deref(),
        requested_by,
        kind,
        plug.as_str(),
        &body,
    );
    if let Some(earlier) = earlier.await? {
        return Ok(outbox::accepted(kind, earlier));
    }
    let known = read(&mut transaction, plug.as_str()).await?;
    if_match(&headers, &known.tag())?;
    let mut form = Form::new(body)?;
    let on = form.need("on", boolean);
    form.finish()?;
    let on = on.expect("a field that is needed and has no fault is there");
    let agent = known
        .agent
        .ok_or_else(|| Problem::not_found("this plug never reported anything"))?;
    let wish = Wish {
        kind,
        device: plug.as_str(),
        agent: &agent,
        wanted: &power(on),
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

/// The commands of a plug, newest first.
#[utoipa::path(get, path = "/api/v1/plugs/{plug_id}/outbox", tag = "plugs",
    params(("plug_id" = String, Path, min_length = 1, max_length = 128), Page),
    security(("bearer" = ["read:plugs"])), responses((status = 200, body = Entries)))]
async fn commands(
    _: Scoped<ReadPlugs>,
    State(app): State<App>,
    Path(plug): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<Entries>, Problem> {
    let plug = plug_id(plug)?;
    Ok(Json(
        outbox::page(&app.pool, Kind::PlugPower, plug.as_str(), &page).await?,
    ))
}

/// One command of a plug, with every state it was in.
#[utoipa::path(get, path = "/api/v1/plugs/{plug_id}/outbox/{id}", tag = "plugs",
    params(("plug_id" = String, Path, min_length = 1, max_length = 128), ("id" = i64, Path)),
    security(("bearer" = ["read:plugs"])),
    responses((status = 200, body = EntryWithHistory),
        (status = 404, description = "There is no such command.", body = service::problem::ProblemBody,
            content_type = "application/problem+json")))]
async fn command(
    _: Scoped<ReadPlugs>,
    State(app): State<App>,
    Path((plug, id)): Path<(String, i64)>,
) -> Result<Json<EntryWithHistory>, Problem> {
    let plug = plug_id(plug)?;
    Ok(Json(
        outbox::one(&app.pool, Kind::PlugPower, Some(plug.as_str()), id).await?,
    ))
}

/// A plug's wanted state, as it stands in the outbox.
pub(crate) fn power(on: bool) -> Map<String, Value> {
    Map::from_iter([("on".to_owned(), on.into())])
}

/// Commands for one plug are accepted one after the other.
pub(crate) async fn lock(connection: &mut PgConnection, plug: &str) -> Result<(), sqlx::Error> {
    sqlx::query("select from power_plugs where plug_id = $1 for update")
        .bind(plug)
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) fn plug_id(text: String) -> Result<DeviceId, Problem> {
    DeviceId::parse(text).map_err(|error| Problem::field("plug_id", format!("is invalid: {error}")))
}

async fn read(connection: &mut PgConnection, plug: &str) -> Result<Plug, Problem> {
    sqlx::query_as(SQL)
        .bind(plug)
        .bind(1i64)
        .fetch_optional(connection)
        .await
        .map_err(problem)?
        .ok_or_else(|| Problem::not_found("this plug never reported anything"))
}
