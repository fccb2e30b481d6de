# What one types here. Every target that needs the environment makes it first; everything a run writes lies in data/.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help install demo dev test test-slow lint bench clean

PYTHON ?= $(shell command -v python3.11 || command -v python3)
DATA ?= data
BIN := .venv/bin
STAMP := .venv/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq
TORCH := $(shell sed -n 's/^torch==//p' requirements.lock)

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

install: $(STAMP) ## make .venv with every pinned dependency and the command .venv/bin/odin

$(STAMP): requirements.lock pyproject.toml
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null || { \
	  echo "ODIN needs Python 3.11, which '$(PYTHON)' is not." \
	       "Install it, or say where it is: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "Installing into .venv (about two minutes, 2.5 GB) …"
	@[ -x $(BIN)/pip ] || "$(PYTHON)" -m venv .venv
	@# The same version without CUDA, where there is one: the plain name would bring gigabytes of it on Linux.
	@[ "$$(uname -s)" != Linux ] || $(PIP) install --no-deps "torch==$(TORCH)+cpu" 2>/dev/null \
	  || $(PIP) install --no-deps "torch==$(TORCH)+cpu" --index-url https://download.pytorch.org/whl/cpu || true
	@$(PIP) install -r requirements.lock
	@$(PIP) install --no-deps --no-build-isolation -e .
	@touch $@

demo: install ## a bootstrap of January to June 2023 on the synthetic exchange, and where it got to
	$(BIN)/odin bootstrap --market demo --edge 0.5 --home $(DATA)

dev: install ## Dagit on http://127.0.0.1:3000 with the graph, its schedules and sensors
	$(BIN)/odin dev --home $(DATA)

test: lint ## lint, types and every test that takes seconds
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile

test-slow: install ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

lint: install ## style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

bench: install ## speed and memory, with the plain alternative beside each; ONLY=name for one
	ONLY="$(ONLY)" $(BIN)/python tests/bench/__main__.py

clean: ## remove the environment and caches, never data/
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .benchmarks *.egg-info bench.json
	find odin_core odin_assets tests -name __pycache__ -type d -prune -exec rm -rf {} +
