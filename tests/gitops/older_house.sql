-- What the older system left behind, small: its tables as OLDER systems made them, duplicates and a broken row among them. The
-- numbers are chosen so that test_import.py can state every sum by hand. Times are UTC.
create table energy_consumption (
    time timestamptz, device_serial text, meter_type text, wifi_rssi smallint,
    active_power_total integer, active_power_l1 integer, active_power_l2 integer, active_power_l3 integer, active_production_total integer,
    active_energy_total integer, active_energy_production integer, voltage_l1 smallint, voltage_l2 smallint, voltage_l3 smallint,
    current_l1 integer, current_l2 integer, current_l3 integer, power_factor smallint
);
-- Two days of a reading every ten minutes from 1 October 2026, 100 Wh each; from noon of the second day the new system runs too.
insert into energy_consumption
select timestamptz '2026-10-01 00:05+00' + n * interval '10 minutes', 'SE1', 'KAIFA', -61, 600, 200, 200, 200, 0,
    1000000 + n * 100, 0, 230, 231, 232, 4402, 6431, 3260, 980
from generate_series(0, 287) as n;
-- The bridge wrote this one twice, and lost the device of that one.
insert into energy_consumption select * from energy_consumption where time = '2026-10-01 00:15+00';
insert into energy_consumption (time, active_power_total) values ('2026-10-01 00:16+00', 5);

create table temperature_sensors (
    time timestamptz, device_id text, mac_address text, location text, temperature_c double precision, temperature_f double precision,
    humidity double precision, wifi_rssi double precision, battery_voltage double precision, battery_percent double precision,
    external_power double precision, uptime double precision, ram_free double precision, wind_speed_ms double precision, pressure_hpa double precision
);
insert into temperature_sensors (time, device_id, mac_address, location, temperature_c, temperature_f, humidity, external_power, uptime)
select timestamptz '2026-10-01 00:00+00' + n * interval '2 hours', 'shellyhtg3-e4b32322a0f4', 'E4B32322A0F4', 'bedroom', 20 + n % 2, 68, 44.5, 0, 2
from generate_series(0, 11) as n;

create table heatpump_status (
    time timestamptz, device_id text, outdoor_temp smallint, supplyline_temp smallint, returnline_temp smallint, hotwater_temp smallint,
    brine_out_temp smallint, brine_in_temp smallint, flowlinepump_speed smallint, indoor_temp smallint, integral smallint,
    runtime_compressor integer, runtime_hotwater integer, runtime_3kw integer, runtime_6kw integer, brinepump_on boolean,
    compressor_on boolean, flowlinepump_on boolean, hotwater_production boolean, aux_heater_3kw_on boolean, aux_heater_6kw_on boolean
);
insert into heatpump_status (time, device_id, outdoor_temp, supplyline_temp, brine_out_temp, brine_in_temp, integral, runtime_compressor, compressor_on)
select timestamptz '2026-10-01 00:00+00' + n * interval '30 seconds', 'ivt-495', -4, 38, -1, 3, -182, 41231, n % 2 = 0
from generate_series(0, 99) as n;

-- Hours of the last day before the raw rows, and days of the week before; the aggregates mix devices and are what there is.
create table energy_hourly (hour_start timestamptz, total_energy_kwh double precision);
insert into energy_hourly select timestamptz '2026-09-30 00:00+00' + n * interval '1 hour', 0.5 + n * 0.01 from generate_series(0, 23) as n;
create table energy_daily_summary (day_start timestamptz, energy_consumption_w double precision);
insert into energy_daily_summary select timestamptz '2026-09-24 00:00+00' + n * interval '1 day', 10000 + n * 1000 from generate_series(0, 6) as n;
