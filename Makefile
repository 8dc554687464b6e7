# Two commands do everything on a fresh machine with Python 3.11+: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.fewshot-installed

.PHONY: demo test lint format clean

demo: $(STAMP)
	$(BIN)/fewshot demo --out demo-output

test: $(STAMP)
	FEWSHOT_STRICT_PLUGINS=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto \
		--cov --cov-report=term:skip-covered --cov-fail-under=90

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Installed again only when the dependencies may have changed. The install is editable: remove the stamp to share VENV with another checkout.
$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[demo]' --group dev
	touch $@

clean:
	rm -rf $(VENV) build dist demo-output .coverage .pytest_cache .mypy_cache .ruff_cache *.egg-info
