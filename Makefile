# The two commands of the README are `make train` and `make test`; each sets up everything that it needs.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

.PHONY: setup train test check bench format test-browser test-peers test-cuda clean

setup: $(READY)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Metta needs Python 3.11 or newer, but $(PYTHON) is " + sys.version.split()[0] + "; say PYTHON=/path/to/python3.11 after make.")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(READY)

train: $(READY)
	$(BIN)/python run.py $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest $(ARGS)

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/metta bench
	$(BIN)/python -m benchmarks.training

test-browser: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,browser]'
	$(BIN)/python -m pytest -m browser $(ARGS)

test-peers: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,peers]'
	.ci/install_pufferlib $(BIN)/python --trainer
	$(BIN)/python -m pytest -m peers $(ARGS)

test-cuda: $(READY)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,cuda]'
	$(BIN)/python -m pytest -m cuda $(ARGS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache
	find src -name __pycache__ -prune -exec rm -rf {} +
