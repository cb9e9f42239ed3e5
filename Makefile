# Everything lives in this folder: the environment in .venv/, what the demo writes in .demo/.
.PHONY: demo test tests-only lint bench bench-quality chaos chaos-mutants report-extra clean help

PYTHON ?= python3
RUN := .venv/bin
PIP := $(RUN)/python -m pip --disable-pip-version-check --quiet install --no-cache-dir
EDITABLE := $(PIP) --no-deps --no-build-isolation --editable .

help:  ## say what there is to do
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: .venv/base.stamp  ## run the whole story: drift, late labels, rollback, proof
	@$(RUN)/telltale demo $(ARGS)

test: lint tests-only  ## lint, then all tests

tests-only: .venv/dev.stamp
	@echo "Running the tests"
	@$(RUN)/python -m pytest -q -n auto --dist worksteal $(ARGS)

lint: .venv/dev.stamp  ## ruff, mypy strict, import contracts
	@echo "Checking style, types and import directions"
	@$(RUN)/ruff check --quiet . && $(RUN)/ruff format --check --quiet .
	@$(RUN)/mypy --no-error-summary .
	@PYTHONPATH=client $(RUN)/lint-imports --no-cache > .venv/imports.log || { cat .venv/imports.log; exit 1; }

bench: .venv/dev.stamp  ## speed and memory, a table on standard output
	@$(RUN)/python -m benchmarks.run $(ARGS)

bench-quality: .venv/dev.stamp  ## false alarms, power and delay on fixed seeds; a table on standard output
	@$(RUN)/python -m benchmarks.quality.run $(ARGS)

chaos: .venv/dev.stamp  ## kill everything for some minutes, then count every event; a table on standard output
	@PYTHONPATH=. $(RUN)/python tests/support/chaos.py $(ARGS)

chaos-mutants: .venv/dev.stamp  ## see that the chaos test fails a product that does not seek, and one without intents
	@CHAOS_MUTANTS=1 $(RUN)/python -m pytest -q tests/scenarios/test_chaos.py -k does_not_pass

.venv/bin/python:
	@echo "Making the environment in .venv/"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed")'
	@$(PYTHON) -m venv .venv

.venv/base.stamp: requirements/base.txt pyproject.toml | .venv/bin/python
	@echo "Installing what the service needs (a few minutes the first time)"
	@$(PIP) --require-hashes -r requirements/base.txt
	@$(EDITABLE)
	@touch $@

.venv/dev.stamp: requirements/dev.txt .venv/base.stamp
	@echo "Installing what the tests need"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

report-extra: requirements/report.txt .venv/base.stamp  ## evidently, for the drill-down reports
	@$(PIP) --require-hashes -r requirements/report.txt

.PHONY: secrets
secrets:  ## make what docker-compose.yml needs in deploy/secrets/
	@deploy/make-secrets

clean:  ## remove the environment and what the demo wrote
	rm -rf .venv .demo .cache .mypy_cache .ruff_cache .pytest_cache
