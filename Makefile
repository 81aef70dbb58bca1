# One .venv, made on first use and brought up to date only when pyproject.toml or constraints/ change.
# `make help` lists the targets. Every path here is relative, so `make -C folder` works as well.

PYTHON ?= python3
WORKERS ?= 2
CUDA ?= cuda12

# Folders may have spaces in their names; the programs of .venv are called through its Python.
BIN := .venv/bin/python
PIN = constraints/py$$($(BIN) -c 'import sys; print(311 if sys.version_info < (3, 12) else 312)').txt
INSTALL = $(BIN) -m pip install --quiet --constraint "$(PIN)" --editable
DESCRIBED := pyproject.toml $(wildcard constraints/*.txt)

# The demo begins anew, goes on where it was stopped, or is only scored again once it is complete.
DEMO := runs/m2td3-demo
DEMO_FLAGS = $(if $(wildcard $(DEMO)/summary.json),--mode=eval,$(if $(wildcard \
	$(DEMO)/config.json),--resume,--preset=demo))

# Runs pytest on the tests selected by $(1), then, in processes of their own, on those of them that
# need eight host devices. A file stays with one process, so its programs compile once. Fails where
# either fails; only the second may find nothing to do (status 5).
EIGHT := --xla_force_host_platform_device_count=8
define run_tests
@failed=0; \
echo "pytest -m \"$(1) and not device8\""; \
$(BIN) -m pytest -n "$(WORKERS)" --dist loadfile -m "$(1) and not device8" || failed=1; \
echo "pytest -m \"$(1) and device8\", on eight host devices"; \
XLA_FLAGS="$${XLA_FLAGS:+$$XLA_FLAGS }$(EIGHT)" $(BIN) -m pytest -n "$(WORKERS)" --dist loadfile \
  -m "$(1) and device8" || [ $$? -eq 5 ] || failed=1; \
exit $$failed
endef

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help venv demo test test-slow test-gpu lint format bench wheel clean

export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

# Compiled programs outlive the process; CPU, unless the caller's environment says otherwise.
test test-slow test-gpu: export JAX_COMPILATION_CACHE_DIR ?= $(or \
	$(XDG_CACHE_HOME),$(HOME)/.cache)/jaxsafe/xla
test test-slow test-gpu: export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
test test-slow: export JAX_PLATFORMS ?= cpu
# Most of their time goes into compiling; the slow ones run long and are compiled as users have it.
test: export JAX_DISABLE_MOST_OPTIMIZATIONS ?= 1

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1	\2/p' Makefile | \
	while IFS='	' read -r name text; do printf '  %-10s %s\n' "$$name" "$$text"; done
	@echo
	@echo "PYTHON=python3.12 chooses the Python a new .venv is made with (now $(PYTHON)); CUDA=cuda13"
	@echo "the extra of test-gpu (now $(CUDA)); WORKERS=4 the test processes (now $(WORKERS))."

venv: .venv/.runtime ## set up .venv with jaxsafe and what it needs to run

demo: .venv/.runtime ## train and score M2TD3 in runs/m2td3-demo; again: go on, or score once more
	$(BIN) -m experiments.m2td3 $(DEMO_FLAGS) --out=$(DEMO)

test: .venv/.test ## run the tests, but for the slow ones and those of a GPU
	$(call run_tests,not slow and not gpu)

test-slow: .venv/.test ## run the learning tests, which take minutes each
	$(call run_tests,slow and not gpu)

test-gpu: .venv/.gpu ## add CUDA to .venv and run the tests that need a GPU
	$(BIN) -m pytest -m gpu

lint: .venv/.test ## check style and types
	$(BIN) -m ruff check .
	$(BIN) -m ruff format --check .
	$(BIN) -m mypy
	$(BIN) -m pyright --pythonpath "$(BIN)"

format: .venv/.test ## rewrite the sources in house style
	$(BIN) -m ruff check --fix .
	$(BIN) -m ruff format .

bench: .venv/.peers ## add TRL and BoTorch to .venv and measure every kernel beside other libraries
	$(BIN) -m benchmarks.run --peers

wheel: .venv/.test ## build dist/jaxsafe-*.whl
	rm -rf build
	$(BIN) -m build --wheel

clean: ## remove .venv, builds and the caches of tools; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.created:
	@found=$$("$(PYTHON)" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null); \
	case "$$found" in \
	3.1[1-9]|3.[2-9][0-9]) ;; \
	*) echo "jaxsafe needs Python 3.11 or newer, and '$(PYTHON)' is $${found:-no Python that runs}:" \
	  "name another, as in 'make PYTHON=python3.12 $(or $(MAKECMDGOALS),venv)'." >&2; exit 1;; \
	esac; \
	echo "making .venv with Python $$found"
	@"$(PYTHON)" -m venv .venv
	@touch $@

.venv/.runtime: .venv/.created $(DESCRIBED)
	@echo "setting up .venv: jaxsafe and what it needs to run (a minute or two) ..."
	@$(INSTALL) .
	@touch $@

.venv/.test: .venv/.runtime
	@echo "setting up .venv: the tools of the tests and the libraries they compare with ..."
	@$(INSTALL) '.[test,parity]'
	@touch $@

.venv/.peers: .venv/.test
	@echo "setting up .venv: the libraries that benchmarks compare with ..."
	@$(INSTALL) '.[test,parity,peers]'
	@touch $@

.venv/.gpu: .venv/.test
	@echo "setting up .venv: JAX for $(CUDA) ..."
	@$(INSTALL) '.[$(CUDA)]'
	@touch $@
