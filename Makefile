# `make run` serves the demo application, `make test` runs every test that the machine has the programs for,
# `make test-fast` those that start no process. Each makes what it needs, on a machine with nothing but make, git,
# python3 and python3-venv.

PYTHON ?= python3
APP ?= forkserver:demo_app
ARGS ?= -w 4
TESTS ?=
JOBS ?= 3
SECONDS ?= 60
COUNT ?= 100
SOAK ?=
VENV := .venv
BUILT_OF := pyproject.toml setup.py $(wildcard forkserver/server/wsgi/accelerator/*.[ch])
BIN := $(VENV)/bin
SUITE := build/requests-suite
BENCH := build/bench-venv
APPLICATIONS := build/applications
ONLY ?=
PEERS ?=
FLAGS ?=
BASE ?= main

# Without .pyc files every program that a test starts would compile forkserver anew: half the time of its start.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: run test test-fast lint coverage docs release-check deb requests-suite applications bench bench-all bench-docs bench-guard fuzz sanitize mutants soak soak-reloads soak-stops clean

run: $(VENV)/.installed
	@exec $(BIN)/forkserver $(APP) $(ARGS)

# Most live tests wait for processes and not for processors: more JOBS than cores are no loss. JOBS=0 runs one test at a time.
test: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(TESTS)

# For every save: no test of these starts a program.
test-fast: $(VENV)/.installed-dev
	$(BIN)/pytest -q -n $(JOBS) -m 'not process' $(or $(TESTS),tests/unit tests/serving tests/test_documents.py)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: $(VENV)/.installed-dev
	$(BIN)/pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(TESTS)

# All that a release needs, without publishing it: built from a clean clone, looked through, installed and served. What is to be
# published of them, and the bill of materials, is then in build/release.
release-check: $(VENV)/.installed-release
	$(BIN)/python tests/tools/release_check.py

# A Debian package of HEAD, in build/deb. For Debian 13 or newer, with dpkg-dev and what deploy/debian/control asks for.
deb:
	rm -rf build/deb && mkdir -p build/deb/source
	git archive HEAD | tar -x -C build/deb/source
	cp -r build/deb/source/deploy/debian build/deb/source/debian
	cd build/deb/source && dpkg-buildpackage --build=binary --unsigned-changes

# The site of the documents, in build/docs: open index.html there. A warning fails, and so does a link or a resource that is not there.
docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --fresh-env --write-all --conf-dir docs --doctree-dir build/docs-trees . build/docs
	$(BIN)/python tests/tools/built_site.py build/docs

# Not part of `make test`: it needs PyPI, `unshare` and `ip`, and takes about a minute.
requests-suite: $(SUITE)/.installed
	$(SUITE)/venv/bin/python tests/tools/requests_suite.py $(SUITE)/requests-*/ -q $(TESTS)

# Django, Flask, NumPy, Zope and others with forkserver's defaults and gunicorn's, recycled, reloaded and stopped: needs
# PyPI, and takes a few minutes. `make applications FLAGS='--only django_sqlite -- --preload on'` takes a part of it.
applications: $(APPLICATIONS)/.installed
	$(APPLICATIONS)/bin/python tests/tools/applications.py $(FLAGS)

# forkserver beside its peers, see bench/README.md. `make bench ONLY=keepalive PEERS=gunicorn,granian` takes a part of it,
# FLAGS='--rounds 1 --seconds 1' looks only whether it works.
bench: $(BENCH)/.installed
	$(BENCH)/bin/python -m bench $(ONLY) --peers '$(PEERS)' $(FLAGS)

bench-all: $(BENCH)/.installed
	$(BENCH)/bin/python -m bench --all --peers '$(PEERS)' $(FLAGS)

# The last results, from build/bench into docs/performance.md.
bench-docs: $(BENCH)/.installed
	$(BENCH)/bin/python -m bench docs

# For use by hand before a merge: fails where a request costs over 5 % more CPU than at BASE.
bench-guard: $(BENCH)/.installed
	$(BENCH)/bin/python -m bench guard --base '$(BASE)' $(ONLY) $(FLAGS)

# Bytes that forkserver.http1 reads wrongly, if it finds any, are left in .fuzz/found-*; they belong in tests/corpus.
fuzz: $(VENV)/.installed-fuzz
	@mkdir -p .fuzz/corpus .fuzz/proxy
	$(BIN)/python tests/fuzz/wire.py -max_total_time=$(SECONDS) -artifact_prefix=.fuzz/found- \
	  .fuzz/corpus tests/corpus/accept tests/corpus/reject
	$(BIN)/python tests/fuzz/plain.py -max_total_time=$(SECONDS) -artifact_prefix=.fuzz/found- \
	  .fuzz/corpus tests/corpus/accept tests/corpus/reject
	$(BIN)/python tests/fuzz/proxy.py -max_total_time=$(SECONDS) -artifact_prefix=.fuzz/found- \
	  .fuzz/proxy tests/corpus/proxy

# The extension built with the address and undefined-behaviour sanitizers in a copy of the package, and its tests with that.
sanitize: $(VENV)/.installed-dev
	$(BIN)/python tests/tools/sanitize.py

# Each fault of a list put into the extension: a test must find it. Takes half an hour; ONLY=head.c takes a part of it.
mutants: $(VENV)/.installed-dev
	$(BIN)/python tests/tools/mutants.py $(ONLY)

# Every kind of traffic while faults arrive at random: minutes, or hours with SECONDS=36000. SOAK has more flags: SOAK='-- --preload off'
# sets one of the program.
soak: SECONDS := 300
soak: $(VENV)/.installed-dev
	$(BIN)/python tests/soak --seconds $(SECONDS) $(SOAK)

soak-reloads: $(VENV)/.installed-dev
	$(BIN)/python tests/soak/reloads.py --count $(COUNT) $(SOAK)

soak-stops: COUNT := 50
soak-stops: $(VENV)/.installed-dev
	$(BIN)/python tests/soak/stops.py --count $(COUNT) $(SOAK)

clean:
	rm -rf $(VENV) .fuzz build dist .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is written last: where an installation broke off, the next make takes it up again.
$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(BUILT_OF) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable .
	@touch $@

$(VENV)/.installed-dev: $(BUILT_OF) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-fuzz: $(BUILT_OF) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[fuzz]'
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-release: $(BUILT_OF) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[release]'
	@touch $@

$(VENV)/.installed-docs: $(BUILT_OF) | $(BIN)/python
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	@touch $@ $(VENV)/.installed

# The newest peers there are; one that cannot be installed is shown so in its rows.
$(BENCH)/.installed: $(BUILT_OF) bench/peers.py
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/python -m pip install --quiet --editable '.[bench]'
	$(BENCH)/bin/python -m bench install
	@touch $@

# The tests of one release of requests, and that very release installed beside them.
$(SUITE)/.installed: pyproject.toml
	rm -rf $(SUITE) && mkdir -p $(SUITE)
	$(PYTHON) -m venv $(SUITE)/venv
	$(SUITE)/venv/bin/python -m pip download --quiet --no-deps --no-binary requests --dest $(SUITE) requests
	tar -xzf $(SUITE)/requests-*.tar.gz -C $(SUITE) --no-same-owner && rm $(SUITE)/requests-*.tar.gz
	$(SUITE)/venv/bin/python -m pip install --quiet --editable . psutil "$$(echo ./$(SUITE)/requests-*/)[socks]" \
	  httpbin pytest pytest-httpbin pytest-mock trustme
	@touch $@

$(APPLICATIONS)/.installed: pyproject.toml
	$(PYTHON) -m venv $(APPLICATIONS)
	$(APPLICATIONS)/bin/python -m pip install --quiet --editable . psutil gunicorn django flask flask-sock websocket-client \
	  numpy pandas matplotlib ZODB Zope
	@touch $@
