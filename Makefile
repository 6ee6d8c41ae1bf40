# Every target works on a machine with Python >= 3.11 and make: each installs what it needs into .venv.
PYTHON ?= python3
BIN := .venv/bin
.DEFAULT_GOAL := help

.PHONY: help run playground test test-slow check format bench lock clean

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "ShopMate needs Python 3.11 or newer; PYTHON=/path/to/python3 make … chooses one"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv/installed-dev: .venv/installed requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

run: .venv/installed  ## the bot, with the settings in .env
	$(BIN)/shopmate run

playground: .venv/installed  ## a question to the real bot, with a local Slack and a local Claude: no key, no workspace
	$(BIN)/shopmate playground --say "Where is my order ORD-1001?"

# Three at once on two cores: half of their time is waiting.
test: .venv/installed-dev  ## the tests, with coverage
	$(BIN)/python -m pytest -n 3 -m "not slow and not live" --cov --cov-report=term:skip-covered

test-slow: .venv/installed-dev  ## the longer runs: random kills, long soaks
	$(BIN)/python -m pytest -n 2 -m slow --timeout 600

check: .venv/installed-dev  ## format, lint, types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/installed-dev  ## put the code in order
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: .venv/installed-dev  ## the benchmarks, printed against their baselines
	$(BIN)/python -m benchmarks

lock: .venv/installed-dev  ## lock the newest allowed dependencies, with hashes and without index URLs
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header pyproject.toml requirements-build.in --output-file requirements.lock
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --extra dev pyproject.toml requirements-build.in --output-file requirements-dev.lock

clean:  ## away with everything that was installed or built
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .coverage*
