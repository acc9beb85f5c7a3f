#!/bin/sh
# Copies dump.sql.gz and its checksum to S3, reads both back and compares, and only then removes what is too old.
# Needs sh and rclone.
#
# Environment: BACKUP_BUCKET; BACKUP_PREFIX, whose dumps these are; KEEP_DAYS of the daily ones, KEEP_MONTHLY_DAYS
# of the first of each month; RCLONE_CONFIG_S3_* as for rclone; BACKUP_DIR, where the dump is, default /backup.
# It never removes anything when the new dump could not be read back.
set -eu

folder=${BACKUP_DIR:-/backup}
target="s3:$BACKUP_BUCKET/$BACKUP_PREFIX"
now=$(date -u +%Y-%m-%dT%H%M%SZ)
want=$(cat "$folder/dump.sha256")

# Copies to one name and compares what S3 gives back. The checksum goes last: a dump without one is not whole.
store() {
    rclone copyto --s3-no-check-bucket "$folder/dump.sql.gz" "$1"
    have=$(rclone cat "$1" | sha256sum | cut -d ' ' -f 1)
    if [ "$have" != "$want" ]; then
        printf 'upload: %s has checksum %s, %s was written\n' "$1" "$have" "$want" >&2
        exit 1
    fi
    rclone copyto --s3-no-check-bucket "$folder/dump.sha256" "$1.sha256"
    [ "$(rclone cat "$1.sha256")" = "$want" ]
    printf 'upload: %s verified, SHA-256 %s\n' "$1" "$want"
}

store "$target/daily/$now.sql.gz"
case $now in
*-01T*) store "$target/monthly/$now.sql.gz" ;;
esac
rclone delete --min-age "${KEEP_DAYS}d" "$target/daily/"
if rclone lsf "$target/monthly/" >/dev/null 2>&1; then
    rclone delete --min-age "${KEEP_MONTHLY_DAYS}d" "$target/monthly/"
fi
