#!/usr/bin/env bash
# Installs, upgrades and rolls back an unpacked release tarball below a scratch root, with the binary it is given, and with a
# stand-in for systemctl: whether the service starts is what the stand-in says. Every step that goes otherwise ends it with 1
# and says which; the last line has the number of steps.
#
# usage: install_steps.sh FOLDER COMMAND...     FOLDER: the unpacked tarball, changed by this; COMMAND: runs edge-agent
set -euo pipefail
[ $# -ge 2 ] || { sed -n '6p' "${BASH_SOURCE[0]}" >&2; exit 64; }
folder=$(cd "$1" && pwd)
shift
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
fail() { echo "install: $*" >&2; exit 1; }

# A version: the same program with other bytes around it.
version() {
  { printf '#!/bin/sh\nexec'; printf ' %q' "${@:2}"; printf ' "$@"\n# %s\n' "$1"; } >"$folder/edge-agent"
  chmod 755 "$folder/edge-agent"
  cp "$folder/edge-agent" "$scratch/$1"
}
steps=0
expect() { # <exit code> <command>...
  local wanted=$1 status=0
  shift
  "$@" >"$scratch/log" 2>&1 || status=$?
  if [ "$status" -ne "$wanted" ]; then cat "$scratch/log" >&2; fail "$* ended with $status instead of $wanted"; fi
  steps=$((steps + 1))
}
said() { grep -q -- "$1" "$scratch/log" || { cat "$scratch/log" >&2; fail "nothing is said of: $1"; }; }
same() { cmp -s "$1" "$2" || fail "$1 is not $2"; steps=$((steps + 1)); }

export DESTDIR=$scratch/pi
installed=$DESTDIR/usr/local/bin/edge-agent
config=$DESTDIR/etc/edge-agent/edge-agent.toml

# --- Files alone: nothing is started.
version first "$@"
expect 64 "$folder/install.sh"
expect 64 "$folder/install.sh" sideways
expect 0 "$folder/install.sh" --help
expect 1 "$folder/install.sh" rollback
said "no .*edge-agent.previous"
expect 0 make -C "$folder" install
same "$installed" "$scratch/first"
same "$config" "$folder/systemd/edge-agent.toml"
same "$DESTDIR/etc/systemd/system/edge-agent.service" "$folder/systemd/edge-agent.service"
same "$DESTDIR/usr/lib/sysusers.d/edge-agent.conf" "$folder/systemd/edge-agent.sysusers"
[ "$(stat -c %a "$config")" = 640 ] || fail "others may read the configuration"
expect 0 make -C "$folder" check
expect 0 make -C "$folder" install
said "installed already"
[ ! -e "$installed.previous" ] || fail "a second install made a previous one"

# --- A configuration that the new binary refuses: nothing changes.
version second "$@"
cp "$config" "$scratch/config"
echo 'nonsense = 1' | cat - "$scratch/config" >"$config"
expect 2 make -C "$folder" install
expect 64 "$folder/install.sh" install
said "nothing was changed"
same "$installed" "$scratch/first"
[ ! -e "$installed.previous" ] || fail "a refused install kept a previous one"
cp "$scratch/config" "$config"

# --- An upgrade leaves the owner's configuration alone; a roll-back and another one.
sed 's/^agent = "p0"/agent = "p1"/' "$scratch/config" >"$config"
cp "$config" "$scratch/config"
expect 0 "$folder/install.sh" install
same "$installed" "$scratch/second"
same "$installed.previous" "$scratch/first"
same "$config" "$scratch/config"
expect 0 make -C "$folder" rollback
same "$installed" "$scratch/first"
expect 0 make -C "$folder" rollback
same "$installed" "$scratch/second"

# --- With a service: the stand-in writes down what it is asked, and does not start what names a file called refused.
cat >"$scratch/systemctl" <<STAND_IN
#!/bin/sh
echo "\$*" >>"$scratch/calls"
case "\$1" in
is-enabled) [ -e "$scratch/enabled" ] ;;
restart) ! { [ -e "$scratch/refused" ] && cmp -s "$installed" "$scratch/third"; } ;;
esac
STAND_IN
chmod 755 "$scratch/systemctl"
export SYSTEMCTL=$scratch/systemctl
version third "$@"
expect 0 "$folder/install.sh" install
said "not enabled yet"
if grep -q restart "$scratch/calls"; then fail "a service that is not enabled was started"; fi
expect 0 "$folder/install.sh" rollback
same "$installed" "$scratch/second"
touch "$scratch/enabled" "$scratch/refused"
expect 1 "$folder/install.sh" install
said "the previous one is back"
same "$installed" "$scratch/second"
same "$installed.previous" "$scratch/third"
[ "$(grep -c restart "$scratch/calls")" -eq 2 ] || fail "the previous one was not started again"
rm "$scratch/refused"
expect 0 "$folder/install.sh" install
same "$installed" "$scratch/third"
same "$installed.previous" "$scratch/second"
same "$config" "$scratch/config"
# A previous binary that cannot read the present configuration is not put back.
echo 'nonsense = 1' | cat - "$scratch/config" >"$config"
expect 64 "$folder/install.sh" rollback
same "$installed" "$scratch/third"
echo "install: $steps steps of install, refusal, upgrade and roll back"
