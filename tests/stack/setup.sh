#!/usr/bin/env bash
# Makes a machine ready for `make demo`, `make check` or `make test`: installs what is missing and says what it installs.
# Quick when nothing is missing. Works as root and with sudo, with apt, dnf, pacman or brew.
# It never starts a system service and never creates a database cluster of the system: the stack runs its own in a
# scratch folder.
#
# usage: setup.sh demo|check|test|bench
set -euo pipefail

purpose=${1:-test}
case $purpose in
  demo | check | test | bench) ;;
  *) echo "usage: setup.sh demo|check|test|bench" >&2; exit 64 ;;
esac

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=$root/target/tools
node_minimum=20
java_minimum=17

say() { echo "setup: $*" >&2; }
fail() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
wanted_for() { case " $* " in *" $purpose "*) return 0 ;; *) return 1 ;; esac; }

# A private Node (see below) goes before the distribution's.
export PATH=$tools/node_modules/.bin:$PATH

have_java() {
  local version
  have java || return 1
  version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1)
  [ "${version:-0}" -ge "$java_minimum" ]
}

have_node() {
  local version
  have node && have npm || return 1
  version=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
  [ "${version:-0}" -ge "$node_minimum" ]
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

manager=
for candidate in apt-get dnf pacman brew; do
  if have "$candidate"; then manager=$candidate; break; fi
done

# One missing thing: its name in apt, dnf, pacman and brew. "-" where the system itself brings it.
packages=()
need() {
  local name
  case $manager in
    apt-get) name=$1 ;;
    dnf) name=$2 ;;
    pacman) name=$3 ;;
    brew) name=$4 ;;
    *) fail "missing: $1; no package manager that this script knows (apt-get, dnf, pacman, brew): install it by hand" ;;
  esac
  if [ "$name" != - ]; then
    # Several packages for one thing are meant to be split.
    # shellcheck disable=SC2206
    packages+=($name)
  fi
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    fail "root is needed for: $* (run it as root, then once more: make setup)"
  fi
}

# Debian starts what it installs, and makes and starts a database cluster. Both are held back while we install.
policy=/usr/sbin/policy-rc.d
no_cluster=/etc/postgresql-common/createcluster.d/homelab-setup.conf
held_policy=
held_cluster=
release_services() {
  if [ -n "$held_policy" ]; then as_root rm -f "$policy"; fi
  if [ -n "$held_cluster" ]; then as_root rm -f "$no_cluster"; fi
}
hold_services() {
  trap release_services EXIT
  if [ ! -e "$policy" ]; then
    held_policy=yes
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
  fi
  held_cluster=yes
  as_root mkdir -p "$(dirname "$no_cluster")"
  echo "create_main_cluster = false" | as_root tee "$no_cluster" >/dev/null
}

install_packages() {
  if [ ${#packages[@]} -eq 0 ]; then return 0; fi
  say "installing with $manager (a minute or two): ${packages[*]}"
  case $manager in
    apt-get)
      hold_services
      as_root apt-get update -qq
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "${packages[@]}" >/dev/null
      release_services
      held_policy=
      held_cluster=
      ;;
    dnf) as_root dnf install -y -q "${packages[@]}" >/dev/null ;;
    pacman) as_root pacman -S --needed --noconfirm --quiet "${packages[@]}" >/dev/null ;;
    brew) brew install --quiet "${packages[@]}" >/dev/null ;;
  esac
  packages=()
}

# --- Rust: never installed for you, it is yours to choose.
if ! have cargo; then
  fail "the Rust toolchain is missing: install rustup (https://rustup.rs), then: rustup toolchain install stable"
fi
rust_minimum=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$root/Cargo.toml")
rust_version=$(cargo --version | cut -d ' ' -f 2)
if [ "$(printf '%s\n%s\n' "$rust_minimum" "$rust_version" | sort -V | head -n 1)" != "$rust_minimum" ]; then
  fail "Rust $rust_version is too old, $rust_minimum is needed: rustup update stable"
fi
if wanted_for check test && ! { have cargo-clippy && have rustfmt; }; then
  have rustup || fail "clippy or rustfmt is missing: install them with your Rust toolchain"
  say "installing with rustup: clippy rustfmt"
  rustup component add clippy rustfmt >&2
fi

# --- What the build and the parts of the stack need.
{ have cc && have c++ && have make; } || need build-essential "gcc gcc-c++ make" base-devel -
have_openssl || need "libssl-dev pkg-config" "openssl-devel pkgconf" "openssl pkgconf" "openssl@3 pkgconf"
have_node || need "nodejs npm" "nodejs npm" "nodejs npm" node
if wanted_for demo test bench; then
  have_postgres || need postgresql postgresql-server postgresql postgresql@17
  have psql || need postgresql-client postgresql postgresql postgresql@17
  have mosquitto_pub || need mosquitto-clients mosquitto mosquitto mosquitto
fi
if wanted_for bench; then
  # What the agent is compared with. Debian keeps it where only root looks.
  have mosquitto || [ -x /usr/sbin/mosquitto ] || need mosquitto mosquitto mosquitto mosquitto
fi
if wanted_for check test; then
  have shellcheck || need shellcheck ShellCheck shellcheck shellcheck
fi
if wanted_for test; then
  # The power cuts of tests/faults are made from what it records; elsewhere they are left out, and the test says so.
  if [ "$(uname)" = Linux ]; then have strace || need strace strace strace -; fi
  # A clock that steps, for one process.
  have faketime || need faketime libfaketime libfaketime libfaketime
  have_chromium || need chromium chromium chromium "--cask chromium"
  # tests/contract/run.sh puts schemathesis into an environment of its own; Debian packs the module for that apart.
  python3 -c 'import ensurepip, venv' 2>/dev/null || need "python3 python3-venv" python3 python python
  # The backup's upload and the documented certificate are tried with these.
  have rclone || need rclone rclone rclone rclone
  have openssl || need openssl openssl openssl openssl@3
  # A test checks the agent's unit with it; nothing is started.
  have systemd-analyze || need systemd systemd systemd -
fi
install_packages

# --- Kafka needs Java and Maven. The demo can do without (and says so when it starts); the tests cannot.
have_java || need default-jre-headless java-latest-openjdk-headless jre-openjdk-headless openjdk
have mvn || need maven maven maven maven
if wanted_for demo test bench; then
  if wanted_for demo; then
    install_packages || say "Java or Maven cannot be had here: the demo will use librdkafka's mock broker"
  else
    install_packages
  fi
  if have_java && have mvn; then
    "$root/tests/stack/kafka/fetch.sh" >/dev/null || wanted_for demo || fail "Kafka's jars could not be fetched"
  fi
fi

# --- A distribution whose Node is too old (Debian 12 has 18): a newer one from npm, in target/, for this tree only.
if ! have_node; then
  have npm || fail "npm is missing: install Node.js $node_minimum or newer"
  say "installing with npm into target/tools: node 22 (the system's $(node --version) is too old)"
  npm install --prefix "$tools" --no-audit --no-fund --loglevel=error node@22 npm@10 >&2
  have_node || fail "Node.js $node_minimum or newer is needed"
fi

# --- A client of MQTT in Python that the agent is tried with, in an environment of its own.
if wanted_for test; then
  interop=$tools/interop
  if [ ! "$interop/.installed" -nt "$root/tests/interop/requirements.txt" ]; then
    say "installing with pip into target/tools: what tests/interop/requirements.txt names"
    python3 -m venv "$interop"
    "$interop/bin/pip" install --quiet --disable-pip-version-check -r "$root/tests/interop/requirements.txt" >&2
    touch "$interop/.installed"
  fi
fi

# --- npm packages: every folder with a lock file, or for the demo those that it runs.
for lock in "$root"/tests/*/package-lock.json "$root"/tests/stack/*/package-lock.json "$root"/cluster/*/package-lock.json; do
  folder=$(dirname "$lock")
  [ -f "$lock" ] || continue
  case $folder in
    */tests/browser | */tests/interop | */tests/stack/timescale) wanted_for check test || continue ;;
  esac
  # npm writes this file last, so that it is older than the lock file exactly when an install is due.
  if [ ! "$folder/node_modules/.package-lock.json" -nt "$lock" ]; then
    say "installing with npm: ${folder#"$root"/}"
    PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --prefix "$folder" --no-audit --no-fund --loglevel=error >&2
  fi
done
