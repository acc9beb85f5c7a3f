#!/usr/bin/env bash
# make test-release: the aarch64 binary of dist/ under qemu-aarch64-static. It has to be static and small; it takes readings
# over MQTT at QoS 1, forwards them to a real Kafka, is killed with SIGKILL again and again, and nothing acknowledged may be
# missing, doubled or out of order (tests/faults). The tarball is installed, upgraded and rolled back below a scratch folder.
#
# usage: run.sh [kills] [clients]       after make release; defaults 10 and 8
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
kills=${1:-10}
clients=${2:-8}
target=aarch64-unknown-linux-musl
limit_bytes=10000000
fail() { echo "test-release: $*" >&2; exit 1; }

command -v qemu-aarch64-static >/dev/null || fail "qemu-aarch64-static is missing (Debian: apt install qemu-user-static)"
tarball=$(find "$root/dist" -maxdepth 1 -name "edge-agent-*-$target.tar.gz" 2>/dev/null | head -n 1)
[ -n "$tarball" ] || fail "no tarball in dist/: make release"
(cd "$root/dist" && sha256sum --check --quiet SHA256SUMS) || fail "the checksums do not fit"

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The agent may run as another user than root in a test.
chmod 755 "$scratch"
tar -xzf "$tarball" -C "$scratch"
folder=$(find "$scratch" -mindepth 1 -maxdepth 1 -type d)
binary=$scratch/edge-agent.aarch64
mv "$folder/edge-agent" "$binary"

size=$(wc -c <"$binary")
[ "$size" -lt "$limit_bytes" ] || fail "$size bytes, fewer than $limit_bytes are allowed"
headers=$(LC_ALL=C readelf --file-header --program-headers "$binary")
grep -q AArch64 <<<"$headers" || fail "not for aarch64"
if grep -qE 'INTERP' <<<"$headers" || LC_ALL=C readelf --dynamic "$binary" | grep -q NEEDED; then fail "not static"; fi
python3 -c 'import json, sys; bill = json.load(open(sys.argv[1])); assert bill["bomFormat"] == "CycloneDX" and len(bill["components"]) > 100' \
  "$folder/edge-agent.cdx.json" || fail "the bill of materials is not one"

# --- The tarball, with the binary started through the emulator.
steps=$("$root/tests/release/install_steps.sh" "$folder" qemu-aarch64-static "$binary" | tail -n 1)

# --- Readings, kills and a real Kafka.
mkdir "$scratch/bin"
printf '#!/bin/sh\nexec qemu-aarch64-static %q "$@"\n' "$binary" >"$scratch/bin/edge-agent"
chmod 755 "$scratch/bin/edge-agent"
report=$(STACK_BIN_DIR=$scratch/bin "$root/target/debug/faults" kills "$kills" "$clients") || { echo "$report"; fail "readings were lost or doubled"; }
echo "test-release: aarch64 under qemu, static, $size bytes of $limit_bytes; $steps; $report"
