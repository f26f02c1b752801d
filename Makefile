# One entry, for people and for CI. `make` lists the targets. Needed: Python 3.11 or later, make, git.
#
# Everything runs in virtual environments that are made here, against the wheel, as a user would install it. Stamps in
# them keep a second run quick; the wheel is built again when a file of it has changed. `make PYTHON=python3.13 test` chooses
# the Python of an environment that is not there yet; `test-on` has one for each.

VENV := .venv
LOWEST := .venv-lowest
OTHER := .venv-$(notdir $(PYTHON))
BIN := $(VENV)/bin
PIP := -m pip --quiet --quiet --disable-pip-version-check   # errors are shown, warnings are not
PACKAGE := $(shell find moengage_personalize -name __pycache__ -prune -o -print) _moengage_personalize_pytest.py pyproject.toml README.md LICENSE
EXTRAS := [cli,emulator,fastapi,orjson,starlette,uvloop]
COVERAGE_FLOOR := 94

# `python -m` would otherwise put this directory in front of the installed wheel.
export PYTHONSAFEPATH := 1
export PIP_NO_INPUT := 1

.DEFAULT_GOAL := help
.PHONY: help demo storefront test lint conformance lowest test-on bench-fetch bench-page bench-track bench-events bench-spool bench-import clean
.DELETE_ON_ERROR:

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'

# ── what a user runs ────────────────────────────────────────────────────────────────────────────────────────────────────

demo: $(VENV)/.demo ## Drive 300 visitors through a personalised shop, and check that nothing was lost
	@$(BIN)/python examples/demo.py

storefront: $(VENV)/.demo ## Leave the shop and the emulator running, to be looked at; Ctrl-C stops both
	@$(BIN)/python examples/demo.py --stay

# ── what a developer runs ───────────────────────────────────────────────────────────────────────────────────────────────

test: export MOENGAGE_TEST_WHEEL = $(CURDIR)/dist
test: export COVERAGE_FILE = $(abspath $(VENV))/.coverage
test: lint ## Lint, types, and every test that needs no wall clock, with coverage of the wheel
	@echo '── tests, with orjson'
	@$(BIN)/coverage erase
	@$(BIN)/coverage run --parallel-mode $(BIN)/pytest -q -m 'not conformance'
	@echo '── the core, and the client end to end, without orjson'
	@$(BIN)/coverage run --parallel-mode .ci/without_orjson.py -q -m 'not conformance' $(wildcard tests/core tests/end_to_end)
	@$(BIN)/coverage combine -q
	@$(BIN)/coverage report --fail-under=$(COVERAGE_FLOOR)

lint: $(VENV)/.test ## Ruff, mypy --strict, and pyright on the typed public API
	@echo '── ruff'
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo '── mypy'
	@$(BIN)/mypy --no-error-summary moengage_personalize _moengage_personalize_pytest.py examples .ci $(wildcard tests/typing)
	@if [ -d tests/typing ]; then echo '── pyright' && $(BIN)/pyright --pythonpath $(BIN)/python; fi

# pytest's status 5, "no tests", is an error as soon as one test is marked.
conformance: $(VENV)/.conformance ## Real servers, real processes, the wall clock
	@$(BIN)/pytest -m conformance || { status=$$?; \
		if [ $$status -eq 5 ] && ! grep -rq --include='*.py' 'mark\.conformance' tests; \
		then echo 'CONFORMANCE: NOT ONE TEST IS MARKED YET'; else exit $$status; fi; }

lowest: $(LOWEST)/.test ## The tests again, with the lowest versions that pyproject.toml allows
	@MOENGAGE_TEST_WHEEL=$(CURDIR)/dist $(LOWEST)/bin/pytest -q -m 'not conformance'

test-on: $(if $(PYTHON),$(OTHER)/.test) ## The tests again, on another Python: make test-on PYTHON=python3.13
	@$(if $(PYTHON),,echo 'which one? make test-on PYTHON=python3.13' >&2; exit 2)
	@$(OTHER)/bin/python --version
	@MOENGAGE_TEST_WHEEL=$(CURDIR)/dist $(OTHER)/bin/pytest -q -m 'not conformance'

# Benchmarks import their neighbours, so they run with their own directory on the path.
bench-fetch bench-page bench-track bench-events bench-spool bench-import: bench-%: $(VENV)/.bench
	@PYTHONPATH=$(CURDIR)/benchmarks $(BIN)/python benchmarks/bench_$*.py $(ARGS)
bench-fetch: ## Fetching, beside its peers (ARGS=--quick for a minute's worth)
bench-page: ## A page of five slots, beside five plain calls
bench-track: ## What track_impression costs its caller, beside its peers
bench-events: ## Events, accepted to acknowledged, beside their peers
bench-spool: ## What journaling an event costs, beside its peers
bench-import: ## What importing it takes, beyond httpx

clean: ## Remove what all of this has made
	rm -rf $(VENV) $(LOWEST) .venv-python* dist results .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache

# ── environments ────────────────────────────────────────────────────────────────────────────────────────────────────────

$(VENV)/.made $(LOWEST)/.made $(OTHER)/.made:
	@echo '── making $(@D)'
	@.ci/venv $(@D)
	@touch $@

# Every environment gets the wheel itself, not the source tree.
$(VENV)/.wheel: $(PACKAGE) | $(VENV)/.made
	@echo '── building the wheel'
	@rm -rf dist
	@$(BIN)/python $(PIP) wheel --no-deps --wheel-dir dist .
	@touch $@

$(VENV)/.demo $(VENV)/.test $(VENV)/.conformance $(VENV)/.bench: $(VENV)/.%: $(VENV)/.wheel
	@echo '── installing it, and what `make $*` needs'
	@$(BIN)/python $(PIP) install --force-reinstall --no-deps dist/*.whl
	@$(BIN)/python $(PIP) install "$$(ls dist/*.whl)$(EXTRAS)" $(GROUPS)
	@touch $@
$(VENV)/.demo: GROUPS := --group demo
$(VENV)/.test: GROUPS := --group test --group lint
$(VENV)/.conformance: GROUPS := --group conformance
$(VENV)/.bench: GROUPS := --group bench

$(LOWEST)/.test: $(VENV)/.test .ci/lowest.py | $(LOWEST)/.made
	@echo '── installing it with the lowest versions'
	@$(BIN)/python .ci/lowest.py > $(LOWEST)/constraints.txt
	@$(LOWEST)/bin/python $(PIP) install --force-reinstall --no-deps dist/*.whl
	@$(LOWEST)/bin/python $(PIP) install --constraint $(LOWEST)/constraints.txt "$$(ls dist/*.whl)$(EXTRAS)" --group test
	@touch $@

$(OTHER)/.test: $(VENV)/.wheel | $(OTHER)/.made
	@echo '── installing it on $(PYTHON)'
	@$(OTHER)/bin/python $(PIP) install --force-reinstall --no-deps dist/*.whl
	@$(OTHER)/bin/python $(PIP) install "$$(ls dist/*.whl)$(EXTRAS)" --group test
	@touch $@
