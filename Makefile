PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test check paper

BASES ?= sd15 sdxl
WORK ?= paper-work

help: ## List the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "%-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv with everything in it; skipped while nothing changed.

# torch comes first and by itself: its build decides what else is needed. Without an NVIDIA driver the CPU build is
# taken where the package index offers it, else the ordinary one, which works everywhere.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: $(PYTHON) is older than Python 3.11; run: make setup PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@torch=$$(grep '^torch==' constraints.txt); \
	if ! nvidia-smi >/dev/null 2>&1 && $(BIN)/python -m pip install --quiet "$$torch+cpu" 2>/dev/null; then \
		echo "installed $$torch, CPU build"; \
	else \
		echo "installing $$torch"; $(BIN)/python -m pip install --quiet "$$torch"; \
	fi
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup ## Run the whole story on the embedded base: a few minutes on two CPU cores.
	$(BIN)/cidm demo

test: setup ## Run the tests, on up to four cores.
	$(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist loadfile tests

check: setup ## Lint, formatting, types, import directions.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

paper: setup ## Run the paper's tables again, on a GPU: make paper DATA=CIFC, a clone of JiahuaDong/CIFC.
	@test -n "$(DATA)" || { echo "error: say where the benchmark is: make paper DATA=PATH" >&2; exit 2; }
	$(BIN)/python -m benchmarks.paper --data "$(DATA)" --bases $(BASES) --work "$(WORK)"
