#!/usr/bin/env bash
# Installs cargo-fuzz into target/tools, where it is missing: built from source, a minute or two.
set -euo pipefail
speaker=setup
# shellcheck source=tests/stack/install.sh
source "$(dirname "${BASH_SOURCE[0]}")/../../tests/stack/install.sh"

version=0.13.2
if ! "$tools/bin/cargo-fuzz" --version 2>/dev/null | grep -qF "$version"; then
  say "installing cargo-fuzz $version (built from source)"
  quietly cargo install --quiet --locked --force --root "$tools" --version "$version" cargo-fuzz
fi
