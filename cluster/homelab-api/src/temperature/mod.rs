//! `/api/v1/temperature/...`: newest readings and their history.

mod sensor;

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use service::extract::Query;
use service::scope::ReadTemperature;
use service::{Problem, Scoped};
use sqlx::{FromRow, PgPool};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use sensor::Sensor;

use crate::App;
use crate::answer::{Columns, Wish};
use crate::database::problem;
use crate::range::{Limits, Range, device_id, location, range};

const HISTORY: Limits = Limits::days(1, 366, "366 days");
/// Longest range in hours, as [`HISTORY`].
const MOST_HOURS: u32 = 366 * 24;
/// Readings a device that are answered as they are; above it they are averaged.
const POINTS: i64 = 2_000;
/// Age from which raw readings may have been dropped (after 90 days on TimescaleDB, with room for the job's own time).
const RAW_AGE: TimeDelta = TimeDelta::days(88);

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(latest))
        .routes(routes!(all_latest))
        .routes(routes!(history))
}

/// What one sensor reported last.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct TemperatureReading {
    device_id: String,
    time: DateTime<Utc>,
    /// How far the time can be trusted: synced, corrected or unsynced.
    clock: String,
    agent: String,
    location: Option<String>,
    temperature_c: Option<f64>,
    humidity_percent: Option<f64>,
    battery_volts: Option<f64>,
    battery_percent: Option<f64>,
    external_power: Option<bool>,
    rssi_dbm: Option<f64>,
    uptime_seconds: Option<f64>,
    wake_period_seconds: Option<f64>,
    wind_speed_ms: Option<f64>,
    pressure_hpa: Option<f64>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct TemperatureReadings {
    items: Vec<TemperatureReading>,
}

/// Readings, or means where there are many.
#[derive(Serialize, ToSchema)]
pub(crate) struct TemperatureSeries<'a> {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// Length of a bucket; null when the items are raw readings.
    resolution_seconds: Option<i64>,
    items: Vec<TemperaturePoint<'a>>,
}

/// One reading, or one bucket with the time of its start.
#[derive(Serialize, ToSchema)]
pub(crate) struct TemperaturePoint<'a> {
    device_id: &'a str,
    location: Option<&'a str>,
    time: DateTime<Utc>,
    temperature_c: Option<f64>,
    humidity_percent: Option<f64>,
}

impl Columns for TemperaturePoint<'_> {
    const COLUMNS: &'static [&'static str] = &[
        "device_id",
        "location",
        "time",
        "temperature_c",
        "humidity_percent",
    ];
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LatestQuery {
    /// One place; all by default.
    #[param(min_length = 1, max_length = 128)]
    location: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// One place.
    #[param(min_length = 1, max_length = 128)]
    location: Option<String>,
    /// One sensor. Without a place and a sensor all are answered.
    #[param(min_length = 1, max_length = 128)]
    device_id: Option<String>,
    /// Included.
    #[param(format = "date-time")]
    from: Option<String>,
    /// Not included; now by default.
    #[param(format = "date-time")]
    to: Option<String>,
    /// The last hours, in place of from and to.
    #[param(value_type = Option<u32>, minimum = 1, maximum = 8784)]
    hours: Option<String>,
}

/// Newest reading of each sensor of a place.
#[utoipa::path(get, path = "/api/v1/temperature/latest", tag = "temperature", params(LatestQuery),
    security(("bearer" = ["read:temperature"])), responses((status = 200, body = TemperatureReadings)))]
async fn latest(
    _: Scoped<ReadTemperature>,
    State(app): State<App>,
    Query(query): Query<LatestQuery>,
) -> Result<Json<TemperatureReadings>, Problem> {
    newest(app.database.pool(), location(query.location.as_deref())?).await
}

/// Newest reading of each sensor.
#[utoipa::path(get, path = "/api/v1/temperature/all-latest", tag = "temperature",
    security(("bearer" = ["read:temperature"])), responses((status = 200, body = TemperatureReadings)))]
async fn all_latest(
    _: Scoped<ReadTemperature>,
    State(app): State<App>,
) -> Result<Json<TemperatureReadings>, Problem> {
    newest(app.database.pool(), None).await
}

async fn newest(pool: &PgPool, location: Option<&str>) -> Result<Json<TemperatureReadings>, Problem> {
    // A sensor is where its newest reading says it is.
    const SQL: &str = "
        select r.* from device_spans as s
        cross join lateral (
            select * from temperature_sensors where device_id = s.device_id order by time desc limit 1
        ) as r
        where s.kind = 'temperature' and ($1::text is null or r.location = $1)
        order by r.device_id";
    let items = sqlx::query_as(SQL)
        .bind(location)
        .fetch_all(pool)
        .await
        .map_err(problem)?;
    Ok(Json(TemperatureReadings { items }))
}

/// Temperature and humidity over time.
#[utoipa::path(get, path = "/api/v1/temperature/history", tag = "temperature", params(HistoryQuery),
    security(("bearer" = ["read:temperature"])), responses(
    (status = 200, content((TemperatureSeries = "application/json"), (String = "text/csv"))),
    (status = 304, description = "What `If-None-Match` names is still right."),
))]
async fn history(
    _: Scoped<ReadTemperature>,
    State(app): State<App>,
    Query(query): Query<HistoryQuery>,
    wish: Wish,
) -> Result<Response, Problem> {
    let now = Utc::now();
    let range = history_range(&query, now)?;
    let wanted = Wanted {
        location: location(query.location.as_deref())?.map(str::to_owned),
        device_id: device_id(query.device_id.as_deref())?.map(String::from),
        range,
    };
    let pool = app.database.pool();
    let (resolution, sensors) = wanted.sensors(pool, now).await?;
    let series = TemperatureSeries {
        from: range.from,
        to: range.to,
        resolution_seconds: resolution.map(Resolution::seconds),
        items: Vec::new(),
    };
    wish.answer_written(
        range,
        now,
        || {
            let mut json = serde_json::to_vec(&series)?;
            // The empty array of the items is last, and is filled here.
            json.truncate(json.len() - b"]}".len());
            for sensor in &sensors {
                sensor.write_json(&mut json);
            }
            json.extend_from_slice(b"]}");
            Ok(json)
        },
        sensors.iter().flat_map(Sensor::points),
    )
}

fn history_range(query: &HistoryQuery, now: DateTime<Utc>) -> Result<Range, Problem> {
    let Some(hours) = &query.hours else {
        return range(query.from.as_deref(), query.to.as_deref(), now, HISTORY);
    };
    if query.from.is_some() || query.to.is_some() {
        return Err(Problem::field(
            "hours",
            "cannot be given together with from or to",
        ));
    }
    match hours.parse() {
        Ok(hours @ 1..=MOST_HOURS) => Ok(Range {
            from: now - TimeDelta::hours(hours.into()),
            to: now,
        }),
        _ => Err(Problem::field(
            "hours",
            format!("must be a whole number from 1 to {MOST_HOURS}"),
        )),
    }
}

/// Length of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    Minutes(i32),
    Hour,
}

impl Resolution {
    fn seconds(self) -> i64 {
        match self {
            Self::Minutes(minutes) => i64::from(minutes) * 60,
            Self::Hour => 3_600,
        }
    }

    /// The finest that gives at most [`POINTS`] points a device; an hour at worst.
    fn of(range: Range) -> Self {
        [Self::Minutes(5), Self::Minutes(15)]
            .into_iter()
            .find(|r| range.length().num_seconds() <= POINTS * r.seconds())
            .unwrap_or(Self::Hour)
    }
}

struct Wanted {
    location: Option<String>,
    device_id: Option<String>,
    range: Range,
}

/// The columns of [`Sensor`]; its arrays are in the order of the rows they are made of.
macro_rules! arrays {
    ($order:literal) => {
        concat!(
            "array_agg(location",
            $order,
            ") as locations, array_agg(time",
            $order,
            ") as times, array_agg(temperature_c",
            $order,
            ") as temperatures_c, array_agg(humidity_percent",
            $order,
            ") as humidities_percent"
        )
    };
}

/// Each statement takes device, location, from, to. Readings whose clock was never synchronised stand at a wrong place
/// and are left out.
macro_rules! readings_sql {
    ($columns:literal, $tail:literal) => {
        concat!(
            "select s.device_id, a.* from device_spans as s cross join lateral (
                select ",
            arrays!(""),
            " from (
                    select ",
            $columns,
            " from temperature_sensors
                    where device_id = s.device_id and time >= $3 and time < $4 and clock <> 'unsynced'
                        and ($2::text is null or location = $2) ",
            $tail,
            "
                ) as in_order
             ) as a
             where s.kind = 'temperature' and ($1::text is null or s.device_id = $1) and a.times is not null
             order by s.device_id"
        )
    };
}

/// One reading more than is answered, so that "too many" is seen without a count.
pub const RAW_SQL: &str = readings_sql!(
    "location, time, temperature_c, humidity_percent",
    "order by time limit $5"
);
const MINUTES_SQL: &str = readings_sql!(
    "location, date_bin(make_interval(mins => $5::int), time, '2000-01-01 00:00:00+00') as time,
     avg(temperature_c) as temperature_c, avg(humidity_percent) as humidity_percent",
    "group by 1, 2 order by 2"
);
const HOURS_SQL: &str = concat!(
    "select device_id, ",
    arrays!(" order by time"),
    " from (
        select device_id, location, hour_start as time, mean_temperature_c as temperature_c,
            mean_humidity_percent as humidity_percent
        from temperature_hourly
        where ($1::text is null or device_id = $1) and ($2::text is null or location = $2)
            and hour_start >= $3 and hour_start < $4
    ) as hours
    group by device_id order by device_id"
);
/// Start of the first hour of all.
const FIRST_HOUR_SQL: &str = "
    select min(hour_start) from temperature_hourly
    where ($1::text is null or device_id = $1) and ($2::text is null or location = $2)
        and hour_start >= $3 and hour_start < $4";

impl Wanted {
    /// Raw readings where no device has too many; means otherwise, and hours where raw readings may have been dropped and
    /// the hours reach further back.
    async fn sensors(
        &self,
        pool: &PgPool,
        now: DateTime<Utc>,
    ) -> Result<(Option<Resolution>, Vec<Sensor>), Problem> {
        let raw = self.fetch(RAW_SQL, Some(POINTS + 1), pool).await?;
        let most_of_one = raw.iter().map(Sensor::len).max();
        let resolution = if self.hours_reach_back(&raw, pool, now).await? {
            Resolution::Hour
        } else if most_of_one > Some(POINTS as usize) {
            Resolution::of(self.range)
        } else {
            return Ok((None, raw));
        };
        drop(raw);
        let sensors = match resolution {
            Resolution::Minutes(minutes) => self.fetch(MINUTES_SQL, Some(minutes.into()), pool).await?,
            Resolution::Hour => self.fetch(HOURS_SQL, None, pool).await?,
        };
        Ok((Some(resolution), sensors))
    }

    async fn hours_reach_back(
        &self,
        raw: &[Sensor],
        pool: &PgPool,
        now: DateTime<Utc>,
    ) -> Result<bool, Problem> {
        if self.range.from >= now - RAW_AGE {
            return Ok(false);
        }
        let first_hour: Option<DateTime<Utc>> = sqlx::query_scalar(FIRST_HOUR_SQL)
            .bind(&self.device_id)
            .bind(&self.location)
            .bind(self.range.from)
            .bind(self.range.to)
            .fetch_one(pool)
            .await
            .map_err(problem)?;
        let first = raw.iter().filter_map(Sensor::first_time).min();
        Ok(match (first_hour, first) {
            (Some(hour), Some(first)) => hour + TimeDelta::hours(1) <= first,
            (Some(_), None) => true,
            (None, _) => false,
        })
    }

    /// `fifth` is the limit a device, or the minutes of a bucket.
    async fn fetch(
        &self,
        sql: &'static str,
        fifth: Option<i64>,
        pool: &PgPool,
    ) -> Result<Vec<Sensor>, Problem> {
        let mut query = sqlx::query_as(sql)
            .bind(&self.device_id)
            .bind(&self.location)
            .bind(self.range.from)
            .bind(self.range.to);
        if let Some(fifth) = fifth {
            query = query.bind(fifth);
        }
        query.fetch_all(pool).await.map_err(problem)
    }
}
