#!/bin/sh
# Restores one database of the cluster from its backup in S3: prints the Job for it, or runs it with --apply.
#
#   gitops/restore.sh telemetry|homelab-settings|authentik [--object daily/2026-01-31T020004Z.sql.gz] [--apply]
#
# The Job is made of the backup's CronJob, so address, secrets, limits and network policy are the same: it fetches the newest
# whole dump, or the one named, and restores it. It never touches a database that holds a table (docs/OPERATIONS.md says
# how to put that aside, what to stop before, and what to do after). It needs kubectl with access to the cluster.
set -eu

usage() {
    echo "usage: gitops/restore.sh telemetry|homelab-settings|authentik [--object NAME] [--apply]" >&2
    exit 64
}
database='' object='' apply=no
while [ $# -gt 0 ]; do
    case $1 in
    telemetry | homelab-settings | authentik) database=$1 ;;
    --object)
        [ $# -gt 1 ] || usage
        object=$2
        shift
        ;;
    --apply) apply=yes ;;
    *) usage ;;
    esac
    shift
done
[ -n "$database" ] || usage
case $object in
*[!A-Za-z0-9./-]*)
    echo "restore: $object is not the name of a dump, such as daily/2026-01-31T020004Z.sql.gz" >&2
    exit 64
    ;;
esac

pod=/spec/template/spec
# In the backup PostgreSQL's tools come first and rclone last; here it is the other way round.
patch=$(
    cat <<EOF
[{"op": "move", "from": "$pod/initContainers/0", "path": "$pod/containers/1"},
 {"op": "move", "from": "$pod/containers/0", "path": "$pod/initContainers/0"},
 {"op": "replace", "path": "$pod/initContainers/0/name", "value": "fetch"},
 {"op": "replace", "path": "$pod/initContainers/0/command", "value": ["sh", "/scripts/fetch.sh"]},
 {"op": "add", "path": "$pod/initContainers/0/env/-", "value": {"name": "BACKUP_OBJECT", "value": "$object"}},
 {"op": "replace", "path": "$pod/containers/0/name", "value": "restore"},
 {"op": "replace", "path": "$pod/containers/0/command", "value": ["sh", "/scripts/restore.sh"]},
 {"op": "replace", "path": "/spec/backoffLimit", "value": 0}]
EOF
)
job=$(kubectl -n homelab create job "$database-restore" --from="cronjob/$database-backup" --dry-run=client -o json |
    kubectl patch --local -f - --type json --patch "$patch" -o yaml)
if [ $apply = no ]; then
    printf '%s\n' "$job"
else
    printf '%s\n' "$job" | kubectl apply -f -
    echo "restore: follow it with: kubectl -n homelab logs -f job/$database-restore --all-containers" >&2
fi
