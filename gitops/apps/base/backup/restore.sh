#!/bin/sh
# Makes a database anew from dump.sql.gz: its roles, itself, everything in it. Needs sh, psql as new as the server, gzip.
# The migration Job afterwards sets the passwords and applies what is newer than the dump.
#
# Environment: PGHOST, PGUSER (a superuser), PGPASSWORD as for psql; PGDATABASE, the database of the dump; BACKUP_DIR, where the
# dump is, default /backup.
# It never touches a database that holds a table: rename that one first. A server may have made an empty one at its first start;
# that one is replaced. Exit: 0 restored, 1 the dump or the server failed, 65 the database is not empty.
set -eu

folder=${BACKUP_DIR:-/backup}
name=$PGDATABASE
gzip -t "$folder/dump.sql.gz"
gzip -dc "$folder/dump.sql.gz" | tail -n 20 | grep -q 'PostgreSQL database dump complete'
if ! gzip -dc "$folder/dump.sql.gz" | grep -q -m 1 "^CREATE DATABASE $name "; then
    printf 'restore: the dump is not one of the database %s\n' "$name" >&2
    exit 1
fi

ask() { psql -X -w -q -At -v ON_ERROR_STOP=1 -d "$1" -c "$2"; }
if [ -n "$(ask postgres "select 1 from pg_database where datname = '$name'")" ]; then
    # Tables of an extension (TimescaleDB brings many) are not somebody's data.
    tables=$(ask "$name" "select count(*) from pg_class c where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace
        and not exists (select from pg_depend d where d.objid = c.oid and d.deptype = 'e')")
    if [ "$tables" -ne 0 ]; then
        printf 'restore: %s holds %s tables; keep them first: alter database %s rename to %s_before\n' "$name" "$tables" "$name" "$name" >&2
        exit 65
    fi
    ask postgres "drop database $name"
fi

# What TimescaleDB wants around a restore goes right behind the first line in which the dump enters the new database.
before='select exists (select from pg_available_extensions where name = '\''timescaledb'\'') and current_setting('\''shared_preload_libraries'\'') like '\''%timescaledb%'\'' as timescale \\gset\n\\if :timescale\ncreate extension if not exists timescaledb;\nselect timescaledb_pre_restore();\n\\endif'
fifo=$folder/pipe
rm -f "$fifo"
mkfifo "$fifo"
# Both ends of the pipe are waited for, as in dump.sh.
gzip -dc "$folder/dump.sql.gz" >"$fifo" &
unpacker=$!
awk -v before="$before" '{ print } /^\\connect / && !done { print before; done = 1 }' "$fifo" |
    psql -X -w -q -v ON_ERROR_STOP=1 -d postgres -o /dev/null -f -
wait "$unpacker"
rm "$fifo"
if [ -n "$(ask "$name" "select 1 from pg_extension where extname = 'timescaledb'")" ]; then
    ask "$name" 'select timescaledb_post_restore()' >/dev/null
fi
ask "$name" analyze
printf 'restore: %s, %s tables\n' "$name" "$(ask "$name" "select count(*) from pg_tables where schemaname = 'public'")"
