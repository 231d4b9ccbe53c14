# Each target makes .venv and installs what it needs if that is missing or pyproject.toml
# has changed since. PYTHON chooses the interpreter: make test PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

# More BLAS threads than cores make small factorisations many times slower.
export OPENBLAS_NUM_THREADS ?= 1
export OMP_NUM_THREADS ?= 1

WORKERS ?= 2
PYTEST_ARGS ?=

.PHONY: demo test test-fast check bench mutation docs dist sbom clean
.DEFAULT_GOAL := test

demo: $(VENV)/.installed
	$(BIN)/perfusio-jax demo $(DEMO_ARGS)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile \
		--no-loadscope-reorder $(PYTEST_ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

# What one runs while working: without the files that tests/slow.txt names.
test-fast: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m 'not slow' \
		$$(sed -n 's/^[0-9]* /--ignore=/p' tests/slow.txt) $(PYTEST_ARGS)

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benchmarks.everything $(BENCH_ARGS)

# Ten to twenty minutes; not part of test or check.
mutation: $(VENV)/.installed-dev
	$(PIP) install --quiet 'mutmut>=3.8'
	$(BIN)/python benchmarks/mutation.py

# The book, into build/site: pages of docs/, API from docstrings, tutorials from examples/.
docs: $(VENV)/.installed-docs
	$(BIN)/python -m docs.book $(DOCS_ARGS)

# Archive and wheel (made from that archive), into dist/.
dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --no-isolation

# What the wheel brings with it, as CycloneDX: the packages of an environment that has nothing else.
sbom: dist
	rm -rf build/sbom
	$(PYTHON) -m venv build/sbom
	build/sbom/bin/python -m pip --disable-pip-version-check install --quiet dist/*.whl
	$(PIP) install --quiet 'cyclonedx-bom>=7.3'
	$(BIN)/cyclonedx-py environment --output-reproducible --output-file dist/sbom.json \
		build/sbom/bin/python

clean:
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .benchmarks .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one with 'make PYTHON=python3.12 ...'." >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(PIP) install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml
	$(PIP) install --quiet --editable '.[dev,docs]'
	touch $(VENV)/.installed $@

$(VENV)/.installed-docs: $(VENV)/.made pyproject.toml
	$(PIP) install --quiet --editable '.[docs]'
	touch $(VENV)/.installed $@

# The simulation benchmark needs CasADi only; '.[bench]' adds torch and BoTorch.
$(VENV)/.installed-bench: $(VENV)/.made pyproject.toml
	$(PIP) install --quiet --editable '.[bench-simulate]'
	touch $(VENV)/.installed $@
