# make quickstart   the whole pipeline on a laptop: simulate, pretrain, regress, step in time, report
# make test         the test-suite
# make lint         style and formatting (ruff), types (mypy)
#
# Only Python >= 3.11 and make are needed. Another interpreter: make test PYTHON=python3.12.
# Another place for the environment: make test VENV=/tmp/venv. A part of the tests: make test ARGS="tests/cli -x".

PYTHON ?= python3
VENV ?= .venv
ARGS ?=

.PHONY: help install quickstart test lint clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,6p'

install: $(VENV)/.installed

# The stamp is written last, so that an interrupted installation starts over, and a finished one does nothing.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "pdessl needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	    exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

quickstart: $(VENV)/.installed
	$(VENV)/bin/pdessl quickstart $(ARGS)

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest $(ARGS)

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
