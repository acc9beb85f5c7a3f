#!/bin/sh
# Copies the history of the older system (Redpanda Connect's tables) into the database telemetry, and compares counts and sums.
#
#   import_older.sh MAIN_DEVICE [METER_ID]
#
# MAIN_DEVICE is the device_id of the main meter (a SaveEye's serial number, the older device_serial); METER_ID its meter number,
# as new readings report it in meter_id, so that the counter goes on without a break.
#
# It needs sh and psql (15 or newer). Environment: OLDER_URL, a connection string of the older database telemetry, only read from;
# PGHOST, PGUSER, PGPASSWORD, PGDATABASE, ... of the new one, migrated, as its owner. Running it again changes nothing.
# Exit: 0 imported and equal, 64 wrong usage, anything else: nothing was imported. docs/MIGRATING.md has the whole cut-over.
set -eu
if [ $# -lt 1 ] || [ $# -gt 2 ]; then
    echo "usage: OLDER_URL=postgresql://... import_older.sh MAIN_DEVICE [METER_ID]" >&2
    exit 64
fi
: "${OLDER_URL:?a connection string of the older database, such as postgresql://user@host/telemetry}"
here=$(cd "$(dirname "$0")" && pwd)
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT

older() { psql -X -w -q -At -v ON_ERROR_STOP=1 -d "$OLDER_URL" "$@"; }
newer() { psql -X -w -q -v ON_ERROR_STOP=1 "$@"; }

older -c 'select' >/dev/null
newer -f "$here/older_tables.sql"
tables=$(newer -At -c "select table_name from information_schema.tables where table_schema = 'older' order by 1")
for table in $tables; do
    # A continuous aggregate is a view; either will do. One that is not there has nothing to import.
    # In an assignment of its own, so that a connection that fails ends the script instead of meaning "not there".
    found=$(older -c "select to_regclass('$table')")
    if [ -z "$found" ]; then
        printf 'import: the older database has no %s\n' "$table"
        continue
    fi
    columns=$(newer -At -c "select string_agg(column_name, ', ' order by ordinal_position) from information_schema.columns
        where table_schema = 'older' and table_name = '$table'")
    # Some older columns are of other types, booleans stored as numbers among them; text in CSV does not mind.
    older -c "\\copy (select $columns from $table) to '$place/$table.csv' with (format csv)"
    newer -c "\\copy older.$table ($columns) from '$place/$table.csv' with (format csv)"
    printf 'import: %s rows of %s read\n' "$(newer -At -c "select count(*) from older.$table")" "$table"
    rm "$place/$table.csv"
done
newer -v "main_device=$1" -v "meter_id=${2:-}" -f "$here/import_older.sql"
newer -c 'drop schema older cascade' >/dev/null 2>&1
