-- What devices report, what is wanted of them, and when plugs are switched. Reported and wanted values are never mixed: reported
-- ones come from telemetry and stand in settings and power_plugs, wanted ones are the open rows of outbox.

\if :{?household_time_zone}
\else
\set household_time_zone 'Europe/Stockholm'
\endif

-- Everything below belongs to the service.
set local role settings;

-- One row: what the whole household shares. run_migrations.sh sets the zone on every run; schedules are kept in it.
create table household (
    only_row boolean primary key default true check (only_row),
    -- An unknown zone makes the conversion fail, and with it the statement that tried to store it.
    time_zone text not null check ((timestamptz '2026-01-01 00:00:00+00' at time zone time_zone) is not null)
);
insert into household (time_zone) values (:'household_time_zone');

-- The settings each heat pump last reported, by which agent's record, and of when.
create table settings (
    device_id text primary key,
    agent text not null,
    reported_at timestamptz not null,
    indoor_target_c bigint,
    mode bigint,
    curve bigint,
    curve_min bigint,
    curve_max bigint,
    curve_plus_5 bigint,
    curve_zero bigint,
    curve_minus_5 bigint,
    heat_stop_c bigint,
    integral bigint,
    updated_at timestamptz not null default now()
);

-- Each plug and what it last reported; is_on is null until it has. A plug's id is its device_id.
create table power_plugs (
    plug_id text primary key,
    name text,
    agent text,
    is_on boolean,
    reported_at timestamptz,
    updated_at timestamptz not null default now()
);

-- Plugs are switched at a local time of day on some weekdays.
create table power_plug_schedules (
    id bigint generated always as identity primary key,
    plug_id text not null references power_plugs on delete cascade,
    -- ISO weekdays, 1 Monday to 7 Sunday.
    weekdays smallint[] not null
        check (cardinality(weekdays) between 1 and 7 and weekdays <@ array[1, 2, 3, 4, 5, 6, 7]::smallint[]),
    local_time time not null,
    turn_on boolean not null,
    enabled boolean not null default true,
    created_by text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);
create index power_plug_schedules_by_plug on power_plug_schedules (plug_id);

-- Commands on their way to a device. A row is written in the transaction that accepts the wish, and published from here.
create table outbox (
    id bigint generated always as identity primary key,
    device_id text not null,
    -- The agent the device's latest telemetry came through when the command was accepted.
    agent text not null,
    kind text not null check (kind in ('heatpump_settings', 'plug_power')),
    -- The wanted values: {"indoor_target_c": 22} or {"on": true}; absolute, so that a retry does no harm.
    wanted jsonb not null check (jsonb_typeof(wanted) = 'object' and wanted <> '{}'),
    status text not null default 'pending'
        check (status in ('pending', 'published', 'confirmed', 'failed', 'expired', 'superseded')),
    -- Attempts made so far: 0 until the first is published, at most 3.
    attempts smallint not null default 0 check (attempts between 0 and 3),
    -- When the relay looks at the row next.
    due_at timestamptz not null default now(),
    expires_at timestamptz not null default now() + interval '10 minutes',
    -- Time of the agent's own published event of the latest attempt: only telemetry after it can confirm.
    published_at timestamptz,
    finished_at timestamptz,
    -- Why it failed, for a person.
    reason text,
    -- Who asked: the token's subject, or the schedule.
    requested_by text not null,
    schedule_id bigint references power_plug_schedules on delete set null,
    idempotency_key text,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check (expires_at > created_at),
    check ((finished_at is not null) = (status in ('confirmed', 'failed', 'expired', 'superseded'))),
    unique (requested_by, idempotency_key)
);
-- The relay takes open rows in order per device; finished ones, which pile up, are in no index but their device's.
create index outbox_open on outbox (due_at, id) where status in ('pending', 'published');
create index outbox_by_device on outbox (device_id, id desc);

-- Every state a command was in, with its time: the audit trail.
create table outbox_history (
    outbox_id bigint not null references outbox on delete cascade,
    at timestamptz not null default clock_timestamp(),
    status text not null,
    attempts smallint not null,
    reason text
);
create index outbox_history_by_outbox on outbox_history (outbox_id, at);
create index outbox_history_by_time on outbox_history (at);

create function note_outbox_state() returns trigger
language plpgsql as $$
begin
    if tg_op = 'INSERT' or (old.status, old.attempts, old.reason) is distinct from (new.status, new.attempts, new.reason) then
        insert into outbox_history (outbox_id, status, attempts, reason) values (new.id, new.status, new.attempts, new.reason);
    end if;
    return null;
end
$$;
create trigger outbox_state after insert or update on outbox
for each row execute function note_outbox_state();

-- Which runs of a schedule were made: the key is what keeps one from being made twice, whoever tries.
create table power_plug_schedule_runs (
    schedule_id bigint not null references power_plug_schedules on delete cascade,
    local_date date not null,
    outbox_id bigint references outbox on delete set null,
    outcome text not null check (outcome in ('queued', 'missed')),
    run_at timestamptz not null default now(),
    primary key (schedule_id, local_date)
);

reset role;

insert into schema_migrations (version, name) values (2, 'tables');
