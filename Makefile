# Every target starts from `make setup`: a fresh clone needs Python 3.11 and make, nothing else.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
AGENT := .venv-agent
export PYTHONUNBUFFERED := 1

.PHONY: help setup postgres demo test test-thorough test-neighbours test-promises test-faults lint coverage bench clean

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.done $(AGENT)/.done postgres  ## create .venv (project) and .venv-agent (Datadog's test agent)

# uv comes from pip, into the environment itself. Pins are name==version lines: see .ci/constraints.txt.
$(VENV)/.done: setup.cfg pyproject.toml .ci/constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) not found: install Python 3.11, or run make PYTHON=/path/to/python3.11" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint .ci/constraints.txt uv
	@echo "installing the project and its pinned dependencies into $(VENV) ..."
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint .ci/constraints.txt --editable '.[dev]'
	@touch $@

# The test agent pins opentelemetry-proto<1.37 and so lives apart.
$(AGENT)/.done: $(VENV)/.done .ci/constraints-agent.txt
	@$(BIN)/uv venv --quiet --clear --python $(PYTHON) $(AGENT)
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(AGENT)/bin/python --requirement .ci/constraints-agent.txt
	@touch $@

# The tests start a server of their own; without its programs those of a shared ledger are skipped. RUNLEVEL keeps
# Debian from starting one of the system's.
postgres:
	@command -v initdb >/dev/null || ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || { \
	  test "$$(id -u)" = 0 && command -v apt-get >/dev/null && echo "installing PostgreSQL's server, for the tests ..." && \
	  apt-get update -qq && RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends postgresql >/dev/null; \
	} || echo "no PostgreSQL server here (package postgresql): tests of a shared ledger will be skipped"

demo: setup  ## train and score a real model on a real Airflow; SERVE=1 leaves it running
	@$(BIN)/python -m tests.live.demo $(if $(SERVE),--serve)

test: setup  ## all tests, a real Airflow included
	@$(BIN)/python -m tests.run

test-thorough: setup  ## what takes long to prove: commands with and without batchobs run, years of schedules, 100,000 lines
	@$(BIN)/python -m tests.run thorough

test-neighbours: setup  ## Airflow's own examples with and without the plugin, side by side
	@$(BIN)/python -m pytest tests/neighbours

test-promises: setup  ## models that break their promises, on a real Airflow
	@$(BIN)/python -m pytest tests/promises

test-faults: setup  ## kill and hinder what runs, on a real Airflow; writes docs/table-of-deaths.md
	@$(BIN)/python -m pytest tests/faults

lint: setup  ## format, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: setup  ## what observing costs, on a real Airflow; writes docs/benchmarks.md
	@$(BIN)/python -m tests.live.bench

clean:  ## remove what setup made
	rm -rf $(VENV) $(AGENT)
