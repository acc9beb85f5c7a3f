//! `/api/v1/devices`: which devices there are, when each was last heard, and since when it is overdue.

use axum::Json;
use axum::extract::State;
use chrono::{DateTime, TimeDelta, Utc};
use serde::Serialize;
use service::scope::{AnyReading, READ_ENERGY, READ_HEATPUMP, READ_PLUGS, READ_TEMPERATURE};
use service::{Claims, Problem, Scoped};
use sqlx::FromRow;
use telemetry::Kind;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::database::problem;

/// A device is overdue after so many of its intervals (docs/DEVICES.md: a sensor is stale after 1.5 periods).
const STALE_INTERVALS: f64 = 1.5;
/// But not before this, in seconds: a meter that reports every second may pause for breath.
const STALE_FLOOR_SECONDS: f64 = 60.0;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(devices))
}

/// The kinds of reading a token covers.
pub(crate) fn kinds_of(claims: &Claims) -> Vec<&'static str> {
    let scope = |kind| match kind {
        Kind::Temperature => READ_TEMPERATURE,
        Kind::Energy => READ_ENERGY,
        Kind::Heatpump => READ_HEATPUMP,
        Kind::Plug => READ_PLUGS,
    };
    Kind::ALL
        .into_iter()
        .filter(|kind| claims.has(scope(*kind)))
        .map(Kind::as_str)
        .collect()
}

/// One device, as it was last heard.
#[derive(Serialize, ToSchema)]
pub(crate) struct Device {
    device_id: String,
    /// temperature, energy, heatpump or plug.
    kind: String,
    location: Option<String>,
    agent: String,
    /// What the agent last said of its session; null when it never did. A sensor that sleeps is offline most of the time.
    online: Option<bool>,
    last_seen: DateTime<Utc>,
    /// The sensor's own wake period, or the median of its last intervals.
    expected_interval_seconds: Option<f64>,
    /// Since when it is overdue; null while it is not.
    stale_since: Option<DateTime<Utc>>,
    battery_percent: Option<f64>,
    rssi_dbm: Option<f64>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Devices {
    items: Vec<Device>,
}

#[derive(FromRow)]
struct Row {
    device_id: String,
    kind: String,
    location: Option<String>,
    agent: String,
    online: Option<bool>,
    last_seen: DateTime<Utc>,
    wake_period_seconds: Option<f64>,
    median_interval_seconds: Option<f64>,
    battery_percent: Option<f64>,
    rssi_dbm: Option<f64>,
}

impl Row {
    fn into_device(self, now: DateTime<Utc>) -> Device {
        let expected_interval_seconds = self
            .wake_period_seconds
            .or(self.median_interval_seconds)
            .filter(|s| *s > 0.0);
        let stale_since = expected_interval_seconds.and_then(|interval| {
            let patience = (interval * STALE_INTERVALS).max(STALE_FLOOR_SECONDS);
            // A period of centuries, reported by a broken sensor, makes nothing stale.
            let patience = TimeDelta::try_milliseconds((patience * 1_000.0) as i64)?;
            self.last_seen
                .checked_add_signed(patience)
                .filter(|due| *due < now)
        });
        Device {
            device_id: self.device_id,
            kind: self.kind,
            location: self.location,
            agent: self.agent,
            online: self.online,
            last_seen: self.last_seen,
            expected_interval_seconds,
            stale_since,
            battery_percent: self.battery_percent,
            rssi_dbm: self.rssi_dbm,
        }
    }
}

/// The newest 21 readings of each device by index, hence at most 20 intervals; the newest gives the rest. The columns a
/// kind does not have are null.
const SQL: &str = "
    select s.device_id, s.kind, newest.location, newest.agent, newest.last_seen, newest.wake_period_seconds,
        newest.battery_percent, newest.rssi_dbm, newest.median_interval_seconds,
        (
            select (details ->> 'online')::boolean from events
            where events.device_id = s.device_id and type = 'device_online' order by time desc limit 1
        ) as online
    from device_spans as s
    cross join lateral (
        select (array_agg(location order by time desc))[1] as location, (array_agg(agent order by time desc))[1] as agent,
            max(time) as last_seen, (array_agg(wake_period_seconds order by time desc))[1] as wake_period_seconds,
            (array_agg(battery_percent order by time desc))[1] as battery_percent,
            (array_agg(rssi_dbm order by time desc))[1] as rssi_dbm,
            percentile_cont(0.5) within group (order by interval_seconds) as median_interval_seconds
        from (
            select *, extract(epoch from time - lag(time) over (order by time))::float8 as interval_seconds
            from (
                (select time, location, agent, wake_period_seconds, battery_percent, rssi_dbm
                 from temperature_sensors where s.kind = 'temperature' and device_id = s.device_id
                 order by time desc limit 21)
                union all
                (select time, location, agent, null, null, rssi_dbm
                 from energy_consumption where s.kind = 'energy' and device_id = s.device_id
                 order by time desc limit 21)
                union all
                (select time, location, agent, null, null, null
                 from heatpump_status where s.kind = 'heatpump' and device_id = s.device_id
                 order by time desc limit 21)
                union all
                (select time, location, agent, null, null, rssi_dbm
                 from plug_status where s.kind = 'plug' and device_id = s.device_id
                 order by time desc limit 21)
            ) as readings
        ) as intervals
        having count(*) > 0
    ) as newest
    where s.kind = any($1)
    order by s.device_id, s.kind";

/// Devices of the kinds the token covers.
#[utoipa::path(get, path = "/api/v1/devices", tag = "devices",
    security(("bearer" = ["read:energy"]), ("bearer" = ["read:heatpump"]), ("bearer" = ["read:temperature"]), ("bearer" = ["read:plugs"])),
    responses((status = 200, body = Devices)))]
async fn devices(caller: Scoped<AnyReading>, State(app): State<App>) -> Result<Json<Devices>, Problem> {
    let rows: Vec<Row> = sqlx::query_as(SQL)
        .bind(kinds_of(&caller.claims))
        .fetch_all(app.database.pool())
        .await
        .map_err(problem)?;
    let now = Utc::now();
    Ok(Json(Devices {
        items: rows.into_iter().map(|row| row.into_device(now)).collect(),
    }))
}
