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
# The table of benchmarks/RESULTS.md, row by row; what these leave in BENCH_HOME is used by the next, and removed.
BENCHMARKS ?= load_codes search search_regions matrix s2_ids region_assignment accuracy_by_region embedding peak_memory refresh
BENCH_HOME ?= /var/tmp/geofix-bench
SCALE_HOME ?= /var/tmp/geofix-scale
ROWS ?= 1000000
# Building the index of a million codes twice more would alone take half of what `make bench` may.
REFRESH_ROWS ?= 200000

.PHONY: help setup setup-tests demo test bench bench-scale lint screenshots constraints clean

help: ## Show this list.
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what the product needs: PostgreSQL, PostGIS, pgvector, Redis and .venv.
	@scripts/setup

setup-tests:
	@scripts/setup --with-tests

demo: setup ## Build, train and evaluate on the built-in world, then serve the dashboard (SERVE=0: do not).
	@$(BIN)/geofix demo $(if $(SIZE),--size $(SIZE),) $(if $(filter 0,$(SERVE)),--no-serve,)

test: setup-tests ## Run all tests, in TEST_PROCESSES processes (2), each with servers of its own; PYTEST_ARGS='-q -x' adds options.
	@$(BIN)/pytest -n $(or $(TEST_PROCESSES),2) --dist loadfile $(PYTEST_ARGS)

bench: setup ## Measure what is promised and print the table; BENCHMARKS='search matrix' for some, figures in out/bench.
	@mkdir -p out/bench; rm -f $(BENCHMARKS:%=out/bench/%.json)
	@for name in $(BENCHMARKS); do echo "== $$name"; \
	  case $$name in search|search_regions) kept="--keep $(BENCH_HOME) --rows $(ROWS)";; \
	    load_codes|matrix) kept="--rows $(ROWS)";; refresh) kept="--rows $(REFRESH_ROWS)";; *) kept="";; esac; \
	  $(BIN)/python "benchmarks/$$name.py" $$kept --json "$(CURDIR)/out/bench/$$name.json"; done
	@rm -rf "$(BENCH_HOME)"
	@$(BIN)/python benchmarks/_table.py out/bench $(BENCHMARKS)

bench-scale: setup ## Curves of docs/scaling.md, up to ROWS codes (10000000 by option); goes on where it was stopped.
	@$(BIN)/python benchmarks/scaling.py --keep "$(SCALE_HOME)" --max-rows $(ROWS)

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
