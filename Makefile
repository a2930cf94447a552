# Every target sets up what it needs on a machine that has rustup, a C compiler and make.

TARGET := wasm32-wasip2
CARGO := cargo

FUZZ_SECONDS ?= 300
FUZZ := $(CARGO) fuzz
# Stable Rust has no sanitizers; libFuzzer's coverage and the assertions need none.
FUZZ_FLAGS := --fuzz-dir . --sanitizer none --target-dir $(CURDIR)/target/fuzz
FUZZ_TARGETS := range_check inflate job report signature range_request tar_check archive_json

# The seed of the faults in a short soak.
SOAK_SEED ?= 1

# The article's way, the native floor and the relay that delays, for `make bench` only.
ARTICLE := target/article/release

SCHEMAS := run-event component-event report manifest run-record measurements check-record status-record

# Every crate with its features, a line each.
FEATURES := $(CARGO) tree --locked --prefix none --format '{p} [{f}]'
SORTED := sed 's/ (\*)$$//; s/ (proc-macro)//' | sort -u

.PHONY: help demo test soak soak-short fuzz build dist schemas bench lint toolchain clients

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /	/' | expand -t 12

toolchain:
	@rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install
	@rustup target add $(TARGET) 2>/dev/null

demo: toolchain ## See it work, offline, and what it costs
	$(CARGO) run --release --locked --package orchestrator -- demo

test: toolchain ## Run every test
	$(CARGO) test --release --locked --workspace

clients: ## Install the clients that ask a rehosted archive in `make test` (needs node, npm, python3)
	@mkdir -p target/clients
	cp tests/clients/* target/clients
	cd target/clients && npm install --silent --no-audit --no-fund --no-package-lock
	python3 -m venv target/clients/python
	target/clients/python/bin/pip install --quiet --disable-pip-version-check -r tests/clients/requirements.txt

soak: toolchain ## Run the long tests: faults, kills, outages, silent peers, and prefixes from far away
	$(CARGO) test --release --locked --package orchestrator --test end_to_end -- --ignored --nocapture

soak-short: toolchain ## Run the faults of one seed, SOAK_SEED, in less than a minute
	SOAK_SEED=$(SOAK_SEED) $(CARGO) test --release --locked --package orchestrator --test end_to_end -- \
		--ignored --nocapture although_one_request_in_twenty_fails

fuzz: toolchain ## Run every fuzz target for FUZZ_SECONDS (needs cargo-fuzz)
	cd tests/fuzz && $(FUZZ) build $(FUZZ_FLAGS)
	@for target in $(FUZZ_TARGETS); do \
		(cd tests/fuzz && $(FUZZ) run $(FUZZ_FLAGS) $$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -print_final_stats=1) || exit 1; \
	done

build: toolchain ## Build target/release/orchestrator, with the component in it
	$(CARGO) build --release --locked --package orchestrator

dist: build ## Make a tarball with the program, the component, man pages and completions
	deploy/dist

schemas: build ## Write the JSON schemas of events, reports and the manifest to docs/schemas
	@mkdir -p docs/schemas
	@for schema in $(SCHEMAS); do \
		target/release/orchestrator schema $$schema > docs/schemas/$$schema.json || exit 1; \
	done

bench: build ## Measure speed and memory beside other ways, and write bench/README.md (needs nginx, wrk, curl, openssl, bc, python3)
	$(CARGO) build --release --locked --manifest-path bench/article/Cargo.toml --target-dir target/article
	bench/race target/release/orchestrator
	bench/cgroup target/release/orchestrator $(ARTICLE)/article $(ARTICLE)/floor
	bench/corpus target/release/orchestrator --page
	bench/first-request target/release/orchestrator --page
	bench/serve target/release/orchestrator --page

lint: toolchain ## Check format, lints, spelling, documentation and dependencies
	$(CARGO) fmt --all --check
	$(CARGO) fmt --manifest-path bench/article/Cargo.toml --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --package prefix-tar --lib --profile component --target $(TARGET) -- -D warnings
	$(CARGO) check --locked --manifest-path tests/fuzz/Cargo.toml --lib --bins --target-dir target/fuzz
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps --document-private-items
	$(CARGO) deny --workspace --locked check bans licenses sources
	typos
	@echo "one build must serve the program and the tests"
	@$(FEATURES) --package orchestrator --edges normal,build | $(SORTED) >target/features-program
	@$(FEATURES) --workspace --edges normal,build,dev | $(SORTED) >target/features-tests
	@awk 'NR == FNR {line[$$0]; crate[$$1 $$2]; next} \
		($$1 $$2) in crate && !($$0 in line) {print "more features for the tests: " $$0; differs = 1} \
		END {exit differs}' target/features-program target/features-tests
	@echo "the component must not depend on tokio"
	@! $(CARGO) tree --locked --package prefix-tar --target $(TARGET) --edges normal --prefix none | grep -q '^tokio '
