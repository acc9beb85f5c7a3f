-- Summaries per device and UTC quarter hour: the only ones that are stored. Hours and local days, months and years are put
-- together from them in 0006, because every time zone in use is a multiple of 15 minutes away from UTC, and because a
-- continuous aggregate bucketed in a time zone misses rows that one bulk write spreads over chunks (timescaledb #10296).
--
-- On TimescaleDB each is a continuous aggregate with real-time aggregation, refreshed every 15 minutes over the last 60 days:
-- more than a week's outage needs, and well inside the 90 days of raw rows, because a refresh past them would wipe what they
-- left. On plain PostgreSQL each is a view with the same name and columns. Rows whose clock was never synchronised are left out.
--
-- <table>_quarters_of(device, from, to) gives the quarters of one device in a range whose ends lie on quarters. On plain
-- PostgreSQL it is what makes the range reach the index on (device_id, time).

select coalesce(current_setting('timescaledb.license', true), '') = 'timescale' as timescale \gset

-- How long something was on. The aggregate takes (state, time) in order of time and answers
-- [first time, first state, last time, last state, seconds on between first and last, changes from off to on],
-- times in seconds since 1970. A state holds until the next reading, at most 5 minutes.
create function state_trace_step(trace double precision[], state boolean, at timestamptz) returns double precision[]
language plpgsql immutable parallel safe as $$
declare
    seconds constant double precision := extract(epoch from at);
begin
    if state is null then
        return trace;
    elsif trace is null then
        return array[seconds, state::int, seconds, state::int, 0, 0];
    end if;
    if trace[4] = 1 then
        trace[5] := trace[5] + least(seconds - trace[3], 300);
    elsif state then
        trace[6] := trace[6] + 1;
    end if;
    trace[3] := seconds;
    trace[4] := state::int;
    return trace;
end
$$;
create aggregate state_trace(state boolean, at timestamptz) (sfunc = state_trace_step, stype = double precision[]);

-- The columns of each summary are written once here and used by the continuous aggregate or by the view.
select $sql$
    count(*) as count,
    sum(power_w) as power_sum_w, count(power_w) as power_count,
    sum(power_l1_w) as power_l1_sum_w, count(power_l1_w) as power_l1_count,
    sum(power_l2_w) as power_l2_sum_w, count(power_l2_w) as power_l2_count,
    sum(power_l3_w) as power_l3_sum_w, count(power_l3_w) as power_l3_count,
    sum(export_power_w) as export_power_sum_w, count(export_power_w) as export_power_count,
    min(time) filter (where energy_wh is not null) as first_energy_time,
    max(time) filter (where energy_wh is not null) as last_energy_time,
    min(time) filter (where export_energy_wh is not null) as first_export_time,
    max(time) filter (where export_energy_wh is not null) as last_export_time
$sql$ as energy_columns, $sql$
    count(*) as count,
    sum(temperature_c) as temperature_sum_c, count(temperature_c) as temperature_count,
    min(temperature_c) as min_temperature_c, max(temperature_c) as max_temperature_c,
    sum(humidity_percent) as humidity_sum_percent, count(humidity_percent) as humidity_count
$sql$ as temperature_columns, $sql$
    count(*) as count,
    sum(outdoor_c) as outdoor_sum_c, count(outdoor_c) as outdoor_count,
    sum(indoor_c) as indoor_sum_c, count(indoor_c) as indoor_count,
    sum(supply_c) as supply_sum_c, count(supply_c) as supply_count,
    sum(return_c) as return_sum_c, count(return_c) as return_count,
    sum(hot_water_c) as hot_water_sum_c, count(hot_water_c) as hot_water_count,
    sum(integral) as integral_sum, count(integral) as integral_count,
    state_trace(compressor_on, time order by time, id) filter (where compressor_on is not null) as compressor_trace,
    state_trace(hot_water_on, time order by time, id) filter (where hot_water_on is not null) as hot_water_trace,
    state_trace(aux_3kw_on, time order by time, id) filter (where aux_3kw_on is not null) as aux_3kw_trace,
    state_trace(aux_6kw_on, time order by time, id) filter (where aux_6kw_on is not null) as aux_6kw_trace
$sql$ as heatpump_columns, $sql$
    count(*) as count,
    sum(power_w) as power_sum_w, count(power_w) as power_count,
    min(time) filter (where energy_wh is not null) as first_energy_time,
    max(time) filter (where energy_wh is not null) as last_energy_time,
    state_trace("on", time order by time, id) filter (where "on" is not null) as on_trace
$sql$ as plug_columns \gset

\if :timescale

-- First and last counter values are kept as well: they outlive the raw rows.
create materialized view energy_quarters
with (timescaledb.continuous, timescaledb.materialized_only = false) as
select
    device_id, coalesce(meter_id, '') as meter_id, time_bucket('15 minutes', time) as quarter_start, :energy_columns,
    (array_agg(energy_wh order by time, id) filter (where energy_wh is not null))[1] as first_energy_wh,
    (array_agg(energy_wh order by time desc, id desc) filter (where energy_wh is not null))[1] as last_energy_wh,
    (array_agg(export_energy_wh order by time, id) filter (where export_energy_wh is not null))[1] as first_export_wh,
    (array_agg(export_energy_wh order by time desc, id desc) filter (where export_energy_wh is not null))[1] as last_export_wh
from energy_consumption
where clock <> 'unsynced'
group by 1, 2, 3
with no data;

create materialized view temperature_quarters
with (timescaledb.continuous, timescaledb.materialized_only = false) as
select device_id, location, time_bucket('15 minutes', time) as quarter_start, :temperature_columns
from temperature_sensors
where clock <> 'unsynced'
group by 1, 2, 3
with no data;

create materialized view heatpump_quarters
with (timescaledb.continuous, timescaledb.materialized_only = false) as
select device_id, time_bucket('15 minutes', time) as quarter_start, :heatpump_columns
from heatpump_status
where clock <> 'unsynced'
group by 1, 2
with no data;

create materialized view plug_quarters
with (timescaledb.continuous, timescaledb.materialized_only = false) as
select
    device_id, time_bucket('15 minutes', time) as quarter_start, :plug_columns,
    (array_agg(energy_wh order by time, id) filter (where energy_wh is not null))[1] as first_energy_wh,
    (array_agg(energy_wh order by time desc, id desc) filter (where energy_wh is not null))[1] as last_energy_wh
from plug_status
where clock <> 'unsynced'
group by 1, 2
with no data;

select add_continuous_aggregate_policy(name,
    start_offset => interval '60 days', end_offset => interval '15 minutes', schedule_interval => interval '15 minutes')
from unnest(array['energy_quarters', 'temperature_quarters', 'heatpump_quarters', 'plug_quarters']::regclass[]) as name \g /dev/null

create function energy_quarters_of(device text, period_start timestamptz, period_end timestamptz)
returns setof energy_quarters language sql stable begin atomic
select * from energy_quarters where device_id = device and quarter_start >= period_start and quarter_start < period_end;
end;

create function temperature_quarters_of(device text, period_start timestamptz, period_end timestamptz)
returns setof temperature_quarters language sql stable begin atomic
select * from temperature_quarters where device_id = device and quarter_start >= period_start and quarter_start < period_end;
end;

create function heatpump_quarters_of(device text, period_start timestamptz, period_end timestamptz)
returns setof heatpump_quarters language sql stable begin atomic
select * from heatpump_quarters where device_id = device and quarter_start >= period_start and quarter_start < period_end;
end;

create function plug_quarters_of(device text, period_start timestamptz, period_end timestamptz)
returns setof plug_quarters language sql stable begin atomic
select * from plug_quarters where device_id = device and quarter_start >= period_start and quarter_start < period_end;
end;

\else

create view energy_quarters as
select
    device_id, coalesce(meter_id, '') as meter_id, date_bin('15 minutes', time, '2000-01-01 00:00:00+00') as quarter_start, :energy_columns,
    (array_agg(energy_wh order by time, id) filter (where energy_wh is not null))[1] as first_energy_wh,
    (array_agg(energy_wh order by time desc, id desc) filter (where energy_wh is not null))[1] as last_energy_wh,
    (array_agg(export_energy_wh order by time, id) filter (where export_energy_wh is not null))[1] as first_export_wh,
    (array_agg(export_energy_wh order by time desc, id desc) filter (where export_energy_wh is not null))[1] as last_export_wh
from energy_consumption
where clock <> 'unsynced'
group by 1, 2, 3;

create view temperature_quarters as
select device_id, location, date_bin('15 minutes', time, '2000-01-01 00:00:00+00') as quarter_start, :temperature_columns
from temperature_sensors
where clock <> 'unsynced'
group by 1, 2, 3;

create view heatpump_quarters as
select device_id, date_bin('15 minutes', time, '2000-01-01 00:00:00+00') as quarter_start, :heatpump_columns
from heatpump_status
where clock <> 'unsynced'
group by 1, 2;

create view plug_quarters as
select
    device_id, date_bin('15 minutes', time, '2000-01-01 00:00:00+00') as quarter_start, :plug_columns,
    (array_agg(energy_wh order by time, id) filter (where energy_wh is not null))[1] as first_energy_wh,
    (array_agg(energy_wh order by time desc, id desc) filter (where energy_wh is not null))[1] as last_energy_wh
from plug_status
where clock <> 'unsynced'
group by 1, 2;

-- First and last values are not computed in the functions: on plain PostgreSQL 0005 reads them from the raw rows by index.
create function energy_quarters_of(device text, period_start timestamptz, period_end timestamptz)
returns setof energy_quarters language sql stable begin atomic
select
    device_id, coalesce(meter_id, '') as meter_id, date_bin('15 minutes', time, '2000-01-01 00:00:00+00') as quarter_start, :energy_columns,
    null::double precision, null::double precision, null::double precision, null::double precision
from energy_consumption
where device_id = device and time >= period_start and time < period_end and clock <> 'unsynced'
group by 1, 2, 3;
end;

create function temperature_quarters_of(device text, period_start timestamptz, period_end timestamptz)
returns setof temperature_quarters language sql stable begin atomic
select device_id, location, date_bin('15 minutes', time, '2000-01-01 00:00:00+00') as quarter_start, :temperature_columns
from temperature_sensors
where device_id = device and time >= period_start and time < period_end and clock <> 'unsynced'
group by 1, 2, 3;
end;

create function heatpump_quarters_of(device text, period_start timestamptz, period_end timestamptz)
returns setof heatpump_quarters language sql stable begin atomic
select device_id, date_bin('15 minutes', time, '2000-01-01 00:00:00+00') as quarter_start, :heatpump_columns
from heatpump_status
where device_id = device and time >= period_start and time < period_end and clock <> 'unsynced'
group by 1, 2;
end;

create function plug_quarters_of(device text, period_start timestamptz, period_end timestamptz)
returns setof plug_quarters language sql stable begin atomic
select
    device_id, date_bin('15 minutes', time, '2000-01-01 00:00:00+00') as quarter_start, :plug_columns,
    null::double precision, null::double precision
from plug_status
where device_id = device and time >= period_start and time < period_end and clock <> 'unsynced'
group by 1, 2;
end;

\endif

insert into schema_migrations (version, name) values (4, 'quarters');
