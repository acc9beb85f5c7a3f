#!/usr/bin/env bash
# make bench-edge: builds what is measured and runs the benchmark, whose one JSON line is all there is on standard output.
# Arguments are the benchmark's own, see bench-edge --help.
set -euo pipefail
cd "$(dirname "$0")/../../.."
speaker=bench
# shellcheck source=tests/stack/install.sh
source tests/stack/install.sh

# What is measured is what is released: the static binary. The publishers must not be what is
# measured, so they are a release build as well.
agent=$(.ci/release/build.sh "$(uname -m)-unknown-linux-musl" | tail -n 1)
cargo build --locked --release -p bench-edge --bins >&2

options=(--agent "$agent" --binary target/dist/aarch64-unknown-linux-musl/dist/edge-agent)
connect=$PWD/target/tools/redpanda-connect-mqtt
if ! go=$(go_command); then
  options+=(--connect-missing "Go could not be installed")
elif (cd tests/bench/edge/connect && timeout 600 "$go" build -o "$connect" . >&2); then
  options+=(--connect "$connect")
else
  options+=(--connect-missing "Redpanda Connect could not be built within 10 minutes")
fi
exec target/release/bench-edge "${options[@]}" "$@"
