# Each target installs what it needs in .venv (Python) and .npm (buf). Nothing is installed elsewhere.
PYTHON ?= python3
BUF_VERSION := 1.75.0
VENV := .venv
BIN := $(VENV)/bin
BUF := .npm/node_modules/.bin/buf

.PHONY: help demo test test-browser screenshots lint docs coverage format proto dist bench gpu faults fuzz attacks mutants conformance images compose-test clean
.DEFAULT_GOAL := help

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(VENV)/.demo ## start a server, and train a small network on images of digits
	@$(BIN)/python examples/digits.py

# Three processes for two cores, because many tests wait. A file runs in one process, and the slowest folders come first.
PARALLEL := -n 3 --dist loadfile --no-loadscope-reorder
test: $(VENV)/.dev $(if $(shell command -v npm),$(BUF)) ## run every test except those in a browser
	@$(BIN)/python -m pytest $(PARALLEL) --ignore tests/browser

# Chromium is installed if this is Debian and the user is root. Without it, the tests are skipped with the reason.
CHROMIUM := command -v chromium chromium-browser >/dev/null || { test "$$(id -u)" = 0 && command -v apt-get >/dev/null && \
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends chromium; } >/dev/null; } || \
  echo "Chromium is not installed, and cannot be installed here: apt-get install chromium"
test-browser: $(VENV)/.dev ## test the web page in Chromium
	@$(CHROMIUM)
	@$(BIN)/python -m pytest tests/browser

screenshots: $(VENV)/.dev ## make the screenshots of the web page in docs/images
	@$(CHROMIUM)
	@$(BIN)/python -m benchmarks.screenshots

lint: $(VENV)/.dev ## run ruff, mypy and, if npm is installed, buf, and build the documentation site
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	@$(BIN)/python docs/build.py
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-proto; \
	 else echo "The .proto files were not checked: buf needs npm (apt-get install npm)."; fi

.PHONY: lint-proto
lint-proto: $(BUF)
	$(BUF) lint proto
	$(BUF) breaking proto --against proto/gradwire.v1.binpb

docs: $(VENV)/.docs ## build the documentation site in site/, and treat warnings as errors
	@$(BIN)/python docs/build.py

COVERAGE := $(BIN)/python -m coverage
PACKAGES := proto/gradwire_proto engine/gradwire_engine worker/gradwire_worker server/gradwire_server client_sdk/gradwire
TESTS ?= tests
coverage: $(VENV)/.dev ## run every test, print the coverage of each package, and write htmlcov/
	@$(COVERAGE) erase
	@$(COVERAGE) run -m pytest $(TESTS); failed=$$?; \
	 $(COVERAGE) combine --quiet && $(COVERAGE) html --quiet || exit 1; \
	 for package in $(PACKAGES); do \
	   printf '%-24s%4s %%\n' $$package "$$($(COVERAGE) report --include="$$package/*" --format=total)"; \
	 done; \
	 echo "The report is in htmlcov/index.html."; exit $$failed

format: $(VENV)/.dev ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

proto: $(VENV)/.dev ## generate the Python stubs from proto/gradwire/v1
	PATH="$(BIN):$$PATH" $(BIN)/python proto/generate.py

dist: $(VENV)/.dev ## build the wheel and the source distribution in dist/
	@rm -rf dist
	@$(BIN)/python -m build --no-isolation

bench: $(VENV)/.bench ## benchmark the service, and compare the engine with other libraries
	@$(BIN)/python -m benchmarks

gpu: ## test and benchmark the CUDA plan on this machine's GPU, with the installed Python
	@PYTHONPATH=proto:engine:worker:server:client_sdk $(PYTHON) -m benchmarks.gpu

FAULTS ?= 500
SEED ?= 0
faults: $(VENV)/.dev ## kill servers, workers and connections at random, and check that nothing is lost
	@$(BIN)/python tests/faults/run.py --faults $(FAULTS) --seed $(SEED)

CALLS ?= 5000
fuzz: $(VENV)/.dev ## send random calls to servers on SQLite and Postgres, and check that the servers stay healthy
	@$(BIN)/python tests/fuzz/run.py --calls $(CALLS) --seed $(SEED)

SECONDS ?= 10
attacks: $(VENV)/.dev ## attack a server over the network, and measure what each attack costs others
	@$(BIN)/python tests/attacks/run.py --seconds $(SECONDS)

mutants: $(VENV)/.mutants ## plant bugs, and print what share of them the tests notice; takes up to an hour
	@$(BIN)/python tests/mutants/planted.py --minutes 28; planted=$$?; \
	 $(BIN)/python tests/mutants/mutate.py --minutes 28 || exit 1; exit $$planted

conformance: $(VENV)/.dev $(BUF) ## compare the clients in six other languages with the Python SDK, and run grpcurl and ghz
	@$(BIN)/python tests/conformance/run.py

# The container engine: docker if its daemon is running, otherwise podman with podman-compose.
ENGINE ?= $(shell docker info >/dev/null 2>&1 && echo docker || echo podman)
BUILD_FLAGS ?=
images: ## build the images of the deployment, and print their sizes
	@for target in server worker demo $(if $(GPU),worker-cuda); do \
	 $(ENGINE) build --quiet $(BUILD_FLAGS) $(if $(BASE),--build-arg BASE=$(BASE)) --target $$target -t gradwire-$$target:latest . >/dev/null || exit 1; done
	@$(ENGINE) images --format '{{.Repository}}\t{{.Size}}' | grep gradwire- | sort -u

compose-test: $(VENV)/.dev ## test a real Compose deployment: train, kill containers, scale and restart
	@$(BIN)/python -m pytest tests/compose --run-compose

clean: ## remove everything that the targets create
	rm -rf $(VENV) .npm .mypy_cache .pytest_cache .ruff_cache .hypothesis .cache build dist site htmlcov .coverage* demo-output

# There is one virtual environment. Each marker file shows that an extra is installed in it.
$(VENV)/.demo $(VENV)/.dev $(VENV)/.docs $(VENV)/.bench $(VENV)/.mutants: $(VENV)/.%: pyproject.toml constraints.txt | $(VENV)/pyvenv.cfg
	@echo "installing gradwire[$*] into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$*]'
	@touch $@

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	 { echo "gradwire needs Python 3.11 or newer as $(PYTHON): apt-get install python3, or make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
	 { echo "$(PYTHON) has no venv: apt-get install python3-venv"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(BUF):
	@npm install --silent --no-audit --no-fund --no-save --prefix .npm @bufbuild/buf@$(BUF_VERSION) >/dev/null
