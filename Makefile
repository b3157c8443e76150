# make quickstart   the whole pipeline on a laptop: simulate, pretrain, regress, step in time, report
# make test         the test-suite
# make test-oldest  the parts that lean most on other packages, with the oldest versions pyproject.toml allows
# make lint         style and formatting (ruff), types (mypy)
#
# Only Python >= 3.11 and make are needed. Another interpreter: make test PYTHON=python3.12.
# Another place for the environment: make test VENV=/tmp/venv. A part of the tests: make test ARGS="tests/cli -x"; in one
# process: WORKERS=0.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
WORKERS ?= 2
OLDEST ?= .venv-oldest

.PHONY: help install quickstart test test-oldest lint clean
.DEFAULT_GOAL := help

help:
	@sed -n 's/^# \{0,1\}//p' Makefile | sed -n '1,7p'

install: $(VENV)/.installed

CHECK = @$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "pdessl needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Try: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; \
	    exit 1; }
PIP = $(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# The stamp is written last, so that an interrupted installation starts over, and a finished one does nothing.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(CHECK)
	$(PYTHON) -m venv $(VENV)
	$(PIP) -e '.[test]'
	@touch $@

# What the quickstart needs, and no tools of developers. Python compiles what is imported; to compile all of it takes
# as long as a stage of the quickstart.
$(VENV)/.running: pyproject.toml constraints.txt
	$(CHECK)
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-compile -e .
	@touch $@

quickstart: $(if $(wildcard $(VENV)/.installed),$(VENV)/.installed,$(VENV)/.running)
	$(VENV)/bin/pdessl quickstart $(ARGS)

test: $(VENV)/.installed
	$(VENV)/bin/python -m pytest -n $(WORKERS) --dist loadfile $(ARGS)

# An environment of its own, several gigabytes: the oldest torch comes with CUDA. Another place: OLDEST=/tmp/oldest.
test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest $(or $(ARGS),tests/equations tests/symmetry tests/operators tests/models tests/data)

$(OLDEST)/.installed: pyproject.toml tests/oldest.py
	$(PYTHON) -m venv $(OLDEST)
	$(PYTHON) tests/oldest.py > $(OLDEST)/oldest.txt
	$(OLDEST)/bin/python -m pip install --quiet --disable-pip-version-check -c $(OLDEST)/oldest.txt -e '.[test]'
	@touch $@

lint: $(VENV)/.installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check --quiet .
	$(VENV)/bin/mypy

clean:
	rm -rf $(VENV) $(OLDEST) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
