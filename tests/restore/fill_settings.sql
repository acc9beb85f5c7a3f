-- A pump, two plugs, a schedule that has run and commands in several states. Run in the database homelab_settings.
insert into settings (device_id, agent, reported_at, indoor_target_c, mode, curve, heat_stop_c)
values ('ivt-495', 'p0', now(), 21, 1, 38, 17);
insert into power_plugs (plug_id, name, agent, is_on, reported_at)
values ('tasmota-tv', 'Televisionen "nere"', 'p1', true, now()), ('shellyplugsg3-d0cf13c0ffee:1', null, 'p0', false, now());
insert into power_plug_schedules (plug_id, weekdays, local_time, turn_on, created_by)
values ('tasmota-tv', '{1,2,3,4,5}', '06:30', true, 'owner'), ('tasmota-tv', '{6,7}', '23:59', false, 'owner');
insert into outbox (device_id, agent, kind, wanted, asked, requested_by, idempotency_key)
values ('ivt-495', 'p0', 'heatpump_settings', '{"indoor_target_c": 22}', '{"indoor_target_c": 22}', 'owner', 'one'),
    ('tasmota-tv', 'p1', 'plug_power', '{"on": true}', '{"on": true}', 'schedule', null);
update outbox set status = 'published', attempts = 1, published_at = now() where device_id = 'ivt-495';
update outbox set status = 'confirmed', attempts = 1, finished_at = now() where device_id = 'tasmota-tv';
insert into power_plug_schedule_runs (schedule_id, local_date, local_time, outbox_id, outcome)
select power_plug_schedules.id, current_date, local_time, outbox.id, 'queued' from power_plug_schedules, outbox
where outbox.device_id = 'tasmota-tv' and local_time = '06:30';
analyze;
