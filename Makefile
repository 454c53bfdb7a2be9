# Everything that a developer does here; `make` alone lists it. Needs Python 3.11 or newer, nothing else.

PYTHON ?= python3
# Debian's Python is compiled with profile-guided optimisation, as the container's is; many others are not.
BENCH_PYTHON ?= $(firstword $(wildcard /usr/bin/python3) $(PYTHON))
VENV ?= .venv
BIN := $(VENV)/bin
RUNNABLE := $(VENV)/.runnable
INSTALLED := $(VENV)/.installed
BENCHABLE := .venv-bench/.installed
# The tests mostly wait for servers, so several at a time fit one core.
PYTEST := $(BIN)/python -m pytest --dist worksteal --numprocesses 6
# A lock is installed, not resolved: with the resolver, pip 23 fails as soon as a package that a dependency asks
# for with an extra (`coverage[toml]`) has a newer release than the locked one. `pip check` then says whether
# the lock was whole.
PIP = $(BIN)/python -m pip --disable-pip-version-check
INSTALL = $(PIP) install --quiet --no-deps --require-hashes
# What an installation was stopped in (Ctrl-C) pip takes for installed, though its commands are not there yet. The
# file INSTALLER is written after them. What another make installs at this moment looks the same, so one waits for
# the other.
FORGET_HALVES = find $(BIN)/../lib -name '*.dist-info' ! -exec test -e '{}/INSTALLER' ';' -prune -exec rm -r '{}' +
CHECK = $(PIP) check >&2 || { echo "The packages do not fit together: make clean, then try again." >&2; exit 1; }
LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header $(args) pyproject.toml

# Where it is set, each of the hundreds of processes that a test run starts would compile all it imports anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test test-all lint format screenshots image bench bench-publish lock clean
.DELETE_ON_ERROR:

help: ## List what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo '  args="..." hands options on to pytest, docker, the benchmarks and uv: make test args="-k numbers"'

run: $(RUNNABLE) ## Run everything on this machine; PORT=8000 SMTP_PORT=1025 MAILBOX_PORT=8025 choose others
	@exec $(BIN)/python -m dev.run --end-with-parent $$PPID

test: $(INSTALLED) ## Run the tests that need nothing but Python
	$(PYTEST) -m "not system and not slow" $(args)

test-all: $(INSTALLED) ## Run every test, and show branch coverage; needs the Debian packages named in .ci/run
	$(PYTEST) --cov=app --cov-branch $(args)

lint: $(INSTALLED) ## Check style, types, the layers and the documentation
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest --quiet tests/unit/test_docs.py tests/operate/test_alerts.py -m "not system"

format: $(INSTALLED) ## Bring the code into its format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

screenshots: $(INSTALLED) ## Take the pictures of the README anew; needs Debian's chromium
	$(BIN)/python -m tests.playground.screenshots

image: $(INSTALLED) ## Build the container image with its labels, and list what is in it (SBOM)
	PATH="$(CURDIR)/$(BIN):$$PATH" deploy/build-image $(args)

bench: $(BENCHABLE) ## Measure registrations against bare Flask, on an optimised Python; figures go to .bench/
	.venv-bench/bin/python -m benchmarks $(args)

bench-publish: $(BENCHABLE) ## The same into benchmarks/results/, which the documentation shows
	.venv-bench/bin/python -m benchmarks --into benchmarks/results $(args)

lock: $(INSTALLED) ## Write requirements*.txt anew from pyproject.toml; args=--upgrade takes newer versions
	$(LOCK) --output-file requirements.txt
	$(LOCK) --extra run --constraint requirements.txt --output-file requirements-run.txt
	$(LOCK) --extra otel --constraint requirements.txt --output-file requirements-otel.txt
	$(LOCK) --extra run --extra otel --extra dev --constraint requirements-run.txt --constraint requirements-otel.txt \
		--output-file requirements-dev.txt
	$(LOCK) --extra run --extra bench --constraint requirements-dev.txt --output-file requirements-bench.txt

clean: ## Remove what can be made again; the data in instance/ stays
	rm -rf .venv .venv-* .bench dist .coverage* .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define install
	@$(PYTHON) -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Needs Python 3.11 or newer with venv (Debian: apt install python3-venv), or make PYTHON=..." >&2; exit 1; }
	@exec 3<Makefile; ! command -v flock >/dev/null || flock 3; \
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) && \
	echo "Installing the dependencies locked in $< into $(VENV) (once) ..." && \
	$(FORGET_HALVES) && $(INSTALL) -r $< && { $(CHECK); }
endef

$(RUNNABLE): requirements-run.txt
	$(install)
	@touch $@

$(INSTALLED): requirements-dev.txt
	$(install)
	@touch $(RUNNABLE) $@

$(BENCHABLE): BIN := .venv-bench/bin
$(BENCHABLE): requirements-bench.txt
	@test -x $(BIN)/pip || $(BENCH_PYTHON) -m venv .venv-bench
	@$(FORGET_HALVES)
	@$(INSTALL) -r $<
	@$(CHECK)
	@touch $@
