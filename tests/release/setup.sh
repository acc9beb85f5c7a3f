#!/usr/bin/env bash
# Installs the emulator that tests/release/run.sh runs the aarch64 binary with.
set -euo pipefail
speaker=test-release
# shellcheck source=tests/stack/install.sh
source "$(dirname "${BASH_SOURCE[0]}")/../stack/install.sh"
have qemu-aarch64-static || need "an emulator for aarch64" qemu-user-static qemu-user-static qemu-user-static -
install_needed
