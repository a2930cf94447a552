# Everything here sets up what it needs, on a machine that has rustup, a C compiler and make.

TARGET := wasm32-wasip2
CARGO := cargo

FUZZ_SECONDS ?= 300
FUZZ_TARGETS := range_check job signature range_request

.PHONY: help demo test soak fuzz build bench lint toolchain

help: ## What can be made
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /	/' | expand -t 12

toolchain:
	@rustup show active-toolchain >/dev/null 2>&1 || rustup toolchain install
	@rustup target add $(TARGET) 2>/dev/null

demo: toolchain ## See it work, offline, and what it costs
	$(CARGO) run --release --locked --package orchestrator -- demo

test: toolchain ## Every test
	$(CARGO) test --release --locked --workspace

soak: toolchain ## The long tests: faults for five seeds, peers that are not there, and how long a prefix takes from far away
	$(CARGO) test --release --locked --package orchestrator --test end_to_end -- --ignored --nocapture

fuzz: toolchain ## Every fuzz target for FUZZ_SECONDS (needs cargo-fuzz)
	@for target in $(FUZZ_TARGETS); do \
		(cd tests/fuzz && $(CARGO) fuzz run --fuzz-dir . --sanitizer none $$target -- \
			-max_total_time=$(FUZZ_SECONDS) -max_len=4096 -print_final_stats=1) || exit 1; \
	done

build: toolchain ## The orchestrator, with the component in it: target/release/orchestrator
	$(CARGO) build --release --locked --package orchestrator

bench: build ## Speed and memory beside curl and tar, as ratios (needs nginx, curl, tar, GNU time, bc)
	bench/run target/release/orchestrator

lint: toolchain ## Format, lints, documentation and dependencies
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked --workspace --all-targets -- -D warnings
	$(CARGO) clippy --locked --package prefix-tar --lib --profile component --target $(TARGET) -- -D warnings
	$(CARGO) check --locked --manifest-path tests/fuzz/Cargo.toml --lib --bins --target-dir target/fuzz
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked --workspace --no-deps --document-private-items
	$(CARGO) deny --workspace --locked check bans licenses sources
	@echo "the component must not depend on tokio"
	@! $(CARGO) tree --locked --package prefix-tar --target $(TARGET) --edges normal --prefix none | grep -q '^tokio '
