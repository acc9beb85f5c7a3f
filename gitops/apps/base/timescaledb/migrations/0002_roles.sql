-- The two roles that use this database. Roles belong to the whole server, so an existing one is kept.
-- Passwords are set by run_migrations.sh on every run, so that they can be changed without a migration.
do $$
declare
    role_name text;
begin
    foreach role_name in array array['sink', 'api'] loop
        if not exists (select from pg_roles where rolname = role_name) then
            execute format('create role %I login', role_name);
        end if;
    end loop;
end
$$;

-- Nobody creates anything here but the owner; a staging table of the sink is temporary.
revoke all on database :"DBNAME" from public;
revoke create on schema public from public;
grant connect, temporary on database :"DBNAME" to sink;
grant connect on database :"DBNAME" to api;
grant usage on schema public to sink, api;

-- "on conflict (...) do nothing" reads the columns of the key it names, and nothing else is readable for the sink.
grant insert on energy_consumption, temperature_sensors, heatpump_status, plug_status, events to sink;
grant select (device_id, time, id) on energy_consumption, temperature_sensors, heatpump_status, plug_status to sink;
grant select (id, time) on events to sink;

-- What later migrations create is readable for the API as well.
grant select on all tables in schema public to api;
alter default privileges in schema public grant select on tables to api;
-- Not the guard (the missing grants are) but a clear message for whoever tries.
alter role api set default_transaction_read_only = on;

insert into schema_migrations (version, name) values (2, 'roles');
