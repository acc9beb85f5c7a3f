//! `/api/v1/plugs/{plug_id}/schedules`: plugs that are switched every day at a local time.
//!
//! Times are in the household's zone, which stands in the database. What daylight saving does to them is stated in [`when`],
//! how runs are made in [`run`].

pub(crate) mod run;
mod when;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, NaiveTime, Utc};
use chrono_tz::Tz;
use serde::Serialize;
use serde_json::Value;
use service::extract::{Json as Body, Path};
use service::scope::{ReadPlugs, WritePlugs};
use service::{Problem, Scoped};
use sqlx::{FromRow, PgConnection};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use self::when::Daily;
use crate::App;
use crate::database::problem;
use crate::form::{Form, boolean, whole};
use crate::plugs::{lock, plug_id};

/// Schedules of one plug: a person reads them in one list, and each is looked at every second.
const MOST_SCHEDULES: i64 = 50;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list, create))
        .routes(routes!(one, change, remove))
}

/// A plug that is switched at a local time on some weekdays.
#[derive(Serialize, ToSchema)]
pub(crate) struct Schedule {
    id: i64,
    plug_id: String,
    /// 1 Monday to 7 Sunday, in order.
    weekdays: Vec<i16>,
    /// `HH:MM` in the household's time zone.
    local_time: String,
    /// Whether the plug is switched on, or off.
    on: bool,
    enabled: bool,
    created_by: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    /// When it runs next; null while it is not enabled.
    next_run_at: Option<DateTime<Utc>>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Schedules {
    items: Vec<Schedule>,
    /// The household's time zone.
    time_zone: String,
}

#[derive(FromRow)]
struct Row {
    id: i64,
    plug_id: String,
    weekdays: Vec<i16>,
    local_time: NaiveTime,
    turn_on: bool,
    enabled: bool,
    created_by: String,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl Row {
    fn shown(self, zone: Tz) -> Schedule {
        let daily = Daily {
            weekdays: self.weekdays.clone(),
            time: self.local_time,
        };
        Schedule {
            id: self.id,
            plug_id: self.plug_id,
            weekdays: self.weekdays,
            local_time: self.local_time.format("%H:%M").to_string(),
            on: self.turn_on,
            enabled: self.enabled,
            created_by: self.created_by,
            created_at: self.created_at,
            updated_at: self.updated_at,
            next_run_at: daily.next(zone, Utc::now()).filter(|_| self.enabled),
        }
    }
}

const COLUMNS: &str =
    "id, plug_id, weekdays, local_time, turn_on, enabled, created_by, created_at, updated_at";

/// The household's zone, as the migrations stored it.
async fn zone(connection: &mut PgConnection) -> Result<Tz, sqlx::Error> {
    let name: String = sqlx::query_scalar("select time_zone from household")
        .fetch_one(connection)
        .await?;
    name.parse()
        .map_err(|error| sqlx::Error::Decode(format!("household.time_zone {name:?}: {error}").into()))
}

/// What a body may hold. `needed` for a new schedule, where all but `enabled` must be there.
struct Wanted {
    weekdays: Option<Vec<i16>>,
    local_time: Option<NaiveTime>,
    on: Option<bool>,
    enabled: Option<bool>,
}

impl Wanted {
    fn read(body: Value, needed: bool) -> Result<Self, Problem> {
        let mut form = Form::new(body)?;
        let wanted = if needed {
            Self {
                weekdays: form.need("weekdays", weekdays),
                local_time: form.need("local_time", local_time),
                on: form.need("on", boolean),
                enabled: form.take("enabled", boolean),
            }
        } else {
            Self {
                weekdays: form.take("weekdays", weekdays),
                local_time: form.take("local_time", local_time),
                on: form.take("on", boolean),
                enabled: form.take("enabled", boolean),
            }
        };
        form.finish()?;
        Ok(wanted)
    }

    fn is_empty(&self) -> bool {
        self.weekdays.is_none() && self.local_time.is_none() && self.on.is_none() && self.enabled.is_none()
    }
}

fn weekdays(value: &Value) -> Result<Vec<i16>, String> {
    let fault = || "is not a list of different weekdays, 1 Monday to 7 Sunday".to_owned();
    let list = value
        .as_array()
        .filter(|list| (1..=7).contains(&list.len()))
        .ok_or_else(fault)?;
    let mut days = list
        .iter()
        .map(|day| whole(1, 7)(day).map(|day| day as i16).map_err(|_| fault()))
        .collect::<Result<Vec<_>, _>>()?;
    days.sort_unstable();
    days.dedup();
    if days.len() == list.len() {
        Ok(days)
    } else {
        Err(fault())
    }
}

fn local_time(value: &Value) -> Result<NaiveTime, String> {
    let fault = || "is not a time of day, HH:MM from 00:00 to 23:59".to_owned();
    // chrono takes other forms as well, such as 7:5; one form is enough.
    let text = value.as_str().filter(|text| text.len() == 5).ok_or_else(fault)?;
    NaiveTime::parse_from_str(text, "%H:%M").map_err(|_| fault())
}

/// The schedules of a plug.
#[utoipa::path(get, path = "/api/v1/plugs/{plug_id}/schedules", tag = "schedules",
    params(("plug_id" = String, Path, min_length = 1, max_length = 128)),
    security(("bearer" = ["read:plugs"])),
    responses((status = 200, body = Schedules),
        (status = 404, description = "The plug never reported anything.", body = service::problem::ProblemBody,
            content_type = "application/problem+json")))]
async fn list(
    _: Scoped<ReadPlugs>,
    State(app): State<App>,
    Path(plug): Path<String>,
) -> Result<Json<Schedules>, Problem> {
    let plug = plug_id(plug)?;
    let mut connection = app.pool.acquire().await.map_err(problem)?;
    must_exist(&mut connection, plug.as_str()).await?;
    let zone = zone(&mut connection).await.map_err(problem)?;
    let statement = format!(
        "select {COLUMNS} from power_plug_schedules where plug_id = $1 order by local_time, id limit $2"
    );
    let rows: Vec<Row> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(plug.as_str())
        .bind(MOST_SCHEDULES)
        .fetch_all(&mut *connection)
        .await
        .map_err(problem)?;
    Ok(Json(Schedules {
        items: rows.into_iter().map(|row| row.shown(zone)).collect(),
        time_zone: zone.name().to_owned(),
    }))
}

/// A new schedule.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the schema of a body that is checked field by field")]
struct NewSchedule {
    /// 1 Monday to 7 Sunday.
    #[schema(min_items = 1, max_items = 7)]
    weekdays: Vec<i16>,
    /// `HH:MM` in the household's time zone.
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    local_time: String,
    /// Whether the plug is switched on, or off.
    on: bool,
    /// Default true.
    enabled: Option<bool>,
}

/// Adds a schedule. It begins now: a time of today that has passed runs tomorrow at the earliest.
#[utoipa::path(post, path = "/api/v1/plugs/{plug_id}/schedules", tag = "schedules",
    params(("plug_id" = String, Path, min_length = 1, max_length = 128)),
    request_body = NewSchedule,
    security(("bearer" = ["write:plugs"])),
    responses((status = 201, body = Schedule, headers(("Location" = String, description = "The schedule."))),
        (status = 404, description = "The plug never reported anything.", body = service::problem::ProblemBody,
            content_type = "application/problem+json"),
        (status = 409, description = "The plug has as many schedules as it can have.",
            body = service::problem::ProblemBody, content_type = "application/problem+json")))]
async fn create(
    caller: Scoped<WritePlugs>,
    State(app): State<App>,
    Path(plug): Path<String>,
    Body(body): Body<Value>,
) -> Result<Response, Problem> {
    let plug = plug_id(plug)?;
    let wanted = Wanted::read(body, true)?;
    let mut transaction = app.pool.begin().await.map_err(problem)?;
    // Counting and adding are one step for callers that come together.
    lock(&mut transaction, plug.as_str()).await.map_err(problem)?;
    must_exist(&mut transaction, plug.as_str()).await?;
    let zone = zone(&mut transaction).await.map_err(problem)?;
    let known: i64 = sqlx::query_scalar("select count(*) from power_plug_schedules where plug_id = $1")
        .bind(plug.as_str())
        .fetch_one(&mut *transaction)
        .await
        .map_err(problem)?;
    if known >= MOST_SCHEDULES {
        let detail = format!("a plug has at most {MOST_SCHEDULES} schedules");
        return Err(Problem::new(StatusCode::CONFLICT, detail));
    }
    let statement = format!(
        "insert into power_plug_schedules (plug_id, weekdays, local_time, turn_on, enabled, created_by)
         values ($1, $2, $3, $4, $5, $6) returning {COLUMNS}"
    );
    let row: Row = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(plug.as_str())
        .bind(wanted.weekdays)
        .bind(wanted.local_time)
        .bind(wanted.on)
        .bind(wanted.enabled.unwrap_or(true))
        .bind(&caller.claims.subject)
        .fetch_one(&mut *transaction)
        .await
        .map_err(problem)?;
    transaction.commit().await.map_err(problem)?;
    let schedule = row.shown(zone);
    let mut response = (StatusCode::CREATED, Json(&schedule)).into_response();
    // Relative to the request's own path, which already spells the plug.
    let location =
        HeaderValue::from_str(&format!("schedules/{}", schedule.id)).expect("a number is plain ASCII");
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// One schedule.
#[utoipa::path(get, path = "/api/v1/plugs/{plug_id}/schedules/{id}", tag = "schedules",
    params(("plug_id" = String, Path, min_length = 1, max_length = 128), ("id" = i64, Path)),
    security(("bearer" = ["read:plugs"])),
    responses((status = 200, body = Schedule),
        (status = 404, description = "There is no such schedule.", body = service::problem::ProblemBody,
            content_type = "application/problem+json")))]
async fn one(
    _: Scoped<ReadPlugs>,
    State(app): State<App>,
    Path((plug, id)): Path<(String, i64)>,
) -> Result<Json<Schedule>, Problem> {
    let plug = plug_id(plug)?;
    let mut connection = app.pool.acquire().await.map_err(problem)?;
    let zone = zone(&mut connection).await.map_err(problem)?;
    let statement = format!("select {COLUMNS} from power_plug_schedules where plug_id = $1 and id = $2");
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(plug.as_str())
        .bind(id)
        .fetch_optional(&mut *connection)
        .await
        .map_err(problem)?;
    Ok(Json(row.ok_or_else(absent)?.shown(zone)))
}

/// What a schedule may be changed to; only the fields to change are present, at least one.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the schema of a body that is checked field by field")]
struct ScheduleChange {
    #[schema(min_items = 1, max_items = 7)]
    weekdays: Option<Vec<i16>>,
    #[schema(pattern = "^([01][0-9]|2[0-3]):[0-5][0-9]$")]
    local_time: Option<String>,
    on: Option<bool>,
    enabled: Option<bool>,
}

/// Changes a schedule. It begins anew: a time of today that has passed runs tomorrow at the earliest.
#[utoipa::path(patch, path = "/api/v1/plugs/{plug_id}/schedules/{id}", tag = "schedules",
    params(("plug_id" = String, Path, min_length = 1, max_length = 128), ("id" = i64, Path)),
    request_body = ScheduleChange,
    security(("bearer" = ["write:plugs"])),
    responses((status = 200, body = Schedule),
        (status = 404, description = "There is no such schedule.", body = service::problem::ProblemBody,
            content_type = "application/problem+json")))]
async fn change(
    _: Scoped<WritePlugs>,
    State(app): State<App>,
    Path((plug, id)): Path<(String, i64)>,
    Body(body): Body<Value>,
) -> Result<Json<Schedule>, Problem> {
    let plug = plug_id(plug)?;
    let wanted = Wanted::read(body, false)?;
    if wanted.is_empty() {
        return Err(Problem::bad_request("the body changes nothing"));
    }
    let mut connection = app.pool.acquire().await.map_err(problem)?;
    let zone = zone(&mut connection).await.map_err(problem)?;
    let statement = format!(
        "update power_plug_schedules set weekdays = coalesce($3, weekdays), local_time = coalesce($4, local_time),
             turn_on = coalesce($5, turn_on), enabled = coalesce($6, enabled), updated_at = now(), effective_from = now()
         where plug_id = $1 and id = $2 returning {COLUMNS}"
    );
    let row: Option<Row> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(plug.as_str())
        .bind(id)
        .bind(wanted.weekdays)
        .bind(wanted.local_time)
        .bind(wanted.on)
        .bind(wanted.enabled)
        .fetch_optional(&mut *connection)
        .await
        .map_err(problem)?;
    Ok(Json(row.ok_or_else(absent)?.shown(zone)))
}

/// Removes a schedule. A command it has already made goes on.
#[utoipa::path(delete, path = "/api/v1/plugs/{plug_id}/schedules/{id}", tag = "schedules",
    params(("plug_id" = String, Path, min_length = 1, max_length = 128), ("id" = i64, Path)),
    security(("bearer" = ["write:plugs"])),
    responses((status = 204, description = "It is gone."),
        (status = 404, description = "There is no such schedule.", body = service::problem::ProblemBody,
            content_type = "application/problem+json")))]
async fn remove(
    _: Scoped<WritePlugs>,
    State(app): State<App>,
    Path((plug, id)): Path<(String, i64)>,
) -> Result<StatusCode, Problem> {
    let plug = plug_id(plug)?;
    let removed = sqlx::query("delete from power_plug_schedules where plug_id = $1 and id = $2")
        .bind(plug.as_str())
        .bind(id)
        .execute(&app.pool)
        .await
        .map_err(problem)?;
    if removed.rows_affected() == 0 {
        return Err(absent());
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn must_exist(connection: &mut PgConnection, plug: &str) -> Result<(), Problem> {
    let known: bool = sqlx::query_scalar("select exists (select from power_plugs where plug_id = $1)")
        .bind(plug)
        .fetch_one(connection)
        .await
        .map_err(problem)?;
    if known {
        Ok(())
    } else {
        Err(Problem::not_found("this plug never reported anything"))
    }
}

fn absent() -> Problem {
    Problem::not_found("there is no such schedule")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bodies_are_checked() {
        let good = json!({"weekdays": [7, 1], "local_time": "06:30", "on": true});
        let wanted = Wanted::read(good.clone(), true).map_err(|_| ()).unwrap();
        assert_eq!(wanted.weekdays, Some(vec![1, 7]));
        assert_eq!(wanted.local_time, NaiveTime::from_hms_opt(6, 30, 0));
        for (name, value) in [
            ("weekdays", json!([])),
            ("weekdays", json!([0])),
            ("weekdays", json!([1, 1])),
            ("weekdays", json!([1, 2, 3, 4, 5, 6, 7, 8])),
            ("weekdays", json!("monday")),
            ("local_time", json!("24:00")),
            ("local_time", json!("7:30")),
            ("local_time", json!("07:30:00")),
            ("local_time", json!("+7:30")),
            ("local_time", json!(730)),
            ("on", json!("ON")),
            ("on", json!(null)),
            ("enabled", json!(1)),
            ("sunrise", json!(true)),
        ] {
            let mut body = good.clone();
            body[name] = value.clone();
            assert!(Wanted::read(body, true).is_err(), "{name} {value}");
            assert!(
                Wanted::read(json!({name: value}), false).is_err(),
                "{name} {value}"
            );
        }
        for name in ["weekdays", "local_time", "on"] {
            let mut body = good.clone();
            body.as_object_mut().unwrap().remove(name);
            assert!(Wanted::read(body, true).is_err(), "{name}");
        }
        assert!(Wanted::read(json!({}), false).is_ok_and(|wanted| wanted.is_empty()));
    }
}
