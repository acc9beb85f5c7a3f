#!/usr/bin/env bash
# Installs what tests/fresh/run.py makes bare machines with.
set -euo pipefail
speaker=fresh
# shellcheck source=tests/stack/install.sh
source "$(dirname "${BASH_SOURCE[0]}")/../stack/install.sh"
have python3 || need "Python" python3 python3 python python
have mmdebstrap || need "mmdebstrap" "mmdebstrap debian-archive-keyring" "mmdebstrap debian-keyring" - -
# Without root the files of several owners live in a user namespace.
[ "$(id -u)" -eq 0 ] || have newuidmap || need "newuidmap" uidmap shadow-utils shadow -
install_needed
