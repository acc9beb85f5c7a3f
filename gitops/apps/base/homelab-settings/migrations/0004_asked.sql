-- A service from before 0003 goes on accepting commands while the new one is rolled out: what it does not know may be absent.
-- Where asked is absent, wanted stands for it.

set local role settings;

alter table outbox alter column asked drop not null;

reset role;

insert into schema_migrations (version, name) values (4, 'asked');
