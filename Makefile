# `make bench` and `make test` do everything on a fresh machine with Python 3.11 or newer.
#   make bench ARGS="--models mlp --sizes tiny"   passes options on; `make help` lists them

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
SETUP := $(VENV)/.up-to-date

.PHONY: bench share test tests test-all check readme setup help clean

bench: setup
	@$(RUN) pytest --benchmark $(ARGS)

# A small file of the latest run, without anything personal, for a pull request.
share: setup
	@$(RUN) analysis share $(ARGS)

# The checks run beside the tests, which often wait.
test: setup
	@$(MAKE) --no-print-directory --jobs=2 check tests

# With the few tests that take half a minute each: a compiler, a self-check and a run on other machines as they really are.
test-all: check
	$(RUN) pytest -n logical --dist worksteal $(ARGS)

tests: setup
	$(RUN) pytest -n logical --dist worksteal -m "not slow and not whole" $(ARGS)

check: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

# Fills in what README.md and docs/ quote; all of it comes from commands on results/reference/.
readme: setup
	$(RUN) docs.refresh

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gradtax needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	@$(RUN) compileall -q -j 0 -x '/tests/' $(VENV)/lib >/dev/null || true  # pip does it on one core, and tests of others too
	@touch $@

help: setup
	@$(RUN) pytest --help | sed -n '/^gradtax/,/^$$/p'

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
