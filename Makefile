# The daily commands. `make` alone lists them; each is a few lines over cargo and deploy/local/wired-local, which
# say themselves what is missing and what to do about it.

SHELL       := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS   += --no-print-directory

LOCAL := deploy/local/wired-local
# rustup and the tools of `make check` install here; a fresh shell may not have them on its path yet.
export PATH := $(CURDIR)/.local/tools/bin:$(PATH):$(HOME)/.cargo/bin

# Tests and benchmarks find the servers by these variables.
WITH_SERVERS = set -a; . ./.local/servers.env; set +a;

.PHONY: help
help: ## list these commands
	@awk -F':.*## ' '/^[a-z][a-z-]*:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## install what is missing and fetch Kafka and MySQL into .local/
	@$(LOCAL) setup

# One build of everything with one set of features: naming single packages would compile shared dependencies again for the next target.
.PHONY: build
build: setup ## compile all programs (release)
	cargo build --release --workspace --bins

.PHONY: up
up: build ## start Kafka, MySQL and the four services
	@$(LOCAL) start

.PHONY: demo
demo: up ## start everything, post a signed payment, receive its signed webhook
	@$(LOCAL) demo

.PHONY: down
down: ## stop everything; data stay
	@$(LOCAL) stop

.PHONY: clean
clean: ## stop everything and remove .local/ (all data!)
	@$(LOCAL) clean

.PHONY: status
status: ## what runs and where it listens
	@$(LOCAL) status

.PHONY: logs
logs: ## follow the logs; one of them: make logs NAME=processor
	@$(LOCAL) logs $(NAME)

.PHONY: fmt
fmt: ## format the code
	cargo fmt --all

.PHONY: doc
doc: ## build the API documentation of the crates
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

.PHONY: check
check: setup check-shell check-arrows check-deps ## format, lints, docs, dependencies, crate arrows, shell scripts
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps --workspace

.PHONY: check-shell
check-shell:
	@if $(LOCAL) tool shellcheck; then shellcheck -x -a .ci/run deploy/check-deps deploy/compose/certificates deploy/compose/prepare deploy/local/wired-local; fi

.PHONY: check-arrows
check-arrows:
	@deploy/check-arrows

.PHONY: check-deps
check-deps:
	@deploy/check-deps

.PHONY: servers
servers: setup
	@$(LOCAL) start-servers

# All targets first, so that tests which start the services find their programs, built with the same features.
.PHONY: test
test: servers ## run every test on real Kafka and MySQL
	@$(LOCAL) interop
	cargo build --workspace --all-targets
	$(WITH_SERVERS) cargo test --workspace --no-fail-fast

.PHONY: bench
bench: servers build ## measure, print a table, write .local/bench.json
	$(WITH_SERVERS) target/release/loadtest bench

.PHONY: verify
verify: build ## prove that the ledger is whole, also against its signed checkpoints
	@target/release/wired verify-ledger --checkpoints .local/checkpoints --public-key .local/keys/checkpoint.key.pub

.PHONY: load
load: up ## drive the running services with load and report
	@$(LOCAL) seed
	$(WITH_SERVERS) target/release/loadtest load
