-- Whether new rows stand behind all others of their device (0007) is found out without counting what stands behind a late one.

create or replace function note_appended_energy() returns trigger
language plpgsql security definer set search_path = public, pg_temp
-- The plans are kept for the session, and must not be those for the empty table it may have begun with.
set enable_seqscan = off set enable_bitmapscan = off as $$
declare
    series record;
    appended boolean;
    energy_before double precision;
    export_before double precision;
begin
    -- In order, so that two statements take the locks of counter_steps_refresh in the same order.
    for series in
        select device_id, meter_id, min(time) as first_time, count(*) as count,
            count(*) over (partition by device_id) as meters_of_device,
            min(time) filter (where energy_wh is not null) as energy_from,
            max(time) filter (where energy_wh is not null) as energy_to,
            min(energy_wh) as energy_least, bool_or(energy_wh < energy_highest) as energy_falls,
            min(time) filter (where export_wh is not null) as export_from,
            max(time) filter (where export_wh is not null) as export_to,
            min(export_wh) as export_least, bool_or(export_wh < export_highest) as export_falls
        from (
            -- Below the highest so far: a counter that fell at all is below it at the latest then.
            select *, max(energy_wh) over earlier as energy_highest, max(export_wh) over earlier as export_highest
            from (
                select device_id, coalesce(meter_id, '') as meter_id, time, id,
                    case when clock <> 'unsynced' then energy_wh end as energy_wh,
                    case when clock <> 'unsynced' then export_energy_wh end as export_wh
                from new_rows
            ) as counted
            window earlier as (
                partition by device_id, meter_id order by time, id rows between unbounded preceding and 1 preceding
            )
        ) as compared
        group by device_id, meter_id
        order by device_id, meter_id
    loop
        -- The locks of counter_steps_refresh: what is looked at after them includes the rows of whoever held them.
        if series.energy_from is not null then
            perform pg_advisory_xact_lock(hashtextextended('energy/' || series.device_id || '/' || series.meter_id, 0));
        end if;
        if series.export_from is not null then
            perform pg_advisory_xact_lock(hashtextextended('export/' || series.device_id || '/' || series.meter_id, 0));
        end if;
        -- Whether the new rows are all there is of the device from the first of them on.
        -- One row too many answers it: a late row may have years of others behind it.
        appended := series.meters_of_device = 1 and (series.energy_from is not null or series.export_from is not null)
            and series.count = (
                select count(*) from (
                    select from energy_consumption as r
                    where r.device_id = series.device_id and r.time >= series.first_time
                    limit series.count + 1
                ) as behind
            );
        energy_before := null;
        export_before := null;
        if appended and series.energy_from is not null and not coalesce(series.energy_falls, false) then
            select r.energy_wh into energy_before from energy_consumption as r
            where r.device_id = series.device_id and coalesce(r.meter_id, '') = series.meter_id
                and r.time < series.first_time and r.energy_wh is not null and r.clock <> 'unsynced'
            order by r.time desc, r.id desc limit 1;
        end if;
        if appended and series.export_from is not null and not coalesce(series.export_falls, false) then
            select r.export_energy_wh into export_before from energy_consumption as r
            where r.device_id = series.device_id and coalesce(r.meter_id, '') = series.meter_id
                and r.time < series.first_time and r.export_energy_wh is not null and r.clock <> 'unsynced'
            order by r.time desc, r.id desc limit 1;
        end if;
        if series.energy_from is not null and (energy_before is null or series.energy_least < energy_before) then
            perform counter_steps_refresh('energy', series.device_id, series.meter_id, series.energy_from, series.energy_to);
        end if;
        if series.export_from is not null and (export_before is null or series.export_least < export_before) then
            perform counter_steps_refresh('export', series.device_id, series.meter_id, series.export_from, series.export_to);
        end if;
    end loop;
    return null;
end
$$;

insert into schema_migrations (version, name) values (11, 'bounded_look_behind');
