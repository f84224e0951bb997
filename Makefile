# One command each. Needs Python 3.11 or newer, make, git and a C compiler; everything else is set up here.

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
LOCK := requirements/dev.lock
# Changes whenever the lock file or the interpreter's minor version does.
LOCK_ID := $(shell (cat $(LOCK); $(PYTHON) -c 'import sys; print(sys.version_info[:2])') 2>/dev/null | cksum | tr ' ' '-')
STAMP := $(VENV)/.installed-$(LOCK_ID)
PYTEST_ARGS ?=
BENCH_ARGS ?=
UV_COMPILE := $(VENV)/bin/uv pip compile --quiet --generate-hashes --no-emit-index-url --no-emit-find-links \
	--python-version 3.11 --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_ROOT_USER_ACTION := ignore

.PHONY: help setup run test test-long screenshots lint format bench djstripe lock stop clean
.NOTPARALLEL:
.DEFAULT_GOAL := help

help:
	@echo 'make setup      virtual environment, locked packages, embedded PostgreSQL and Redis, migrations'
	@echo 'make run        setup, then the demo on http://127.0.0.1:8000'
	@echo 'make test       setup, then the default test suite     (PYTEST_ARGS="-k name -n 0")'
	@echo 'make test-long  setup, then the long fuzz and chaos runs'
	@echo 'make screenshots  pictures of the demo for docs/screenshots and the README'
	@echo 'make lint       ruff, mypy, import contract, missing migrations'
	@echo 'make format     let ruff rewrite the code'
	@echo 'make bench      benchmarks, one JSON line each         (BENCH_ARGS=--quick)'
	@echo 'make djstripe   an environment with dj-stripe, which make bench then measures beside ours'
	@echo 'make lock       resolve requirements/*.in again         (UPGRADE=1 takes newer versions)'
	@echo 'make stop       stop the embedded services; their data stays'
	@echo 'make clean      stop them, then remove data, virtual environment and caches'

$(STAMP): $(LOCK)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": run make PYTHON=python3.11 ...")'
	@echo 'Installing the locked packages into $(VENV) (the first time takes a minute or two) ...'
	@$(PYTHON) -m venv $(VENV)
	@$(PY) requirements/install.py $(LOCK)
	@rm -f $(VENV)/.installed-*
	@touch $@

setup: $(STAMP)
	@$(PY) manage.py migrate --no-input --verbosity 0
	@echo 'Ready: packages, PostgreSQL, Redis and migrations are in place.'

run: setup
	@exec $(PY) manage.py run_demo

test: setup
	$(PY) -m pytest $(PYTEST_ARGS)

test-long: setup
	LONG=1 $(PY) -m pytest -m long $(PYTEST_ARGS)

screenshots: setup
	$(PY) -m tests.e2e.screenshots

lint: setup
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(PY) manage.py makemigrations --check --dry-run --verbosity 1

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

djstripe:
	@$(PYTHON) -m venv .venv-djstripe
	@.venv-djstripe/bin/python requirements/install.py requirements/djstripe.lock

bench: setup
	@set -e; for file in benchmarks/[a-z]*.py; do echo "== $$file" >&2; $(PY) "$$file" $(BENCH_ARGS); done

lock: $(STAMP)
	$(UV_COMPILE) -o requirements/dev.lock requirements/dev.in
	$(UV_COMPILE) -c requirements/dev.lock -o requirements/base.lock requirements/base.in
	$(UV_COMPILE) -o requirements/djstripe.lock requirements/djstripe.in

stop:
	@if [ -x $(PY) ]; then $(PY) -m recovery_site.embedded stop; else echo 'Nothing is set up here.'; fi

clean:
	@if [ -x $(PY) ]; then $(PY) -m recovery_site.embedded remove; fi
	rm -rf $(VENV) .venv-djstripe .data .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
