# The two commands of the README are `make demo` and `make test`; each sets itself up.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test check lint types pack soak clean

install: $(STAMP)

$(STAMP): pyproject.toml
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "text2ct needs $(PYTHON); set PYTHON=... to name another interpreter >= 3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade "pip>=24"
	$(BIN)/pip install --quiet -e ".[dev]"
	@touch $@

demo: $(STAMP)
	$(BIN)/text2ct demo

# A process a core, at most four: each takes up to 3 GB.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile \
		--cov --cov-report=term:skip-covered --cov-fail-under=85

# The bundled pack, trained and measured again; goes on where it was stopped. REPORTS and CHEST name real data that
# some of the card's figures need; START names a pack to go on from, CONFIG a file of settings that differ.
pack: $(STAMP)
	$(BIN)/text2ct core pack --out text2ct/diffusion/packs/simulated-64 --work build/pack \
		$(if $(START),--start $(START)) $(if $(CONFIG),--config $(CONFIG)) \
		$(if $(REPORTS),--reports $(REPORTS)) $(if $(CHEST),--chest $(CHEST))

# Faults on purpose: about an hour; docs/reliability.md says what it does. ARGS, as ARGS="--only fuzz", say which.
soak: $(STAMP)
	$(BIN)/python -m benchmarks.soak $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

check: lint types test

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache htmlcov .coverage
