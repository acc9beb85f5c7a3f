//! What the service's database role can do: select, and nothing else.

use sqlx::{Connection, PgConnection};

use crate::{House, with_house};

/// As the service connects, but without the session's own lock, which anybody could take off.
async fn connect(house: &House) -> PgConnection {
    let url = house.postgres.url("api", "telemetry");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("set default_transaction_read_only = off")
        .execute(&mut connection)
        .await
        .unwrap();
    connection
}

#[test]
fn every_other_statement_fails() {
    with_house(async |house| {
        let mut statements: Vec<String> = [
            "create table x (y int)",
            "create temporary table x (y int)",
            "create table x as select 1",
            "select * into x from household",
            "create view x as select 1",
            "create materialized view x as select 1",
            "create function x() returns int language sql return 1",
            "create schema x",
            "create sequence x",
            "create type x as (y int)",
            "create extension hstore",
            "create role x",
            "create database x",
            "create index on events (type)",
            "alter role api superuser",
            "alter role api createdb",
            "alter database telemetry set jit = on",
            "alter system set fsync = off",
            "alter function energy_period(text, timestamptz, timestamptz) rename to x",
            "drop view energy_hourly",
            "drop function counter_gain(text, text, text, timestamptz, timestamptz)",
            "drop schema public cascade",
            "drop role sink",
            "drop database homelab_settings",
            "grant sink to api",
            "set role sink",
            "set session authorization postgres",
            "copy events to program 'true'",
            "copy events to '/tmp/x'",
            "comment on table events is 'x'",
            "select setval('pg_catalog.pg_class', 1)",
            "select pg_read_file('/etc/passwd')",
            "select pg_reload_conf()",
            "select pg_terminate_backend(pid) from pg_stat_activity where usename = 'postgres' and pid <> pg_backend_pid() limit 1",
            "select counter_steps_refresh('energy', 'x', '', '-infinity', 'infinity')",
            "with gone as (delete from events returning 1) select * from gone",
            "merge into household using (select 1) as one on true when matched then update set time_zone = 'UTC'",
            "do $$ begin delete from events; end $$",
            "explain analyze delete from events",
            "prepare p as delete from events; execute p",
            "lock table events in exclusive mode",
            "select * from events for update",
            "refresh materialized view x",
            "reindex table events",
            "cluster events using events_pkey",
        ]
        .map(str::to_owned)
        .into();
        let relations = "select quote_ident(relname) from pg_class where relkind in ('r', 'v', 'p', 'm')
            and relnamespace = 'public'::regnamespace";
        let relations = house.postgres.psql("telemetry", relations).await.unwrap();
        assert!(relations.lines().count() > 15, "{relations}");
        for relation in relations.lines().map(str::trim).filter(|line| !line.is_empty()) {
            statements.extend([
                format!("insert into {relation} select * from {relation}"),
                format!("delete from {relation}"),
                format!("truncate {relation}"),
                format!("drop table {relation}"),
                format!("alter table {relation} rename to x"),
                format!("copy {relation} from stdin"),
            ]);
        }
        let mut connection = connect(house).await;
        for statement in statements {
            let outcome = sqlx::raw_sql(sqlx::AssertSqlSafe(statement.clone()))
                .execute(&mut connection)
                .await;
            assert!(outcome.is_err(), "{statement} succeeds");
        }
        // The connection still answers: the errors above are of the statements, not of a link that broke.
        sqlx::raw_sql("select count(*) from events")
            .execute(&mut connection)
            .await
            .unwrap();
    });
}

#[test]
fn no_right_but_to_select_is_anywhere_in_the_catalogue() {
    with_house(async |house| {
        for (what, query) in [
            (
                "rights on tables",
                "select c.oid::regclass, p from pg_class as c,
                    unnest(array['insert', 'update', 'delete', 'truncate', 'references', 'trigger']) as p
                 where c.relkind in ('r', 'v', 'm', 'p', 'f') and c.relnamespace = 'public'::regnamespace
                    and has_table_privilege('api', c.oid, p)",
            ),
            (
                "rights on columns",
                "select c.oid::regclass, p from pg_class as c, unnest(array['insert', 'update', 'references']) as p
                 where c.relkind in ('r', 'v', 'm', 'p', 'f') and c.relnamespace = 'public'::regnamespace
                    and has_any_column_privilege('api', c.oid, p)",
            ),
            (
                "rights on sequences",
                "select oid::regclass from pg_class 
                 where case when relkind = 'S' then has_sequence_privilege('api', oid, 'update') end",
            ),
            (
                "schemas to create in",
                "select nspname from pg_namespace where has_schema_privilege('api', oid, 'create')",
            ),
            (
                "databases to create in",
                "select p from unnest(array['create', 'temporary']) as p
                 where has_database_privilege('api', current_database(), p)",
            ),
            ("roles it is a member of", "select roleid::regrole from pg_auth_members where member = 'api'::regrole"),
            (
                "attributes",
                "select 1 from pg_roles where rolname = 'api'
                    and (rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls)",
            ),
            (
                "functions that run with another's rights",
                "select oid::regprocedure from pg_proc where prosecdef and prorettype <> 'trigger'::regtype
                    and pronamespace = 'public'::regnamespace and has_function_privilege('api', oid, 'execute')",
            ),
            ("things it owns", "select objid from pg_shdepend where refobjid = 'api'::regrole and deptype = 'o'"),
        ] {
            let found = house.postgres.psql("telemetry", query).await.unwrap();
            assert_eq!(found.trim(), "", "{what}");
        }
    });
}
