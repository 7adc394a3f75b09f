# yanmo: `make quickstart` trains and writes, `make test` checks. Python 3.11 and make are all it takes.
#   make quickstart CORPUS=novel.txt     your own text
#   TORCH_INDEX=URL                      where torch comes from (the README's CPU line sets it)
#   SEED=NUMBER                          the night's tests again, with the values of that night
#   PYTHON=python3.12  VENV=DIR          another interpreter, another environment

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# two workers; tests that load the same heavy library go to one of them, where they take no longer than that
PYTEST := $(BIN)/python -m pytest -n 2 --max-worker-restart 0
TESTS := $(PYTEST) --dist loadgroup
LONG := $(PYTEST) --dist worksteal

.PHONY: quickstart test test-slow test-browser test-long test-nightly test-compile test-interop bench-gpu check docs clean

quickstart: $(VENV)/installed-track,serve
	$(BIN)/yanmo quickstart $(if $(CORPUS),"$(CORPUS)")

test: $(VENV)/installed-dev
	$(TESTS)

test-slow: $(VENV)/installed-dev
	$(TESTS) -m "slow and not long and not nightly and not browser and not compiler and not interop"

test-browser: $(VENV)/installed-dev
	{ command -v chromium && fc-list :lang=zh | grep .; } >/dev/null \
		|| (apt-get update && apt-get install --yes chromium fontconfig fonts-noto-cjk)
	$(BIN)/python -m pytest -m browser

test-long: $(VENV)/installed-dev
	$(LONG) -m "long and not nightly"

test-nightly: $(VENV)/installed-dev
	$(if $(SEED),YANMO_TEST_SEED=$(SEED)) $(LONG) -m "nightly or property"

test-compile: $(VENV)/installed-dev
	$(BIN)/python -m pytest -m compiler

# llama.cpp comes as source: it is built once, in ten minutes, with cmake and a C++ compiler
test-interop: $(VENV)/installed-dev
	$(PIP) --constraint constraints.txt llama-cpp-python==0.3.36
	$(BIN)/python -m pytest -m interop

bench-gpu: $(VENV)/installed-dev
	$(BIN)/python benchmarks/gpu.py

check: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: $(VENV)/installed-dev
	$(BIN)/python docs/make_settings.py
	$(BIN)/python docs/make_interop.py

clean:
	rm -rf $(VENV) .yanmo .mypy_cache .ruff_cache .pytest_cache .hypothesis

# torch first and alone: left to float, pip takes gigabytes of CUDA packages on every Linux.
$(VENV)/installed-torch:
	$(PYTHON) -m venv $(VENV)
	$(PIP) torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	touch $@

$(VENV)/installed-%: pyproject.toml constraints.txt $(VENV)/installed-torch
	$(PIP) --constraint constraints.txt --editable ".[$*]"
	touch $@

.SECONDARY: $(VENV)/installed-torch
