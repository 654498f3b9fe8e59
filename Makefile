# One command each, the same here and in CI. Every target makes what it needs
# in .venv and says what it does.

PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYPROJECTS := pyproject.toml client/pyproject.toml
PROTOC := $(BIN)/python -m grpc_tools.protoc -Iproto --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc
CARGO := $(shell command -v cargo)
GET_CARGO := Rust 1.88 or newer, with cargo, is not here: get it by rustup (rustup.rs), or on Debian 12 by apt-get install rustc-web cargo-web
CRATE := native/Cargo.toml
PEERS := $(patsubst bench/peers/requirements/%.txt,%,$(wildcard bench/peers/requirements/*.txt))

.DEFAULT_GOAL := help
.PHONY: docs help serve native test train lint lint-python lint-native audit format proto crates pin-crates test-native bench bench-peers fuzz pictures picture clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

serve: .venv/.serve ## serve the bundled model: gRPC on 8001, metrics on 8002 (flags: ARGS="--grpc-port 9001")
	@exec $(BIN)/python -m server $(ARGS)

native: .venv/.native ## build the native transport and install it: needs Rust, a minute or two

# A worker for each processor, up to four: each has torch and a server, and takes whole files, whose
# fixtures are made once. The long files come first (tests/conftest.py): xdist's own order is by count.
# With cargo here, the extension is built first, for both transports to be tested.
test: .venv/.develop .venv-manifests/.done .venv-tritonclient/.done $(if $(CARGO),.venv/.native test-native) ## run all tests (flags: ARGS="-k codec"; in one process: ARGS="-n 0")
	@$(if $(CARGO),:,echo "Not tested: native/. $(GET_CARGO)" >&2)
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-native: pin-crates
	cargo test --quiet --locked --no-default-features --manifest-path $(CRATE)

train: .venv/.train ## train on MNIST, export, compare, publish to models/ (flags: ARGS="--epochs 3")
	@exec $(BIN)/python -m training $(ARGS)

lint: lint-python lint-native ## check style, types and the .proto

lint-python: .venv/.develop
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint

# Debian's packages of Rust have neither rustfmt nor clippy.
lint-native: pin-crates
ifdef CARGO
	@if cargo fmt --version >/dev/null 2>&1; then cargo fmt --check --manifest-path $(CRATE); \
	else echo "Not checked: the format of native/. This Rust has no rustfmt" >&2; fi
	@if cargo clippy --version >/dev/null 2>&1; then \
		cargo clippy --quiet --locked --all-targets --manifest-path $(CRATE) -- -D warnings; \
	else echo "Not checked: native/ by clippy. This Rust has none" >&2; fi
else
	@echo "Not checked: native/. $(GET_CARGO)" >&2
endif

audit: .venv/.develop ## look for known vulnerabilities of the dependencies
	$(BIN)/python .ci/audit.py

format: .venv/.develop ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(if $(CARGO),-cargo fmt --manifest-path $(CRATE))

proto: .venv/.develop ## generate the Python code of proto/: the contract's for the client's distribution
	$(PROTOC) --python_out=client --pyi_out=client --grpc_python_out=client \
		--mypy_grpc_out=quiet:client forward/v1/forward.proto
	$(PROTOC) --python_out=proto --pyi_out=proto --grpc_python_out=proto \
		--mypy_grpc_out=quiet:proto inference/open_inference.proto

crates: | .venv/bin/python ## list the native transport's crates anew, after a change of Cargo.toml (all the newest: ARGS=--newest)
	$(BIN)/python native/crates.py write $(ARGS)

# Once before all that uses the lock: at the same time they would write it over each other.
pin-crates: | .venv/bin/python
	@$(if $(CARGO),$(BIN)/python native/crates.py pin,:)

bench: .venv/.develop ## measure the server beside what limits it; minutes (longer: ARGS=overload, soak, reload, drain, proxy or floods)
	$(BIN)/python -m bench $(ARGS)

bench-peers: .venv/.develop $(PEERS:%=.venv-peers/%/.done) ## measure it beside other servers; minutes (flags: ARGS="--only mosec")
	$(BIN)/python -m bench.peers $(ARGS)

fuzz: .venv/.develop ## throw random and mutated bytes at a server (flags: ARGS="--inputs 1000000", ARGS=--differential)
	$(BIN)/python -m tests.fuzz $(ARGS)

pictures: .venv/.develop ## measure which forms of pictures the client reads; half an hour; writes docs/guides/pictures.md (flags: ARGS="--count 100")
	$(BIN)/python -m bench.pictures $(ARGS)

docs: .venv/.develop ## generate the reference (settings, API, Python client) and the dashboards
	$(BIN)/python -m docs.settings
	$(BIN)/python -m docs.api
	$(BIN)/python -m docs.python_client
	$(BIN)/python -m docs.dashboards
	$(BIN)/python -m docs.prometheus_rules

picture: .venv/.develop ## draw the README's pictures
	$(BIN)/python -m docs.picture

clean: ## remove .venv, .venv-*, caches and what Rust built
	rm -rf native/target .venv .venv-manifests .venv-peers .venv-tritonclient .mypy_cache .pytest_cache .ruff_cache .hypothesis

.venv/bin/python:
	@echo "Creating .venv with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv .venv

.venv/.serve: $(PYPROJECTS) constraints.txt | .venv/bin/python
	@echo "Installing what serving needs (no torch)"
	@$(PIP_INSTALL) --editable './client[cli]' --editable .
	@touch $@

.venv/.train: $(PYPROJECTS) constraints.txt | .venv/bin/python
	@echo "Installing what training needs (torch: some gigabytes)"
	@$(PIP_INSTALL) --editable './client[cli]' --editable '.[train]'
	@touch $@ .venv/.serve

.venv/.develop: $(PYPROJECTS) constraints.txt | .venv/bin/python
	@echo "Installing what development needs (torch: some gigabytes)"
	@$(PIP_INSTALL) --editable './client[cli]' --editable '.[train,otel,ray,tensorboard,dev]'
	@touch $@ .venv/.train .venv/.serve

.venv/.native: $(shell find native/src -name '*.rs') $(addprefix native/,Cargo.toml crates.txt pyproject.toml backend.py crates.py) | pin-crates
ifndef CARGO
	@echo "$(GET_CARGO)" >&2; exit 1
endif
	@echo "Building the native transport (Rust: a minute or two)"
	@$(PIP_INSTALL) ./native
	@touch $@

.venv-peers/%/.done: bench/peers/requirements/%.txt
	@echo "Installing $* in an environment of its own"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# It wants another protobuf than the server, and its messages have the names of the server's.
.venv-tritonclient/.done: tests/requirements/tritonclient.txt
	@echo "Installing tritonclient, which tests call the server with, in an environment of its own"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# The schemas that the manifests of deploy/ are compared with. Without
# their dependencies: KServe's package is read, not imported.
.venv-manifests/.done: tests/requirements/manifests.txt
	@echo "Installing the schemas of Kubernetes' manifests in an environment of their own"
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	@touch $@
