# `make bench` and `make test` need Python 3.11 or newer and nothing else.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
# Test workers: three more than there are processors, since tests wait for more than half of their time.
JOBS   ?= auto

.PHONY: bench test test-fast check soak matrix reference etcd-errors proto clean help

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

bench: $(VENV)/installed ## the main job: a three-member cluster, a distributed run, the table
	$(BIN)/raftload bench --operations 10000 --concurrency 20 --workers 2

test: $(VENV)/installed-dev ## all tests; without Docker or a browser theirs are skipped
	$(BIN)/python -m pytest -n $(JOBS) --durations=10

test-fast: $(VENV)/installed-dev ## what to run before each commit: unit and property tests, a short run of each command
	RAFTLOAD_TESTS=fast $(BIN)/python -m pytest -n $(JOBS) --durations=10 tests/smoke tests/unit tests/property

soak: $(VENV)/installed-dev ## what takes longer: fuzzing, chaos and known bugs, an hour each (RAFTLOAD_SOAK_S=60 for a minute each)
	$(BIN)/python -m pytest -m soak -o faulthandler_timeout=0

matrix: $(VENV)/installed-dev ## run everything on each release of etcd from 3.4 to 3.7, write docs/etcd-versions.md
	$(BIN)/python -m tests.matrix

check: $(VENV)/installed-dev ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

reference: $(VENV)/installed-dev ## write docs/cli.md from the commands' help, and what schemas have from the code
	$(BIN)/python docs/reference.py

etcd-errors: $(VENV)/installed-dev ## write etcd's own lists of its errors, of the releases in tests/etcds; needs Go
	$(BIN)/python -m tests.support.etcd_errors

proto: $(VENV)/installed-dev ## generate the messages from loadgen/proto/*.proto
	$(BIN)/python -m grpc_tools.protoc -I . --python_out=. --pyi_out=. loadgen/proto/*.proto

clean: ## remove what this Makefile made
	rm -rf $(VENV)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "raftload needs Python 3.11 or newer; set PYTHON=python3.x" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

# The package is installed anew when what the compiled core is made of changes.
SOURCES := pyproject.toml constraints.txt hatch_build.py loadgen/engine/core.pyx
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt

$(VENV)/installed: $(BIN)/python $(SOURCES)
	$(INSTALL) -e .
	@touch $@

# With what the tests need it is all that `installed` is, so the core is compiled once.
$(VENV)/installed-dev: $(BIN)/python $(SOURCES)
	$(INSTALL) -e '.[dev]'
	@touch $(VENV)/installed $@
