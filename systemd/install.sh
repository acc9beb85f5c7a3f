#!/bin/sh
# Installs, upgrades and rolls back the edge agent on a Pi, from an unpacked release tarball. Run as root.
#
# The new binary must accept the configuration before it replaces anything; the one it replaces is kept beside it, and comes
# back by itself when the new one does not start. The configuration, the users and the buffer are never touched once there.
set -eu

usage() {
  cat <<'TEXT'
usage: install.sh install | rollback | check

  install    installs or upgrades: checks the configuration with the new binary, keeps the present one as
             edge-agent.previous, then restarts the service when it is enabled; running it again changes nothing
  rollback   puts edge-agent.previous back and restarts; a second rollback undoes the first
  check      asks the binary beside this script whether it can use the configuration

DESTDIR=/some/folder installs below that folder and starts nothing, unless SYSTEMCTL names a program to ask instead.
Exit codes: 0 done, 64 wrong usage or a configuration that cannot be used, 1 something else; it is said which.
TEXT
}

here=$(cd "$(dirname "$0")" && pwd)
root=${DESTDIR:-}
new=$here/edge-agent
bin=$root/usr/local/bin/edge-agent
config=$root/etc/edge-agent/edge-agent.toml
unit=$root/etc/systemd/system/edge-agent.service
sysusers=$root/usr/lib/sysusers.d/edge-agent.conf
# How long the service may take to say that it is ready; the unit gives it as much.
wait_seconds=120

say() { echo "edge-agent: $*"; }
fail() { say "$*" >&2; exit 1; }
# With DESTDIR nothing runs here: it is for packages and tests.
live() { [ -z "$root" ]; }
systemctl=${SYSTEMCTL:-systemctl}
with_service() { live || [ -n "${SYSTEMCTL:-}" ]; }

check_with() {
  "$1" check --config "$config" || { say "$1 cannot use $config (above); nothing was changed" >&2; exit 64; }
}

# A file is put beside its place and renamed, so that no crash leaves half of one.
place() {
  if cmp -s "$2" "$3"; then return 0; fi
  mkdir -p "$(dirname "$3")"
  install -m "$1" "$2" "$3.new"
  mv "$3.new" "$3"
  say "installed $3"
}

restart() {
  with_service || return 0
  "$systemctl" daemon-reload
  if ! "$systemctl" is-enabled --quiet edge-agent; then
    say "not enabled yet: edit $config, then: systemctl enable --now edge-agent"
    return 0
  fi
  timeout "$wait_seconds" "$systemctl" restart edge-agent
}

previous_back() {
  mv "$bin" "$bin.other"
  mv "$bin.previous" "$bin"
  mv "$bin.other" "$bin.previous"
}

do_install() {
  [ -x "$new" ] || fail "$new is missing; run this from an unpacked release tarball"
  "$new" --version >/dev/null || fail "$new does not run on this machine; is it the tarball for it? ($(uname -m))"
  if live && [ "$(id -u)" -ne 0 ]; then fail "root is needed"; fi
  if [ -e "$config" ]; then check_with "$new"; fi

  place 644 "$here/systemd/edge-agent.sysusers" "$sysusers"
  if live; then systemd-sysusers "$sysusers"; fi
  if [ ! -e "$config" ]; then
    place 640 "$here/systemd/edge-agent.toml" "$config"
    if live; then chown -R root:edge-agent "$(dirname "$config")"; fi
    say "an example: edit $config before the first start"
  fi
  changed=no
  cmp -s "$here/systemd/edge-agent.service" "$unit" || changed=yes
  place 644 "$here/systemd/edge-agent.service" "$unit"
  kept=no
  if ! cmp -s "$new" "$bin"; then
    changed=yes
    if [ -e "$bin" ]; then
      cp -p "$bin" "$bin.previous.new"
      mv "$bin.previous.new" "$bin.previous"
      kept=yes
    fi
    place 755 "$new" "$bin"
  fi
  if [ $changed = no ]; then
    say "$("$new" --version) is installed already"
    return 0
  fi
  if ! restart; then
    [ $kept = yes ] || fail "it does not start: journalctl -u edge-agent"
    previous_back
    restart || fail "neither it nor the previous one starts: journalctl -u edge-agent"
    fail "the new one does not start, the previous one is back: journalctl -u edge-agent"
  fi
  say "$("$bin" --version) is in place"
}

do_rollback() {
  [ -e "$bin.previous" ] || fail "there is no $bin.previous to go back to"
  if live && [ "$(id -u)" -ne 0 ]; then fail "root is needed"; fi
  check_with "$bin.previous"
  previous_back
  restart || fail "it does not start: journalctl -u edge-agent"
  say "$("$bin" --version) is back"
}

case ${1:-} in
  install) do_install ;;
  rollback) do_rollback ;;
  check) check_with "$new" ;;
  --help | -h) usage ;;
  *) usage >&2; exit 64 ;;
esac
