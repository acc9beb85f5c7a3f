# The commands of this repository. `make help` lists them; each sets up what it needs on a bare machine first.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL:

# The Node of this tree, where tests/stack/setup.sh found the machine's too old.
export PATH := $(CURDIR)/target/tools/bin:$(PATH)
# The tests and the demo run the binaries that make has just built.
export STACK_BIN_DIR := $(CURDIR)/target/debug

SETUP := tests/stack/setup.sh
STACK := target/debug/stack
WEB := cluster/heatpump-web
BROWSER := tests/browser

.PHONY: help
help: ## this list
	@echo "Homelab K12n. The two to begin with are: make demo, make test."
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):[^#]*## /\1\t/' | \
	  while IFS=$$'\t' read -r name text; do printf '  make %-16s %s\n' "$$name" "$$text"; done

.PHONY: setup
setup: ## install what is missing for everything below (system packages, npm packages, Kafka's jars)
	@$(SETUP) test

.PHONY: demo
demo: setup-demo build-rust ## the whole way on this machine: prints an address and a login, runs until Ctrl-C
	@$(STACK) demo

.PHONY: smoke
smoke: setup-demo build-rust ## bring the stack up without a browser, follow one reading, print its latencies as JSON
	@$(STACK) smoke

.PHONY: build
build: setup-demo build-rust build-web ## build every binary and the web page

.PHONY: build-rust
build-rust:
	@cargo build --workspace --bins --locked

.PHONY: build-web
build-web:
	@npm --prefix $(WEB) run --silent build

.PHONY: check
check: setup-check ## formatting, clippy with warnings denied, tsc, eslint, shellcheck
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- --deny warnings
	npm --prefix $(WEB) run check
	npm --prefix $(WEB) run lint
	npm --prefix $(BROWSER) run check
	@git ls-files --cached --others --exclude-standard -z -- '*.sh' .ci/run | xargs -0 -r shellcheck && echo "shellcheck: clean"

.PHONY: test
test: setup test-review test-rust test-ops test-web test-browser ## every test: Rust (unit, e2e), the tree and its documents, the web app's, and a real browser

.PHONY: test-fresh
test-fresh: ## make demo, make check and the set-up of make test on bare Debian 12 and 13, as root and with sudo; one JSON line (an hour)
	@tests/fresh/setup.sh
	@python3 tests/fresh/run.py

.PHONY: test-fresh-setup
test-fresh-setup: ## some of the set-ups on such machines, without the builds (5 minutes); .ci/run runs it
	@python3 tests/fresh/test_install.py
	@tests/fresh/setup.sh
	@python3 tests/fresh/run.py --machine debian-12-sudo --part setup-demo --part setup-check
	@python3 tests/fresh/run.py --machine debian-13-root --part setup-demo --part setup-test

.PHONY: test-rust
test-rust: setup build-rust ## the Rust tests alone: unit tests, and e2e against real Kafka and PostgreSQL
	cargo test --workspace --locked

.PHONY: test-review
test-review: ## the tests of make arch-review itself: each rule fails on a bad change
	@python3 tests/arch-review/test_review.py
	@python3 tests/arch-review/test_model.py

# The long parts of these have targets of their own: the API server and the S3 server are built from source first.
.PHONY: test-ops
test-ops: setup build-rust ## gitops/, workflows and documents by rule, a backup restored, the agent installed and rolled back (3 minutes)
	@GITOPS_BUILD=no tests/gitops/run.sh
	@tests/restore/run.sh --folder
	@tests/release/install.sh target/debug/edge-agent

.PHONY: test-web
test-web: setup ## the web app's own tests
	npm --prefix $(WEB) test

.PHONY: test-browser
test-browser: setup build-rust ## Playwright in Chromium against the whole stack
	$(STACK) run --command-wait 8 -- npm --prefix $(BROWSER) test

.PHONY: screenshots
screenshots: setup build-rust ## pictures of every view of the page, phone and desktop, light and dark, into docs/images
	PROJECTS=pictures $(STACK) run -- npm --prefix $(BROWSER) test

.PHONY: bench-web
bench-web: setup build-rust ## the page: size, first paint, memory, delay to the screen, idle load; one JSON line, 4 minutes (docs/PERFORMANCE.md)
	@file=$$(mktemp) && PROJECTS=bench BENCH_FILE=$$file $(STACK) run -- npm --prefix $(BROWSER) test >&2 && cat $$file && rm $$file

.PHONY: bench-ws
bench-ws: setup-demo ## energy-ws and commands: delays, throughput, memory of a client; one JSON line (docs/PERFORMANCE.md)
	@cargo build --release --locked -p energy-ws -p homelab-settings-api -p edge-agent -p bench-ws --bins
	@target/release/bench-ws

.PHONY: test-gitops
test-gitops: setup ## the Flux tree: rendered, against schemas and a real API server, and by rule (the first time about 17 minutes)
	@tests/gitops/run.sh

.PHONY: test-interop
test-interop: build-rust ## the Eclipse Paho suites against edge-agent, from your clone of them: PAHO=../paho.mqtt.testing (4 minutes)
	@tests/interop/paho_suites.sh "$(PAHO)"

.PHONY: release
release: ## edge-agent, static, for aarch64 and x86_64: tarballs, checksums and bills of materials in dist/ (20 minutes the first time)
	@.ci/release/package.sh
.PHONY: test-restore
test-restore: setup ## backup to a real S3 server, the databases destroyed, restored and compared (the first time about 10 minutes)
	@tests/restore/run.sh

.PHONY: arch-review
arch-review: ## the owner's rules, held against a change: BASE=origin/main..HEAD (docs/ARCH_REVIEW.md)
	@python3 tests/arch-review/test_review.py 2>/dev/null || python3 tests/arch-review/test_review.py
	@python3 tests/arch-review/review.py

.PHONY: test-release
test-release: setup ## after make release: the aarch64 binary under qemu, killed 10 times before a real Kafka; the tarball installed
	@tests/release/setup.sh
	@cargo build --quiet --locked -p faults --bins
	@tests/release/run.sh

.PHONY: test-sink-faults
test-sink-faults: setup build-rust ## redpanda-sink killed 100 times over 200,000 records; make test has a short form
	SINK_FAULT_KILLS=100 SINK_FAULT_RECORDS=200000 cargo test --locked -p e2e --test sink -- --nocapture faults::

.PHONY: test-faults
test-faults: setup ## edge-agent fuzzed, killed 220 times, its disk filled, its power cut 400 times; make test has a short form
	@edge-agent/fuzz/run.sh 20
	@cargo build --release --locked -p edge-agent -p faults --bins
	@STACK_BIN_DIR=$(CURDIR)/target/release target/release/faults full

.PHONY: bench-edge
bench-edge: ## edge-agent against Mosquitto and Redpanda Connect: one JSON line, about 6 minutes (docs/PERFORMANCE.md)
	@$(SETUP) bench
	@tests/bench/edge/run.sh

.PHONY: bench-api
bench-api: setup-demo ## homelab-api against pgbench with the same statements; one JSON line, 3 minutes (docs/PERFORMANCE.md)
	@cargo build --release --locked -p homelab-api
	@cargo build --locked -p bench-api
	@target/debug/bench-api

.PHONY: bench-sink
bench-sink: setup ## redpanda-sink against \copy and Redpanda Connect: one JSON line, about 20 minutes
	@tests/bench/sink/run.sh

.PHONY: setup-demo setup-check
setup-demo:
	@$(SETUP) demo
setup-check:
	@$(SETUP) check
