#!/bin/sh
# Outlives the process that started it, and then ends everything that process started.
#
# It reads lines from a pipe whose other end only its parent holds: `group <id>` for every process group that was started,
# `forget <id>` for one that is gone. The end of the pipe means that the parent has ended, however it ended (a clean stop,
# Ctrl-C, a panic, SIGKILL). Then every group, and on Linux every process that carries this run's mark in its environment
# (a browser, say, makes groups of its own), is told to stop, and killed when it has not stopped in time.
# It never kills anything that neither is in such a group nor carries the mark.
#
# usage: guardian.sh RUN DATA-FOLDER   (the folder is removed at the end; empty: nothing is)
set -u
run=$1
data=$2

# Ctrl-C is meant for the parent; we act when it has gone.
trap '' INT TERM HUP

groups=
while read -r verb id; do
  case $verb in
    group) groups="$groups $id" ;;
    forget) groups=$(for group in $groups; do [ "$group" = "$id" ] || printf ' %s' "$group"; done) ;;
  esac
done

# Zombies have an empty environment and so do not count.
marked() {
  grep -slzxF "STACK_RUN=$run" /proc/[0-9]*/environ 2>/dev/null | sed 's|^/proc/\([0-9]*\)/environ$|\1|'
}
alive() {
  if [ -d /proc/self ]; then
    [ -n "$(marked)" ]
  else
    for group in $groups; do
      if kill -s 0 -- "-$group" 2>/dev/null; then return 0; fi
    done
    return 1
  fi
}
# Waits until nothing is alive, at most $1 tenths of a second.
gone_within() {
  tenths=$1
  while alive; do
    [ "$tenths" -gt 0 ] || return 1
    tenths=$((tenths - 1))
    sleep 0.1
  done
}

# One SIGTERM each: a second one means "at once" to our services. What is in no group any more has had its own.
for group in $groups; do kill -s TERM -- "-$group" 2>/dev/null; done
gone_within 30

# Twice: a process that was just being started when the pipe closed carries the mark only a moment later.
for _ in 1 2; do
  sleep 0.1
  for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
  for process in $(marked); do kill -s KILL "$process" 2>/dev/null; done
  gone_within 20
done

if [ -n "$data" ]; then rm -rf "$data"; fi
