#!/usr/bin/env bash
# Looks for bytes that break a promise: every fuzz target for some seconds. What one found stays in target/fuzz/found; put
# such a file into seeds/<target>/, where every run of the tests tries it.
#
# Without a sanitizer, so that the stable toolchain does: what is fuzzed is safe Rust, and panics are what is looked for.
#
# usage: run.sh [seconds a target]
set -euo pipefail

seconds=${1:-20}
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$folder/../.." && pwd)
export PATH=$root/target/tools/bin:$PATH
export CARGO_TARGET_DIR=$root/target/fuzz
mkdir -p "$root/target/fuzz/found"

"$folder/setup.sh"
cargo fuzz build --fuzz-dir "$folder" --sanitizer none >&2
for source in "$folder"/fuzz_targets/*.rs; do
  target=$(basename "$source" .rs)
  corpus=$root/target/fuzz/corpus/$target
  mkdir -p "$corpus"
  log=$root/target/fuzz/$target.log
  # The largest frames of devices have some kilobytes; a case that takes 10 s or 1 GiB is a find as well.
  cargo fuzz run --fuzz-dir "$folder" --sanitizer none "$target" "$corpus" "$folder/seeds/$target" -- \
    -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=1024 \
    -artifact_prefix="$root/target/fuzz/found/$target-" >"$log" 2>&1 || { tail -n 60 "$log" >&2; exit 1; }
  echo "fuzz: $target: $(grep -o 'Done [0-9]* runs in [0-9]* second' "$log" | tail -n 1)(s), nothing found" >&2
done
