#!/usr/bin/env bash
# make test-restore: a backup to a real S3 server, the database destroyed, and a restore into an empty one. It runs the scripts
# of gitops/apps/base/backup as the cluster's Jobs do. The last line sums up.
#
# S3 is SeaweedFS, built once from its Go modules (a few minutes); PostgreSQL is the distribution's. TimescaleDB's own steps
# are in restore.sh and in docs/OPERATIONS.md; they are not drilled here, because no package brings that server.
#
# usage: run.sh [--folder]      --folder: a folder instead of the S3 server, nothing is built; what make test runs
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
speaker=restore
# shellcheck source=tests/stack/install.sh
source "$root/tests/stack/install.sh"
place=$root/target/restore
weed=$place/weed
mkdir -p "$place"
GITOPS_BUILD=no "$root/tests/gitops/install.sh"
venv=$root/target/gitops/venv/bin

if [ "${1:-}" = --folder ]; then
  weed=
else
  stamp=$(cat "$here"/s3/go.* | sha256sum | cut -c 1-16)
  if [ ! -x "$weed" ] || [ "$(cat "$place/stamp" 2>/dev/null)" != "$stamp" ]; then
    say "installing the S3 server (built from its Go modules, a few minutes, once)"
    go=$(go_command)
    (cd "$here/s3" && quietly "$go" build -ldflags "-s -w" -o "$weed" github.com/seaweedfs/seaweedfs/weed)
    echo "$stamp" >"$place/stamp"
  fi
fi
PYTHONPATH=$root/tests/gitops WEED=$weed exec "$venv/pytest" --quiet --no-header -p no:cacheprovider --confcutdir "$here" "$here"
