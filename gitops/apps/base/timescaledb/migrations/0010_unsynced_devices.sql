-- A device whose readings all came without a known time is a device: its newest reading and its place among the devices are asked
-- for by way of device_spans, which held only those with synchronised readings. The day it was first heard stands for the days that
-- its readings do not tell; nothing of it is summed up, as before.

create or replace function note_device_span() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    insert into device_spans as known (kind, device_id, first_time, last_time)
    select tg_argv[0], seen.device_id, seen.first_time, seen.last_time
    from (
        select device_id, date_trunc('day', min(time), 'UTC') as first_time, date_trunc('day', max(time), 'UTC') + interval '24 hours' as last_time
        from new_rows where clock <> 'unsynced' group by device_id
    ) as seen
    -- "on conflict" locks the row even when nothing changes, so what is known is left out beforehand.
    where not exists (
        select from device_spans as known
        where known.kind = tg_argv[0] and known.device_id = seen.device_id
            and known.first_time <= seen.first_time and known.last_time >= seen.last_time
    )
    order by seen.device_id
    on conflict (kind, device_id) do update
    set first_time = least(known.first_time, excluded.first_time), last_time = greatest(known.last_time, excluded.last_time);

    insert into device_spans (kind, device_id, first_time, last_time)
    select tg_argv[0], heard.device_id, date_trunc('day', now(), 'UTC'), date_trunc('day', now(), 'UTC') + interval '24 hours'
    from (select distinct device_id from new_rows where clock = 'unsynced') as heard
    where not exists (select from device_spans as known where known.kind = tg_argv[0] and known.device_id = heard.device_id)
    order by heard.device_id
    on conflict (kind, device_id) do nothing;
    return null;
end
$$;

insert into device_spans (kind, device_id, first_time, last_time)
select kind, device_id, date_trunc('day', now(), 'UTC'), date_trunc('day', now(), 'UTC') + interval '24 hours'
from (
    select distinct 'energy' as kind, device_id from energy_consumption where clock = 'unsynced'
    union
    select distinct 'temperature', device_id from temperature_sensors where clock = 'unsynced'
    union
    select distinct 'heatpump', device_id from heatpump_status where clock = 'unsynced'
    union
    select distinct 'plug', device_id from plug_status where clock = 'unsynced'
) as heard
on conflict (kind, device_id) do nothing;

insert into schema_migrations (version, name) values (10, 'unsynced_devices');
