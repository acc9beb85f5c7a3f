#!/usr/bin/env bash
# Installs cargo-fuzz into target/tools, where it is missing: built from source, a minute or two.
set -euo pipefail

version=0.13.2
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

if ! "$root/target/tools/bin/cargo-fuzz" --version 2>/dev/null | grep -qF "$version"; then
  echo "setup: installing with cargo: cargo-fuzz $version" >&2
  cargo install --quiet --locked --force --root "$root/target/tools" --version "$version" cargo-fuzz
fi
