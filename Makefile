# `make up` runs the exchange, `make test` tests it. Everything that they need is installed here.
PYTHON ?= python3.11
VENV   := .venv
BIN    := $(VENV)/bin
DEMO   ?= --demo
PROTOS := $(wildcard proto/exchange/v1/*.proto)

.PHONY: up test bench lint types proto lock clean setup

up: setup
	$(BIN)/exchange up $(DEMO) $(ARGS)

setup: $(VENV)/.installed proto/exchange/v1/.generated

$(VENV)/.installed: requirements.lock pyproject.toml
	@echo "Installing the pinned dependencies into $(VENV) ..."
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

# The generated code lies beside its protos and is not kept in git.
proto/exchange/v1/.generated: $(PROTOS) $(VENV)/.installed
	rm -f proto/exchange/v1/*_pb2*.py*
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m grpc_tools.protoc -Iproto \
		--python_out=proto --mypy_out=quiet:proto --grpc_python_out=proto --mypy_grpc_out=quiet:proto $(PROTOS:proto/%=%)
	touch $@

proto: setup

lint: setup
	$(BIN)/buf lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup
	$(BIN)/mypy

test: lint types
	$(BIN)/pytest $(ARGS)

bench: setup
	$(BIN)/python -m bench $(ARGS)
