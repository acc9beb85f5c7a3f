#!/usr/bin/env bash
# Prints which images a push has to build, as images=["..."] for GitHub Actions: those whose paths changed since a commit;
# all of them for a tag, or when that commit is not known.
#
# usage: images.sh branch|tag BEFORE
set -euo pipefail
type=${1:?usage: images.sh branch|tag BEFORE}
before=${2:-}
services=(redpanda-sink homelab-api homelab-settings-api energy-ws)
all=("${services[@]}" heatpump-web)

list() {
  local text
  text=$(printf ',"%s"' "$@")
  if [ $# -eq 0 ]; then text=,; fi
  echo "images=[${text:1}]"
}

if [ "$type" = tag ] || ! git cat-file -e "$before^{commit}" 2>/dev/null; then list "${all[@]}"; exit 0; fi
changed=$(git diff --name-only "$before" HEAD)
hit() { grep -qE "$1" <<<"$changed"; }
wanted=()
for service in "${services[@]}"; do
  # What every service is built from, and its own folder.
  if hit "^(Cargo\.(toml|lock)|cluster/Dockerfile.*|cluster/(telemetry|service|$service)/.*)$"; then wanted+=("$service"); fi
done
if hit '^cluster/heatpump-web/'; then wanted+=(heatpump-web); fi
list "${wanted[@]}"
