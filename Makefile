# One file for people and for CI: every command makes its own .venv first. `make help` lists them.

VENV    := .venv
BIN     := $(VENV)/bin
STAMP   := $(VENV)/.installed
TORCH   := $(shell sed -n 's/^torch==//p' constraints.txt)
# The first Python >= 3.11 found; override with `make PYTHON=/path/to/python venv`.
PYTHON  ?= $(firstword $(foreach p,python3.11 python3.12 python3.13 python3 python,$(shell \
             $(p) -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $(p))))
WORKERS ?= 2
ARGS    ?=
# Empty: a CPU build of torch from pip's own indexes if they have one, else from download.pytorch.org.
TORCH_INDEX ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1

PYTEST  := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS)

.DEFAULT_GOAL := help
.PHONY: help venv lint format test test-all demo tables bench clean

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  TORCH_INDEX=URL      where torch comes from, if neither pip's own indexes nor"
	@echo "                       download.pytorch.org/whl/cpu can be reached or a GPU build is wanted"
	@echo "                       (e.g. https://download.pytorch.org/whl/cu130; pypi = pip's choice, several GB)"
	@echo "  PYTHON=python3.12    the interpreter of .venv, 3.11 or newer"
	@echo "  WORKERS=2            test processes (one thread each)"
	@echo "  ARGS='-k fgsm'       more arguments for pytest, the demo or the benchmarks"

venv: $(STAMP) ## make .venv and install the exact versions of constraints.txt (about 2 GB on disk, CPU only)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python 3.11 or newer with the venv module was found: install one (Debian: apt-get install python3-venv) or give PYTHON=..." >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import torch, sys; sys.exit(torch.__version__.split("+")[0] != "$(TORCH)")' 2>/dev/null || $(MAKE) --no-print-directory torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# Alone and first: what is installed satisfies the rest, so no resolver reaches for the CUDA packages.
.PHONY: torch
torch:
ifeq ($(TORCH_INDEX),pypi)
	$(BIN)/python -m pip install --quiet torch==$(TORCH)
else ifneq ($(TORCH_INDEX),)
	$(BIN)/python -m pip install --quiet --index-url $(TORCH_INDEX) torch==$(TORCH)
else ifeq ($(shell uname -s),Linux)
	@echo "installing torch $(TORCH), CPU build"
	@$(BIN)/python -m pip install --quiet --no-deps torch==$(TORCH)+cpu 2>/dev/null \
	|| $(BIN)/python -m pip install --quiet --no-deps --index-url https://download.pytorch.org/whl/cpu torch==$(TORCH) \
	|| { echo "no CPU build of torch $(TORCH) can be reached: give TORCH_INDEX=URL, or TORCH_INDEX=pypi (several GB of CUDA)" >&2; exit 2; }
else
	$(BIN)/python -m pip install --quiet torch==$(TORCH)
endif

lint: $(STAMP) ## ruff (rules and format) and mypy --strict
	@failed=0; for check in "ruff check ." "ruff format --check ." mypy; do \
	  echo "$$check"; $(BIN)/$$check || failed=1; done; exit $$failed

format: $(STAMP) ## let ruff put imports and layout right
	$(BIN)/ruff check --fix --quiet . || true
	$(BIN)/ruff format .

# Lint and tests both run to the end, so that one run tells everything; either failing fails the target.
test: $(STAMP) ## lint, then every test that is not marked `full`
	@failed=0; $(MAKE) --no-print-directory lint || failed=1; $(PYTEST) -m "not full" $(ARGS) || failed=1; exit $$failed

test-all: $(STAMP) ## the same with the tests marked `full` and more random cases
	@failed=0; $(MAKE) --no-print-directory lint || failed=1; HYPOTHESIS_PROFILE=full $(PYTEST) $(ARGS) || failed=1; exit $$failed

demo: $(STAMP) ## train two small networks on digits, audit both, print where the reports are
	$(BIN)/python -m steepest.app.demo $(ARGS)

tables: $(STAMP) ## write docs/catalogue.md from the catalogues
	$(BIN)/python docs/make_tables.py

bench: $(STAMP) ## the speed ratios of benchmarks/
	$(BIN)/python -m benchmarks $(ARGS)

clean: ## remove .venv and everything that was generated
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist docs/_build demo-runs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
