-- Readings and events as they arrive, what is known about meters and prices, and the household's time zone.
--
-- On TimescaleDB the tables of readings and events are hypertables; 0003 says how long they are kept. On plain PostgreSQL they
-- are ordinary tables and are kept for ever. Numbers are double precision: power above 32,767 W is real, and counters in Wh
-- stay exact up to 2^53.

-- Where the server has TimescaleDB, the database gets it. A server that has it but did not preload it ends the session that
-- asks for it, so that is looked at first; the WebAssembly build of the tests (emcc) needs no preloading.
select
    exists (select from pg_available_extensions where name = 'timescaledb')
    and (current_setting('shared_preload_libraries') like '%timescaledb%' or version() like '%emcc%') as loadable \gset
\if :loadable
create extension if not exists timescaledb;
\endif
-- Continuous aggregates exist only under the Timescale licence: a build with the Apache licence is used as plain PostgreSQL.
select coalesce(current_setting('timescaledb.license', true), '') = 'timescale' as timescale \gset

\if :{?household_time_zone}
\else
\set household_time_zone 'Europe/Stockholm'
\endif

-- One row: what the whole household shares. run_migrations.sh sets the zone on every run, so that it can be changed.
create table household (
    only_row boolean primary key default true check (only_row),
    -- An unknown zone makes the conversion fail, and with it the statement that tried to store it.
    time_zone text not null check ((timestamptz '2026-01-01 00:00:00+00' at time zone time_zone) is not null)
);
insert into household (time_zone) values (:'household_time_zone');

create table energy_consumption (
    device_id text not null,
    time timestamptz not null,
    id text not null,
    agent text not null,
    clock text not null check (clock in ('synced', 'corrected', 'unsynced')),
    location text,
    power_w double precision,
    power_l1_w double precision,
    power_l2_w double precision,
    power_l3_w double precision,
    export_power_w double precision,
    energy_wh double precision,
    export_energy_wh double precision,
    voltage_l1_v double precision,
    voltage_l2_v double precision,
    voltage_l3_v double precision,
    current_l1_a double precision,
    current_l2_a double precision,
    current_l3_a double precision,
    power_factor double precision,
    meter_id text,
    meter_type text,
    rssi_dbm double precision,
    primary key (device_id, time, id)
);

create table temperature_sensors (
    device_id text not null,
    time timestamptz not null,
    id text not null,
    agent text not null,
    clock text not null check (clock in ('synced', 'corrected', 'unsynced')),
    location text,
    temperature_c double precision,
    humidity_percent double precision,
    battery_volts double precision,
    battery_percent double precision,
    external_power boolean,
    rssi_dbm double precision,
    uptime_seconds double precision,
    wake_period_seconds double precision,
    wind_speed_ms double precision,
    pressure_hpa double precision,
    primary key (device_id, time, id)
);

create table heatpump_status (
    device_id text not null,
    time timestamptz not null,
    id text not null,
    agent text not null,
    clock text not null check (clock in ('synced', 'corrected', 'unsynced')),
    location text,
    outdoor_c double precision,
    indoor_c double precision,
    supply_c double precision,
    return_c double precision,
    hot_water_c double precision,
    brine_in_c double precision,
    brine_out_c double precision,
    integral double precision,
    flow_pump_percent double precision,
    compressor_on boolean,
    brine_pump_on boolean,
    flow_pump_on boolean,
    hot_water_on boolean,
    aux_3kw_on boolean,
    aux_6kw_on boolean,
    compressor_hours double precision,
    hot_water_hours double precision,
    aux_3kw_hours double precision,
    aux_6kw_hours double precision,
    settings_indoor_target_c bigint,
    settings_mode bigint,
    settings_curve bigint,
    settings_curve_min bigint,
    settings_curve_max bigint,
    settings_curve_plus_5 bigint,
    settings_curve_zero bigint,
    settings_curve_minus_5 bigint,
    settings_heat_stop_c bigint,
    settings_integral bigint,
    primary key (device_id, time, id)
);

create table plug_status (
    device_id text not null,
    time timestamptz not null,
    id text not null,
    agent text not null,
    clock text not null check (clock in ('synced', 'corrected', 'unsynced')),
    location text,
    "on" boolean,
    power_w double precision,
    energy_wh double precision,
    voltage_v double precision,
    current_a double precision,
    rssi_dbm double precision,
    uptime_seconds double precision,
    primary key (device_id, time, id)
);

create table events (
    time timestamptz not null,
    id text not null,
    type text not null,
    agent text,
    device_id text,
    details jsonb not null default '{}',
    primary key (id, time)
);
create index events_by_device on events (device_id, time);

-- What a meter measures: the house is the sum of its main meters; sub and production are shown on their own.
create table energy_meters (
    device_id text primary key,
    role text not null check (role in ('main', 'sub', 'production'))
);

create table energy_prices (
    valid_from timestamptz primary key,
    -- Open end: valid until the next price is entered and this one is closed.
    valid_to timestamptz,
    price_per_kwh numeric not null,
    currency text not null check (currency ~ '^[A-Z]{3}$'),
    check (valid_from < valid_to),
    -- At any instant there is at most one price.
    exclude using gist (tstzrange(valid_from, valid_to) with &&)
);

-- Which devices have sent what, and the whole UTC days between which their readings lie: kept by triggers (0005), so that
-- the summaries know their range without searching the readings. Whole days, so that a row changes once a day at most.
create table device_spans (
    kind text not null check (kind in ('energy', 'temperature', 'heatpump', 'plug')),
    device_id text not null,
    first_time timestamptz not null,
    last_time timestamptz not null,
    primary key (kind, device_id)
);

\if :timescale
-- A chunk of 7 days of a house is a few million rows at most; the default index on time alone would serve no query of ours.
select create_hypertable('energy_consumption', by_range('time', interval '7 days'), create_default_indexes => false) \g /dev/null
select create_hypertable('temperature_sensors', by_range('time', interval '7 days'), create_default_indexes => false) \g /dev/null
select create_hypertable('heatpump_status', by_range('time', interval '7 days'), create_default_indexes => false) \g /dev/null
select create_hypertable('plug_status', by_range('time', interval '7 days'), create_default_indexes => false) \g /dev/null
select create_hypertable('events', by_range('time', interval '30 days')) \g /dev/null
\endif

insert into schema_migrations (version, name) values (1, 'tables');
