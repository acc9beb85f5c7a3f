//! `/api/v1/heatpump/...`: newest status, series by resolution, days.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use service::extract::Query;
use service::scope::ReadHeatpump;
use service::{Problem, Scoped};
use sqlx::FromRow;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::answer::{Columns, Wish};
use crate::database::problem;
use crate::latest::latest_sql;
use crate::range::{Limits, Range, device_id, range};

const HISTORY: Limits = Limits::days(1, 366, "366 days");
const DAYS: Limits = Limits::days(30, 800, "800 days");
/// Points a device that a chart is given by default.
const POINTS: i64 = 1_500;
/// Points a device that are answered at most: a day by the minute, or a year by the hour, is a caller's right.
const MOST_POINTS: i64 = 10_000;

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(latest))
        .routes(routes!(history))
        .routes(routes!(daily_summary))
}

/// What one heat pump reported last.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct HeatpumpReading {
    device_id: String,
    time: DateTime<Utc>,
    /// How far the time can be trusted: synced, corrected or unsynced.
    clock: String,
    agent: String,
    location: Option<String>,
    outdoor_c: Option<f64>,
    indoor_c: Option<f64>,
    supply_c: Option<f64>,
    return_c: Option<f64>,
    hot_water_c: Option<f64>,
    brine_in_c: Option<f64>,
    brine_out_c: Option<f64>,
    integral: Option<f64>,
    flow_pump_percent: Option<f64>,
    compressor_on: Option<bool>,
    brine_pump_on: Option<bool>,
    flow_pump_on: Option<bool>,
    hot_water_on: Option<bool>,
    aux_3kw_on: Option<bool>,
    aux_6kw_on: Option<bool>,
    compressor_hours: Option<f64>,
    hot_water_hours: Option<f64>,
    aux_3kw_hours: Option<f64>,
    aux_6kw_hours: Option<f64>,
    #[sqlx(flatten)]
    settings: HeatpumpSettings,
}

/// The settings the pump reports, in its own steps.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct HeatpumpSettings {
    #[sqlx(rename = "settings_indoor_target_c")]
    indoor_target_c: Option<i64>,
    #[sqlx(rename = "settings_mode")]
    mode: Option<i64>,
    #[sqlx(rename = "settings_curve")]
    curve: Option<i64>,
    #[sqlx(rename = "settings_curve_min")]
    curve_min: Option<i64>,
    #[sqlx(rename = "settings_curve_max")]
    curve_max: Option<i64>,
    #[sqlx(rename = "settings_curve_plus_5")]
    curve_plus_5: Option<i64>,
    #[sqlx(rename = "settings_curve_zero")]
    curve_zero: Option<i64>,
    #[sqlx(rename = "settings_curve_minus_5")]
    curve_minus_5: Option<i64>,
    #[sqlx(rename = "settings_heat_stop_c")]
    heat_stop_c: Option<i64>,
    #[sqlx(rename = "settings_integral")]
    integral: Option<i64>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct HeatpumpReadings {
    items: Vec<HeatpumpReading>,
}

/// Means by bucket.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeatpumpSeries {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// Length of a bucket; a local day is 86,400 although two days a year are not.
    resolution_seconds: i64,
    items: Vec<HeatpumpPoint>,
}

/// One bucket.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct HeatpumpPoint {
    device_id: String,
    /// Start of the bucket.
    time: DateTime<Utc>,
    outdoor_c: Option<f64>,
    indoor_c: Option<f64>,
    supply_c: Option<f64>,
    return_c: Option<f64>,
    hot_water_c: Option<f64>,
    brine_in_c: Option<f64>,
    brine_out_c: Option<f64>,
    integral: Option<f64>,
    flow_pump_percent: Option<f64>,
    /// Part of the bucket the compressor ran, 0 to 1.
    compressor_share: Option<f64>,
    hot_water_share: Option<f64>,
    aux_3kw_share: Option<f64>,
    aux_6kw_share: Option<f64>,
    count: i64,
}

impl Columns for HeatpumpPoint {
    const COLUMNS: &[&str] = &[
        "device_id",
        "time",
        "outdoor_c",
        "indoor_c",
        "supply_c",
        "return_c",
        "hot_water_c",
        "brine_in_c",
        "brine_out_c",
        "integral",
        "flow_pump_percent",
        "compressor_share",
        "hot_water_share",
        "aux_3kw_share",
        "aux_6kw_share",
        "count",
    ];
}

/// Local days.
#[derive(Serialize, ToSchema)]
pub(crate) struct HeatpumpDays {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    items: Vec<HeatpumpDay>,
}

/// One local day of one pump.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct HeatpumpDay {
    device_id: String,
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    compressor_hours: Option<f64>,
    hot_water_hours: Option<f64>,
    aux_3kw_hours: Option<f64>,
    aux_6kw_hours: Option<f64>,
    compressor_starts: Option<i64>,
    mean_outdoor_c: Option<f64>,
    mean_indoor_c: Option<f64>,
    mean_supply_c: Option<f64>,
    mean_return_c: Option<f64>,
    mean_hot_water_c: Option<f64>,
    count: i64,
}

impl Columns for HeatpumpDay {
    const COLUMNS: &[&str] = &[
        "device_id",
        "start",
        "end",
        "compressor_hours",
        "hot_water_hours",
        "aux_3kw_hours",
        "aux_6kw_hours",
        "compressor_starts",
        "mean_outdoor_c",
        "mean_indoor_c",
        "mean_supply_c",
        "mean_return_c",
        "mean_hot_water_c",
        "count",
    ];
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeviceQuery {
    /// One pump; all by default.
    #[param(min_length = 1, max_length = 128)]
    device_id: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DaysQuery {
    /// Start of the first day, included.
    #[param(format = "date-time")]
    from: Option<String>,
    /// End, not included; now by default.
    #[param(format = "date-time")]
    to: Option<String>,
    /// One pump; all by default.
    #[param(min_length = 1, max_length = 128)]
    device_id: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct HistoryQuery {
    /// Included.
    #[param(format = "date-time")]
    from: Option<String>,
    /// Not included; now by default.
    #[param(format = "date-time")]
    to: Option<String>,
    /// 1m, 5m, 15m, 1h or 1d; by default the finest that gives at most 1,500 points a device.
    #[param(pattern = "^(1m|5m|15m|1h|1d)$")]
    resolution: Option<String>,
    /// One pump; all by default.
    #[param(min_length = 1, max_length = 128)]
    device_id: Option<String>,
}

/// Length of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resolution {
    Minutes(i64),
    Hour,
    Day,
}

impl Resolution {
    const FINEST_FIRST: [Resolution; 5] = [
        Self::Minutes(1),
        Self::Minutes(5),
        Self::Minutes(15),
        Self::Hour,
        Self::Day,
    ];

    fn parse(text: &str) -> Result<Self, Problem> {
        match text {
            "1m" => Ok(Self::Minutes(1)),
            "5m" => Ok(Self::Minutes(5)),
            "15m" => Ok(Self::Minutes(15)),
            "1h" => Ok(Self::Hour),
            "1d" => Ok(Self::Day),
            _ => Err(Problem::field("resolution", "must be 1m, 5m, 15m, 1h or 1d")),
        }
    }

    fn length(self) -> TimeDelta {
        match self {
            Self::Minutes(minutes) => TimeDelta::minutes(minutes),
            Self::Hour => TimeDelta::hours(1),
            Self::Day => TimeDelta::days(1),
        }
    }

    fn points(self, range: Range) -> i64 {
        range.length().num_seconds() / self.length().num_seconds()
    }

    fn choose(asked: Option<&str>, range: Range) -> Result<Self, Problem> {
        match asked {
            None => {
                let finest = Self::FINEST_FIRST.into_iter().find(|r| r.points(range) <= POINTS);
                Ok(finest.unwrap_or(Self::Day))
            }
            Some(text) => {
                let resolution = Self::parse(text)?;
                if resolution.points(range) > MOST_POINTS {
                    let detail = format!("gives more than {MOST_POINTS} points for this range");
                    return Err(Problem::field("resolution", detail));
                }
                Ok(resolution)
            }
        }
    }
}

/// As for meters: a pump may report in several messages.
const LATEST_SQL: &str = latest_sql!(
    "heatpump",
    "heatpump_status",
    [
        "outdoor_c",
        "indoor_c",
        "supply_c",
        "return_c",
        "hot_water_c",
        "brine_in_c",
        "brine_out_c",
        "integral",
        "flow_pump_percent",
        "compressor_on",
        "brine_pump_on",
        "flow_pump_on",
        "hot_water_on",
        "aux_3kw_on",
        "aux_6kw_on",
        "compressor_hours",
        "hot_water_hours",
        "aux_3kw_hours",
        "aux_6kw_hours",
        "settings_indoor_target_c",
        "settings_mode",
        "settings_curve",
        "settings_curve_min",
        "settings_curve_max",
        "settings_curve_plus_5",
        "settings_curve_zero",
        "settings_curve_minus_5",
        "settings_heat_stop_c",
        "settings_integral"
    ]
);

/// Newest status of each heat pump: each field as last reported, at most 10 minutes before the newest reading.
#[utoipa::path(get, path = "/api/v1/heatpump/latest", tag = "heatpump", params(DeviceQuery),
    security(("bearer" = ["read:heatpump"])), responses((status = 200, body = HeatpumpReadings)))]
async fn latest(
    _: Scoped<ReadHeatpump>,
    State(app): State<App>,
    Query(query): Query<DeviceQuery>,
) -> Result<Json<HeatpumpReadings>, Problem> {
    let device = device_id(query.device_id.as_deref())?;
    let items = sqlx::query_as(LATEST_SQL)
        .bind(device.as_ref().map(|id| id.as_str()))
        .fetch_all(app.database.pool())
        .await
        .map_err(problem)?;
    Ok(Json(HeatpumpReadings { items }))
}

/// Means of the raw readings. Readings whose clock was never synchronised stand at a wrong place and are left out.
const MINUTES_SQL: &str = "
    select s.device_id, b.* from device_spans as s
    cross join lateral (
        select date_bin(make_interval(mins => $4), time, '2000-01-01 00:00:00+00') as time,
            avg(outdoor_c) as outdoor_c, avg(indoor_c) as indoor_c, avg(supply_c) as supply_c,
            avg(return_c) as return_c, avg(hot_water_c) as hot_water_c, avg(brine_in_c) as brine_in_c,
            avg(brine_out_c) as brine_out_c, avg(integral) as integral, avg(flow_pump_percent) as flow_pump_percent,
            avg(compressor_on::int)::float8 as compressor_share, avg(hot_water_on::int)::float8 as hot_water_share,
            avg(aux_3kw_on::int)::float8 as aux_3kw_share, avg(aux_6kw_on::int)::float8 as aux_6kw_share,
            count(*) as count
        from heatpump_status
        where device_id = s.device_id and time >= $2 and time < $3 and clock <> 'unsynced'
        group by 1
    ) as b
    where s.kind = 'heatpump' and ($1::text is null or s.device_id = $1)
    order by s.device_id, b.time";

/// Hours and days come from the summaries, which outlive the raw readings; these have no brine and no flow pump. The
/// running bucket is divided by the part of it that has passed. (`least` would take what was not reported, null, for 1.)
macro_rules! summary_sql {
    ($view:literal, $period:literal) => {
        concat!(
            "select device_id, ",
            $period,
            "_start as time, mean_outdoor_c as outdoor_c, mean_indoor_c as indoor_c,
                mean_supply_c as supply_c, mean_return_c as return_c, mean_hot_water_c as hot_water_c,
                null::float8 as brine_in_c, null::float8 as brine_out_c, mean_integral as integral,
                null::float8 as flow_pump_percent,
                case when compressor_hours > hours.passed then 1 else compressor_hours / hours.passed end as compressor_share,
                case when hot_water_hours > hours.passed then 1 else hot_water_hours / hours.passed end as hot_water_share,
                case when aux_3kw_hours > hours.passed then 1 else aux_3kw_hours / hours.passed end as aux_3kw_share,
                case when aux_6kw_hours > hours.passed then 1 else aux_6kw_hours / hours.passed end as aux_6kw_share, count
             from ",
            $view,
            "
             cross join lateral (
                select nullif(greatest(0, extract(epoch from
                    least(",
            $period,
            "_end, $4) - ",
            $period,
            "_start)::float8 / 3600), 0) as passed
             ) as hours
             where ($1::text is null or device_id = $1) and ",
            $period,
            "_start >= $2 and ",
            $period,
            "_start < $3
             order by device_id, time"
        )
    };
}

const HOURS_SQL: &str = summary_sql!("heatpump_hourly", "hour");
const DAYS_SQL: &str = summary_sql!("heatpump_daily_summary", "day");

/// Means and running shares by bucket.
#[utoipa::path(get, path = "/api/v1/heatpump/history", tag = "heatpump", params(HistoryQuery),
    security(("bearer" = ["read:heatpump"])), responses(
    (status = 200, content((HeatpumpSeries = "application/json"), (String = "text/csv"))),
    (status = 304, description = "What `If-None-Match` names is still right."),
))]
async fn history(
    _: Scoped<ReadHeatpump>,
    State(app): State<App>,
    Query(query): Query<HistoryQuery>,
    wish: Wish,
) -> Result<Response, Problem> {
    let now = Utc::now();
    let range = range(query.from.as_deref(), query.to.as_deref(), now, HISTORY)?;
    let device = device_id(query.device_id.as_deref())?;
    let resolution = Resolution::choose(query.resolution.as_deref(), range)?;
    let bound = |sql: &'static str| {
        sqlx::query_as(sql)
            .bind(device.as_ref().map(|id| id.as_str()))
            .bind(range.from)
            .bind(range.to)
    };
    let query = match resolution {
        Resolution::Minutes(minutes) => bound(MINUTES_SQL).bind(minutes as i32),
        Resolution::Hour => bound(HOURS_SQL).bind(now),
        Resolution::Day => bound(DAYS_SQL).bind(now),
    };
    let items = query.fetch_all(app.database.pool()).await.map_err(problem)?;
    let resolution_seconds = resolution.length().num_seconds();
    let series = HeatpumpSeries {
        from: range.from,
        to: range.to,
        resolution_seconds,
        items,
    };
    wish.answer(range, now, &series, &series.items)
}

/// Hours, starts and mean temperatures by local day.
#[utoipa::path(get, path = "/api/v1/heatpump/daily-summary", tag = "heatpump", params(DaysQuery),
    security(("bearer" = ["read:heatpump"])), responses(
    (status = 200, content((HeatpumpDays = "application/json"), (String = "text/csv"))),
    (status = 304, description = "What `If-None-Match` names is still right."),
))]
async fn daily_summary(
    _: Scoped<ReadHeatpump>,
    State(app): State<App>,
    Query(query): Query<DaysQuery>,
    wish: Wish,
) -> Result<Response, Problem> {
    const SQL: &str = "
        select device_id, day_start as start, day_end as \"end\", compressor_hours, hot_water_hours, aux_3kw_hours,
            aux_6kw_hours, compressor_starts, mean_outdoor_c, mean_indoor_c, mean_supply_c, mean_return_c,
            mean_hot_water_c, count
        from heatpump_daily_summary
        where ($1::text is null or device_id = $1) and day_start >= $2 and day_start < $3
        order by device_id, day_start";
    let now = Utc::now();
    let range = range(query.from.as_deref(), query.to.as_deref(), now, DAYS)?;
    let device = device_id(query.device_id.as_deref())?;
    let items = sqlx::query_as(SQL)
        .bind(device.as_ref().map(|id| id.as_str()))
        .bind(range.from)
        .bind(range.to)
        .fetch_all(app.database.pool())
        .await
        .map_err(problem)?;
    let days = HeatpumpDays {
        from: range.from,
        to: range.to,
        items,
    };
    wish.answer(range, now, &days, &days.items)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolution_follows_the_range() {
        let range = |hours: i64| {
            let to: DateTime<Utc> = "2026-01-01T00:00:00Z".parse().unwrap();
            Range {
                from: to - TimeDelta::hours(hours),
                to,
            }
        };
        for (hours, want) in [
            (1, 60),
            (25, 60),
            (26, 300),
            (125, 300),
            (126, 900),
            (375, 900),
            (376, 3_600),
        ] {
            let got = Resolution::choose(None, range(hours))
                .unwrap()
                .length()
                .num_seconds();
            assert_eq!(got, want, "{hours} hours");
        }
        assert_eq!(
            Resolution::choose(None, range(366 * 24)).unwrap(),
            Resolution::Day
        );
        assert_eq!(
            Resolution::choose(Some("1h"), range(366 * 24)).unwrap(),
            Resolution::Hour
        );
        assert!(Resolution::choose(Some("1m"), range(366 * 24)).is_err());
        assert!(Resolution::choose(Some("2m"), range(1)).is_err());
    }
}
