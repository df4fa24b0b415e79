# Every target sets the machine up first (scripts/setup says what it installs; nothing when all is there).
# PYTEST_ARGS, SIZE and SERVE can be given on the command line: make test PYTEST_ARGS='-k s2'.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
SIZE ?=
SERVE ?= 1
PYTEST_ARGS ?=
BENCHMARKS ?= $(filter-out benchmarks/_%,$(sort $(wildcard benchmarks/*.py)))

.PHONY: help setup setup-tests demo test bench lint screenshots constraints clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the product needs: PostgreSQL, PostGIS, pgvector, Redis and .venv.
	@scripts/setup

setup-tests:
	@scripts/setup --with-tests

demo: setup ## Build, train and evaluate on the built-in world, then serve the dashboard (SERVE=0: do not).
	@$(BIN)/geofix demo $(if $(SIZE),--size $(SIZE),) $(if $(filter 0,$(SERVE)),--no-serve,)

test: setup-tests ## Run all tests.
	@$(BIN)/pytest $(PYTEST_ARGS)

bench: setup ## Run every script of benchmarks/, one after the other.
	@for script in $(BENCHMARKS); do echo "== $$script"; $(BIN)/python "$$script"; done

lint: setup ## Check style, types and the direction of imports.
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

screenshots: setup-tests ## Photograph every page of the running dashboard at URL (default: port 8501 here) into OUT.
	@$(BIN)/python scripts/screenshots.py $(or $(URL),local) $(or $(OUT),out/screenshots)

constraints: setup ## Write constraints.txt from the versions that .venv holds now.
	@$(BIN)/python scripts/constraints.py >constraints.txt.new
	@mv constraints.txt.new constraints.txt

clean: ## Remove .venv and caches. Data below .geofix/ stays: `geofix down`, then delete it yourself.
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist out
	find . -name .geofix -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
