//! Commands on their way to a device: how one is accepted, and how it is shown.
//!
//! A row is written in the transaction that accepts the wish, together with who asked. Sending and confirming it is the work
//! of [`relay`](crate::relay) and [`progress`](crate::progress).

use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use service::Problem;
use sqlx::types::Json;
use sqlx::{FromRow, PgConnection, PgPool};
use utoipa::{IntoParams, ToSchema};

use crate::database::problem;

/// Attempts at one command.
pub(crate) const MAX_ATTEMPTS: i16 = 3;
/// Rows in one answer, by default and at most.
const ROWS: i64 = 20;
const MOST_ROWS: i64 = 100;

/// What a command is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    HeatpumpSettings,
    PlugPower,
}

impl Kind {
    /// The word in the database.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Kind::HeatpumpSettings => "heatpump_settings",
            Kind::PlugPower => "plug_power",
        }
    }

    /// Where its commands are read.
    fn path(self, device: &str, id: i64) -> String {
        match self {
            Kind::HeatpumpSettings => format!("/api/v1/heatpump/settings/outbox/{id}"),
            Kind::PlugPower => format!("/api/v1/plugs/{}/outbox/{id}", encoded(device)),
        }
    }
}

/// A device id as a part of a path.
fn encoded(text: &str) -> String {
    let keep = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~:".contains(&byte);
    text.bytes()
        .map(|byte| {
            if keep(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

/// What is wanted of a device, and who wants it.
pub(crate) struct Wish<'a> {
    pub(crate) kind: Kind,
    pub(crate) device: &'a str,
    /// The agent the device's latest telemetry came through.
    pub(crate) agent: &'a str,
    pub(crate) wanted: &'a Map<String, Value>,
    pub(crate) requested_by: &'a str,
    pub(crate) schedule: Option<i64>,
    pub(crate) idempotency_key: Option<&'a str>,
    pub(crate) expiry: Duration,
}

/// A command that was accepted.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct Accepted {
    pub(crate) outbox_id: i64,
    device_id: String,
    /// pending, published, confirmed, failed, expired or superseded.
    status: String,
    expires_at: DateTime<Utc>,
}

/// What an earlier request with the same key asked for.
#[derive(FromRow)]
struct Earlier {
    kind: String,
    asked: Json<Map<String, Value>>,
    #[sqlx(flatten)]
    accepted: Accepted,
}

/// Adds a row, and takes its fields out of the open rows before it: one that wants nothing else is superseded. The caller
/// owns the transaction and holds the lock on the device's own row, so rows of one device are numbered in the order they are
/// accepted.
pub(crate) async fn add(connection: &mut PgConnection, wish: &Wish<'_>) -> Result<Accepted, sqlx::Error> {
    let accepted: Accepted = sqlx::query_as(
        "insert into outbox (kind, device_id, agent, wanted, asked, requested_by, schedule_id, idempotency_key, expires_at)
         values ($1, $2, $3, $4, $4, $5, $6, $7, now() + make_interval(secs => $8))
         returning id as outbox_id, device_id, status, expires_at",
    )
    .bind(wish.kind.as_str())
    .bind(wish.device)
    .bind(wish.agent)
    .bind(Json(wish.wanted))
    .bind(wish.requested_by)
    .bind(wish.schedule)
    .bind(wish.idempotency_key)
    .bind(wish.expiry.as_secs_f64())
    .fetch_one(&mut *connection)
    .await?;
    let fields: Vec<&str> = wish.wanted.keys().map(String::as_str).collect();
    sqlx::query(
        "update outbox set
             status = case when wanted - $4 = '{}' then 'superseded' else status end,
             finished_at = case when wanted - $4 = '{}' then now() end,
             next_attempt = case when wanted - $4 = '{}' then null else next_attempt end,
             reason = case when wanted - $4 = '{}' then 'by ' || $3 else reason end,
             wanted = case when wanted - $4 = '{}' then wanted else wanted - $4 end,
             updated_at = now()
         where kind = $1 and device_id = $2 and id < $3 and status in ('pending', 'published') and wanted ?| $4",
    )
    .bind(wish.kind.as_str())
    .bind(wish.device)
    .bind(accepted.outbox_id)
    .bind(&fields)
    .execute(connection)
    .await?;
    Ok(accepted)
}

/// The command an earlier request with this key made. The same key for another wish is 422.
pub(crate) async fn earlier(
    connection: &mut PgConnection,
    key: Option<&str>,
    requested_by: &str,
    kind: Kind,
    device: &str,
    asked: &Value,
) -> Result<Option<Accepted>, Problem> {
    let Some(key) = key else { return Ok(None) };
    let found: Option<Earlier> = sqlx::query_as(
        "select kind, coalesce(asked, wanted) as asked, id as outbox_id, device_id, status, expires_at from outbox
         where requested_by = $1 and idempotency_key = $2",
    )
    .bind(requested_by)
    .bind(key)
    .fetch_optional(connection)
    .await
    .map_err(problem)?;
    match found {
        None => Ok(None),
        Some(earlier)
            if earlier.kind == kind.as_str()
                && earlier.accepted.device_id == device
                && asked.as_object() == Some(&earlier.asked.0) =>
        {
            Ok(Some(earlier.accepted))
        }
        Some(_) => Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "this Idempotency-Key was used for another request",
        )),
    }
}

/// A failed transaction as the caller sees it. Two requests with one key at the same time for two devices meet in the index.
pub(crate) fn conflict(error: sqlx::Error) -> Problem {
    if error.as_database_error().is_some_and(|e| e.is_unique_violation()) {
        Problem::new(
            StatusCode::CONFLICT,
            "this Idempotency-Key is in use by another request",
        )
    } else {
        problem(error)
    }
}

/// 202 with where to follow the command.
pub(crate) fn accepted(kind: Kind, accepted: Accepted) -> Response {
    let path = kind.path(&accepted.device_id, accepted.outbox_id);
    let location = HeaderValue::from_str(&path).expect("a path is plain ASCII");
    (
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        axum::Json(accepted),
    )
        .into_response()
}

/// One command.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct Entry {
    id: i64,
    device_id: String,
    /// heatpump_settings or plug_power.
    kind: String,
    /// What was asked for.
    #[schema(value_type = Object)]
    asked: Json<Value>,
    /// What of it is still this command's: a later one takes over the fields it names.
    #[schema(value_type = Object)]
    wanted: Json<Value>,
    /// pending, published, confirmed, failed, expired or superseded.
    status: String,
    attempts: i16,
    /// The agent the latest attempt is addressed to.
    agent: String,
    /// Who asked: the subject of a token, or `schedule:<id>`.
    requested_by: String,
    /// Why it is as it is, for a person.
    reason: Option<String>,
    created_at: DateTime<Utc>,
    /// When the agent said that it had published the command to the device.
    published_at: Option<DateTime<Utc>>,
    expires_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
}

/// A page of commands, newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct Entries {
    items: Vec<Entry>,
    /// `before` of the next page; null on the last.
    next: Option<i64>,
}

/// One command with every state it was in.
#[derive(Serialize, ToSchema)]
pub(crate) struct EntryWithHistory {
    #[serde(flatten)]
    entry: Entry,
    history: Vec<Change>,
}

/// One change of a command's state.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct Change {
    at: DateTime<Utc>,
    status: String,
    attempts: i16,
    reason: Option<String>,
}

/// Which page.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    /// Rows, 1 to 100; default 20.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<i64>,
    /// Only commands with a smaller id.
    before: Option<i64>,
}

const COLUMNS: &str =
    "id, device_id, kind, coalesce(asked, wanted) as asked, wanted, status, attempts, agent, requested_by, reason, created_at,
    published_at, expires_at, finished_at";

/// The commands of a device, newest first.
pub(crate) async fn page(pool: &PgPool, kind: Kind, device: &str, page: &Page) -> Result<Entries, Problem> {
    let limit = page.limit.unwrap_or(ROWS);
    if !(1..=MOST_ROWS).contains(&limit) {
        return Err(Problem::field("limit", format!("is not from 1 to {MOST_ROWS}")));
    }
    let statement = format!(
        "select {COLUMNS} from outbox where kind = $1 and device_id = $2 and ($3::bigint is null or id < $3)
         order by id desc limit $4"
    );
    let mut items: Vec<Entry> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(kind.as_str())
        .bind(device)
        .bind(page.before)
        .bind(limit + 1)
        .fetch_all(pool)
        .await
        .map_err(problem)?;
    let more = items.len() as i64 > limit;
    items.truncate(limit as usize);
    let next = items.last().filter(|_| more).map(|entry| entry.id);
    Ok(Entries { items, next })
}

/// One command of this kind, and of this device where one is named.
pub(crate) async fn one(
    pool: &PgPool,
    kind: Kind,
    device: Option<&str>,
    id: i64,
) -> Result<EntryWithHistory, Problem> {
    let statement = format!(
        "select {COLUMNS} from outbox where id = $1 and kind = $2 and ($3::text is null or device_id = $3)"
    );
    let entry: Option<Entry> = sqlx::query_as(sqlx::AssertSqlSafe(statement))
        .bind(id)
        .bind(kind.as_str())
        .bind(device)
        .fetch_optional(pool)
        .await
        .map_err(problem)?;
    let entry = entry.ok_or_else(|| Problem::not_found("there is no such command"))?;
    let history = sqlx::query_as(
        "select at, status, attempts, reason from outbox_history where outbox_id = $1 order by id",
    )
    .bind(id)
    .fetch_all(pool)
    .await
    .map_err(problem)?;
    Ok(EntryWithHistory { entry, history })
}
