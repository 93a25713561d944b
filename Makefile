# Each target carries its own help; `make` alone prints it.

SHELL := /bin/sh
.SHELLFLAGS := -euc
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

BIN := .venv/bin
STAMP := .venv/.stamp
NODE := tests/components
PEERS := .venv-bench
IMAGE := .venv-image
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
# The lock files are complete. With its own resolver pip would take the newest release of a package
# that another one wants with an extra, and then refuse it for having no hash.
INSTALL := $(PIP) install --quiet --require-hashes --no-deps
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --no-annotate --no-emit-index-url --custom-compile-command "make lock"
ARGS ?=

# One more than there are processors, for many tests wait for a server; four at most.
TESTERS := $(shell n=$$(( $$(getconf _NPROCESSORS_ONLN) + 1 )); echo $$(( n > 4 ? 4 : n )))

say = @printf '==> %s\n' $(1)

.PHONY: help
help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: $(STAMP)-run ## Start the broker with a demo: control plane, gateway, demo API, one task played
	@exec $(BIN)/broker dev $(ARGS)

.PHONY: setup
setup: $(STAMP)-dev $(NODE)/node_modules/.stamp ## Make .venv with all that development needs

.PHONY: test
test: setup ## Run the whole suite with coverage (ARGS='-k name' to choose, ARGS='-n 0' for one process)
	$(call say,'pytest')
	@$(BIN)/pytest -n $(TESTERS) --dist worksteal --cov --cov-report=term:skip-covered $(ARGS)

.PHONY: test-compiled
test-compiled: setup $(IMAGE)/.stamp ## Run the attacks on the gateway against the compiled broker
	$(call say,'pytest on the compiled broker')
	@PYTHONPATH=$(CURDIR)/$(IMAGE)/compiled $(BIN)/pytest -o 'pythonpath=$(IMAGE)/compiled .' -p tests.compiled -m 'not interpreted' -n $(TESTERS) -q \
		$(foreach attack,p p1_paths p7_bodies p9_hosts t1_u15_workers u u10_answers u11_echo u4_differential u8_switch,tests/attacks/test_$(attack).py) $(ARGS)

.PHONY: check
check: setup ## Run every static check: format, lint, types, imports, schema, wheel
	$(call say,'ruff format')
	@$(BIN)/ruff format --check .
	$(call say,'ruff check')
	@$(BIN)/ruff check .
	$(call say,'mypy')
	@$(BIN)/mypy
	$(call say,'import-linter')
	@$(BIN)/lint-imports
	$(call say,'policies/schema.json is what the models say')
	@$(BIN)/python -m broker.policy.schema | diff -u policies/schema.json -
	$(call say,'the wheel holds what it should and works')
	@$(BIN)/python tests/wheel_smoke.py

.PHONY: format
format: $(STAMP)-dev ## Format the code and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

.PHONY: schema
schema: $(STAMP)-dev ## Write policies/schema.json anew from the policy models
	@$(BIN)/python -m broker.policy.schema > policies/schema.json.new
	@mv policies/schema.json.new policies/schema.json

.PHONY: bench
bench: $(STAMP)-dev $(PEERS)/.stamp $(IMAGE)/.stamp bench/node_modules/.stamp ## Measure the gateway beside nginx and other proxies (ARGS='--only get_1k')
	@$(BIN)/python -m bench $(ARGS)

.PHONY: lock
lock: $(STAMP)-dev ## Resolve the dependencies anew and write the lock files (ARGS=--upgrade to renew)
	$(call say,'requirements.lock')
	@$(COMPILE) $(ARGS) pyproject.toml --output-file requirements.lock
	$(call say,'requirements-dev.lock')
	@$(COMPILE) $(ARGS) pyproject.toml --group dev -c requirements.lock --output-file requirements-dev.lock
	$(call say,'requirements-compile.lock')
	@$(COMPILE) $(ARGS) pyproject.toml --group compile -c requirements-dev.lock --output-file requirements-compile.lock
	$(call say,'requirements-build.lock')
	@$(COMPILE) $(ARGS) --group build -c requirements-dev.lock --output-file requirements-build.lock
	$(call say,'requirements-bench.lock')
	@$(COMPILE) $(ARGS) --group bench --output-file requirements-bench.lock

.PHONY: clean
clean: ## Remove caches and build results
	@rm -rf build dist .coverage htmlcov .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -not -path './.venv*' -not -path '*/node_modules/*' -prune -exec rm -rf {} +

.PHONY: pristine
pristine: clean ## Remove everything that is not source, .venv included
	@rm -rf .venv $(PEERS) $(IMAGE) $(NODE)/node_modules bench/node_modules

# What follows are files, so that a second `make` has nothing to do.

$(STAMP)-venv:
	@python=''; \
	for candidate in $${PYTHON:-python3 python3.13 python3.12 python3.11}; do \
		if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			python=$$candidate; break; \
		fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo 'No Python 3.11 or newer was found. Install one, or name it: make PYTHON=/path/to/python' >&2; \
		exit 1; \
	fi; \
	echo "==> .venv with $$($$python --version)"; \
	$$python -m venv .venv || { \
		echo 'Python has no venv module here. On Debian or Ubuntu: apt-get install python3-venv' >&2; \
		rm -rf .venv; exit 1; \
	}
	@touch $@

$(STAMP)-run: $(STAMP)-venv requirements.lock requirements-build.lock pyproject.toml
	$(call say,'Locked runtime dependencies (every hash is checked; about half a minute the first time)')
	@$(INSTALL) -r requirements.lock -r requirements-build.lock
	@$(PIP) install --quiet --no-index --no-deps --no-build-isolation --editable .
	@touch $@

$(STAMP)-dev: $(STAMP)-run requirements-dev.lock
	$(call say,'Locked development dependencies (a minute the first time)')
	@$(INSTALL) -r requirements-dev.lock
	@touch $@

# What the benchmark compares with has requirements of its own, which are none of the broker's.
$(PEERS)/.stamp: $(STAMP)-venv requirements-bench.lock
	$(call say,'Locked proxies to compare with (a minute the first time)')
	@$(BIN)/python -m venv --clear $(PEERS)
	@$(PEERS)/bin/python -m pip --disable-pip-version-check --no-input \
		install --quiet --require-hashes --no-deps -r requirements-bench.lock
	@touch $@

# The broker as the image has it: on Debian's Python, which is built with all optimisations, as
# another one may not be, and with compiled modules (decision 16).
$(IMAGE)/.stamp: $(STAMP)-venv requirements-compile.lock pyproject.toml $(shell find broker providers policies/catalogue -name '*.py' -o -name '*.yaml')
	@rm -rf $(IMAGE); python=/usr/bin/python3; \
	if ! $$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		python=$(BIN)/python; \
	fi; \
	echo "==> The broker to measure, compiled, on $$($$python --version) (two minutes)"; \
	$$python -m venv $(IMAGE)
	@$(subst $(BIN),$(IMAGE)/bin,$(INSTALL)) -r requirements-compile.lock
	@HATCH_BUILD_HOOK_ENABLE_MYPYC=true $(IMAGE)/bin/python -m build --no-isolation --outdir $(IMAGE)/dist . >$(IMAGE)/build.log 2>&1 || { \
		tail -20 $(IMAGE)/build.log; \
		echo 'It needs a compiler and Python'"'"'s headers. On Debian or Ubuntu: apt-get install gcc libc6-dev python3-dev' >&2; \
		exit 1; \
	}
	@$(subst $(BIN),$(IMAGE)/bin,$(PIP)) install --quiet --no-index --no-deps $(IMAGE)/dist/*.whl
	@$(PIP) install --quiet --no-index --no-deps --target $(IMAGE)/compiled $(IMAGE)/dist/*.whl
	@touch $@

%/node_modules/.stamp: %/package-lock.json
	@if command -v npm >/dev/null; then \
		echo '==> $* from npm'; \
		npm ci --prefix $* --loglevel=error; \
		find $*/node_modules -path '*/@octokit/openapi/generated/*' -type f \
			! -name api.github.com.json -delete; \
		touch $@; \
	else \
		echo 'npm was not found: what needs $* will be skipped.' >&2; \
		echo 'On Debian or Ubuntu: apt-get install nodejs npm' >&2; \
	fi
