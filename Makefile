# Everything one does with this project. `make help` lists it.
#
# PYTHON  the Python (3.11 or newer) that makes the environment     make test PYTHON=python3.13 VENV=.venv-3.13
# VENV    where the environment is                                  (the same)
# ARGS    more arguments for serve, chat, test, fuzz and mutants    make test ARGS="tests/codecs -x"
# JOBS    processes that share the tests                            make test JOBS=1

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
# One more than there are processors: most tests wait for a socket, a clock or another process most of their time.
JOBS ?= $(shell expr $$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1) + 1)

PARALLEL := -n $(JOBS) --dist worksteal
PY := $(VENV)/bin/python
RUN_STAMP := $(VENV)/.installed-run
DEV_STAMP := $(VENV)/.installed-dev
BENCH_STAMP := $(VENV)/.installed-bench
FUZZ_STAMP := $(VENV)/.installed-fuzz

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help:  ## list the tasks
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf '  make %-12s %s\n' "$$name" "$$text"; done

# The source archive of the framework has no chat.
CHAT_PROJECT := $(patsubst %/pyproject.toml,./%,$(wildcard chat/pyproject.toml))
PROJECTS := pyproject.toml $(wildcard chat/pyproject.toml) tools/venv.py

# A user needs the first, someone who works on it the second. tools/venv.py takes a lock, so both may run at once.
$(RUN_STAMP): $(PROJECTS)
	@if [ -e $(DEV_STAMP) ] && [ -z "$$(find $(PROJECTS) -newer $(DEV_STAMP))" ]; then \
	touch "$@"; else $(call install,".[cli$(,)grpc]" $(CHAT_PROJECT)); fi

$(DEV_STAMP): $(PROJECTS)
	@$(call install,".[dev]" $(CHAT_PROJECT))

$(BENCH_STAMP): $(PROJECTS)
	@$(call install,".[bench]" $(CHAT_PROJECT))

# atheris is 131 MiB and only `make fuzz` wants it.
$(FUZZ_STAMP): $(PROJECTS)
	@$(call install,".[dev$(,)fuzz]" $(CHAT_PROJECT))

, := ,
define install
command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	echo "$(PYTHON) was not found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12 ..." >&2; \
	exit 1; }; \
"$(PYTHON)" tools/venv.py "$(VENV)" "$@" $(1)
endef

# Clients that nobody here wrote, for the tests that have them as judges. Without npm those tests are skipped, and say so.
OUTSIDE_STAMP := tests/node/node_modules/.installed

$(OUTSIDE_STAMP): tests/node/package.json
	@if ! command -v npm >/dev/null 2>&1; then \
		echo "npm was not found: the tests against buf and grpc-js will be skipped" >&2; \
	elif npm install --silent --no-package-lock --no-audit --no-fund --prefix tests/node; then \
		touch "$@"; \
	else \
		echo "npm could not install tests/node: the tests against buf and grpc-js will be skipped" >&2; \
	fi

.PHONY: setup
setup: $(DEV_STAMP) $(OUTSIDE_STAMP)  ## make the virtual environment with all that development takes
	@echo "$(VENV) is ready; make help lists the tasks"

.PHONY: serve
serve: $(RUN_STAMP)  ## run the chat server on 127.0.0.1:7411 (ARGS="--port 7500 --codec pipe")
	@exec $(PY) -m wireproto serve $(ARGS)

.PHONY: chat
chat: $(RUN_STAMP)  ## talk to it (ARGS="127.0.0.1:7500 --codec pipe")
	@exec $(PY) -m wireproto chat $(or $(ARGS),127.0.0.1:7411)

.PHONY: demo
demo: $(RUN_STAMP)  ## two scripted people chat over each codec, with the bytes of a frame
	@$(PY) chat/examples/demo.py

.PHONY: test
test: $(DEV_STAMP) $(OUTSIDE_STAMP)  ## run the tests (ARGS="tests/codecs -x")
	@$(PY) -m pytest $(PARALLEL) $(ARGS)

.PHONY: test-quick
test-quick: $(DEV_STAMP) $(OUTSIDE_STAMP)  ## run the tests that take no seconds
	@$(PY) -m pytest $(PARALLEL) -m "not slow and not long" $(ARGS)

# PROFILE=nightly looks at 20,000 examples of everything, which takes days.
PROFILE ?= long
PYTHONS ?= python3.11 python3.12 python3.13 python3.14

.PHONY: test-long
test-long: $(DEV_STAMP) $(OUTSIDE_STAMP)  ## run every test, the long ones and on every Python too (PYTHONS='python3.12 python3.13')
	@HYPOTHESIS_PROFILE=$(PROFILE) $(PY) -m pytest $(PARALLEL) -m "" --timeout=7200 -o faulthandler_timeout=7100 $(ARGS)
	@$(MAKE) --no-print-directory test-lowest
	@$(MAKE) --no-print-directory test-pythons

# What speaks gRPC. The other versions of grpcio are tried by hand, with the list in wireproto/server/gateway/core.py.
GRPC_SUITES := tests/server/test_gateway.py tests/server/test_gateway_engines.py tests/client/test_grpc_client.py \
	tests/integration/test_gateway_clients.py tests/integration/test_gateway_load.py \
	tests/integration/test_gateway_attacks.py tests/integration/test_four_doors.py tests/agreement/test_troubles.py

.PHONY: test-lowest
test-lowest: $(DEV_STAMP) $(OUTSIDE_STAMP)  ## run the tests of gRPC with the lowest grpcio that is allowed
	@$(PY) tools/lowest.py "$(VENV)" -- $(PARALLEL) $(or $(ARGS),-m "" $(GRPC_SUITES))

.PHONY: test-pythons
test-pythons:  ## run the tests on every other Python there is (PYTHONS='python3.12 python3.13')
	@"$(PYTHON)" tools/pythons.py "$(VENV)" $(PYTHONS) -- $(PARALLEL) $(ARGS)

SECONDS ?= 30
N ?= 500
SEED ?= 1

.PHONY: fuzz
fuzz: $(FUZZ_STAMP)  ## fuzz the readers, SECONDS each (SECONDS=600 TARGET=frames, INPUT=FILE to see a finding again)
	@$(PY) -m fuzz.run --seconds $(SECONDS) $(if $(TARGET),--target $(TARGET)) $(if $(INPUT),--input $(INPUT)) $(ARGS)

.PHONY: mutants
mutants: $(DEV_STAMP)  ## change the code in N places, one at a time, and see whether the tests notice (N=500 SEED=1)
	@$(PY) -m tools.mutants -n $(N) --seed $(SEED) $(ARGS)

CORE_TESTS := tests/schema tests/codecs tests/properties tests/wire tests/test_dispatch.py tests/test_dispatch_packed.py tests/test_vectors.py
# They measure memory and time, which are the tracer's then; the model of the wire runs none of the core by itself.
NOT_TRACED := not amplification and not gathering and not cost and not wire_model

.PHONY: coverage
coverage: $(DEV_STAMP)  ## measure the branches of the core that its tests take, which must be all
	@rm -f .coverage .coverage.*
	@HYPOTHESIS_PROFILE=coverage $(PY) -m coverage run -m pytest $(PARALLEL) -q -m "not slow and not long" -k "$(NOT_TRACED)" $(CORE_TESTS)
	@$(PY) -m coverage combine --quiet
	@$(PY) -m coverage report

# The services in the box. Each of the two distributions keeps the locks and .proto files of its own.
SERVICES := wireproto.control:CONTROL wireproto.conformance.service:CONFORMANCE
EXAMPLES := examples.calculator:CALCULATOR
CHAT := wireproto_chat.opcodes:CHAT

# The cheap judges first, in this order whatever -j says; then those that load does not disturb, side by side, each with
# its output in one piece; the tests and their summary last, with the machine for themselves.
SYNC := $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

.PHONY: check
check: $(DEV_STAMP) $(OUTSIDE_STAMP)  ## all that CI checks: format, lint, types, generated files, contract, instructions, coverage, tests
	@echo "== format" && $(PY) -m ruff format --check --quiet .
	@echo "== lint" && $(PY) -m ruff check --quiet .
	@echo "== generated files" && $(PY) -m wireproto proto --check --out protos $(SERVICES) && \
		$(PY) -m wireproto proto --check --out chat/protos $(CHAT)
	@echo "== contract" && $(PY) -m wireproto check $(SERVICES) $(EXAMPLES) && \
		$(PY) -m wireproto check --lock chat/contract $(CHAT)
	@$(MAKE) --no-print-directory -j4 $(SYNC) check-types check-instructions check-coverage
	@echo "== tests" && $(PY) -m pytest $(PARALLEL) $(ARGS)
	@echo "== lowest grpcio" && $(MAKE) --no-print-directory test-lowest ARGS="-q tests/server/test_gateway.py"

.PHONY: check-types check-instructions check-coverage
check-types: $(DEV_STAMP)
	@echo "== types" && $(PY) -m mypy

check-instructions: $(DEV_STAMP)
	@echo "== instructions" && $(PY) benchmarks/instructions.py

check-coverage: $(DEV_STAMP)
	@echo "== coverage of the core" && $(MAKE) --no-print-directory coverage

# REASON reaches the program by its environment, so it may have quotes in it.
.PHONY: gate
gate: $(DEV_STAMP)  ## count the instructions of a call on ten paths (REASON='why they are more' writes the new numbers)
	@$(PY) benchmarks/instructions.py --reason "$$REASON"

.PHONY: format
format: $(DEV_STAMP)  ## write the code the way the check wants it
	@$(PY) -m ruff check --fix --quiet . ; $(PY) -m ruff format .

.PHONY: types
types: $(DEV_STAMP)  ## check the types alone, and the examples as pyright sees them
	@$(PY) -m mypy
	@$(PY) -m pyright

.PHONY: generate
generate: $(DEV_STAMP)  ## write the generated files anew
	@$(PY) -m wireproto proto --out protos $(SERVICES)
	@$(PY) -m wireproto check --write $(SERVICES) $(EXAMPLES)
	@$(PY) -m wireproto proto --out chat/protos $(CHAT)
	@$(PY) -m wireproto check --write --lock chat/contract $(CHAT)

# Wants a machine at rest. Parts that are named are measured anew, the others taken from .bench/.
.PHONY: bench
bench: $(BENCH_STAMP)  ## measure everything and write docs/performance.md, the chat's too (QUICK=1 ARGS="idle fanout")
	@$(PY) benchmarks/report.py $(if $(QUICK),--quick) $(ARGS)
	@$(if $(ARGS),,$(PY) chat/benchmarks/report.py $(if $(QUICK),--quick))

.PHONY: wheel
wheel: $(DEV_STAMP)  ## build the wheels and source archives of both distributions into dist/
	@$(PY) -m build --outdir dist .
	@$(PY) -m build --outdir dist chat

.PHONY: clean
clean:  ## remove the environment, caches and what was built
	@rm -rf "$(VENV)" tests/node/node_modules dist build .bench .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage*
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
