#!/usr/bin/env bash
# Installs the emulator that tests/release/run.sh runs the aarch64 binary with.
set -euo pipefail
command -v qemu-aarch64-static >/dev/null && exit 0
command -v apt-get >/dev/null || { echo "test-release: install qemu-aarch64-static (package qemu-user-static)" >&2; exit 1; }
run=()
[ "$(id -u)" -eq 0 ] || run=(sudo)
echo "test-release: installing with apt-get: qemu-user-static" >&2
"${run[@]}" apt-get update -qq
"${run[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends qemu-user-static >/dev/null
