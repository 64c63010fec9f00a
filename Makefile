# `make demo`, `make check` while you work, `make test` before you push. Each sets up .venv when it is missing or out of
# date.
#   make demo PYTHON=python3.12     another interpreter (3.10 to 3.12)
#   make test ARGS="-k santa"       arguments for pytest
#   make fuzz FILES=20000           as many mutated files through the decoders; goes on where it stopped, in .fuzz
#   make test JOBS=4                tests in 4 processes at once (0: in pytest's own, as --pdb wants it)

PYTHON      ?= python3
VENV        ?= .venv
VENV_LATEST ?= .venv-latest
ARGS        ?=
FILES       ?= 1000000
JOBS        ?= 2
BIN          = $(VENV)/bin
STAMP        = $(VENV)/.installed
STAMP_LATEST = $(VENV_LATEST)/.installed
# note: pip compiles on one core; a module that nobody compiled is compiled by every process that may not write it.
PIP_FLAGS    = --quiet --disable-pip-version-check --no-compile
# A few files of packages are templates that no Python takes, so its exit code says nothing.
COMPILE      = -m compileall -q -j 0
unexport PYTHONDONTWRITEBYTECODE
# A file's tests, and what they share, stay in one process; in the order of collection the long files come first.
PYTEST       = -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=10
# Ray counts its usage unless told not to; these runs are nobody's business.
export RAY_USAGE_STATS_ENABLED = 0

# `make demo PYTHON=python3.12` means that interpreter, also where an environment of another one is there already.
ifeq ($(origin PYTHON),command line)
OTHER_PYTHON = $(shell test ! -x $(BIN)/python || test "`$(BIN)/python -V 2>&1`" = "`$(PYTHON) -V 2>&1`" || echo new-python)
endif

.DEFAULT_GOAL := help
.PHONY: help demo lint check test docs map test-latest test-all test-stores fuzz check-tools clean new-python

help:
	@echo "make demo         write a small archive, caption it, leave demo/report.html, and say how to open it in a browser"
	@echo "make check        lint, types, and the tests that start neither Ray nor another process; two minutes"
	@echo "make test         lint, types and tests"
	@echo "make test-latest  the tests on the newest transformers, numpy and pyarrow, without msclap"
	@echo "make test-all     test, and the long tests as well (chaos, many nodes)"
	@echo "make test-stores  the tests of object stores, against moto and, where it is installed, OpenStack Swift"
	@echo "make fuzz         a million mutated files through the decoders; goes on where it stopped"
	@echo "make lint         lint and types only"
	@echo "make docs         the documents and the API as pages, in site/; tables of columns and codes out of the code"
	@echo "make map          the figures of the code: modules a room, circles, what one reads to change a command"
	@echo "make clean        remove what these commands made, environments included"

demo: $(STAMP)
	$(BIN)/mats demo

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

check: lint
	$(BIN)/python $(PYTEST) -m "not long and not processes" $(ARGS)

test: lint
	$(BIN)/python $(PYTEST) $(ARGS)

test-all: lint
	$(BIN)/python $(PYTEST) -m "" $(ARGS)

test-stores: $(STAMP)
	@$(BIN)/python -c "from tests.swift_server import missing; print(missing() or 'Swift is installed: testing it too')"
	$(BIN)/python $(PYTEST) -m "store and not long" $(ARGS)

fuzz: $(STAMP)
	$(BIN)/python -m tests.fuzz --files $(FILES)

docs: $(STAMP)
	$(BIN)/python docs/build.py tables
	$(BIN)/python docs/build.py site

map: $(STAMP)
	$(BIN)/python -m tests.house --trace

test-latest: $(STAMP_LATEST)
	$(VENV_LATEST)/bin/python $(PYTEST) $(ARGS)

# Say what is missing, and what to do, before pip says something else.
check-tools:
	@command -v git >/dev/null 2>&1 || { \
	  echo "git was not found. Install it (Debian, Ubuntu: sudo apt install git) and run make again." >&2; exit 1; }
	@command -v $(PYTHON) >/dev/null 2>&1 || { \
	  echo "$(PYTHON) was not found. Install Python 3.10, 3.11 or 3.12, or name one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 12))' || { \
	  echo "$(PYTHON) is `$(PYTHON) -V 2>&1`, but MATS needs Python 3.10, 3.11 or 3.12." >&2; \
	  echo "Name another one: make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
	  echo "$(PYTHON) cannot make environments: its modules venv and ensurepip are missing." >&2; \
	  echo "Install them (Debian, Ubuntu: sudo apt install python3-venv) and run make again." >&2; exit 1; }

# The stamp is written last, so that an installation that broke off is taken up again.
$(STAMP): pyproject.toml constraints.txt $(OTHER_PYTHON) | check-tools
	@test -z "$(OTHER_PYTHON)" && $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo "Installing the tested versions into $(VENV) (once; a few minutes)"
	@$(BIN)/python -m pip install $(PIP_FLAGS) -c constraints.txt -e ".[dev,msclap]" || { \
	  echo "The installation failed; see pip's message above. It needs a package index and about 3 GB of disk." >&2; exit 1; }
	@$(BIN)/python $(COMPILE) $(VENV)/lib >/dev/null 2>&1 || true
	@touch $@

$(STAMP_LATEST): pyproject.toml | check-tools
	@$(VENV_LATEST)/bin/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV_LATEST)
	@echo "Installing the newest versions into $(VENV_LATEST) (once; a few minutes)"
	@$(VENV_LATEST)/bin/python -m pip install $(PIP_FLAGS) --upgrade --upgrade-strategy eager -e ".[dev]" || { \
	  echo "The installation failed; see pip's message above. It needs a package index and about 3 GB of disk." >&2; exit 1; }
	@$(VENV_LATEST)/bin/python $(COMPILE) $(VENV_LATEST)/lib >/dev/null 2>&1 || true
	@touch $@

clean:
	rm -rf $(VENV) $(VENV_LATEST) demo site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find mats_core pipelines jobs tests -name __pycache__ -type d -prune -exec rm -rf {} +
