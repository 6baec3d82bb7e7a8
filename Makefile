# `make demo` and `make test` are all that a new checkout needs: each makes .venv and installs what it uses.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 2
DIST ?= dist
JAVA_PACKAGE ?= openjdk-17-jre-headless

.PHONY: demo test fuzz lint bench bench-join dist clean java

demo: $(VENV)/.demo
	$(BIN)/lake demo

test: $(VENV)/.dev java
	$(BIN)/python -m pytest -n $(WORKERS) --durations=15

fuzz: $(VENV)/.dev
	$(BIN)/python -m pytest tests/property tests/unit/schema --hypothesis-profile=new -n $(WORKERS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m tests.bench

bench-join: $(VENV)/.bench
	$(BIN)/python -m tests.bench join kernel join-scale

# Beside the wheel lies the same archive as .zip, for spark-submit --py-files: a cluster's workers ignore a .whl.
dist: $(VENV)/.dev
	$(BIN)/python -m build --no-isolation --outdir $(DIST)
	for wheel in $(DIST)/*.whl; do cp "$$wheel" "$${wheel%.whl}.zip"; done

clean:
	rm -rf $(VENV) build $(DIST) demo-lake

# Spark's tests need Java 17 or newer. It is installed where that is one command, and told how elsewhere.
JAVA_HELP := Spark needs Java 17 or newer: sudo apt-get install openjdk-17-jre-headless (Debian, Ubuntu), \
	brew install openjdk@17 (macOS), https://adoptium.net (elsewhere); then put it on the PATH or in JAVA_HOME
java:
	@if [ -x "$${JAVA_HOME:-/nowhere}/bin/java" ] || java -version >/dev/null 2>&1; then exit 0; fi; \
	if [ "$$(id -u)" = 0 ]; then as_root=; else as_root="sudo -n"; fi; \
	if command -v apt-get >/dev/null && $$as_root true 2>/dev/null; then \
		echo "installing Java for Spark"; \
		$$as_root apt-get update -qq && $$as_root apt-get install -y -qq --no-install-recommends $(JAVA_PACKAGE); \
	fi; \
	java -version >/dev/null 2>&1 || { echo "$(JAVA_HELP)" >&2; exit 1; }

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, not " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/.bench: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	touch $@

$(VENV)/.dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@ $(VENV)/.demo
