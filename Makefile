# Each target sets up what it needs by itself: the tools in .venv, soketi and pusher-js (to test against) in .node.
#
#   make demo                 see the client at work, no server needed
#   make test ARGS='-k tls'   run the tests
#   make check                lint, formatting, types, layers
#   make docs                 build the documentation into site/; ARGS=serve shows it, and follows changes
#   make screens              record the pictures of the documentation
#   make dist                 build what is released into dist/, and inspect it
#   make coverage             run the tests, and fail where they run too little of the package
#   make lowest               run the tests with the lowest versions of all that the package needs
#   make bare                 use the package without any extra
#   make uvloop               run the tests on uvloop
#   make mutants              find code that no test notices; ARGS='reverb._rest.*' for one module
#   make bench ARGS=quick     measure, beside other clients and the bare libraries
#   make fleet                simulate many clients that lose their server and come back; ARGS='--seed 7' for others
#   make soak                 random faults for ten minutes; ARGS='--minutes 600 --seed 7' for longer
#   make relay-chaos          kill, stop and cut off relays for a minute, and read their log; ARGS='--seeds 20' for more
#   make clean                remove everything that the targets above made
#
# PYTHON=/path/to/python chooses the interpreter; otherwise the first Python >= 3.10 that runs is taken.

.PHONY: demo test check docs dist coverage lowest bare uvloop mutants screens bench fleet soak relay-chaos clean

BIN := .venv/bin
SOURCES := src tests bench examples tools

# Tests start hundreds of processes. Each would compile the package again if no bytecode were kept.
unexport PYTHONDONTWRITEBYTECODE

# Written last, with the checkout's path in it: without the stamp the environment is half made, with another path in
# it the environment was moved here and its scripts point elsewhere. Both, and a Python that is gone, mean starting over.
STAMP := .venv/installed-for
BENCH_STAMP := .venv/installed-bench
INTACT := $(shell grep -qxF '$(CURDIR)' $(STAMP) 2>/dev/null && $(BIN)/python -c '' 2>/dev/null && echo yes)
ifneq ($(INTACT),yes)
.PHONY: $(STAMP)
endif

# Installs a dependency group of pyproject.toml, beside what the extra dev has installed.
GROUP = $(BIN)/uv pip install --quiet --python $(BIN)/python --group

# Makes another environment, with the interpreter of this one.
VENV = $(BIN)/uv venv --quiet --clear --python $(BIN)/python '$(1)'

demo: $(STAMP)
	@$(BIN)/reverb demo $(ARGS)

test: $(STAMP)
	@$(BIN)/python -m tests.integration.install
	$(BIN)/pytest $(ARGS)

check: $(STAMP)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/mypy --platform win32 --cache-dir .mypy_cache/win32 src
	$(BIN)/mypy --platform darwin --cache-dir .mypy_cache/darwin src
	@$(BIN)/lint-imports --no-logo
	$(BIN)/typos
	$(BIN)/zizmor --offline --quiet --persona=pedantic .github
	@$(BIN)/python -m tools.workflows
	$(BIN)/hadolint Dockerfile

docs: $(STAMP)
	@$(BIN)/python -m tools.site $(ARGS)

dist: $(STAMP)
	@$(BIN)/python -m tools.dist $(ARGS)

# Under coverage a test waits longer than it may at other times.
coverage: $(STAMP)
	@$(BIN)/python -m tests.integration.install
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest --timeout 180 $(ARGS)
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

# Developers' tools ask for later versions of some packages, so what this package needs is overridden.
lowest: $(STAMP)
	@$(BIN)/python -m tests.integration.install
	@$(call VENV,.venv-lowest)
	@$(BIN)/python -m tools.lowest > .venv-lowest/lowest.txt
	@$(BIN)/uv pip install --quiet --override .venv-lowest/lowest.txt \
	    --python .venv-lowest/bin/python --editable '.[dev]'
	.venv-lowest/bin/pytest $(ARGS)

bare: $(STAMP)
	@$(call VENV,.venv-bare)
	@$(BIN)/uv pip install --quiet --python .venv-bare/bin/python .
	@.venv-bare/bin/python tests/bare.py

uvloop: $(STAMP)
	@$(BIN)/python -m tests.integration.install
	REVERB_TEST_LOOP=uvloop $(BIN)/pytest $(ARGS)

mutants: $(STAMP)
	@$(GROUP) mutants
	@rm -rf mutants
	$(BIN)/mutmut run $(ARGS)
	@$(BIN)/mutmut results | grep -v "not checked$$" || echo "Tests noticed each mistake."

screens: $(STAMP)
	@$(BIN)/python -m tools.screens $(ARGS)

bench: $(BENCH_STAMP)
	@$(BIN)/python -m tests.integration.install
	@$(BIN)/python -m bench $(ARGS)

fleet: $(BENCH_STAMP)
	@$(BIN)/python -m bench.fleet $(ARGS)

soak: $(STAMP)
	@$(BIN)/python -m tests.faults.soak $(ARGS)

relay-chaos: $(STAMP)
	@$(BIN)/python -m tests.relay.chaos $(ARGS)

clean:
	rm -rf .venv .venv-lowest .venv-bare .coverage .node .cache mutants site .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

# A python may be on PATH and still not run (version managers leave such shims) or lack what venv needs (Debian
# packages that apart), so each candidate is executed.
# uv finds, or fetches, a Python by itself.
$(STAMP): pyproject.toml
	@set -e; \
	if [ "$(INTACT)" != yes ]; then \
	    rm -rf .venv; \
	    if command -v uv >/dev/null 2>&1; then \
	        echo "Making .venv with uv ..."; \
	        uv venv --quiet --seed --python '$(or $(PYTHON),>=3.10)' .venv; \
	    else \
	        for python in $(or $(PYTHON),python3 python python3.14 python3.13 python3.12 python3.11 python3.10) ""; do \
	            if [ -z "$$python" ]; then \
	                echo "No Python >= 3.10 that can make a venv found$(if $(PYTHON), at PYTHON=$(PYTHON))." >&2; \
	                echo "Install one (on Debian: python3-venv), or say where it is: make PYTHON=/path/to/python3" >&2; \
	                exit 1; \
	            fi; \
	            if "$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 10))' >/dev/null 2>&1; then break; fi; \
	        done; \
	        echo "Making .venv with $$("$$python" --version) ($$(command -v "$$python")) ..."; \
	        "$$python" -m venv .venv; \
	    fi; \
	fi; \
	echo "Installing the project and its tools into .venv ..."; \
	if command -v uv >/dev/null 2>&1; then \
	    uv pip install --quiet --python $(BIN)/python --editable '.[dev]'; \
	else \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check 'pip>=21.3'; \
	    $(BIN)/python -m pip install -qq --disable-pip-version-check --editable '.[dev]'; \
	fi; \
	echo '$(CURDIR)' > $(STAMP)

$(BENCH_STAMP): $(STAMP)
	@echo "Installing what is measured beside the client into .venv ..."
	@$(GROUP) bench
	@touch $(BENCH_STAMP)
