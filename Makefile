# make demo, make test: each sets everything up on a bare machine; quick the second time.
PYTHON ?= python3
CONDA_EXE ?= conda
VENV := .venv
BIN := $(VENV)/bin
LOCK ?= requirements.lock
STAMP := $(VENV)/.installed$(if $(HASHES),-hashes)$(filter-out requirements.lock,$(LOCK))

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint quick coverage shipped shipped-check lock bench chaos slurm slurm-down test-slurm hooks conda \
  .venv-dvc .venv-extras .venv-docs docs data-version test-dvc clean

help:  ## say what there is
	@awk -F ':.*## ' '/^[a-z.-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

venv: $(STAMP)  ## make .venv with the pinned packages (HASHES=1: each file checked against its hash)

$(STAMP): $(LOCK) $(if $(HASHES),requirements-hashes.lock) tools/venv.sh pyproject.toml
	@PYTHON=$(PYTHON) LOCK=$(LOCK) HASHES=$(HASHES) bash tools/venv.sh $(VENV)
	@touch $@ $(VENV)/.installed

demo: venv  ## a small sweep of the bundled data: results, heat map, next commands
	@$(BIN)/python slurm/SlurmTrain.py

test: venv .venv-dvc .venv-extras .venv-docs  ## the tests, in about 25 minutes on 2 cores (ALL=1: those of the project itself, too)
	@$(BIN)/python -m tests.shipped run $(MAKE) --no-print-directory lint  # your own files: make lint
	@bash tools/debian.sh slurm browser postgresql strace
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(if $(ALL),,-m "not project")

lint: venv  ## ruff, mypy, and that imports run one way
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache && $(BIN)/python tools/architecture.py --check

quick: venv  ## the tests that take no training
	@$(BIN)/python -m pytest -m "not slow"

coverage: venv  ## the quick tests, and how much of mlmodeldev/ they run; fails below the floor
	@$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow" --cov --cov-report=term:skip-covered

shipped: venv  ## for the project itself: ship the files of the top level as they are
	@$(BIN)/python -m tests.shipped renew

shipped-check: venv  ## for the project itself: fails where tests/shipped/files/ has others
	@$(BIN)/python -m tests.shipped check

bench: venv  ## measure; writes docs/benchmarks.md
	@$(BIN)/python -m benchmarks

.venv-dvc: .venv-dvc/.installed  ## make DVC's own environment (about a minute)

.venv-dvc/.installed: tools/dvc.lock
	@echo "installing DVC into .venv-dvc (about a minute, once)"
	@$(PYTHON) -m venv .venv-dvc && .venv-dvc/bin/pip install --quiet --disable-pip-version-check -r tools/dvc.lock
	@touch $@

.venv-extras: .venv-extras/.installed  ## make a folder of what the optional packages add, for their tests (a minute)

.venv-extras/.installed: tools/extras.lock | $(STAMP)
	@echo "installing the optional packages into .venv-extras (about a minute, once)"
	@rm -rf .venv-extras
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target .venv-extras -r tools/extras.lock
	@touch $@

.venv-docs: .venv-docs/.installed  ## make the environment that builds the site of docs/ (half a minute)

.venv-docs/.installed: tools/docs.lock
	@echo "installing the builder of the site into .venv-docs (half a minute, once)"
	@$(PYTHON) -m venv .venv-docs && .venv-docs/bin/pip install --quiet --disable-pip-version-check -r tools/docs.lock
	@touch $@

docs: .venv-docs  ## the site of docs/, into site/: any warning or dead link is a failure
	@$(PYTHON) tools/docs_site.py
	@.venv-docs/bin/zensical build --strict -f build/docs/mkdocs.yml >build/docs/log.txt 2>&1 || { cat build/docs/log.txt; exit 1; }
	@! grep griffe: build/docs/log.txt  # a docstring that can't be read, which --strict lets pass
	@rm -rf site && mv build/docs/site site && echo "look at it: python -m http.server -d site"

data-version: venv .venv-dvc  ## version DATA=data/cola with DVC and push it (REMOTE=..., ENDPOINT=...)
	@$(BIN)/python -m mlmodeldev version $(DATA) $(if $(REMOTE),--remote $(REMOTE)) $(if $(ENDPOINT),--endpoint $(ENDPOINT))

test-dvc: venv .venv-dvc  ## the tests that run DVC for real
	@$(BIN)/python -m pytest tests/data/test_dvc.py tests/data/test_dvc_trials.py tests/data/test_dvc_stages.py

chaos: venv  ## small trials on a test cluster while a monkey breaks things (SEED=7 MINUTES=3|10|full); writes docs/reliability.md
	@bash tools/debian.sh slurm
	@$(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --minutes $(or $(MINUTES),3)

slurm: venv  ## leave a Slurm of four nodes up to play with (root on Debian)
	@$(BIN)/python -m tests.slurm up

slurm-down: venv  ## end it
	@$(BIN)/python -m tests.slurm down

test-slurm: venv  ## the tests that need a Slurm (root on Debian installs it)
	@bash tools/debian.sh slurm
	@SLURM_TESTS=require $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder tests/slurm tests/wandb

hooks:  ## refuse commits that hold a key
	@git config core.hooksPath tools/hooks && echo "commits are looked through for keys"

conda:  ## make the conda environment, if it is not there, and run the quick tests in it
	@$(CONDA_EXE) env list | grep -q '^mlmodeldev ' || $(CONDA_EXE) env create --file environment.yml
	@$(CONDA_EXE) run --no-capture-output --name mlmodeldev python -m pytest -m "not slow"

lock:  ## resolve pyproject.toml anew into the locks (CONTRIBUTING.md: TORCH=, FROM=, LOCK=)
	@LOCK=$(LOCK) TORCH=$(TORCH) FROM=$(FROM) bash tools/lock.sh $(PYTHON)

clean:  ## remove the virtual environments and caches; runs/ and data/ stay
	@rm -rf $(VENV) .venv-dvc .venv-extras .venv-docs build/docs site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
