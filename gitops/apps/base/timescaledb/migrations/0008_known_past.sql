-- transaction: none
-- What was stored before there was anything to keep track of it: a database that began at an older version has readings from
-- before the triggers of 0005, so their devices have no span and their counters no steps, and, on TimescaleDB, readings from
-- before 60 days that no refresh of 0004 would ever have summed up, and that its real-time part gives up after the first one.
--
-- Everything here finds what is there and may be run again. A database that had its triggers all along is left as it is.

select coalesce(current_setting('timescaledb.license', true), '') = 'timescale' as timescale \gset

insert into device_spans as known (kind, device_id, first_time, last_time)
select kind, device_id, date_trunc('day', min(first_time), 'UTC'), date_trunc('day', max(last_time), 'UTC') + interval '24 hours'
from (
    select 'energy' as kind, device_id, min(time) as first_time, max(time) as last_time
    from energy_consumption where clock <> 'unsynced' group by device_id
    union all
    select 'temperature', device_id, min(time), max(time) from temperature_sensors where clock <> 'unsynced' group by device_id
    union all
    select 'heatpump', device_id, min(time), max(time) from heatpump_status where clock <> 'unsynced' group by device_id
    union all
    select 'plug', device_id, min(time), max(time) from plug_status where clock <> 'unsynced' group by device_id
) as seen
group by kind, device_id
on conflict (kind, device_id) do update
set first_time = least(known.first_time, excluded.first_time), last_time = greatest(known.last_time, excluded.last_time);

do $$
declare
    series record;
begin
    for series in
        select 'energy' as counter, device_id, coalesce(meter_id, '') as meter_id, min(time) as first_time, max(time) as last_time
        from energy_consumption where energy_wh is not null and clock <> 'unsynced' group by 2, 3
        union all
        select 'export', device_id, coalesce(meter_id, ''), min(time), max(time)
        from energy_consumption where export_energy_wh is not null and clock <> 'unsynced' group by 2, 3
        union all
        select 'plug', device_id, '', min(time), max(time)
        from plug_status where energy_wh is not null and clock <> 'unsynced' group by 2
        -- The order in which the triggers take the locks of counter_steps_refresh.
        order by 1, 2, 3
    loop
        perform counter_steps_refresh(series.counter, series.device_id, series.meter_id, series.first_time, series.last_time);
    end loop;
end
$$;

\if :timescale
-- No further back than there are raw readings: a refresh of what was dropped would wipe what is left of it.
select coalesce(min(date_bin('15 minutes', time, '2000-01-01 00:00:00+00')), now()) as energy_from from energy_consumption \gset
select coalesce(min(date_bin('15 minutes', time, '2000-01-01 00:00:00+00')), now()) as temperature_from from temperature_sensors \gset
select coalesce(min(date_bin('15 minutes', time, '2000-01-01 00:00:00+00')), now()) as heatpump_from from heatpump_status \gset
select coalesce(min(date_bin('15 minutes', time, '2000-01-01 00:00:00+00')), now()) as plug_from from plug_status \gset
call refresh_continuous_aggregate('energy_quarters', :'energy_from'::timestamptz, null);
call refresh_continuous_aggregate('temperature_quarters', :'temperature_from'::timestamptz, null);
call refresh_continuous_aggregate('heatpump_quarters', :'heatpump_from'::timestamptz, null);
call refresh_continuous_aggregate('plug_quarters', :'plug_from'::timestamptz, null);
\endif

insert into schema_migrations (version, name) values (8, 'known_past');
