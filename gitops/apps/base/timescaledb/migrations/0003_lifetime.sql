-- How long rows live on TimescaleDB: readings are compressed after 7 days and dropped after 90, when the summaries of 0004 are
-- all that is left of them. On plain PostgreSQL everything is kept.
--
-- Compression comes after the grants of 0002: a grant on single columns of a compressed hypertable is refused.

select coalesce(current_setting('timescaledb.license', true), '') = 'timescale' as timescale \gset
\if :timescale
alter table energy_consumption set (timescaledb.compress, timescaledb.compress_segmentby = 'device_id', timescaledb.compress_orderby = 'time desc, id desc');
alter table temperature_sensors set (timescaledb.compress, timescaledb.compress_segmentby = 'device_id', timescaledb.compress_orderby = 'time desc, id desc');
alter table heatpump_status set (timescaledb.compress, timescaledb.compress_segmentby = 'device_id', timescaledb.compress_orderby = 'time desc, id desc');
alter table plug_status set (timescaledb.compress, timescaledb.compress_segmentby = 'device_id', timescaledb.compress_orderby = 'time desc, id desc');

select add_compression_policy('energy_consumption', interval '7 days') \g /dev/null
select add_compression_policy('temperature_sensors', interval '7 days') \g /dev/null
select add_compression_policy('heatpump_status', interval '7 days') \g /dev/null
select add_compression_policy('plug_status', interval '7 days') \g /dev/null

select add_retention_policy('energy_consumption', interval '90 days') \g /dev/null
select add_retention_policy('temperature_sensors', interval '90 days') \g /dev/null
select add_retention_policy('heatpump_status', interval '90 days') \g /dev/null
select add_retention_policy('plug_status', interval '90 days') \g /dev/null
-- 800 days is the longest range of days the API draws, and a chart needs its gaps as long.
select add_retention_policy('events', interval '800 days') \g /dev/null
\endif

insert into schema_migrations (version, name) values (3, 'lifetime');
