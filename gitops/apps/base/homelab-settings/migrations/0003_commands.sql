-- What sending and confirming commands need: which attempt is to be sent, what was heard of it, which changes of state were
-- announced, and since when a schedule is as it is.

set local role settings;

alter table outbox
    -- What the caller asked for. wanted loses the fields that a later command takes over, this never changes.
    add column asked jsonb,
    -- The attempt that is to be sent at due_at; null while one is under way. Its agent is fixed with it, before it is sent: sent
    -- twice after a crash, it reaches the same agent, which does it once.
    add column next_attempt smallint default 1 check (next_attempt between 1 and 3),
    -- When the latest attempt was sent.
    add column sent_at timestamptz,
    -- The latest attempt the agent answered. One that is not answered may still be done until it expires.
    add column answered smallint not null default 0,
    -- Set while the next attempt waits for the device to report anything later than this.
    add column waiting_since timestamptz,
    -- Time of the latest record of the row's agent that has every wanted value.
    add column matched_at timestamptz;
update outbox set asked = wanted, next_attempt = case when status = 'pending' then 1 end, sent_at = updated_at;
alter table outbox alter column asked set not null;
comment on column outbox.published_at is
    'time of the first published event of the row''s agent: only telemetry of that agent after it can confirm';
create index outbox_finished on outbox (finished_at) where finished_at is not null;

-- An agent does each (id, attempt) once and remembers that for days. Numbers that begin at the time of day in seconds are not
-- given again by a database that is made anew.
select setval(pg_get_serial_sequence('outbox', 'id'), greatest(
    (select coalesce(max(id), 1) from outbox), extract(epoch from clock_timestamp())::bigint));

-- A change of status is announced on homelab.events, in this order, by the relay.
alter table outbox_history
    add column id bigint generated always as identity primary key,
    add column announced boolean not null default false;
update outbox_history set announced = true;
create index outbox_history_to_announce on outbox_history (id) where not announced;

create or replace function note_outbox_state() returns trigger
language plpgsql as $$
begin
    if tg_op = 'INSERT' or (old.status, old.attempts, old.reason) is distinct from (new.status, new.attempts, new.reason) then
        insert into outbox_history (outbox_id, status, attempts, reason, announced)
        values (new.id, new.status, new.attempts, new.reason, tg_op = 'UPDATE' and old.status = new.status);
    end if;
    -- Wakes the relay once the transaction is committed.
    perform pg_notify('outbox', '');
    return null;
end
$$;

-- Runs before this moment are not made: a schedule that is new, or was changed or switched on, begins there.
alter table power_plug_schedules add column effective_from timestamptz not null default now();

-- A run is named by the local date and time it was meant for, so that an hour that comes twice makes it once, and a schedule
-- that is moved to later the same day runs again.
alter table power_plug_schedule_runs
    add column local_time time not null default '00:00',
    drop constraint power_plug_schedule_runs_pkey,
    add primary key (schedule_id, local_date, local_time);
alter table power_plug_schedule_runs alter column local_time drop default;
create index power_plug_schedule_runs_by_time on power_plug_schedule_runs (run_at);

reset role;

insert into schema_migrations (version, name) values (3, 'commands');
