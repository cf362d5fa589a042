# VENV: where an environment is made. PYTHON: with which interpreter. ARGS: for pytest.
PYTHON ?= python3
demo: VENV ?= .venv-demo
test torture mutants soak lint bench: VENV ?= .venv-test
PIP = $(VENV)/bin/python -m pip --disable-pip-version-check
ARGS ?= -q -n auto --dist loadfile
PEERS ?=
SOAK ?=
.PHONY: help demo test torture mutants soak lint bench

help:
	@echo "make demo   a small training run, logged and read back (in .venv-demo)"
	@echo "make test   install and run all tests (in .venv-test)"
	@echo "make torture what kills and cuts at random, a hundred times as much"
	@echo "make mutants takes out each sync and check in turn: some test must fail"
	@echo "make soak   64 writers, kills of everything, a disk that fills: 20 minutes"
	@echo "make lint   formatting, lint and types (in .venv-test)"
	@echo "make bench  the benchmarks, beside peers in environments of their own"

demo:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet . "scikit-learn>=1.6"
	$(VENV)/bin/python examples/digits.py

# Dependency groups need pip 25.1.
test:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet --group test --editable .
	$(VENV)/bin/python -m pytest $(ARGS)

# Simulated disks and real kills. For instance: FLIGHTLOG_EFFORT=1000 make torture
# What was tried is told at the end, and written where FLIGHTLOG_COUNTS says, as JSON.
torture: export FLIGHTLOG_EFFORT ?= 100
torture:
	$(MAKE) test ARGS="-q -n auto tests/simulation tests/system/test_exactly_once.py \
		tests/system/test_kills.py tests/system/test_gc.py tests/system/test_output_kills.py \
		tests/system/test_recorded_writes.py \
		tests/system/test_kill_sweep.py tests/system/test_error_sweep.py \
		tests/storage/test_spool.py --timeout 0"

# Some minutes. For instance: make mutants MODULES="eventlog parts"
mutants:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet --group test --editable .
	$(VENV)/bin/python -m tests.mutations $(MODULES)

# For instance: make soak SOAK="--minutes 600 --seed 7"
soak:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet --group test --editable .
	$(VENV)/bin/python benchmarks/soak.py $(SOAK)

lint:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet --group dev --editable .
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

# For instance: make bench PEERS="--peers-dir /var/tmp/peers"
bench:
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade "pip>=25.1"
	$(PIP) install --quiet --group test --editable .
	$(VENV)/bin/python benchmarks/log_call.py $(PEERS)
	$(VENV)/bin/python benchmarks/log_call.py --kill $(PEERS)
	$(VENV)/bin/python benchmarks/throughput.py
	$(VENV)/bin/python benchmarks/history_read.py
	$(VENV)/bin/python benchmarks/history_sample.py
	$(VENV)/bin/python benchmarks/runs_query.py
	$(VENV)/bin/python benchmarks/read_peers.py $(PEERS)
	$(VENV)/bin/python benchmarks/log_image.py
	$(VENV)/bin/python benchmarks/asset_calls.py $(PEERS)
	$(VENV)/bin/python benchmarks/archive.py
	$(VENV)/bin/python benchmarks/compression.py
	$(VENV)/bin/python benchmarks/quiet_watch.py
	$(VENV)/bin/python benchmarks/system_metrics.py
	$(VENV)/bin/python benchmarks/memory.py
	$(VENV)/bin/python benchmarks/behind.py
	$(VENV)/bin/python benchmarks/latency.py
	$(VENV)/bin/python benchmarks/growth.py
