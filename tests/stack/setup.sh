#!/usr/bin/env bash
# Makes a machine ready for `make demo`, `make check`, `make test` or `make bench-*`: installs what is missing, one line for each
# thing. Prints nothing and is quick when nothing is missing. Works as root and with sudo, with apt, dnf, pacman or brew.
# It never starts a system service and never creates a database cluster of the system: the stack runs its own in a scratch folder.
#
# usage: setup.sh demo|check|test|bench
set -euo pipefail

purpose=${1:-test}
case $purpose in
  demo | check | test | bench) ;;
  *) echo "usage: setup.sh demo|check|test|bench" >&2; exit 64 ;;
esac

speaker=setup
# shellcheck source=tests/stack/install.sh
source "$(dirname "${BASH_SOURCE[0]}")/install.sh"
# Another set-up of this tree waits until this one has ended.
if have flock; then exec 8<"$repository" && flock 8; fi

wanted_for() { case " $* " in *" $purpose "*) return 0 ;; *) return 1 ;; esac; }

have_java() {
  local version
  have java || return 1
  version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9.]*\).*/\1/p' | head -n 1)
  at_least "${version:-0}" 17
}

# What the packages of the web page ask for in `engines`; npm refuses anything else (engine-strict).
have_node() {
  local version
  have node && have npm || return 1
  at_least "$(npm --version)" 9.5 || return 1
  version=$(node --version)
  version=${version#v}
  case $version in
    20.*) at_least "$version" 20.19 ;;
    22.*) at_least "$version" 22.13 ;;
    *) at_least "$version" 24 ;;
  esac
}

have_postgres() {
  local found
  have initdb && return 0
  for found in /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb /opt/homebrew/opt/postgresql@*/bin/initdb; do
    if [ -x "$found" ]; then return 0; fi
  done
  return 1
}

# Its headers: the agent speaks TLS to Redpanda with it.
have_openssl() { pkg-config --exists openssl 2>/dev/null; }

have_chromium() { have chromium || have chromium-browser || have google-chrome || [ -n "${CHROMIUM_PATH:-}" ]; }

# Debian packs the modules that make a virtual environment apart.
have_python() { python3 -c 'import ensurepip, venv' 2>/dev/null; }

# --- Rust: never installed for you, it is yours to choose.
have cargo || fail "the Rust toolchain is missing: install rustup (https://rustup.rs), then: rustup toolchain install stable"
rust_minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$repository/Cargo.toml")
rust_version=$(cargo --version | cut -d ' ' -f 2)
at_least "$rust_version" "$rust_minimum" || fail "Rust $rust_version is too old, $rust_minimum is needed: rustup update stable"
if wanted_for check test && ! { have cargo-clippy && have rustfmt; }; then
  have rustup || fail "clippy or rustfmt is missing: install them with your Rust toolchain"
  say "installing clippy and rustfmt (rustup)"
  quietly rustup component add clippy rustfmt
fi

# --- What the build and the parts of the stack need.
{ have cc && have c++ && have make; } || need "a C and C++ compiler" build-essential "gcc gcc-c++ make" base-devel -
have_openssl || need "OpenSSL's headers" "libssl-dev pkg-config" "openssl-devel pkgconf" "openssl pkgconf" "openssl@3 pkgconf"
# For what comes from PyPI: tests and benchmarks, and a Node where the machine's is too old.
{ have_python || { have_node && wanted_for demo check; }; } || need "Python with venv" "python3 python3-venv" python3 python python
if wanted_for demo test bench; then
  have_postgres || need "PostgreSQL" postgresql postgresql-server postgresql postgresql@17
  have psql || need "PostgreSQL's client" postgresql-client postgresql postgresql postgresql@17
  have mosquitto_pub || need "Mosquitto's clients" mosquitto-clients mosquitto mosquitto mosquitto
fi
if wanted_for bench; then
  # What the agent is compared with. Debian keeps it where only root looks.
  have mosquitto || [ -x /usr/sbin/mosquitto ] || need "Mosquitto" mosquitto mosquitto mosquitto mosquitto
fi
if wanted_for check test; then
  have shellcheck || need "ShellCheck" shellcheck ShellCheck shellcheck shellcheck
fi
if wanted_for test; then
  # The power cuts of tests/faults are made from what it records; elsewhere they are left out, and the test says so.
  if [ "$(uname)" = Linux ]; then have strace || need "strace" strace strace strace -; fi
  # A clock that steps, for one process.
  have faketime || need "faketime" faketime libfaketime libfaketime libfaketime
  have_chromium || need "Chromium" chromium chromium chromium "--cask chromium"
  # The backup's upload and the documented certificate are tried with these.
  have rclone || need "rclone" rclone rclone rclone rclone
  have openssl || need "OpenSSL's program" openssl openssl openssl openssl@3
  # A test checks the agent's unit with it; nothing is started.
  have systemd-analyze || need "systemd-analyze" systemd systemd systemd -
fi
# The demo can do without Kafka, and says so when it starts; so Java and Maven may fail to install.
if wanted_for demo; then install_needed || fail "install by hand what is named above, then run this again"; fi
if wanted_for demo test bench; then
  have_java || need "Java" default-jre-headless java-latest-openjdk-headless jre-openjdk-headless openjdk
  have mvn || need "Maven" maven maven maven maven
fi
if ! install_needed; then
  wanted_for demo || fail "install by hand what is named above, then run this again"
  say "Java or Maven cannot be had here: the demo will use librdkafka's mock broker"
fi
wanted_for demo check || have_java || fail "java is older than 17, which Kafka needs: put a newer one first in PATH"
if wanted_for demo test bench && have_java && have mvn; then
  "$repository/tests/stack/kafka/fetch.sh" >/dev/null || wanted_for demo || fail "Kafka's jars could not be fetched"
fi

# --- What comes from npm and PyPI, into target/ and node_modules/ of this tree.
if [ -e "$tools/bin/node" ] || ! have_node; then private_node; fi
have_node || fail "Node.js cannot be had here: install Node.js 24 by hand"
for lock in "$repository"/tests/*/package-lock.json "$repository"/tests/stack/*/package-lock.json "$repository"/cluster/*/package-lock.json; do
  folder=$(dirname "$lock")
  # The demo runs the page and the OpenID provider; tests/gitops/install.sh sees to its own.
  case $folder in
    */tests/gitops) continue ;;
    */tests/browser | */tests/interop | */tests/stack/timescale) wanted_for check test || continue ;;
  esac
  npm_packages "$folder"
done
if wanted_for test; then
  python_environment "an MQTT client in Python" "$tools/interop" "$repository/tests/interop/requirements.txt"
  python_environment "schemathesis" "$tools/schemathesis" "$repository/tests/contract/requirements.txt"
  GITOPS_BUILD=no "$repository/tests/gitops/install.sh"
fi
