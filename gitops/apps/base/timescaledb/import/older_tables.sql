-- The tables of the older system, empty, in a schema of their own: where import_older.sh puts what it reads. Text where the older
-- numbers are narrower than ours would only cost casts, so every number is double precision.
\set ON_ERROR_STOP on
set client_min_messages = warning;
drop schema if exists older cascade;
create schema older;
create table older.energy_consumption (
    time timestamptz, device_serial text, meter_type text, wifi_rssi double precision,
    active_power_total double precision, active_power_l1 double precision, active_power_l2 double precision,
    active_power_l3 double precision, active_production_total double precision,
    active_energy_total double precision, active_energy_production double precision,
    voltage_l1 double precision, voltage_l2 double precision, voltage_l3 double precision,
    current_l1 double precision, current_l2 double precision, current_l3 double precision, power_factor double precision
);
create table older.temperature_sensors (
    time timestamptz, device_id text, location text, temperature_c double precision, humidity double precision,
    wifi_rssi double precision, battery_voltage double precision, battery_percent double precision,
    external_power double precision, uptime double precision, wind_speed_ms double precision, pressure_hpa double precision
);
create table older.heatpump_status (
    time timestamptz, device_id text, outdoor_temp double precision, indoor_temp double precision,
    supplyline_temp double precision, returnline_temp double precision, hotwater_temp double precision,
    brine_in_temp double precision, brine_out_temp double precision, integral double precision,
    flowlinepump_speed double precision, compressor_on boolean, brinepump_on boolean, flowlinepump_on boolean,
    hotwater_production boolean, aux_heater_3kw_on boolean, aux_heater_6kw_on boolean,
    runtime_compressor double precision, runtime_hotwater double precision,
    runtime_3kw double precision, runtime_6kw double precision
);
create table older.energy_hourly (hour_start timestamptz, total_energy_kwh double precision);
create table older.energy_daily_summary (day_start timestamptz, energy_consumption_w double precision);
