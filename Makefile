# The front door. `make` alone prints what there is.
VENV ?= .venv
BIN := $(VENV)/bin
RUNTIME ?= $(abspath $(BIN))/ocirt
WORKERS ?= 0

help: ## print this
	@awk -F ':.*## ' '/^[a-z.]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: ## install what is needed, build into .venv, run a container
	./setup.sh

test: ## every test, WORKERS=2: two files at a time; what needs root or a missing tool says so and skips
	$(BIN)/pytest --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder

check: ## format, lint, types, unit tests: seconds, no root
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/pytest -q tests/unit

unit: ## the tests that need neither root nor a kernel
	$(BIN)/pytest -q tests/unit tests/house

golden: ## write the golden plans and HPC edits anew, for a diff that a reviewer can read
	OCIRT_GOLDEN=write $(BIN)/python -m pytest -q tests/unit/plan tests/unit/hpc/test_golden.py

integration: ## real containers; OCIRT_TEST_RUNTIME=runc tests the tests
	$(BIN)/pytest tests/integration

conformance: ## run a ready-built OCI runtime-tools suite: SUITE=DIR
	@test -n "$(SUITE)" || { echo "SUITE=DIR names the folder of the built suite" >&2; exit 1; }
	$(BIN)/python conformance/runtime_tools.py $(SUITE) --runtime $(RUNTIME)

engines: ## the engine tests with ocirt and runc, here and on cgroup v2, into docs/engines.md: RESULTS=DIR
	@test -n "$(RESULTS)" || { echo "RESULTS=DIR names a folder to keep results in" >&2; exit 1; }
	$(BIN)/python conformance/engines.py $(RESULTS) --runtime $(RUNTIME) --runtime runc \
		$(or $(ARGS),--here --tree --vm) --output docs/engines.md --check

bench: bytecode launcher ## race against runc and crun; ARGS=--quick
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python bench/lifecycle.py $(ARGS)

performance: bytecode launcher ## measure everything beside runc and crun, docker run included, into docs/performance.md
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python bench/performance.py $(ARGS)

bench-launch: bytecode ## one `launch` against N times `run`; ARGS="--ranks 16"
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python bench/launch.py $(ARGS)

bench-hpc: bytecode ## what the HPC stage costs a container; ARGS=--quick
	$(BIN)/python bench/hpc.py $(ARGS)

init: ops.h ## compile the init
	$(MAKE) -C ocirt/init

fuzz: ops.h ## feed the init's decoder with noise; FUZZ_SECONDS=20
	$(MAKE) -C ocirt/init fuzz

launcher: ## compile the program `ocirt` for this source tree
	$(BIN)/python packaging/native.py launcher
	install packaging/ocirt $(RUNTIME)

deb: ops.h ## build dist/ocirt_VERSION_ARCH.deb
	$(BIN)/python packaging/deb/build.py

rpm: ops.h ## build dist/ocirt-VERSION-1.ARCH.rpm
	$(BIN)/python packaging/rpm/build.py

ops.h: ## write ocirt/init/ops.h from the table of ops
	$(MAKE) -C ocirt/init header

shape: ## write the tables of the fast checks (_generated_shape.py) from the models
	@mkdir -p build
	$(BIN)/python -m oci_spec.tables > build/shape.py && cp build/shape.py ocirt/_generated_shape.py
	$(BIN)/python -m oci_spec.tables cdi > build/shape.py && cp build/shape.py hooks/ocirt_hpc/_generated_shape.py

bytecode: ## compile the package: ocirt itself never writes bytecode
	@$(BIN)/python -m compileall -q ocirt spec hooks

share: ## write manual pages and shell completions into build/share
	$(BIN)/python packaging/share.py build/share

example: ## make a bundle in build/hello from the machine's own files
	$(BIN)/python examples/make_bundle.py build/hello

format: ## let ruff format and repair
	$(BIN)/ruff check --fix-only -q
	$(BIN)/ruff format

clean: ## remove what builds and tests left
	rm -rf build dist .hypothesis .pytest_cache .mypy_cache .ruff_cache
	rm -f ocirt/init/ocirt-init packaging/ocirt ocirt/ocirt-python*
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +

.DEFAULT_GOAL := help
.PHONY: help setup test check unit golden integration conformance engines bench performance bench-launch bench-hpc init fuzz launcher deb rpm ops.h shape \
	bytecode share example format clean
