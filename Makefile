# make train and make test do all the set-up: they need Python >= 3.11, make and a compiler, nothing else.
# What is installed stands in pyproject.toml; a stamp in the virtual environment remembers that it was done.

VENV ?= .venv
ARGS ?=
BIN := $(VENV)/bin

# torch's OpenMP threads would spin while they wait: on a busy 2-core machine that is up to 75 times slower.
export OMP_WAIT_POLICY = PASSIVE
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help train test docs lint format setup setup-dev clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo '  ARGS passes on:  make train ARGS="experiment=inr_classification seed=1"'
	@echo '                   make test  ARGS="tests/checkpoints -k truncated"'

train: $(VENV)/.installed ## set up, then train: the main job (ARGS: key=value ...)
	$(BIN)/python train.py $(ARGS)

# Two worker processes with one thread each; everything offline.
test: export OMP_NUM_THREADS = 1
test: export WANDB_MODE = disabled
test: export HF_HUB_OFFLINE = 1
test: lint ## set up, then lint and run the tests (ARGS: for pytest; --slow runs the slow ones too)
	$(BIN)/python -m pytest -q -n 2 $(ARGS)

# Strictly: a warning, a reference that leads nowhere or a notebook that fails is an error. Offline.
docs: $(VENV)/.installed-dev ## build the documentation into build/docs/
	$(BIN)/python -m sphinx -W -n --keep-going -q -b html docs build/docs $(ARGS)

lint: $(VENV)/.installed-dev ## ruff: rules and format; mypy: types
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy

format: $(VENV)/.installed-dev ## let ruff mend what it can
	$(BIN)/python -m ruff check --fix .
	$(BIN)/python -m ruff format .

setup: $(VENV)/.installed ## the virtual environment with what training needs

setup-dev: $(VENV)/.installed-dev ## the same, with what the tests need

clean: ## remove the virtual environment, caches and builds (runs and data stay)
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One pip command each, so that the torch pin holds for whatever the extras pull in.
$(VENV)/.installed: pyproject.toml | $(VENV)/.created
	@echo "installing metanet and what it needs into $(VENV): a minute or two, once"
	$(BIN)/python -m pip install --quiet --editable ".[data]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.created
	@echo "installing metanet and what its tests need into $(VENV): a minute or two, once"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@ $(VENV)/.installed

# PYTHON=... decides; else the first that is new enough and can make virtual environments.
PYTHONS = $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python)
$(VENV)/.created:
	@for python in $(PYTHONS); do \
	  if "$$python" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	    echo "$$python -m venv $(VENV)"; \
	    "$$python" -m venv $(VENV) && touch $@; exit; \
	  fi; \
	done; \
	echo "metanet needs Python >= 3.11 with the venv module; none of these is: $(PYTHONS)." >&2; \
	echo "Install one (Debian, Ubuntu: apt install python3 python3-venv), or name it: make $(or $(MAKECMDGOALS),train) PYTHON=/path/to/python3.12" >&2; \
	exit 1
