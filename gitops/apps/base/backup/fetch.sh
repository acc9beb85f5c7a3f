#!/bin/sh
# Fetches a dump from S3 to dump.sql.gz and compares it with its checksum. Needs sh and rclone.
#
# Environment: BACKUP_BUCKET, BACKUP_PREFIX, RCLONE_CONFIG_S3_*, BACKUP_DIR as for upload.sh; BACKUP_OBJECT, which dump, as
# "daily/2026-01-31T020004Z.sql.gz" (the newest daily one where it is empty).
# It never writes to S3. Exit: 0 fetched, 1 the dump is not there or not whole.
set -eu

folder=${BACKUP_DIR:-/backup}
source="s3:$BACKUP_BUCKET/$BACKUP_PREFIX"
object=${BACKUP_OBJECT:-}
if [ -z "$object" ]; then
    # The names are times, so the last one is the newest. One that was not finished has no checksum.
    newest=$(rclone lsf "$source/daily/" --include '*.sql.gz.sha256' | sort | tail -n 1)
    if [ -z "$newest" ]; then
        printf 'fetch: there is no finished dump in %s/daily/\n' "$source" >&2
        exit 1
    fi
    object=daily/${newest%.sha256}
fi
rm -f "$folder/dump.sql.gz" "$folder/dump.sha256"
want=$(rclone cat "$source/$object.sha256")
rclone copyto "$source/$object" "$folder/dump.part"
have=$(sha256sum <"$folder/dump.part" | cut -d ' ' -f 1)
if [ "$have" != "$want" ]; then
    printf 'fetch: %s has checksum %s, %s was written: take another one with BACKUP_OBJECT\n' "$object" "$have" "$want" >&2
    exit 1
fi
mv "$folder/dump.part" "$folder/dump.sql.gz"
printf '%s\n' "$want" >"$folder/dump.sha256"
printf 'fetch: %s, %s bytes, SHA-256 %s\n' "$object" "$(wc -c <"$folder/dump.sql.gz")" "$want"
