# `make run` serves the demo application, `make test` runs every test. Both make what they need, on a machine with
# nothing but make, git, python3 and python3-venv.

PYTHON ?= python3
APP ?= forkserver:demo_app
ARGS ?= -w 4
TESTS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: run test lint coverage clean

run: $(VENV)/.installed
	@exec $(BIN)/forkserver $(APP) $(ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/pytest $(TESTS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: $(VENV)/.installed-dev
	$(BIN)/pytest --cov --cov-report=term $(TESTS)

clean:
	rm -rf $(VENV) build dist .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last: where an installation broke off, the next make takes it up again.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed
