# One command each, the same here and in CI. Every target makes what it needs
# in .venv and says what it does.

PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
PYPROJECTS := pyproject.toml client/pyproject.toml
PROTOC := $(BIN)/python -m grpc_tools.protoc -Iproto --plugin=protoc-gen-mypy_grpc=$(BIN)/protoc-gen-mypy_grpc
PEERS := $(patsubst bench/peers/requirements/%.txt,%,$(wildcard bench/peers/requirements/*.txt))

.DEFAULT_GOAL := help
.PHONY: docs help serve test train lint audit format proto bench bench-peers fuzz pictures picture clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 20

serve: .venv/.serve ## serve the bundled model: gRPC on 8001, metrics on 8002 (flags: ARGS="--grpc-port 9001")
	@exec $(BIN)/python -m server $(ARGS)

# A worker for each processor, up to four: each has torch and a server, and takes whole files, whose
# fixtures are made once. The long files come first (tests/conftest.py): xdist's own order is by count.
test: .venv/.develop .venv-tritonclient/.done ## run all tests (flags: ARGS="-k codec"; in one process: ARGS="-n 0")
	$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

train: .venv/.train ## train on MNIST, export, compare, publish to models/ (flags: ARGS="--epochs 3")
	@exec $(BIN)/python -m training $(ARGS)

lint: .venv/.develop ## check style, types and the .proto
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	cd proto && ../$(BIN)/buf lint

audit: .venv/.develop ## look for known vulnerabilities of the dependencies
	$(BIN)/python .ci/audit.py

format: .venv/.develop ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: .venv/.develop ## generate the Python code of proto/: the contract's for the client's distribution
	$(PROTOC) --python_out=client --pyi_out=client --grpc_python_out=client \
		--mypy_grpc_out=quiet:client forward/v1/forward.proto
	$(PROTOC) --python_out=proto --pyi_out=proto --grpc_python_out=proto \
		--mypy_grpc_out=quiet:proto inference/open_inference.proto

bench: .venv/.develop ## measure the server beside what limits it (longer: ARGS=overload, soak, reload or drain)
	$(BIN)/python -m bench $(ARGS)

bench-peers: .venv/.develop $(PEERS:%=.venv-peers/%/.done) ## measure it beside other servers; minutes (flags: ARGS="--only mosec")
	$(BIN)/python -m bench.peers $(ARGS)

fuzz: .venv/.develop ## throw random and mutated bytes at a server (flags: ARGS="--inputs 1000000")
	$(BIN)/python -m tests.fuzz $(ARGS)

pictures: .venv/.develop ## measure which forms of pictures the client reads; half an hour; writes docs/guides/pictures.md (flags: ARGS="--count 100")
	$(BIN)/python -m bench.pictures $(ARGS)

docs: .venv/.develop ## generate the reference: settings, API, Python client
	$(BIN)/python -m docs.settings
	$(BIN)/python -m docs.api
	$(BIN)/python -m docs.python_client

picture: .venv/.develop ## draw the README's pictures
	$(BIN)/python -m docs.picture

clean: ## remove .venv, .venv-* and caches
	rm -rf .venv .venv-peers .venv-tritonclient .mypy_cache .pytest_cache .ruff_cache .hypothesis

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
	@$(PIP_INSTALL) --editable './client[cli]' --editable '.[train,tensorboard,dev]'
	@touch $@ .venv/.train .venv/.serve

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
