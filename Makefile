# Two commands on a fresh machine with Python 3.11: `make demo` and `make test`; while working, `make check`.
# Each makes .venv and installs the tested versions; a second call installs nothing.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
KILLS ?= 20
# Test processes side by side; Ray's tests stay in one of them (tests/conftest.py), which mostly waits: hence one more
# than there are cores.
JOBS ?= $(shell expr $$(nproc) + 1)
# Processes that tests start read the bytecode that others have written, whatever the environment says.
export PYTHONDONTWRITEBYTECODE :=
PYTEST := $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadscope --no-loadscope-reorder

FAST_TESTS := tests/test_floors.py tests/catalog/*.py tests/catalog/store/test_modal.py tests/heads/blocks tests/heads/metrics \
  tests/heads/data tests/heads/evaluation tests/pipeline/test_ledger.py tests/pipeline/test_plan.py \
  tests/pipeline/test_write.py tests/pipeline/executors/test_suspects.py tests/jobs/cli

.PHONY: demo demo-dense test tests check fast-tests test-slow kill-test lint format bench clean

demo: .venv/installed
	$(BIN)/avel demo

demo-dense: .venv/installed
	$(BIN)/avel demo --dense

test: .venv/installed
	$(MAKE) --no-print-directory --jobs 2 lint tests

tests: .venv/installed
	$(PYTEST)

# For the inner loop: what fails most often, in little more than a minute.
check: .venv/installed
	$(MAKE) --no-print-directory --jobs 2 lint fast-tests

fast-tests: .venv/installed
	$(PYTEST) --exitfirst $(FAST_TESTS)

test-slow: .venv/installed
	$(PYTEST) -m slow

kill-test: .venv/installed
	$(BIN)/python -m pytest tests/pipeline/executors/test_kills.py --kills $(KILLS) -s

lint: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: .venv/installed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed
	$(BIN)/avel bench

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "avel needs Python 3.11 or newer, got " + sys.version + "; run: make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf .venv avel-demo avel-demo-dense *.egg-info .mypy_cache .ruff_cache .pytest_cache
