# `make up` runs the exchange, `make test` tests it. Everything that they need is installed here.
# The first one that runs and is new enough; a name on the PATH may be a shim of nothing.
PYTHON ?= $(shell for name in python3.11 python3 python3.12 python3.13; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$name && break; done)
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   ?= --demo
PROTOS := $(wildcard proto/exchange/v1/*.proto)

.PHONY: up test bench failover chaos lint types lock clean setup chromium core

up: setup
	@exec $(BIN)/exchange up $(DEMO) $(ARGS)

setup: $(VENV)/.installed proto/exchange/v1/.generated core

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "Installing the pinned dependencies into $(VENV) (once, a minute or two) ..."
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; name one with PYTHON=..."; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# The generated code lies beside its protos and is not kept in git.
proto/exchange/v1/.generated: $(PROTOS) $(VENV)/.installed
	@echo "Generating code from the protos ..."
	@rm -f proto/exchange/v1/*_pb2*.py*
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto \
		--python_out=proto --mypy_out=quiet:proto --grpc_python_out=proto --mypy_grpc_out=quiet:proto $(PROTOS:proto/%=%)
	@touch $@

# Compiled beside its sources, if they are others than the last time; without a C compiler they run as they are.
core: $(VENV)/.installed
	@$(BIN)/python build_core.py

lint: setup
	$(BIN)/buf lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

# The tests of the page need a browser; nothing else does.
chromium:
	@if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		echo "Installing Debian's chromium for the tests of the page ..."; \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
			chromium chromium-driver fonts-liberation </dev/null >/dev/null; \
	else echo "Missing for the tests of the page: apt-get install chromium chromium-driver"; exit 1; fi

# The core's own tests run twice: compiled, and as the sources that run where there is no C compiler.
test: lint types chromium
	$(BIN)/pytest $(ARGS)
	$(if $(ARGS),,$(BIN)/python -X pure_core -m pytest -q tests/unit/common/core tests/property)

bench: setup
	@$(BIN)/python -m bench $(ARGS)

# How long it takes until a standby works when the leader of each kind is killed, this often.
KILLS ?= 50
failover: setup
	@$(BIN)/python -m bench.failover --kills $(KILLS) $(ARGS)

# Everything is killed, cut, frozen and wiped under live load; writes tests/chaos/REPORT.md. The same SEED, the same faults.
MINUTES ?= 60
chaos: setup
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED)) --report tests/chaos $(ARGS)

# Every dependency for every platform, with hashes; versions stay unless ARGS=--upgrade. What stands from
# the comment in the lock file on is not resolved: it is wanted without its own dependencies.
UNRESOLVED := /^\# The page draws/,$$
lock: setup
	$(BIN)/pip install --quiet --disable-pip-version-check uv
	sed '$(UNRESOLVED)d' requirements.lock >requirements.lock.new
	$(BIN)/uv pip compile --quiet --universal --generate-hashes --no-header --no-annotate --python-version 3.11 \
		--no-emit-index-url --extra dev $(ARGS) --output-file requirements.lock.new pyproject.toml
	{ echo "# Made by 'make lock' from pyproject.toml; complete, so it is installed with --no-deps."; \
		cat requirements.lock.new; sed -n '$(UNRESOLVED)p' requirements.lock; } >requirements.lock.newer
	mv requirements.lock.newer requirements.lock
	rm requirements.lock.new

clean:
	rm -rf $(VENV) common/core/.compiled deploy/kafka/libs proto/exchange/v1/.generated proto/exchange/v1/*_pb2*.py*
