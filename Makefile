# `make bench` and `make test` do everything on a fresh machine with Python 3.11 or newer.
#   make bench ARGS="--models mlp --sizes tiny"   passes options on; `make help` lists them

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
SETUP := $(VENV)/.up-to-date

.PHONY: bench test check setup help clean

# pytest's exit status is kept: a case that failed fails `make bench`, but the run that was saved is reported all the same.
bench: setup
	@touch $(VENV)/.bench-began
	@$(RUN) pytest --benchmark $(ARGS); status=$$?; \
	run=$$(find results -name '[0-9]*_*.json' -newer $(VENV)/.bench-began | tail -n 1); \
	if [ -n "$$run" ]; then $(RUN) analysis report "$$run" || exit; fi; exit $$status

test: check
	$(RUN) pytest -n logical $(ARGS)

check: setup
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

setup: $(SETUP)

$(SETUP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "gradtax needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(RUN) pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

help: setup
	@$(RUN) pytest --help | sed -n '/^gradtax/,/^$$/p'

clean:
	rm -rf $(VENV) *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
