-- Forty days of a house with a quirk of every kind in it: nulls, a counter that was reset, text that needs quoting, numbers that
-- show every digit they have. Run in the database telemetry.
insert into energy_consumption (device_id, time, id, agent, clock, location, power_w, energy_wh, export_energy_wh, meter_id, meter_type, rssi_dbm)
select
    device, moment, 'p0/9c41f02b/' || device || extract(epoch from moment)::bigint, 'p0', case when n % 997 = 0 then 'corrected' else 'synced' end,
    case when device = 'SE1' then 'fuse box' end, 500 + 400 * sin(n / 90.0), case when n < 20000 then 41230187.125 + n * 7.3 else (n - 20000) * 7.3 end,
    n * 0.1, '7359992891234567', case when n % 5 = 0 then 'KAIFA' end, -61
from (values ('SE1'), ('shellypro3em-34987a45dc01')) as devices (device),
    generate_series(0, 57599) as n, lateral (select now() - interval '40 days' + n * interval '1 minute' as moment) as at;

insert into temperature_sensors (device_id, time, id, agent, clock, location, temperature_c, humidity_percent, external_power, battery_percent)
select
    'shellyhtg3-e4b32322a0f4', now() - n * interval '10 minutes', 'p1/00000001/' || n, 'p1', case when n = 3 then 'unsynced' else 'synced' end,
    E'Åsas "room", \t\\ the ''small'' one', 20 + sin(n / 70.0) / 3, nullif(n % 100, 50), n % 2 = 0, case when n % 3 = 0 then 77 end
from generate_series(0, 5759) as n;

insert into heatpump_status (device_id, time, id, agent, clock, outdoor_c, supply_c, compressor_on, compressor_hours, settings_indoor_target_c, settings_mode)
select 'ivt-495', now() - n * interval '1 minute', 'p0/9c41f02b/h' || n, 'p0', 'synced', -4, 38, n % 60 < 20, 41231 - n / 60, 21, 1
from generate_series(0, 20159) as n;

insert into plug_status (device_id, time, id, agent, clock, "on", power_w, energy_wh)
select 'shellyplugsg3-d0cf13c0ffee:1', now() - n * interval '5 minutes', 'p0/9c41f02b/p' || n, 'p0', 'synced', n % 7 <> 0, 8.9, 6532.114 - n * 0.75
from generate_series(0, 4031) as n;

insert into events (time, id, type, agent, device_id, details)
select now() - n * interval '3 hours', 'p0/9c41f02b/e' || n, 'device_online', 'p0', 'ivt-495', jsonb_build_object('online', n % 2 = 0, 'reason', 'wi-fi "lost"')
from generate_series(0, 199) as n;

insert into energy_meters (device_id, role) values ('SE1', 'main'), ('shellypro3em-34987a45dc01', 'sub');
insert into energy_prices (valid_from, valid_to, price_per_kwh, currency)
values ('2026-01-01 00:00+01', '2026-06-01 00:00+02', 1.2345, 'SEK'), ('2026-06-01 00:00+02', null, 0.87, 'SEK');
analyze;
