-- transaction: none
-- The policies of 0004 refresh what changed in one piece. In batches of buckets, their default, they leave out the
-- last quarter of a stretch of late rows whose last row stands exactly on a quarter's beginning (seen with 2.23 and shown by
-- tests/e2e/tests/energy_rule/policies.rs; whole since with 0). What was left out so far is summed up here, as far back as there are
-- raw readings; the present quarter is left to the policies.
--
-- May be run again.

select coalesce(current_setting('timescaledb.license', true), '') = 'timescale' as timescale \gset

\if :timescale
select alter_job(job_id, config => config || '{"buckets_per_batch": 0}')
from timescaledb_information.jobs
where proc_name = 'policy_refresh_continuous_aggregate' \g /dev/null

-- No further back than there are raw readings, as in 0008. The two hours keep the window of an empty table from being too small.
select least(min(date_bin('15 minutes', time, '2000-01-01 00:00:00+00')), now() - interval '2 hours') as energy_from from energy_consumption \gset
select least(min(date_bin('15 minutes', time, '2000-01-01 00:00:00+00')), now() - interval '2 hours') as temperature_from from temperature_sensors \gset
select least(min(date_bin('15 minutes', time, '2000-01-01 00:00:00+00')), now() - interval '2 hours') as heatpump_from from heatpump_status \gset
select least(min(date_bin('15 minutes', time, '2000-01-01 00:00:00+00')), now() - interval '2 hours') as plug_from from plug_status \gset
call refresh_continuous_aggregate('energy_quarters', :'energy_from'::timestamptz, now() - interval '15 minutes', force => true);
call refresh_continuous_aggregate('temperature_quarters', :'temperature_from'::timestamptz, now() - interval '15 minutes', force => true);
call refresh_continuous_aggregate('heatpump_quarters', :'heatpump_from'::timestamptz, now() - interval '15 minutes', force => true);
call refresh_continuous_aggregate('plug_quarters', :'plug_from'::timestamptz, now() - interval '15 minutes', force => true);
\endif

insert into schema_migrations (version, name) values (9, 'unbatched_refresh');
