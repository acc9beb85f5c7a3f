#!/usr/bin/env bash
# Lays a binary and what belongs to it into the folder of a release tarball.
#
# usage: lay.sh BINARY FOLDER
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
binary=${1:?usage: lay.sh BINARY FOLDER}
folder=${2:?usage: lay.sh BINARY FOLDER}
mkdir -p "$folder/systemd"
install -m 755 "$binary" "$folder/edge-agent"
install -m 755 "$root/systemd/install.sh" "$folder/install.sh"
install -m 644 "$root/systemd/release.mk" "$folder/Makefile"
install -m 644 "$root"/systemd/edge-agent.{service,sysusers,toml} "$folder/systemd/"
install -m 644 "$root/LICENSE" "$folder/LICENSE"
