#!/usr/bin/env bash
# make bench-sink: builds what is measured and runs the benchmark, whose one JSON line is all there is on standard output.
# Arguments are the benchmark's own, see bench-sink --help.
set -euo pipefail
cd "$(dirname "$0")/../../.."
speaker=bench
# shellcheck source=tests/stack/install.sh
source tests/stack/install.sh

# Only the sink is measured; the program that measures it need not be fast.
cargo build --locked --release -p redpanda-sink >&2
cargo build --locked -p bench-sink >&2

options=(--sink target/release/redpanda-sink)
connect=$PWD/target/tools/redpanda-connect
if ! go=$(go_command); then
  options+=(--connect-missing "Go could not be installed")
elif (cd tests/bench/sink/connect && timeout 600 "$go" build -o "$connect" . >&2); then
  options+=(--connect "$connect")
else
  options+=(--connect-missing "Redpanda Connect could not be built within 10 minutes")
fi
exec target/debug/bench-sink "${options[@]}" "$@"
