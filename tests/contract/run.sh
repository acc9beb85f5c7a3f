#!/usr/bin/env bash
# Asks a running homelab-api everything that its own OpenAPI document allows, and much that it does not, with schemathesis:
# no answer may be a 5xx or break the document. The test `contract` of homelab-api starts the service and calls this.
#
# make setup installs schemathesis, at the version in requirements.txt.
#
# usage: API_TOKEN=<an access token with every read scope> run.sh <address of the service>
set -euo pipefail

# Enough to meet every parameter many times; a minute on two cores.
examples=40
# The same examples every time: what fails here fails again. A search for more: SEED=$RANDOM.
seed=${SEED:-1}

address=${1:?usage: run.sh <address of the service>}
: "${API_TOKEN:?names no token}"
folder=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)/target/tools/schemathesis
[ -x "$folder/bin/st" ] || { echo "contract: schemathesis is missing: run make setup" >&2; exit 1; }

# The folder it runs in would otherwise fill with its database of examples.
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
"$folder/bin/st" run "$address/openapi.json" \
  --header "Authorization: Bearer $API_TOKEN" \
  --checks not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance \
  --max-examples "$examples" --seed "$seed" --generation-database none --request-timeout 15 --no-color
