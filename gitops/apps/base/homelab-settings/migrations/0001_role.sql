-- The role of homelab-settings-api, which owns this database and everything in it but the list of migrations.
-- Its password is set by run_migrations.sh on every run, so that it can be changed without a migration.
do $$
begin
    if not exists (select from pg_roles where rolname = 'settings') then
        create role settings login;
    end if;
end
$$;

alter database :"DBNAME" owner to settings;
revoke all on database :"DBNAME" from public;
revoke create on schema public from public;
grant usage, create on schema public to settings;

insert into schema_migrations (version, name) values (1, 'role');
