#!/usr/bin/env bash
# make test-gitops: installs what is missing, then checks the tree in gitops/. The last line sums up.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
"$here/install.sh"
exec "$root/target/gitops/venv/bin/pytest" --quiet --no-header -p no:cacheprovider "$here"
