#!/bin/sh
# Writes one database to dump.sql.gz, and its SHA-256 beside it. Needs sh, pg_dump as new as the server, gzip.
#
# Environment: PGHOST, PGUSER, PGPASSWORD, PGDATABASE as for pg_dump; BACKUP_DIR, default /backup.
# It never leaves a dump that is not whole: the name without .part appears when everything is written and read back.
set -eu

folder=${BACKUP_DIR:-/backup}
fifo=$folder/pipe
part=$folder/dump.sql.gz.part
rm -f "$fifo" "$part"
# A pipe would hide that pg_dump failed, and sh has no pipefail: both ends are waited for.
mkfifo "$fifo"
gzip -c <"$fifo" >"$part" &
packer=$!
pg_dump --no-password --format=plain --encoding=UTF8 >"$fifo"
wait "$packer"
rm "$fifo"
gzip -t "$part"
gzip -dc "$part" | tail -n 20 | grep -q 'PostgreSQL database dump complete'
mv "$part" "$folder/dump.sql.gz"
sha256sum <"$folder/dump.sql.gz" | cut -d ' ' -f 1 >"$folder/dump.sha256"
printf 'dump: %s, %s bytes\n' "$PGDATABASE" "$(wc -c <"$folder/dump.sql.gz")"
