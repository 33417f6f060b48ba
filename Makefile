# `make run` serves the demo application, `make test` runs every test. Both make what they need, on a machine with
# nothing but make, git, python3 and python3-venv.

PYTHON ?= python3
APP ?= forkserver:demo_app
ARGS ?= -w 4
TESTS ?=
SECONDS ?= 60
VENV := .venv
BIN := $(VENV)/bin
SUITE := build/requests-suite

.PHONY: run test lint coverage requests-suite fuzz clean

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

# Not part of `make test`: it needs PyPI, `unshare` and `ip`, and takes about a minute.
requests-suite: $(SUITE)/.installed
	$(SUITE)/venv/bin/python tests/tools/requests_suite.py $(SUITE)/requests-*/ -q $(TESTS)

# Bytes that forkserver.wire reads wrongly, if it finds any, are left in .fuzz/found-*; they belong in tests/corpus.
fuzz: $(VENV)/.installed-fuzz
	@mkdir -p .fuzz/corpus
	$(BIN)/python tests/fuzz/wire.py -max_total_time=$(SECONDS) -artifact_prefix=.fuzz/found- \
	  .fuzz/corpus tests/corpus/accept tests/corpus/reject

clean:
	rm -rf $(VENV) .fuzz build dist .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
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

$(VENV)/.installed-fuzz: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	@touch $@ $(VENV)/.installed

# The tests of one release of requests, and that very release installed beside them.
$(SUITE)/.installed: pyproject.toml
	rm -rf $(SUITE) && mkdir -p $(SUITE)
	$(PYTHON) -m venv $(SUITE)/venv
	$(SUITE)/venv/bin/python -m pip download --quiet --no-deps --no-binary requests --dest $(SUITE) requests
	tar -xzf $(SUITE)/requests-*.tar.gz -C $(SUITE) --no-same-owner && rm $(SUITE)/requests-*.tar.gz
	$(SUITE)/venv/bin/python -m pip install --quiet --editable . "$$(echo ./$(SUITE)/requests-*/)[socks]" \
	  httpbin pytest pytest-httpbin pytest-mock trustme
	@touch $@
