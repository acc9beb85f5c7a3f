#!/bin/sh
# Brings one database up to date: runs the numbered psql files of a directory, in order, each once.
#
#   run_migrations.sh DIRECTORY
#
# The same script runs in the cluster's Job, in the tests and in the demo, for both databases, on PostgreSQL with and
# without TimescaleDB. It needs sh, psql (15 or newer) and sha256sum. It never creates a database and never edits a file.
#
# Environment:
#   PGHOST, PGPORT, PGUSER, PGPASSWORD, PGPASSFILE, PGDATABASE, ... as for psql, or
#   DATABASE_URL or DATABASE_URL_FILE     a connection string (visible in the process list: prefer PG* where others can see it)
#   HOUSEHOLD_TIME_ZONE                   default Europe/Stockholm; applied on every run
#   SINK_PASSWORD, API_PASSWORD, SETTINGS_PASSWORD, or the same with _FILE
#                                         passwords of the roles, applied on every run; without one a role's password is left alone
#   MIGRATION_WAIT_SECONDS                how long to wait for the database and for another run, each, default 120
#
# A file is named NNNN_words.sql and ends with its own
#   insert into schema_migrations (version, name) values (NNNN, 'words');
# It runs in one transaction, unless its first line is "-- transaction: none": then every statement of it must be harmless
# when it is run again. The checksum of an applied file is kept: editing it afterwards is an error. Two runs at once are
# kept apart by an advisory lock that is polled rather than waited for, because a waiting statement holds a snapshot and
# would block "create index concurrently".
#
# Exit: 0 up to date, 1 a file or the database failed, 64 wrong usage or environment, 65 the files and the database disagree,
# 75 the database or the lock could not be had in time.
set -eu
# File names and checks below must not depend on the caller's language.
LC_ALL=C
export LC_ALL

die() {
    code=$1
    shift
    printf 'run_migrations: %s\n' "$*" >&2
    exit "$code"
}

# Sets the variable $1 from the file that $1_FILE names; both at once is a mistake.
from_file() {
    eval "value=\${$1:-} file=\${$1_FILE:-}"
    # shellcheck disable=SC2154 # value and file are set by the eval above.
    [ -n "$file" ] || return 0
    [ -z "$value" ] || die 64 "$1 and $1_FILE are both set"
    [ -r "$file" ] || die 64 "$1_FILE: cannot read $file"
    value=$(cat "$file")
    eval "$1=\$value"
    # psql reads the passwords from its environment, so that they never stand in an argument.
    export "${1?}"
}

[ $# -eq 1 ] || die 64 "usage: run_migrations.sh DIRECTORY"
[ -d "$1" ] || die 64 "$1 is not a directory"
directory=$(cd "$1" && pwd)
for name in DATABASE_URL SINK_PASSWORD API_PASSWORD SETTINGS_PASSWORD; do
    from_file "$name"
done
household_time_zone=${HOUSEHOLD_TIME_ZONE:-Europe/Stockholm}
wait_seconds=${MIGRATION_WAIT_SECONDS:-120}
case $wait_seconds in
'' | *[!0-9]*) die 64 "MIGRATION_WAIT_SECONDS: $wait_seconds is not a number of seconds" ;;
esac

# One line a file: version, words, file name, checksum, transaction or none. Names are plain, so they need no quoting below.
files=
versions=' '
for path in "$directory"/*.sql; do
    [ -e "$path" ] || die 64 "$directory holds no .sql file"
    file=${path##*/}
    case ${file%.sql} in
    [0-9][0-9][0-9][0-9]_*[!a-z0-9_]* | [!0-9]* | ?[!0-9]* | ??[!0-9]* | ???[!0-9]* | ????[!_]* | ????_)
        die 64 "$file: a migration is named NNNN_words.sql, in small letters, digits and underscores"
        ;;
    [0-9][0-9][0-9][0-9]_*) ;;
    *) die 64 "$file: a migration is named NNNN_words.sql" ;;
    esac
    # The leading zeros go, because the database compares numbers.
    version=${file%%_*}
    version=${version#"${version%%[!0]*}"}
    [ -n "$version" ] || die 64 "$file: versions count from 1"
    words=${file#*_}
    words=${words%.sql}
    case $versions in
    *" $version "*) die 64 "$file: there is another file of version $version" ;;
    esac
    versions="$versions$version "
    checksum=$(sha256sum "$path")
    checksum=${checksum%% *}
    # "read" fails on a file without a final newline, yet has read its line.
    IFS= read -r first <"$path" || [ -n "$first" ] || die 64 "$file is empty"
    transaction=one
    [ "$first" != '-- transaction: none' ] || transaction=none
    files="$files$version $words $file $checksum $transaction
"
done

run_psql() {
    if [ -n "${DATABASE_URL:-}" ]; then
        psql -X -q -d "$DATABASE_URL" "$@"
    else
        psql -X -q "$@"
    fi
}

# The files as rows of a "values" list.
file_rows() {
    separator=
    printf '%s' "$files" | while read -r version words file checksum _; do
        printf "%s(%s, '%s', '%s', '%s')" "$separator" "$version" "$words" "$file" "$checksum"
        separator=', '
    done
}

# Sets the password of one role from one variable of the environment, if both exist.
password_commands() {
    cat <<EOF
\\getenv password $2
\\if :{?password}
select exists (select from pg_roles where rolname = '$1') as known \\gset
\\if :known
alter role $1 password :'password';
\\else
\\echo @note role $1 does not exist here: $2 is not used
\\endif
\\unset password
\\endif
EOF
}

# Everything for one psql session. Lines that psql echoes with a leading @ are read by "report".
session_commands() {
    cat <<EOF
\\set ON_ERROR_STOP on
set client_min_messages = warning;
select pg_try_advisory_lock(hashtext('run_migrations.sh')) as locked \\gset
\\if :locked
\\else
\\echo @busy
\\q
\\endif
create table if not exists schema_migrations (
    version bigint primary key,
    name text not null,
    applied_at timestamptz not null default now(),
    checksum text
);
with files (version, name, file, checksum) as (values $(file_rows))
select
    coalesce(string_agg(problem, '; ' order by version), '') as problems,
    count(problem) > 0 as refused
from (
    select
        files.version,
        case
            when applied.version is null then
                case when files.version < (select max(version) from schema_migrations) then
                    files.file || ' was never applied, but version ' || (select max(version) from schema_migrations) || ' was'
                end
            when applied.name <> files.name then
                files.file || ': version ' || files.version || ' was applied as ' || applied.name
            when applied.checksum <> files.checksum then
                files.file || ' was edited after it was applied at ' || applied.applied_at
        end as problem
    from files
    left join schema_migrations as applied using (version)
) as checked \\gset
\\if :refused
\\echo @refused :problems
\\q
\\endif
with files (version, name, file, checksum) as (values $(file_rows))
select
    coalesce(string_agg(applied.version || ' ' || applied.name, ', ' order by applied.version), '') as unknown,
    count(*) > 0 as newer
from schema_migrations as applied
where not exists (select from files where files.version = applied.version) \\gset
\\if :newer
\\echo @note the database has migrations these files do not know: :unknown
\\endif
EOF
    printf '%s' "$files" | while read -r version words file checksum transaction; do
        begin='begin;'
        commit='commit;'
        rollback='rollback;'
        if [ "$transaction" = none ]; then
            begin=
            commit=
            rollback=
        fi
        cat <<EOF
select not exists (select from schema_migrations where version = $version) as pending \\gset
\\if :pending
\\echo @applying $file
$begin
\\i '$(printf '%s' "$directory" | sed "s/'/''/g")/$file'
update schema_migrations set checksum = '$checksum' where version = $version and name = '$words';
select exists (select from schema_migrations where version = $version and name = '$words') as recorded \\gset
\\if :recorded
$commit
\\echo @applied $file
\\else
$rollback
\\echo @unrecorded $file
\\q
\\endif
\\else
update schema_migrations set checksum = '$checksum' where version = $version and checksum is null;
\\echo @skipped $file
\\endif
EOF
    done
    cat <<EOF
\\echo @applying the time zone $household_time_zone and the passwords
select to_regclass('household') is not null as zoned \\gset
\\if :zoned
update household set time_zone = :'household_time_zone' where time_zone <> :'household_time_zone';
\\endif
EOF
    password_commands sink SINK_PASSWORD
    password_commands api API_PASSWORD
    password_commands settings SETTINGS_PASSWORD
    cat <<EOF
select pg_advisory_unlock(hashtext('run_migrations.sh')) as unlocked \\gset
select coalesce(max(version), 0) as version from schema_migrations \\gset
\\echo @version :DBNAME :version
EOF
}

# Reads what one session prints and ends with its exit code.
report() {
    current=
    applied=0
    skipped=0
    finished=
    result=1
    while IFS= read -r line; do
        case $line in
        "@busy") result=75 finished=busy ;;
        "@applying "*) current=${line#@applying } ;;
        "@applied "*) applied=$((applied + 1)) current='' && printf 'applied  %s\n' "${line#@applied }" ;;
        "@skipped "*) skipped=$((skipped + 1)) && printf 'present  %s\n' "${line#@skipped }" ;;
        "@note "*) printf 'note     %s\n' "${line#@note }" ;;
        "@refused "*) result=65 finished=refused && printf 'refused  %s\n' "${line#@refused }" >&2 ;;
        "@unrecorded "*)
            result=1 finished=unrecorded
            printf 'failed   %s does not insert itself into schema_migrations\n' "${line#@unrecorded }" >&2
            ;;
        "@version "*) finished=${line#@version } ;;
        "@exit "*) [ "$finished" = busy ] || [ "$finished" = refused ] || [ "$finished" = unrecorded ] || result=${line#@exit } ;;
        *) printf '%s\n' "$line" >&2 ;;
        esac
    done
    case $finished in
    busy | refused | unrecorded) ;;
    *' '*)
        if [ "$result" -eq 0 ]; then
            printf 'database %s is at version %s: %d applied, %d already present\n' "${finished% *}" "${finished##* }" "$applied" "$skipped"
            return 0
        fi
        ;;
    *) [ "$result" -ne 0 ] || result=1 ;;
    esac
    if [ -n "$current" ] && [ -z "$finished" ]; then
        printf 'failed   %s\n' "$current" >&2
        result=1
    elif [ -z "$finished" ]; then
        printf 'failed   the database refused or went away\n' >&2
        result=1
    fi
    return "$result"
}

deadline=$(($(date +%s) + wait_seconds))
until problem=$(run_psql -w -At -c 'select 1' 2>&1); do
    [ "$(date +%s)" -lt "$deadline" ] || die 75 "no database after ${wait_seconds} s: $problem"
    sleep 1
done

deadline=$(($(date +%s) + wait_seconds))
while :; do
    code=0
    {
        status=0
        session_commands | run_psql -w -At -v "household_time_zone=$household_time_zone" -f - 2>&1 || status=$?
        printf '@exit %s\n' "$status"
    } | report || code=$?
    [ "$code" -eq 75 ] || exit "$code"
    [ "$(date +%s)" -lt "$deadline" ] || die 75 "another run has held the lock for ${wait_seconds} s"
    sleep 1
done
