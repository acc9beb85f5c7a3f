#!/usr/bin/env bash
# Puts a binary with the files of systemd/ into a folder as .ci/release/package.sh does, and goes through install_steps.sh with it.
#
# usage: install.sh BINARY
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
binary=$(realpath "${1:?usage: install.sh BINARY}")
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$root/.ci/release/lay.sh" "$binary" "$folder"
"$root/tests/release/install_steps.sh" "$folder" "$binary"
