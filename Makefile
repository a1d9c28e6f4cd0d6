# From a bare clone, with nothing but Python 3.11 or newer, g++ and make: `make demo`, `make test`.
# Everything is installed into $(VENV); nothing is installed again until a source file changes.

PYTHON ?= python3
VENV   ?= .venv
OUT    ?= out/demo
# Processes that test at a time; 0 tests in this one, for a debugger.
JOBS   ?= $(shell nproc 2>/dev/null || echo 2)
# More arguments for pytest, as in: make test ARGS='-k conservation -x'
ARGS   ?=

BIN   := $(VENV)/bin
STAMP := $(VENV)/stamp
# A python named by the user is the only candidate; otherwise the first that is new enough.
PYTHONS := $(if $(filter file,$(origin PYTHON)),python3 python3.14 python3.13 python3.12 python3.11,$(PYTHON))
PIP     := $(BIN)/python -m pip --disable-pip-version-check --quiet
# The tests and the commands must meet the installed package, never the source tree.
CLEAN_ENV := env -u PYTHONPATH MPLBACKEND=Agg

# A file's tests stay in one process: they share what is costly to make. The plugin that make bench installs warns about xdist.
PYTEST    := pytest -p no:benchmark -n $(JOBS) --dist loadfile

SOURCES := pyproject.toml CMakeLists.txt README.md LICENSE \
	$(shell find pydln csrc cmake -type f -not -path '*/__pycache__/*' -not -name '*.so' 2>/dev/null | sort)
CPP := $(shell find csrc tests/cpp -name '*.[ch]pp' 2>/dev/null | sort)

.DELETE_ON_ERROR:
.PHONY: help demo test install lint lint-python lint-cpp format sanitize race wide bench dist clean FORCE

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

demo: $(STAMP)/demo ## install, then the main job: fig. 3 and a reduced fig. 4, simulation on theory, into OUT (out/demo)
	$(CLEAN_ENV) $(BIN)/pydln reproduce all --out $(OUT)

test: $(STAMP)/test ## install, then the tests (ARGS goes to pytest)
	$(CLEAN_ENV) $(BIN)/$(PYTEST) $(ARGS)

install: $(STAMP)/test ## pydln with all its extras and the test tools, in VENV (.venv)

lint: lint-python lint-cpp ## formatting, types, layers, static analysis

lint-python: $(STAMP)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict pydln
	$(BIN)/lint-imports

lint-cpp: $(STAMP)/dev
	$(BIN)/clang-format --dry-run -Werror $(CPP)
	$(BIN)/cmake --preset tidy --log-level=WARNING --fresh $(CMAKE_PYTHON)
	$(BIN)/python $(BIN)/run-clang-tidy.py -quiet -j $(or $(filter-out 0,$(JOBS)),1) -p build/tidy \
		-clang-tidy-binary $(BIN)/clang-tidy '/(csrc|tests/cpp)/'

format: $(STAMP)/dev ## rewrite Python and C++ in the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/clang-format -i $(CPP)

# --- sanitizers ------------------------------------------------------------------------------------------------------
# One build serves both: the extension installed in a venv of its own, and the C++ unit tests in build/asan.
# Leaks are not looked for: the interpreter keeps much on purpose. Python knows nothing of the sanitizer, so its runtime is
# loaded before all else, and libstdc++ with it, or it could not see exceptions. Reports go to files: pytest would keep
# what a process says that a sanitizer then ends.
REPORT := $(CURDIR)/build/asan/report
sanitize: $(VENV)-asan/bin/python ## address and undefined-behaviour sanitizers: C++ unit tests, then the tests
	$(MAKE) VENV=$(VENV)-asan PIP_BUILD_ARGS="-C build-dir=build/asan \
		-C cmake.args=--preset=asan -C cmake.build-type=RelWithDebInfo -C install.strip=false" $(VENV)-asan/stamp/test
	$(VENV)-asan/bin/python .ci/check_symbols.py build/asan
	$(VENV)-asan/bin/ctest --test-dir build/asan --output-on-failure --no-tests=error
	rm -f $(REPORT).*
	$(CLEAN_ENV) ASAN_OPTIONS=detect_leaks=0:log_path=$(REPORT) UBSAN_OPTIONS=print_stacktrace=1:log_path=$(REPORT) \
		LD_PRELOAD="$$($(or $(CXX),g++) -print-file-name=libasan.so) $$($(or $(CXX),g++) -print-file-name=libstdc++.so)" \
		$(VENV)-asan/bin/$(PYTEST) $(ARGS) || { cat $(REPORT).* 2>/dev/null; exit 1; }

race: $(STAMP)/build ## thread sanitizer: the C++ unit tests
	$(BIN)/cmake --preset tsan --log-level=WARNING
	$(BIN)/cmake --build --preset tsan
	$(BIN)/ctest --preset tsan

wide: $(STAMP)/build ## the C++ unit tests with vectors as wide as AVX-512's, emulated
	$(BIN)/cmake --preset wide --log-level=WARNING
	$(BIN)/cmake --build --preset wide
	$(BIN)/ctest --preset wide

# --- measurements and releases ---------------------------------------------------------------------------------------
bench: $(STAMP)/bench ## the workloads and studies against NumPy, PyTorch, JAX, numba, and ODE solvers
	cd bench && $(CLEAN_ENV) $(abspath $(BIN))/pytest $(ARGS)

dist: $(STAMP)/dev ## the sdist, and the wheel made from it for all processors, in dist/
	rm -rf dist
	$(BIN)/python -m build --outdir dist -C cmake.define.PYDLN_KERNELS=all .
	$(BIN)/python .ci/check_dist.py dist

clean: ## remove environments, builds and caches
	rm -rf .venv .venv-* build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# --- the environment -------------------------------------------------------------------------------------------------
CMAKE_PYTHON = -DPython_EXECUTABLE="$(abspath $(BIN)/python)" -Dpybind11_DIR="$$($(BIN)/pybind11-config --cmakedir)"

%/bin/python:
	@command -v $(or $(CXX),g++) >/dev/null || { echo "pydln needs a C++ compiler: g++ is not installed" >&2; exit 1; }
	@for python in $(PYTHONS); do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			$$python -m venv $* || { rm -rf $*; exit 1; }; exit 0; \
		fi; \
	done; echo "pydln needs Python 3.11 or newer, and found none as $(PYTHONS); name one: make PYTHON=python3.x" >&2; exit 1

# The list of sources, rewritten only when a file comes or goes.
$(STAMP)/sources: FORCE | $(BIN)/python
	@mkdir -p $(@D); echo $(SOURCES) | tr ' ' '\n' | cmp -s - $@ || echo $(SOURCES) | tr ' ' '\n' > $@

# What compiles the package stays in the environment, so that a second build compiles only what changed.
$(STAMP)/build: pyproject.toml | $(BIN)/python
	$(PIP) install --no-compile cmake ninja $$($(BIN)/python -c \
		'import tomllib; print(*tomllib.load(open("$<", "rb"))["build-system"]["requires"])')
	@mkdir -p $(@D); touch $@

# The package is built once per change of a source; each set of extras then installs the same wheel. Nothing is compiled to
# bytecode before it is imported: most of it never is.
$(STAMP)/wheel: $(STAMP)/build $(STAMP)/sources $(SOURCES)
	rm -rf $(VENV)/wheel
	PATH="$(abspath $(BIN)):$$PATH" $(PIP) wheel --no-build-isolation --no-deps --wheel-dir $(VENV)/wheel $(PIP_BUILD_ARGS) .
	@touch $@

$(STAMP)/demo: EXTRAS = plot,cli
$(STAMP)/test: EXTRAS = all,test
$(STAMP)/dev: EXTRAS = all,test,dev
$(STAMP)/bench: EXTRAS = all,test,bench
$(STAMP)/demo $(STAMP)/test $(STAMP)/dev $(STAMP)/bench: $(STAMP)/wheel
	$(PIP) install --no-compile "$$(echo $(VENV)/wheel/*.whl)[$(EXTRAS)]"
	$(PIP) install --no-compile --no-deps --force-reinstall $(VENV)/wheel/*.whl
	@touch $@
