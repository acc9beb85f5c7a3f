-- Hours and local days, months and years, put together from quarters in the household's time zone; what homelab-api reads.
--
-- Each view takes the devices and their span of days, lists the buckets of that span, and computes each bucket with a lateral
-- call of <kind>_period(device, start, end). A condition on device_id or on a bucket's start is therefore applied before any
-- reading is touched, and each remaining bucket is one range of the index. Buckets are half-open. A bucket without readings
-- has no row; the gain that ends such a gap belongs to the bucket of the later reading, marked estimated.
--
-- Local days follow the calendar: 23 and 25 hours where daylight saving changes. Hours are counted from the first day's
-- midnight in steps of an hour, so they start on the local hour in zones with half and quarter hours too.

select coalesce(current_setting('timescaledb.license', true), '') = 'timescale' as timescale \gset

-- The planner cannot know how few buckets a condition leaves, so it takes every query here for a long one and would compile it:
-- measured on PostgreSQL 15, 30 days of one meter with a year of 10-second readings take 0.10 s, and 0.62 s with compilation.
alter database :"DBNAME" set jit = off;

-- One period of one meter or reader; period_start and period_end lie on quarters. Energy is null where no counter reported,
-- averages are over readings, estimated tells that a gain spans more than 15 minutes without a reading.
create function energy_period(device text, period_start timestamptz, period_end timestamptz)
returns table (
    energy_wh double precision,
    export_wh double precision,
    average_power_w double precision,
    average_power_l1_w double precision,
    average_power_l2_w double precision,
    average_power_l3_w double precision,
    average_export_power_w double precision,
    count bigint,
    estimated boolean
) language sql stable begin atomic
with quarters as (
    select * from energy_quarters_of(device, period_start, period_end)
),
-- Two readings more than 15 minutes apart are never in one quarter, so only neighbouring quarters need comparing.
gaps as (
    select
        meter_id,
        first_energy_time is not null as has_energy,
        first_export_time is not null as has_export,
        first_energy_time - max(last_energy_time) over earlier as energy_gap,
        first_export_time - max(last_export_time) over earlier as export_gap
    from quarters
    window earlier as (partition by meter_id order by quarter_start rows between unbounded preceding and 1 preceding)
),
meters as (
    select
        meter_id,
        bool_or(energy_gap > interval '15 minutes' or export_gap > interval '15 minutes') as gap_inside,
        bool_or(has_energy) as has_energy,
        bool_or(has_export) as has_export
    from gaps
    group by meter_id
),
gains as (
    select
        case when has_energy then counter_gain('energy', device, meter_id, period_start, period_end) end as energy_wh,
        case when has_export then counter_gain('export', device, meter_id, period_start, period_end) end as export_wh,
        coalesce(gap_inside, false)
            or has_energy and coalesce((
                select min(first_energy_time) from quarters where quarters.meter_id = meters.meter_id
            ) - (counter_before('energy', device, meter_id, period_start)).at > interval '15 minutes', false)
            or has_export and coalesce((
                select min(first_export_time) from quarters where quarters.meter_id = meters.meter_id
            ) - (counter_before('export', device, meter_id, period_start)).at > interval '15 minutes', false) as estimated
    from meters
)
select
    (select sum(gains.energy_wh) from gains) as energy_wh,
    (select sum(gains.export_wh) from gains) as export_wh,
    sum(power_sum_w) / nullif(sum(power_count), 0) as average_power_w,
    sum(power_l1_sum_w) / nullif(sum(power_l1_count), 0) as average_power_l1_w,
    sum(power_l2_sum_w) / nullif(sum(power_l2_count), 0) as average_power_l2_w,
    sum(power_l3_sum_w) / nullif(sum(power_l3_count), 0) as average_power_l3_w,
    sum(export_power_sum_w) / nullif(sum(export_power_count), 0) as average_export_power_w,
    coalesce(sum(quarters.count), 0)::bigint as count,
    coalesce((select bool_or(gains.estimated) from gains), false) as estimated
from quarters;
end;

create view energy_hourly as
select
    s.device_id, b.hour_start, b.hour_end,
    p.energy_wh, p.export_wh, p.average_power_w, p.average_power_l1_w, p.average_power_l2_w, p.average_power_l3_w,
    p.average_export_power_w, p.count, p.estimated
from device_spans as s
cross join household as h
cross join lateral generate_series(date_trunc('hour', s.first_time, h.time_zone), s.last_time, interval '1 hour') as local (start)
cross join lateral (select local.start as hour_start, local.start + interval '1 hour' as hour_end) as b
cross join lateral energy_period(s.device_id, b.hour_start, b.hour_end) as p
where s.kind = 'energy' and p.count > 0;

create view energy_daily_summary as
select
    s.device_id, b.day_start, b.day_end,
    p.energy_wh, p.export_wh, p.average_power_w, p.average_power_l1_w, p.average_power_l2_w, p.average_power_l3_w,
    p.average_export_power_w, p.count, p.estimated
from device_spans as s
cross join household as h
cross join lateral generate_series(
    date_trunc('day', s.first_time at time zone h.time_zone), s.last_time at time zone h.time_zone, interval '1 day') as local (start)
cross join lateral (
    select
        local.start at time zone h.time_zone as day_start,
        (local.start + interval '1 day') at time zone h.time_zone as day_end
) as b
cross join lateral energy_period(s.device_id, b.day_start, b.day_end) as p
where s.kind = 'energy' and p.count > 0;

create view energy_monthly_summary as
select
    s.device_id, b.month_start, b.month_end,
    p.energy_wh, p.export_wh, p.average_power_w, p.average_power_l1_w, p.average_power_l2_w, p.average_power_l3_w,
    p.average_export_power_w, p.count, p.estimated
from device_spans as s
cross join household as h
cross join lateral generate_series(
    date_trunc('month', s.first_time at time zone h.time_zone), s.last_time at time zone h.time_zone, interval '1 month') as local (start)
cross join lateral (
    select
        local.start at time zone h.time_zone as month_start,
        (local.start + interval '1 month') at time zone h.time_zone as month_end
) as b
cross join lateral energy_period(s.device_id, b.month_start, b.month_end) as p
where s.kind = 'energy' and p.count > 0;

create view energy_yearly_summary as
select
    s.device_id, b.year_start, b.year_end,
    p.energy_wh, p.export_wh, p.average_power_w, p.average_power_l1_w, p.average_power_l2_w, p.average_power_l3_w,
    p.average_export_power_w, p.count, p.estimated
from device_spans as s
cross join household as h
cross join lateral generate_series(
    date_trunc('year', s.first_time at time zone h.time_zone), s.last_time at time zone h.time_zone, interval '1 year') as local (start)
cross join lateral (
    select
        local.start at time zone h.time_zone as year_start,
        (local.start + interval '1 year') at time zone h.time_zone as year_end
) as b
cross join lateral energy_period(s.device_id, b.year_start, b.year_end) as p
where s.kind = 'energy' and p.count > 0;

-- The meters the house is the sum of: those with role main; without any entry, a device that is the only one.
create view house_meters as
select device_id from energy_meters where role = 'main'
union
select min(device_id) from device_spans
where kind = 'energy'
having count(*) = 1 and not exists (select from energy_meters where energy_meters.device_id = min(device_spans.device_id));

create view temperature_hourly as
select
    s.device_id, p.location, b.hour_start, b.hour_end,
    p.mean_temperature_c, p.min_temperature_c, p.max_temperature_c, p.mean_humidity_percent, p.count
from device_spans as s
cross join household as h
cross join lateral generate_series(date_trunc('hour', s.first_time, h.time_zone), s.last_time, interval '1 hour') as local (start)
cross join lateral (select local.start as hour_start, local.start + interval '1 hour' as hour_end) as b
cross join lateral (
    select
        location,
        sum(temperature_sum_c) / nullif(sum(temperature_count), 0) as mean_temperature_c,
        min(min_temperature_c) as min_temperature_c,
        max(max_temperature_c) as max_temperature_c,
        sum(humidity_sum_percent) / nullif(sum(humidity_count), 0) as mean_humidity_percent,
        sum(count)::bigint as count
    from temperature_quarters_of(s.device_id, b.hour_start, b.hour_end)
    group by location
) as p
where s.kind = 'temperature';

-- What one quarter's trace (state_trace of 0004) adds to the hours something was on in a period: the time on inside the
-- quarter, and the last state's hold, which ends with the next reading, after 5 minutes, or with the period. A quarter before
-- the period only holds on into it.
create function held_hours(
    trace double precision[], next_trace double precision[], quarter_start timestamptz, period_start timestamptz, period_end timestamptz
) returns double precision language sql immutable
return (
    case when quarter_start >= period_start then trace[5] else 0 end
    + case when trace[4] = 1 then greatest(0,
        least(next_trace[1], trace[3] + 300, extract(epoch from period_end)::double precision)
        - greatest(trace[3], extract(epoch from period_start)::double precision)
    ) else 0 end
) / 3600;

-- Whether a heat pump's compressor was last reported running before an instant on a quarter; null when never reported.
\if :timescale
create function compressor_before(device text, instant timestamptz) returns boolean language sql stable
return (
    select compressor_trace[4] = 1 from heatpump_quarters
    where device_id = device and quarter_start < instant and compressor_trace is not null
    order by quarter_start desc limit 1
);
\else
create function compressor_before(device text, instant timestamptz) returns boolean language sql stable
return (
    select compressor_on from heatpump_status
    where device_id = device and time < instant and compressor_on is not null and clock <> 'unsynced'
    order by time desc limit 1
);
\endif

-- One period of one heat pump. Hours are null where the pump never reported the state; a start is a change from off to on, in
-- the period of the reading that shows it on. The last column, hours, tells whether anything was on.
create function heatpump_period(device text, period_start timestamptz, period_end timestamptz)
returns table (
    mean_outdoor_c double precision,
    mean_indoor_c double precision,
    mean_supply_c double precision,
    mean_return_c double precision,
    mean_hot_water_c double precision,
    mean_integral double precision,
    compressor_hours double precision,
    hot_water_hours double precision,
    aux_3kw_hours double precision,
    aux_6kw_hours double precision,
    compressor_starts bigint,
    count bigint,
    hours double precision
) language sql stable begin atomic
-- One quarter more, because a state of the last 5 minutes before the period holds on into it.
with quarters as (
    select * from heatpump_quarters_of(device, period_start - interval '15 minutes', period_end)
),
traces as (
    select
        part, trace, quarter_start,
        lag(trace) over by_part as earlier_trace,
        lead(trace) over by_part as next_trace
    from quarters
    cross join lateral (values
        ('compressor', compressor_trace), ('hot_water', hot_water_trace), ('aux_3kw', aux_3kw_trace), ('aux_6kw', aux_6kw_trace)
    ) as parts (part, trace)
    where trace is not null
    window by_part as (partition by part order by quarter_start)
),
parts as (
    select
        part,
        sum(held_hours(trace, next_trace, quarter_start, period_start, period_end)) as hours,
        coalesce(sum(trace[6]) filter (where quarter_start >= period_start), 0)
            + count(*) filter (where quarter_start >= period_start and trace[2] = 1 and earlier_trace[4] = 0) as starts,
        -- The first quarter of all has no earlier one at hand; whether it begins with a start is looked up.
        bool_or(quarter_start >= period_start and trace[2] = 1 and earlier_trace is null) as begins_on
    from traces
    group by part
)
select
    sum(outdoor_sum_c) / nullif(sum(outdoor_count), 0) as mean_outdoor_c,
    sum(indoor_sum_c) / nullif(sum(indoor_count), 0) as mean_indoor_c,
    sum(supply_sum_c) / nullif(sum(supply_count), 0) as mean_supply_c,
    sum(return_sum_c) / nullif(sum(return_count), 0) as mean_return_c,
    sum(hot_water_sum_c) / nullif(sum(hot_water_count), 0) as mean_hot_water_c,
    sum(integral_sum) / nullif(sum(integral_count), 0) as mean_integral,
    (select parts.hours from parts where part = 'compressor') as compressor_hours,
    (select parts.hours from parts where part = 'hot_water') as hot_water_hours,
    (select parts.hours from parts where part = 'aux_3kw') as aux_3kw_hours,
    (select parts.hours from parts where part = 'aux_6kw') as aux_6kw_hours,
    (
        select parts.starts + case when begins_on and not compressor_before(device, period_start) then 1 else 0 end
        from parts where part = 'compressor'
    )::bigint as compressor_starts,
    coalesce(sum(quarters.count), 0)::bigint as count,
    (select sum(parts.hours) from parts) as hours
from quarters
where quarter_start >= period_start;
end;

create view heatpump_hourly as
select
    s.device_id, b.hour_start, b.hour_end,
    p.mean_outdoor_c, p.mean_indoor_c, p.mean_supply_c, p.mean_return_c, p.mean_hot_water_c, p.mean_integral,
    p.compressor_hours, p.hot_water_hours, p.aux_3kw_hours, p.aux_6kw_hours, p.compressor_starts, p.count
from device_spans as s
cross join household as h
cross join lateral generate_series(date_trunc('hour', s.first_time, h.time_zone), s.last_time, interval '1 hour') as local (start)
cross join lateral (select local.start as hour_start, local.start + interval '1 hour' as hour_end) as b
cross join lateral heatpump_period(s.device_id, b.hour_start, b.hour_end) as p
where s.kind = 'heatpump' and (p.count > 0 or p.hours > 0);

create view heatpump_daily_summary as
select
    s.device_id, b.day_start, b.day_end,
    p.mean_outdoor_c, p.mean_indoor_c, p.mean_supply_c, p.mean_return_c, p.mean_hot_water_c, p.mean_integral,
    p.compressor_hours, p.hot_water_hours, p.aux_3kw_hours, p.aux_6kw_hours, p.compressor_starts, p.count
from device_spans as s
cross join household as h
cross join lateral generate_series(
    date_trunc('day', s.first_time at time zone h.time_zone), s.last_time at time zone h.time_zone, interval '1 day') as local (start)
cross join lateral (
    select
        local.start at time zone h.time_zone as day_start,
        (local.start + interval '1 day') at time zone h.time_zone as day_end
) as b
cross join lateral heatpump_period(s.device_id, b.day_start, b.day_end) as p
where s.kind = 'heatpump' and (p.count > 0 or p.hours > 0);

-- One period of one plug: energy by the same rule as for meters, on-time by the same rule as for the heat pump.
create function plug_period(device text, period_start timestamptz, period_end timestamptz)
returns table (
    energy_wh double precision,
    average_power_w double precision,
    on_hours double precision,
    count bigint,
    estimated boolean
) language sql stable begin atomic
with quarters as (
    select * from plug_quarters_of(device, period_start - interval '15 minutes', period_end)
),
traces as (
    select on_trace, lead(on_trace) over (order by quarter_start) as next_trace, quarter_start
    from quarters
    where on_trace is not null
),
gaps as (
    select first_energy_time, first_energy_time - max(last_energy_time) over earlier as gap
    from quarters
    where quarter_start >= period_start
    window earlier as (order by quarter_start rows between unbounded preceding and 1 preceding)
),
energy as (
    select
        case when count(first_energy_time) > 0 then counter_gain('plug', device, '', period_start, period_end) end as energy_wh,
        case when count(first_energy_time) > 0 then
            coalesce(bool_or(gap > interval '15 minutes'), false)
            or coalesce(min(first_energy_time) - (counter_before('plug', device, '', period_start)).at > interval '15 minutes', false)
        else false end as estimated
    from gaps
)
select
    (select energy.energy_wh from energy) as energy_wh,
    sum(power_sum_w) / nullif(sum(power_count), 0) as average_power_w,
    (select sum(held_hours(on_trace, next_trace, traces.quarter_start, period_start, period_end)) from traces) as on_hours,
    coalesce(sum(quarters.count), 0)::bigint as count,
    (select energy.estimated from energy) as estimated
from quarters
where quarter_start >= period_start;
end;

create view plug_hourly as
select s.device_id, b.hour_start, b.hour_end, p.energy_wh, p.average_power_w, p.on_hours, p.count, p.estimated
from device_spans as s
cross join household as h
cross join lateral generate_series(date_trunc('hour', s.first_time, h.time_zone), s.last_time, interval '1 hour') as local (start)
cross join lateral (select local.start as hour_start, local.start + interval '1 hour' as hour_end) as b
cross join lateral plug_period(s.device_id, b.hour_start, b.hour_end) as p
where s.kind = 'plug' and (p.count > 0 or p.on_hours > 0);

insert into schema_migrations (version, name) values (6, 'summaries');
