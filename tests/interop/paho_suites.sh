#!/usr/bin/env bash
# Runs the interoperability suites of the Eclipse Paho project for MQTT 3.1.1 and 5 against an agent of this tree.
# The suites are not part of it: give the folder of a clone of the repository paho.mqtt.testing of the Eclipse organisation.
# About four minutes. Ends with 0 when every test of both passed.
#
# usage: paho_suites.sh FOLDER      (make test-interop PAHO=FOLDER)
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
agent=${STACK_BIN_DIR:-$root/target/debug}/edge-agent
suites=${1:-}
fail() { echo "paho_suites: $*" >&2; exit 64; }

[ -n "$suites" ] || fail "give the folder of paho.mqtt.testing: make test-interop PAHO=../paho.mqtt.testing"
[ -d "$suites/interoperability" ] && suites=$suites/interoperability
for suite in client_test.py client_test5.py; do
  [ -f "$suites/$suite" ] || fail "there is no $suite in $suites"
done
[ -x "$agent" ] || fail "$agent is missing: make build-rust"

scratch=$(mktemp -d)
pid=
# Called when the script ends, however it does.
# shellcheck disable=SC2317,SC2329
finish() {
  if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
  rm -rf "$scratch"
}
trap finish EXIT
free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
port=$(free_port)
admin=$(free_port)
# The suites want a filter that nobody may subscribe to.
cat >"$scratch/users.toml" <<'TOML'
[[access]]
refuse_subscribe = ["test/nosubscribe", "nosubscribe"]
TOML
cat >"$scratch/edge-agent.toml" <<TOML
agent = "interop"
data_dir = "$scratch/data"
[mqtt]
listen = "127.0.0.1:$port"
users_file = "$scratch/users.toml"
[admin]
listen = "127.0.0.1:$admin"
[kafka]
bootstrap = "127.0.0.1:1"
[clock]
source = "trusted"
TOML
"$agent" run --config "$scratch/edge-agent.toml" 2>"$scratch/log" &
pid=$!
for _ in $(seq 100); do
  "$agent" status --config "$scratch/edge-agent.toml" >/dev/null 2>&1 && break
  kill -0 "$pid" 2>/dev/null || { cat "$scratch/log" >&2; fail "the agent does not start"; }
  sleep 0.1
done

# Their own reading of options differs from version to version, so they are told what they need as a module is.
run() {
  (cd "$suites" && python3 - "$1" "$port" <<'PYTHON'
import importlib, sys, unittest
sys.path.insert(0, ".")
suite = importlib.import_module(sys.argv[1])
suite.host, suite.port = "127.0.0.1", int(sys.argv[2])
suite.topic_prefix = ""
suite.topics = ("TopicA", "TopicA/B", "Topic/C", "TopicA/C", "/TopicA")
suite.wildtopics = ("TopicA/+", "+/C", "#", "/#", "/+", "+/+", "TopicA/#")
suite.nosubscribe_topics = ("test/nosubscribe",)
unittest.main(module=suite, argv=[sys.argv[1]], verbosity=2)
PYTHON
  )
}

failed=0
for suite in client_test client_test5; do
  echo "--- $suite"
  run "$suite" || failed=1
done
exit "$failed"
