# Every task installs what it needs first (tools/setup.sh): Debian packages through apt-get, Python packages into .venv.
SHELL := /bin/bash
BIN := .venv/bin
# Root's work (mounts, owners, containers) is part of the tests and of the demo. Under sudo root leaves none of its files in this directory.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo env PYTHONPYCACHEPREFIX=/root/.cache/layerwright-pycache)
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin
# Two at a time: most tests wait for containers, registries and git.
PYTEST_ARGS ?= -n 2 --dist worksteal

.PHONY: help demo test test-fast fuzz lint format setup upgrade clean

help:
	@echo 'make demo       build and run a real example, twice; needs no account and no image from outside'
	@echo 'make test       all checks and all tests'
	@echo 'make test-fast  the tests that need no root, no container and little time'
	@echo 'make fuzz       look for inputs that break the readers: SECONDS=600 TARGET=tar|unpack|manifest|index|compressed'
	@echo 'make lint       ruff and mypy'
	@echo 'make format     let ruff rewrite what it can'
	@echo 'make setup      only install what development needs'
	@echo 'make upgrade    renew constraints.txt'
	@echo 'make clean      remove what these tasks made in this directory'

demo:
	@tools/setup.sh demo
	@$(AS_ROOT) bash tools/demo.sh

# pytest comes last: its summary is the last line.
test: lint
	$(AS_ROOT) $(BIN)/python -m pytest -p no:cacheprovider $(PYTEST_ARGS)

test-fast: setup
	$(BIN)/python -m pytest -m 'not needs_root and not needs_runtime and not slow' $(PYTEST_ARGS)

# Coverage-guided where atheris can be installed, else mutations of the seeds. As root, since unpacking gives files to their owners.
fuzz: setup
	@$(BIN)/python -m pip --disable-pip-version-check install --quiet --editable '.[fuzz]' || echo 'atheris cannot be installed here'
	for target in $(or $(TARGET),tar unpack manifest index compressed); do $(AS_ROOT) $(BIN)/python -m fuzz.run $$target --seconds $(or $(SECONDS),60) || exit 1; done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict src examples/library

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

setup:
	@tools/setup.sh test

upgrade: setup
	$(BIN)/python -m pip --disable-pip-version-check install --quiet --upgrade --upgrade-strategy eager --editable '.[dev]'
	tools/freeze.sh >constraints.txt.new
	mv constraints.txt.new constraints.txt

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
