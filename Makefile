# make demo    install into .venv, plant copies in a phantom cohort, find them, write a report
# make test    lint, types and tests
# make lint    ruff and the type checker alone
# make pytest  the tests alone; PYTEST_FLAGS="-m slow -n 0" and the like go through
# make docs    the documentation as pages, in DOCS=docs/_build
# make wheels  what benchmarks/device.sh needs on a machine without a network, in WHEELS=wheels
# make clean   remove what the others made
#
# PYTHON=/path/to/python3 picks the interpreter of a new .venv; VENV= its place.

VENV ?= .venv
OUT ?= demo_out
# A worker that crashed is not replaced: by file, xdist then waits forever. Files come in their own
# order: audits have few tests and take longest, and xdist would keep them for the end.
PYTEST_FLAGS ?= -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0
BIN = $(VENV)/bin
WHEELS ?= wheels
DOCS ?= docs/_build
# The Python and the systems that device.sh is for; pip takes each tag by itself.
WHEEL_TAGS = --python-version 3.12 --implementation cp \
  $(foreach tag,manylinux_2_28 manylinux_2_27 manylinux_2_17 manylinux2014,--platform $(tag)_x86_64)
SOURCES = setup.cfg pyproject.toml

.DEFAULT_GOAL = help
.DELETE_ON_ERROR:
.PHONY: help demo test lint pytest docs wheels clean

help:
	@sed -n '/^$$/q; s/^# \{0,1\}//p' Makefile

# The stamps make a second call quick: pip runs again only when the requirements changed.
$(VENV)/.made:
	@set -e; python="$(PYTHON)"; \
	if [ -z "$$python" ]; then python=$$(.ci/find_python 3.11 3.13 3.12); fi; \
	echo "environment: $(VENV), from $$("$$python" --version)"; \
	"$$python" -m venv $(VENV)
	@touch $@

$(VENV)/.runs: $(VENV)/.made $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[phantom,dicom]'
	@touch $@

$(VENV)/.tests: $(VENV)/.made $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[phantom,dicom,test]'
	@touch $@ $(VENV)/.runs

$(VENV)/.docs: $(VENV)/.made $(SOURCES)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[phantom,dicom,docs]'
	@touch $@ $(VENV)/.runs

demo: $(VENV)/.runs
	$(BIN)/deepssim demo --out=$(OUT)
	@echo "Open $(CURDIR)/$(OUT)/audit/report.html in a browser."

test: lint pytest

lint: $(VENV)/.tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyrefly check --python-interpreter-path $(BIN)/python

pytest: $(VENV)/.tests
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q docs $(DOCS)
	@echo "Open $(abspath $(DOCS))/index.html in a browser."

wheels: $(VENV)/.runs
	rm -rf $(WHEELS)
	$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps \
	  --only-binary=:all: $(WHEEL_TAGS) --dest $(WHEELS) --requirement benchmarks/wheels.txt
	@du -sh $(WHEELS)

clean:
	rm -rf .venv .venv-newest $(WHEELS) docs/_build build dist deepssim_jax.egg-info demo_out .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
