//! `/api/v1/energy/...`: newest readings, the running hour, sums by hour and by local day, month and year.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use service::extract::Query;
use service::scope::ReadEnergy;
use service::{Problem, Scoped};
use sqlx::{FromRow, PgPool};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::App;
use crate::answer::{Columns, Wish};
use crate::database::problem;
use crate::latest::latest_sql;
use crate::range::{Limits, Range, device_id, range};

const HISTORY: Limits = Limits::days(1, 31, "31 days");
const DAYS: Limits = Limits::days(30, 800, "800 days");
const MONTHS: Limits = Limits::days(365, 3_653, "10 years");
const YEARS: Limits = Limits::days(5 * 365, 18_263, "50 years");

pub(crate) fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(latest))
        .routes(routes!(hourly_total))
        .routes(routes!(history))
        .routes(routes!(daily_summary))
        .routes(routes!(monthly_summary))
        .routes(routes!(yearly_summary))
}

/// What one meter reported last.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct EnergyReading {
    device_id: String,
    time: DateTime<Utc>,
    /// How far the time can be trusted: synced, corrected or unsynced.
    clock: String,
    agent: String,
    location: Option<String>,
    power_w: Option<f64>,
    power_l1_w: Option<f64>,
    power_l2_w: Option<f64>,
    power_l3_w: Option<f64>,
    export_power_w: Option<f64>,
    energy_wh: Option<f64>,
    export_energy_wh: Option<f64>,
    voltage_l1_v: Option<f64>,
    voltage_l2_v: Option<f64>,
    voltage_l3_v: Option<f64>,
    current_l1_a: Option<f64>,
    current_l2_a: Option<f64>,
    current_l3_a: Option<f64>,
    power_factor: Option<f64>,
    meter_id: Option<String>,
    meter_type: Option<String>,
    rssi_dbm: Option<f64>,
}

#[derive(Serialize, ToSchema)]
pub(crate) struct EnergyReadings {
    items: Vec<EnergyReading>,
}

/// The running local hour.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnergyTotal {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    /// Null while no meter has reported in this hour.
    energy_kwh: Option<f64>,
    export_kwh: Option<f64>,
    cost: Option<f64>,
    currency: Option<String>,
    count: i64,
    estimated: bool,
    /// The meters that were added up.
    devices: Vec<String>,
}

/// Sums by period.
#[derive(Serialize, ToSchema)]
pub(crate) struct EnergySeries {
    from: DateTime<Utc>,
    to: DateTime<Utc>,
    /// The meters that were added up.
    devices: Vec<String>,
    items: Vec<EnergyBucket>,
}

/// One period.
#[derive(FromRow, Serialize, ToSchema)]
pub(crate) struct EnergyBucket {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
    energy_kwh: Option<f64>,
    export_kwh: Option<f64>,
    average_power_w: Option<f64>,
    average_power_l1_w: Option<f64>,
    average_power_l2_w: Option<f64>,
    average_power_l3_w: Option<f64>,
    average_export_power_w: Option<f64>,
    /// Null where energy was counted in a quarter hour without a price, or under prices of two currencies.
    #[sqlx(default)]
    cost: Option<f64>,
    #[sqlx(default)]
    currency: Option<String>,
    count: i64,
    /// A gain spans more than 15 minutes without a reading.
    estimated: bool,
    /// Whether there is any price to ask for.
    #[serde(skip)]
    #[schema(ignore)]
    priced: bool,
}

impl Columns for EnergyBucket {
    const COLUMNS: &[&str] = &[
        "start",
        "end",
        "energy_kwh",
        "export_kwh",
        "average_power_w",
        "average_power_l1_w",
        "average_power_l2_w",
        "average_power_l3_w",
        "average_export_power_w",
        "cost",
        "currency",
        "count",
        "estimated",
    ];
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct DeviceQuery {
    /// One meter; without it all (latest) or the house's main meters (sums).
    #[param(min_length = 1, max_length = 128)]
    device_id: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct SeriesQuery {
    /// Start of the first period, included.
    #[param(format = "date-time")]
    from: Option<String>,
    /// End, not included; now by default.
    #[param(format = "date-time")]
    to: Option<String>,
    /// One meter; without it the house's main meters are added up.
    #[param(min_length = 1, max_length = 128)]
    device_id: Option<String>,
}

/// A Shelly Pro 3EM sends its powers in one frame and its counters in another.
const LATEST_SQL: &str = latest_sql!(
    "energy",
    "energy_consumption",
    [
        "power_w",
        "power_l1_w",
        "power_l2_w",
        "power_l3_w",
        "export_power_w",
        "energy_wh",
        "export_energy_wh",
        "voltage_l1_v",
        "voltage_l2_v",
        "voltage_l3_v",
        "current_l1_a",
        "current_l2_a",
        "current_l3_a",
        "power_factor",
        "meter_id",
        "meter_type",
        "rssi_dbm"
    ]
);

/// Newest reading of each meter. Meters that report in several frames: each field as last reported, at most 10 minutes
/// before the newest reading.
#[utoipa::path(get, path = "/api/v1/energy/latest", tag = "energy", params(DeviceQuery),
    security(("bearer" = ["read:energy"])), responses((status = 200, body = EnergyReadings)))]
async fn latest(
    _: Scoped<ReadEnergy>,
    State(app): State<App>,
    Query(query): Query<DeviceQuery>,
) -> Result<Json<EnergyReadings>, Problem> {
    let device = device_id(query.device_id.as_deref())?;
    let items = sqlx::query_as(LATEST_SQL)
        .bind(device.as_ref().map(|id| id.as_str()))
        .fetch_all(app.database.pool())
        .await
        .map_err(problem)?;
    Ok(Json(EnergyReadings { items }))
}

/// Energy of the running local hour.
#[utoipa::path(get, path = "/api/v1/energy/hourly-total", tag = "energy", params(DeviceQuery),
    security(("bearer" = ["read:energy"])), responses((status = 200, body = EnergyTotal)))]
async fn hourly_total(
    _: Scoped<ReadEnergy>,
    State(app): State<App>,
    Query(query): Query<DeviceQuery>,
) -> Result<Json<EnergyTotal>, Problem> {
    let pool = app.database.pool();
    let devices = meters(pool, query.device_id.as_deref()).await?;
    // The hour begins where the household's clocks say: not every zone is whole hours from UTC.
    let (from, to): (DateTime<Utc>, DateTime<Utc>) = sqlx::query_as(
        "select start, start + interval '1 hour'
         from (select date_trunc('hour', $1, time_zone) as start from household) as hour",
    )
    .bind(Utc::now())
    .fetch_one(pool)
    .await
    .map_err(problem)?;
    let bucket = buckets(pool, HOURLY, &devices, Range { from, to }).await?.pop();
    Ok(Json(EnergyTotal {
        start: from,
        end: to,
        energy_kwh: bucket.as_ref().and_then(|b| b.energy_kwh),
        export_kwh: bucket.as_ref().and_then(|b| b.export_kwh),
        cost: bucket.as_ref().and_then(|b| b.cost),
        currency: bucket.as_ref().and_then(|b| b.currency.clone()),
        count: bucket.as_ref().map_or(0, |b| b.count),
        estimated: bucket.as_ref().is_some_and(|b| b.estimated),
        devices,
    }))
}

/// Hours.
#[utoipa::path(get, path = "/api/v1/energy/history", tag = "energy", params(SeriesQuery),
    security(("bearer" = ["read:energy"])), responses(
    (status = 200, content((EnergySeries = "application/json"), (String = "text/csv"))),
    (status = 304, description = "What `If-None-Match` names is still right."),
))]
async fn history(
    _: Scoped<ReadEnergy>,
    State(app): State<App>,
    Query(query): Query<SeriesQuery>,
    wish: Wish,
) -> Result<Response, Problem> {
    series(&app, &query, wish, HOURLY, HISTORY).await
}

/// Local days.
#[utoipa::path(get, path = "/api/v1/energy/daily-summary", tag = "energy", params(SeriesQuery),
    security(("bearer" = ["read:energy"])), responses(
    (status = 200, content((EnergySeries = "application/json"), (String = "text/csv"))),
    (status = 304, description = "What `If-None-Match` names is still right."),
))]
async fn daily_summary(
    _: Scoped<ReadEnergy>,
    State(app): State<App>,
    Query(query): Query<SeriesQuery>,
    wish: Wish,
) -> Result<Response, Problem> {
    series(&app, &query, wish, DAILY, DAYS).await
}

/// Local months.
#[utoipa::path(get, path = "/api/v1/energy/monthly-summary", tag = "energy", params(SeriesQuery),
    security(("bearer" = ["read:energy"])), responses(
    (status = 200, content((EnergySeries = "application/json"), (String = "text/csv"))),
    (status = 304, description = "What `If-None-Match` names is still right."),
))]
async fn monthly_summary(
    _: Scoped<ReadEnergy>,
    State(app): State<App>,
    Query(query): Query<SeriesQuery>,
    wish: Wish,
) -> Result<Response, Problem> {
    series(&app, &query, wish, MONTHLY, MONTHS).await
}

/// Local years.
#[utoipa::path(get, path = "/api/v1/energy/yearly-summary", tag = "energy", params(SeriesQuery),
    security(("bearer" = ["read:energy"])), responses(
    (status = 200, content((EnergySeries = "application/json"), (String = "text/csv"))),
    (status = 304, description = "What `If-None-Match` names is still right."),
))]
async fn yearly_summary(
    _: Scoped<ReadEnergy>,
    State(app): State<App>,
    Query(query): Query<SeriesQuery>,
    wish: Wish,
) -> Result<Response, Problem> {
    series(&app, &query, wish, YEARLY, YEARS).await
}

/// One statement a period: the sum over the chosen meters of what the view says of each. A period belongs to a range
/// when it starts in it, so that ranges side by side share none.
macro_rules! bucket_sql {
    ($view:literal, $period:literal) => {
        concat!(
            "select ", $period, "_start as start, ", $period, "_end as \"end\",
                sum(energy_wh) / 1000 as energy_kwh, sum(export_wh) / 1000 as export_kwh,
                sum(average_power_w) as average_power_w, sum(average_power_l1_w) as average_power_l1_w,
                sum(average_power_l2_w) as average_power_l2_w, sum(average_power_l3_w) as average_power_l3_w,
                sum(average_export_power_w) as average_export_power_w,
                sum(count)::bigint as count, coalesce(bool_or(estimated), false) as estimated,
                exists (select from energy_prices where valid_from < $3) as priced
             from ", $view,
            " where device_id = any($1) and ", $period, "_start >= $2 and ", $period, "_start < $3
             group by 1, 2 order by 1"
        )
    };
}

/// Hours of the meters $1 that start in [$2, $3).
pub const HOURLY: &str = bucket_sql!("energy_hourly", "hour");
const DAILY: &str = bucket_sql!("energy_daily_summary", "day");
const MONTHLY: &str = bucket_sql!("energy_monthly_summary", "month");
const YEARLY: &str = bucket_sql!("energy_yearly_summary", "year");

/// What the energy of each period costs, whose starts are $2 in order and lie in [$3, $4).
///
/// The price of a quarter hour is the one valid at its start. Within a period, each stretch of quarters with one price has
/// the gain from its counter's total before it to the total at its end: the same totals the sums are made of, so the
/// stretches add up to them. A period has no cost where energy was counted in a quarter without a price, or where its prices
/// have different currencies. Where the quarters hold no values (plain PostgreSQL) the last one of a stretch is looked up.
const COST_SQL: &str = "
    with quarters as (
        select d.device_id, q.meter_id, q.quarter_start, q.last_energy_wh,
            width_bucket(q.quarter_start, $2::timestamptz[]) as period, price.valid_from,
            coalesce(price.valid_to, 'infinity') > q.quarter_start and price.valid_from is not null as priced,
            price.price_per_kwh::float8 as price_per_kwh, price.currency
        from unnest($1::text[]) as d (device_id)
        cross join lateral energy_quarters_of(d.device_id, $3, $4) as q
        left join lateral (
            select * from energy_prices where valid_from <= q.quarter_start order by valid_from desc limit 1
        ) as price on true
        where q.last_energy_time is not null
    ),
    stretches as (
        select device_id, meter_id, period, priced, price_per_kwh, currency,
            max(quarter_start) + interval '15 minutes' as stretch_end,
            (array_agg(last_energy_wh order by quarter_start desc))[1] as last_wh
        from quarters
        group by device_id, meter_id, period, valid_from, priced, price_per_kwh, currency
    ),
    meters as (
        select device_id, meter_id, coalesce(
            (
                select counter_total('energy', device_id, meter_id, $3, b.value_wh)
                from counter_before('energy', device_id, meter_id, $3) as b where b.at is not null
            ),
            (select f.value_wh from counter_from('energy', device_id, meter_id, $3) as f)
        ) as start_wh
        from (select distinct device_id, meter_id from stretches) as seen
    ),
    totals as (
        select *, counter_total('energy', device_id, meter_id, stretch_end, coalesce(
            last_wh, (counter_before('energy', device_id, meter_id, stretch_end)).value_wh
        )) as total_wh
        from stretches
    ),
    gains as (
        select t.*, greatest(0, total_wh - coalesce(lag(total_wh) over earlier, start_wh)) as gain_wh
        from totals as t join meters using (device_id, meter_id)
        window earlier as (partition by device_id, meter_id order by stretch_end)
    )
    select ($2::timestamptz[])[period] as start, sum(gain_wh * price_per_kwh) / 1000 as cost, min(currency) as currency
    from gains
    where priced or gain_wh > 0
    group by period
    having bool_and(priced) and min(currency) = max(currency)";

async fn series(
    app: &App,
    query: &SeriesQuery,
    wish: Wish,
    sql: &'static str,
    limits: Limits,
) -> Result<Response, Problem> {
    let now = Utc::now();
    let range = range(query.from.as_deref(), query.to.as_deref(), now, limits)?;
    let pool = app.database.pool();
    let devices = meters(pool, query.device_id.as_deref()).await?;
    let items = buckets(pool, sql, &devices, range).await?;
    let series = EnergySeries {
        from: range.from,
        to: range.to,
        devices,
        items,
    };
    wish.answer(range, now, &series, &series.items)
}

/// The meter asked for, or the house's main meters.
async fn meters(pool: &PgPool, asked: Option<&str>) -> Result<Vec<String>, Problem> {
    match device_id(asked)? {
        Some(id) => Ok(vec![id.into()]),
        None => sqlx::query_scalar("select device_id from house_meters order by device_id")
            .fetch_all(pool)
            .await
            .map_err(problem),
    }
}

async fn buckets(
    pool: &PgPool,
    sql: &'static str,
    devices: &[String],
    range: Range,
) -> Result<Vec<EnergyBucket>, Problem> {
    let mut items: Vec<EnergyBucket> = sqlx::query_as(sql)
        .bind(devices)
        .bind(range.from)
        .bind(range.to)
        .fetch_all(pool)
        .await
        .map_err(problem)?;
    if items.first().is_some_and(|first| first.priced) {
        add_costs(pool, devices, &mut items).await?;
    }
    Ok(items)
}

#[derive(FromRow)]
struct Cost {
    start: DateTime<Utc>,
    cost: f64,
    currency: String,
}

async fn add_costs(pool: &PgPool, devices: &[String], items: &mut [EnergyBucket]) -> Result<(), Problem> {
    let starts: Vec<_> = items.iter().map(|item| item.start).collect();
    let costs: Vec<Cost> = sqlx::query_as(COST_SQL)
        .bind(devices)
        .bind(&starts)
        .bind(starts.first())
        .bind(items.last().map(|item| item.end))
        .fetch_all(pool)
        .await
        .map_err(problem)?;
    for cost in costs {
        if let Ok(index) = starts.binary_search(&cost.start) {
            items[index].cost = Some(cost.cost);
            items[index].currency = Some(cost.currency);
        }
    }
    Ok(())
}
