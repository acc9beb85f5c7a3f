#!/bin/sh
# Writes one database, with the roles of its server but without their passwords, to dump.sql.gz, and its SHA-256 beside it.
# Needs sh, pg_dump and pg_dumpall as new as the server, gzip. restore.sh is its counterpart.
#
# Environment: PGHOST, PGUSER, PGPASSWORD, PGDATABASE as for pg_dump; BACKUP_DIR, default /backup.
# It never leaves a dump that is not whole: the name without .part appears when everything is written and read back.
set -eu

folder=${BACKUP_DIR:-/backup}
fifo=$folder/pipe
part=$folder/dump.sql.gz.part
rm -f "$fifo" "$part" "$folder/roles.sql"
# Roles belong to the server, so pg_dump leaves them out. Passwords are set by run_migrations.sh and are in no backup.
pg_dumpall --no-password --roles-only --no-role-passwords >"$folder/roles.sql"
# A pipe would hide that pg_dump failed, and sh has no pipefail: both ends are waited for.
mkfifo "$fifo"
gzip -c <"$fifo" >"$part" &
packer=$!
{
    # A role that is there already is no error. Newer tools forbid psql's own commands in what they write, and \gexec is one.
    sed -e '/^\\restrict /d' -e '/^\\unrestrict /d' -e "s/^CREATE ROLE \\([a-z_][a-z0-9_]*\\);\$/select 'create role \\1' where not exists (select from pg_roles where rolname = '\\1') \\\\gexec/" "$folder/roles.sql"
    # With the database itself, because its owner and who may connect are in no other dump.
    pg_dump --no-password --format=plain --encoding=UTF8 --create
} >"$fifo"
wait "$packer"
rm "$fifo" "$folder/roles.sql"
gzip -t "$part"
gzip -dc "$part" | tail -n 20 | grep -q 'PostgreSQL database dump complete'
mv "$part" "$folder/dump.sql.gz"
sha256sum <"$folder/dump.sql.gz" | cut -d ' ' -f 1 >"$folder/dump.sha256"
printf 'dump: %s, %s bytes\n' "$PGDATABASE" "$(wc -c <"$folder/dump.sql.gz")"
