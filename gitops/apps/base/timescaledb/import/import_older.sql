-- From the schema older (import_older.sh fills it) into this database's tables, in one transaction, and the comparison of both.
--
-- Variables of psql: main_device, the main meter's device_id; meter_id, its meter number, so that the imported counter is the
-- one the new system goes on counting (empty: the counter starts anew with the first new reading).
--
-- Every imported row has agent 'import' and an id made of what it says: running this again changes nothing, and
-- "delete ... where agent = 'import'" takes all of it back. Rows from the first reading of the new system on are left out, per
-- device: where both systems ran side by side, the new one is believed.
\set ON_ERROR_STOP on
set client_min_messages = warning;
set time zone 'UTC';
begin;

-- The older tables had no key: rows that say the same are one row.
create temporary table cut_over as
select 'energy' as kind, device_id, min(time) as at from energy_consumption where agent <> 'import' group by device_id
union all select 'temperature', device_id, min(time) from temperature_sensors where agent <> 'import' group by device_id
union all select 'heatpump', device_id, min(time) from heatpump_status where agent <> 'import' group by device_id;

create temporary table wanted_energy as
select distinct on (device_serial, time, row_text) o.*, 'import/' || md5(row_text) as import_id
from (select e.*, e::text as row_text from older.energy_consumption as e) as o
where time >= '2020-01-01' and device_serial is not null
    and time < coalesce((select at from cut_over where kind = 'energy' and cut_over.device_id = device_serial), 'infinity')
order by device_serial, time, row_text;

insert into energy_consumption (
    device_id, time, id, agent, clock, power_w, power_l1_w, power_l2_w, power_l3_w, export_power_w, energy_wh, export_energy_wh,
    voltage_l1_v, voltage_l2_v, voltage_l3_v, current_l1_a, current_l2_a, current_l3_a, power_factor, meter_id, meter_type, rssi_dbm
)
-- The older bridge stamped the arrival with the clock of its host, which was synchronised. Milliamperes and thousandths as DEVICES.md.
select
    device_serial, time, import_id, 'import', 'synced', active_power_total, active_power_l1, active_power_l2, active_power_l3,
    active_production_total, active_energy_total, active_energy_production, voltage_l1, voltage_l2, voltage_l3,
    current_l1 / 1000, current_l2 / 1000, current_l3 / 1000, power_factor / 1000,
    case when device_serial = :'main_device' then nullif(:'meter_id', '') end, meter_type, wifi_rssi
from wanted_energy order by device_serial, time
on conflict do nothing;

create temporary table wanted_temperature as
select distinct on (device_id, time, row_text) o.*, 'import/' || md5(row_text) as import_id
from (select t.*, t::text as row_text from older.temperature_sensors as t) as o
where time >= '2020-01-01' and device_id is not null
    and time < coalesce((select at from cut_over where kind = 'temperature' and cut_over.device_id = o.device_id), 'infinity')
order by device_id, time, row_text;

insert into temperature_sensors (
    device_id, time, id, agent, clock, location, temperature_c, humidity_percent, battery_volts, battery_percent, external_power,
    rssi_dbm, uptime_seconds, wind_speed_ms, pressure_hpa
)
select
    device_id, time, import_id, 'import', 'synced', location, temperature_c, humidity, battery_voltage, battery_percent,
    external_power <> 0, wifi_rssi, uptime, wind_speed_ms, pressure_hpa
from wanted_temperature order by device_id, time
on conflict do nothing;

create temporary table wanted_heatpump as
select distinct on (device_id, time, row_text) o.*, 'import/' || md5(row_text) as import_id
from (select h.*, h::text as row_text from older.heatpump_status as h) as o
where time >= '2020-01-01' and device_id is not null
    and time < coalesce((select at from cut_over where kind = 'heatpump' and cut_over.device_id = o.device_id), 'infinity')
order by device_id, time, row_text;

insert into heatpump_status (
    device_id, time, id, agent, clock, outdoor_c, indoor_c, supply_c, return_c, hot_water_c, brine_in_c, brine_out_c, integral,
    flow_pump_percent, compressor_on, brine_pump_on, flow_pump_on, hot_water_on, aux_3kw_on, aux_6kw_on,
    compressor_hours, hot_water_hours, aux_3kw_hours, aux_6kw_hours
)
select
    device_id, time, import_id, 'import', 'synced', outdoor_temp, indoor_temp, supplyline_temp, returnline_temp, hotwater_temp,
    brine_in_temp, brine_out_temp, integral, flowlinepump_speed, compressor_on, brinepump_on, flowlinepump_on,
    hotwater_production, aux_heater_3kw_on, aux_heater_6kw_on, runtime_compressor, runtime_hotwater, runtime_3kw, runtime_6kw
from wanted_heatpump order by device_id, time
on conflict do nothing;

-- Sums from before the raw rows: one reading at the end of each hour, or of each day where there are no hours, so that the
-- counter gains the sum within it. Readings an hour apart are marked estimated by the summaries themselves. The counter is
-- counted backwards from the main meter's first raw reading.
create temporary table first_raw as
select min(time) as at, (array_agg(energy_wh order by time, id))[1] as energy_wh
from energy_consumption where device_id = :'main_device' and energy_wh is not null and id not like 'import/sum/%';

create temporary table sums as
with hours as (
    select date_trunc('hour', hour_start) as start, interval '1 hour' as length, sum(total_energy_kwh) * 1000 as wh
    from older.energy_hourly where total_energy_kwh >= 0 group by 1
),
days as (
    select day_start as start, interval '1 day' as length, sum(energy_consumption_w) as wh
    from older.energy_daily_summary as d
    where energy_consumption_w >= 0
        and not exists (select from hours where hours.start >= d.day_start and hours.start < d.day_start + interval '1 day')
    group by 1
)
select start, start + length - interval '1 microsecond' as at, wh
from (select * from hours union all select * from days) as both_kinds, first_raw
-- The hour in which the raw rows begin is theirs.
where start + length <= coalesce(first_raw.at, 'infinity') and start >= '2020-01-01';

insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, meter_id)
select
    :'main_device', at, 'import/sum/' || to_char(at, 'YYYYMMDDHH24MISS'), 'import', 'synced',
    coalesce((select energy_wh from first_raw), (select sum(wh) from sums))
        - coalesce(sum(wh) over (order by at rows between 1 following and unbounded following), 0),
    nullif(:'meter_id', '')
from sums
order by at
on conflict do nothing;
-- Where the first of those sums begins, so that it too is a difference of two readings.
insert into energy_consumption (device_id, time, id, agent, clock, energy_wh, meter_id)
select
    :'main_device', min(start) - interval '1 microsecond', 'import/sum/start', 'import', 'synced',
    coalesce((select energy_wh from first_raw), sum(wh)) - sum(wh), nullif(:'meter_id', '')
from sums
having count(*) > 0
on conflict do nothing;

insert into energy_meters (device_id, role) values (:'main_device', 'main') on conflict do nothing;

-- The comparison: what was there, and what is there now. Any difference ends the import, and nothing of it stays.
create temporary table comparison as
select 'energy_consumption, rows' as what, (select count(*) from wanted_energy)::double precision as older,
    (select count(*) from energy_consumption where agent = 'import' and id not like 'import/sum/%')::double precision as imported
union all
select 'energy_consumption, sum of counters in Wh', (select coalesce(sum(active_energy_total), 0) from wanted_energy),
    (select coalesce(sum(energy_wh), 0) from energy_consumption where agent = 'import' and id not like 'import/sum/%')
union all
select 'energy_consumption, sum of power in W', (select coalesce(sum(active_power_total), 0) from wanted_energy),
    (select coalesce(sum(power_w), 0) from energy_consumption where agent = 'import')
union all
select 'temperature_sensors, rows', (select count(*) from wanted_temperature),
    (select count(*) from temperature_sensors where agent = 'import')
union all
select 'temperature_sensors, sum of temperatures in C', (select coalesce(sum(temperature_c), 0) from wanted_temperature),
    (select coalesce(sum(temperature_c), 0) from temperature_sensors where agent = 'import')
union all
select 'heatpump_status, rows', (select count(*) from wanted_heatpump),
    (select count(*) from heatpump_status where agent = 'import')
union all
select 'heatpump_status, sum of outdoor temperatures in C', (select coalesce(sum(outdoor_temp), 0) from wanted_heatpump),
    (select coalesce(sum(outdoor_c), 0) from heatpump_status where agent = 'import')
union all
select 'sums before the raw rows, hours and days', (select count(*) from sums),
    (select count(*) from energy_consumption where id like 'import/sum/2%')
union all
select 'sums before the raw rows, Wh', (select coalesce(sum(wh), 0) from sums),
    (select coalesce(max(energy_wh) - min(energy_wh), 0) from energy_consumption where id like 'import/sum/%');

\pset footer off
select what, older, imported, case when abs(older - imported) <= 1e-9 * greatest(abs(older), 1) then 'equal' else 'DIFFERENT' end as verdict
from comparison;
select not exists (select from comparison where abs(older - imported) > 1e-9 * greatest(abs(older), 1)) as equal \gset
\if :equal
commit;
\else
rollback;
\echo 'import: the numbers differ, so nothing was imported'
select 1 / 0 as "the import was rolled back";
\endif

-- On TimescaleDB the summaries are made now, before the 90 days of the raw rows take what is older.
select coalesce(current_setting('timescaledb.license', true), '') = 'timescale' as timescale \gset
\if :timescale
call refresh_continuous_aggregate('energy_quarters', null, now() - interval '1 hour');
call refresh_continuous_aggregate('temperature_quarters', null, now() - interval '1 hour');
call refresh_continuous_aggregate('heatpump_quarters', null, now() - interval '1 hour');
\endif
