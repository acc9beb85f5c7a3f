-- Energy counters, corrected once and for all (the energy rule of ARCHITECTURE.md).
--
-- A counter is one column of one (device, meter): bought energy, sold energy, or a plug's energy. Normally it only grows, and
-- the gain of any period is its last value minus its last value before the period. What is not normal is a step down, and
-- there are few of them, so they are kept in counter_steps:
--   reset      the value fell under a tenth of the previous one: counting starts again from 0, the gain is the value;
--   slip back  any other fall: the gain is 0 until the old maximum is passed.
-- From the steps the corrected total of a counter at any instant follows from its last value before that instant alone:
--   total = base_wh + greatest(last value, peak_wh)       base_wh and peak_wh of the last step before the instant
-- where base_wh is the sum of the maxima that resets ended, and peak_wh the maximum a slip back has still to pass (0 after a
-- reset). The gain of a period is the difference of two totals, so quarters add up to hours, days and years exactly, whatever
-- happened in between. The first reading of a counter gains nothing: another meter_id is another counter.
--
-- The steps are kept by triggers and outlive the raw rows, which TimescaleDB drops after 90 days. A late reading moves the
-- steps around it; a deleted one too. Readings whose clock was never synchronised take no part.

select coalesce(current_setting('timescaledb.license', true), '') = 'timescale' as timescale \gset

create table counter_steps (
    counter text not null check (counter in ('energy', 'export', 'plug')),
    device_id text not null,
    -- Empty where the device names no meter.
    meter_id text not null,
    -- Time and id of the reading that stepped down.
    time timestamptz not null,
    id text not null,
    previous_wh double precision not null,
    value_wh double precision not null,
    base_wh double precision not null default 0,
    peak_wh double precision not null default 0,
    primary key (counter, device_id, meter_id, time, id)
);

-- The last reading of a counter before an instant, and the first from an instant on. The instant lies on a quarter.
\if :timescale
-- Read from the quarters, which hold what the raw rows no longer do. Near quarters first: most answers lie within a day.
create function counter_before(counter text, device text, meter text, instant timestamptz, out at timestamptz, out value_wh double precision)
language plpgsql stable as $$
declare
    reach interval;
begin
    foreach reach in array array[interval '1 day', interval '30 days', interval '1000 years'] loop
        if counter = 'energy' then
            select q.last_energy_time, q.last_energy_wh into at, value_wh from energy_quarters as q
            where q.device_id = device and q.meter_id = meter and q.quarter_start < instant and q.quarter_start >= instant - reach
                and q.last_energy_time is not null
            order by q.quarter_start desc limit 1;
        elsif counter = 'export' then
            select q.last_export_time, q.last_export_wh into at, value_wh from energy_quarters as q
            where q.device_id = device and q.meter_id = meter and q.quarter_start < instant and q.quarter_start >= instant - reach
                and q.last_export_time is not null
            order by q.quarter_start desc limit 1;
        else
            select q.last_energy_time, q.last_energy_wh into at, value_wh from plug_quarters as q
            where q.device_id = device and q.quarter_start < instant and q.quarter_start >= instant - reach
                and q.last_energy_time is not null
            order by q.quarter_start desc limit 1;
        end if;
        exit when at is not null;
    end loop;
end
$$;

create function counter_from(counter text, device text, meter text, instant timestamptz, out at timestamptz, out value_wh double precision)
language plpgsql stable as $$
begin
    if counter = 'energy' then
        select q.first_energy_time, q.first_energy_wh into at, value_wh from energy_quarters as q
        where q.device_id = device and q.meter_id = meter and q.quarter_start >= instant and q.first_energy_time is not null
        order by q.quarter_start limit 1;
    elsif counter = 'export' then
        select q.first_export_time, q.first_export_wh into at, value_wh from energy_quarters as q
        where q.device_id = device and q.meter_id = meter and q.quarter_start >= instant and q.first_export_time is not null
        order by q.quarter_start limit 1;
    else
        select q.first_energy_time, q.first_energy_wh into at, value_wh from plug_quarters as q
        where q.device_id = device and q.quarter_start >= instant and q.first_energy_time is not null
        order by q.quarter_start limit 1;
    end if;
end
$$;
\else
create function counter_before(counter text, device text, meter text, instant timestamptz, out at timestamptz, out value_wh double precision)
language plpgsql stable as $$
begin
    if counter = 'energy' then
        select r.time, r.energy_wh into at, value_wh from energy_consumption as r
        where r.device_id = device and coalesce(r.meter_id, '') = meter and r.time < instant
            and r.energy_wh is not null and r.clock <> 'unsynced'
        order by r.time desc, r.id desc limit 1;
    elsif counter = 'export' then
        select r.time, r.export_energy_wh into at, value_wh from energy_consumption as r
        where r.device_id = device and coalesce(r.meter_id, '') = meter and r.time < instant
            and r.export_energy_wh is not null and r.clock <> 'unsynced'
        order by r.time desc, r.id desc limit 1;
    else
        select r.time, r.energy_wh into at, value_wh from plug_status as r
        where r.device_id = device and r.time < instant and r.energy_wh is not null and r.clock <> 'unsynced'
        order by r.time desc, r.id desc limit 1;
    end if;
end
$$;

create function counter_from(counter text, device text, meter text, instant timestamptz, out at timestamptz, out value_wh double precision)
language plpgsql stable as $$
begin
    if counter = 'energy' then
        select r.time, r.energy_wh into at, value_wh from energy_consumption as r
        where r.device_id = device and coalesce(r.meter_id, '') = meter and r.time >= instant
            and r.energy_wh is not null and r.clock <> 'unsynced'
        order by r.time, r.id limit 1;
    elsif counter = 'export' then
        select r.time, r.export_energy_wh into at, value_wh from energy_consumption as r
        where r.device_id = device and coalesce(r.meter_id, '') = meter and r.time >= instant
            and r.export_energy_wh is not null and r.clock <> 'unsynced'
        order by r.time, r.id limit 1;
    else
        select r.time, r.energy_wh into at, value_wh from plug_status as r
        where r.device_id = device and r.time >= instant and r.energy_wh is not null and r.clock <> 'unsynced'
        order by r.time, r.id limit 1;
    end if;
end
$$;
\endif

-- The corrected total before an instant, given the counter's last value before it.
create function counter_total(counter text, device text, meter text, instant timestamptz, last_wh double precision) returns double precision
language plpgsql stable as $$
declare
    step counter_steps;
begin
    select * into step from counter_steps as s
    where s.counter = counter_total.counter and s.device_id = device and s.meter_id = meter and s.time < instant
    order by s.time desc, s.id desc limit 1;
    if not found then
        return last_wh;
    end if;
    return step.base_wh + greatest(last_wh, step.peak_wh);
end
$$;

-- What a counter gained in [period_start, period_end), both on quarters; null when it never reported before period_end.
create function counter_gain(counter text, device text, meter text, period_start timestamptz, period_end timestamptz) returns double precision
language plpgsql stable as $$
declare
    at_end record;
    at_start record;
begin
    select * into at_end from counter_before(counter, device, meter, period_end);
    if at_end.at is null then
        return null;
    elsif at_end.at < period_start then
        return 0;
    end if;
    select * into at_start from counter_before(counter, device, meter, period_start);
    if at_start.at is null then
        -- The counter begins here: what it showed first is where counting starts.
        select * into at_start from counter_from(counter, device, meter, period_start);
        return counter_total(counter, device, meter, period_end, at_end.value_wh) - at_start.value_wh;
    end if;
    -- Never negative: only a summary that waits for its refresh could make it so, and that is not a gain.
    return greatest(0, counter_total(counter, device, meter, period_end, at_end.value_wh)
        - counter_total(counter, device, meter, period_start, at_start.value_wh));
end
$$;

-- Finds the steps of one counter again where readings in [changed_from, changed_to] came or went, and carries the sums on.
create function counter_steps_refresh(counter text, device text, meter text, changed_from timestamptz, changed_to timestamptz) returns void
language plpgsql as $$
declare
    -- The readings of this counter; names and columns are fixed words, never input.
    readings constant text := case counter
        when 'energy' then $sql$(select time, id, energy_wh as wh from energy_consumption
            where device_id = $1 and coalesce(meter_id, '') = $2 and energy_wh is not null and clock <> 'unsynced'$sql$
        when 'export' then $sql$(select time, id, export_energy_wh as wh from energy_consumption
            where device_id = $1 and coalesce(meter_id, '') = $2 and export_energy_wh is not null and clock <> 'unsynced'$sql$
        when 'plug' then $sql$(select time, id, energy_wh as wh from plug_status
            where device_id = $1 and $2 = '' and energy_wh is not null and clock <> 'unsynced'$sql$
    end;
    before record;
    after record;
    step record;
    base double precision := 0;
    peak double precision := 0;
    touched bigint;
    removed bigint;
begin
    -- Two transactions that write neighbours of the same counter must see each other's rows: the second waits here, and its
    -- next statement sees what the first committed.
    perform pg_advisory_xact_lock(hashtextextended(counter || '/' || device || '/' || meter, 0));

    execute readings || ' and time < $3 order by time desc, id desc limit 1)' into before using device, meter, changed_from;
    if before.wh is null then
        -- The raw rows before may be gone by retention while their quarters remain.
        select c.at as time, '' as id, c.value_wh as wh into before
        from counter_before(counter, device, meter, date_bin('15 minutes', changed_from, '2000-01-01 00:00:00+00')) as c;
    end if;
    execute readings || ' and time > $3 order by time, id limit 1)' into after using device, meter, changed_to;

    delete from counter_steps as s
    where s.counter = counter_steps_refresh.counter and s.device_id = device and s.meter_id = meter
        and s.time >= changed_from and (s.time <= changed_to or (s.time, s.id) = (after.time, after.id));
    get diagnostics removed = row_count;

    execute $sql$
        insert into counter_steps (counter, device_id, meter_id, time, id, previous_wh, value_wh)
        select $3, $1, $2, time, id, previous_wh, wh
        from (
            select time, id, wh, lag(wh, 1, $6) over (order by time, id) as previous_wh
            from $sql$ || readings || $sql$ and time >= $4 and time <= $5 union all
                select $7, $8, $9 where $9 is not null) as changed
        ) as pairs
        where wh < previous_wh
    $sql$ using device, meter, counter, changed_from, changed_to, before.wh, after.time, after.id, after.wh;
    get diagnostics touched = row_count;
    if touched = 0 and removed = 0 then
        return;
    end if;

    select s.base_wh, s.peak_wh into base, peak from counter_steps as s
    where s.counter = counter_steps_refresh.counter and s.device_id = device and s.meter_id = meter and s.time < changed_from
    order by s.time desc, s.id desc limit 1;
    base := coalesce(base, 0);
    peak := coalesce(peak, 0);
    for step in
        select * from counter_steps as s
        where s.counter = counter_steps_refresh.counter and s.device_id = device and s.meter_id = meter and s.time >= changed_from
        order by s.time, s.id
    loop
        peak := greatest(peak, step.previous_wh);
        if step.value_wh * 10 < step.previous_wh then
            base := base + peak;
            peak := 0;
        end if;
        update counter_steps as s set base_wh = base, peak_wh = peak
        where s.counter = step.counter and s.device_id = step.device_id and s.meter_id = step.meter_id
            and s.time = step.time and s.id = step.id and (s.base_wh, s.peak_wh) is distinct from (base, peak);
    end loop;
end
$$;

-- Statement triggers: one pass over what a statement changed, whether it is one row or a bulk load. They run with the rights
-- of the owner, because the sink may write readings and nothing else.
create function note_changed_counter() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
declare
    counter constant text := tg_argv[0];
    value_column constant text := tg_argv[1];
    meter constant text := tg_argv[2];
    changed constant text := case tg_op
        when 'INSERT' then 'new_rows'
        when 'DELETE' then 'old_rows'
        else '(select * from new_rows union all select * from old_rows)'
    end;
    series record;
begin
    -- In order, so that two statements take the locks of counter_steps_refresh in the same order.
    for series in execute format(
        $sql$select device_id, %s as meter_id, min(time) as changed_from, max(time) as changed_to
        from %s as changed where %I is not null and clock <> 'unsynced' group by 1, 2 order by 1, 2$sql$, meter, changed, value_column)
    loop
        perform counter_steps_refresh(counter, series.device_id, series.meter_id, series.changed_from, series.changed_to);
    end loop;
    return null;
end
$$;

create function forget_counters() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    delete from counter_steps where counter = any (tg_argv::text[]);
    return null;
end
$$;

create function note_device_span() returns trigger
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
    return null;
end
$$;

create trigger device_span after insert on energy_consumption referencing new table as new_rows
for each statement execute function note_device_span('energy');
create trigger device_span after insert on temperature_sensors referencing new table as new_rows
for each statement execute function note_device_span('temperature');
create trigger device_span after insert on heatpump_status referencing new table as new_rows
for each statement execute function note_device_span('heatpump');
create trigger device_span after insert on plug_status referencing new table as new_rows
for each statement execute function note_device_span('plug');

create trigger energy_inserted after insert on energy_consumption referencing new table as new_rows
for each statement execute function note_changed_counter('energy', 'energy_wh', 'coalesce(meter_id, '''')');
create trigger energy_updated after update on energy_consumption referencing new table as new_rows old table as old_rows
for each statement execute function note_changed_counter('energy', 'energy_wh', 'coalesce(meter_id, '''')');
create trigger export_inserted after insert on energy_consumption referencing new table as new_rows
for each statement execute function note_changed_counter('export', 'export_energy_wh', 'coalesce(meter_id, '''')');
create trigger export_updated after update on energy_consumption referencing new table as new_rows old table as old_rows
for each statement execute function note_changed_counter('export', 'export_energy_wh', 'coalesce(meter_id, '''')');
create trigger counters_forgotten after truncate on energy_consumption
for each statement execute function forget_counters('energy', 'export');

create trigger energy_inserted after insert on plug_status referencing new table as new_rows
for each statement execute function note_changed_counter('plug', 'energy_wh', '''''');
create trigger energy_updated after update on plug_status referencing new table as new_rows old table as old_rows
for each statement execute function note_changed_counter('plug', 'energy_wh', '''''');
create trigger counters_forgotten after truncate on plug_status
for each statement execute function forget_counters('plug');

\if :timescale
-- A hypertable that is compressed gives no old table to a statement's trigger, so deletions, which only a person makes, are
-- followed row by row. Dropping a chunk is no deletion: what it held stays in the sums.
create function note_deleted_energy() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if old.clock <> 'unsynced' and old.energy_wh is not null then
        perform counter_steps_refresh('energy', old.device_id, coalesce(old.meter_id, ''), old.time, old.time);
    end if;
    if old.clock <> 'unsynced' and old.export_energy_wh is not null then
        perform counter_steps_refresh('export', old.device_id, coalesce(old.meter_id, ''), old.time, old.time);
    end if;
    return null;
end
$$;
create function note_deleted_plug() returns trigger
language plpgsql security definer set search_path = public, pg_temp as $$
begin
    if old.clock <> 'unsynced' and old.energy_wh is not null then
        perform counter_steps_refresh('plug', old.device_id, '', old.time, old.time);
    end if;
    return null;
end
$$;
create trigger energy_deleted after delete on energy_consumption for each row execute function note_deleted_energy();
create trigger energy_deleted after delete on plug_status for each row execute function note_deleted_plug();
\else
create trigger energy_deleted after delete on energy_consumption referencing old table as old_rows
for each statement execute function note_changed_counter('energy', 'energy_wh', 'coalesce(meter_id, '''')');
create trigger export_deleted after delete on energy_consumption referencing old table as old_rows
for each statement execute function note_changed_counter('export', 'export_energy_wh', 'coalesce(meter_id, '''')');
create trigger energy_deleted after delete on plug_status referencing old table as old_rows
for each statement execute function note_changed_counter('plug', 'energy_wh', '''''');
\endif

insert into schema_migrations (version, name) values (5, 'counters');
