# make demo, make test: each sets everything up on a bare machine; quick the second time.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint quick lock bench slurm slurm-down hooks data-version test-dvc clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z.-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP)  ## make .venv with the pinned packages

$(STAMP): requirements.lock tools/venv.sh
	@PYTHON=$(PYTHON) bash tools/venv.sh $(VENV)
	@touch $@

demo: venv  ## a small sweep of the bundled data: results, heat map, next commands
	@$(BIN)/python slurm/SlurmTrain.py

test: venv lint  ## all tests (about 20 minutes on 2 cores)
	@bash tools/slurm.sh
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint: venv  ## ruff and mypy
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

quick: venv  ## the tests that take no training
	@$(BIN)/python -m pytest -m "not slow"

bench: venv  ## measure; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks

.venv-dvc:  ## make DVC's own environment (about a minute)
	@$(PYTHON) -m venv .venv-dvc && .venv-dvc/bin/pip install --quiet --disable-pip-version-check -r tools/dvc.lock

data-version: .venv-dvc  ## version DATA=data/cola with DVC and push it (REMOTE=..., ENDPOINT=...)
	@bash tools/data_version.sh $(DATA) $(REMOTE) $(ENDPOINT)

test-dvc: venv .venv-dvc  ## the tests that run DVC for real
	@$(BIN)/python -m pytest tests/data/test_dvc.py

slurm: venv  ## leave a Slurm of four nodes up to play with (root on Debian)
	@$(BIN)/python -m tests.slurm up

slurm-down: venv  ## end it
	@$(BIN)/python -m tests.slurm down

hooks:  ## refuse commits that hold a key
	@git config core.hooksPath tools/hooks && echo "commits are looked through for keys"

lock: venv  ## resolve pyproject.toml anew into requirements.lock
	@bash tools/lock.sh $(BIN)/python

clean:  ## remove the virtual environment and caches; runs/ and data/ stay
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
