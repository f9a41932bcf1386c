# Set up and use the workflow. `make` alone shows the targets.
#
#   PYTHON=/path/to/python   the Python (3.11 to 3.13) for a new .venv (`make clean` removes the old one)
#   GPU=1                    TensorFlow with CUDA (GPU=0: back to CPU); kept until changed
#   CORES=N                  cores for `make demo` (default 2)
#   BENCH=name               one benchmark instead of all

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.ONESHELL:

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps
PIP := $(BIN)/python -m pip --disable-pip-version-check
# pip's hundreds of lines become one every 25 packages.
COUNTED = | awk '/^Collecting/ && ++n % 25 == 0 {print "  " n " packages"; fflush()} \
	/^Installing collected/ {print "  installing"; fflush()}'
CORES ?= 2
BENCH ?=
BENCHMARKS := $(filter-out benchmarks/_%,$(wildcard benchmarks/*.py))
PYTEST_ARGS ?=
TEST_JOBS ?= $(shell nproc | awk '{print ($$1 < 4) ? $$1 : 4}')
PYTEST = python -m pytest -n $(TEST_JOBS) --dist worksteal --timeout 900

ifdef GPU
VARIANT := $(if $(filter 1 yes true on,$(GPU)),gpu,cpu)
else
VARIANT := $(or $(shell cat $(VENV)/variant 2>/dev/null),cpu)
endif
LOCK := envs/requirements$(if $(filter gpu,$(VARIANT)),-gpu).lock

# Rules call `ffn`, `snakemake` and `horovodrun` by name, with or without an activated environment.
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Tests start hundreds of processes; without compiled files each of them, and each start of pytest, compiles all anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup setup-dev demo test test-fast lint bench lock docs clean

help: ## Show this
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# --- set-up: each step leaves a stamp, so that nothing is set up twice -------------------------------------------

setup: $(STAMPS)/profiles ## Make .venv from the lock, build Horovod once, link the profiles

setup-dev: $(STAMPS)/profiles $(STAMPS)/dev

$(STAMPS)/venv-$(VARIANT):
	@python=$$(envs/find_python.sh $(PYTHON))
	"$$python" envs/build_horovod.py --check
	echo "Set-up 1/4: $(VENV) ($(VARIANT)) with $$("$$python" --version)"
	rm -rf $(VENV)
	"$$python" -m venv $(VENV)
	mkdir -p $(STAMPS)
	echo $(VARIANT) > $(VENV)/variant
	touch $@

$(STAMPS)/packages: $(LOCK) pyproject.toml $(STAMPS)/venv-$(VARIANT)
	@echo "Set-up 2/4: packages of $(LOCK) (some minutes; about 2 GB, with GPU=1 about 7 GB)"
	$(PIP) install --require-hashes -r $(LOCK) $(call COUNTED,$(LOCK))
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	touch $@

$(STAMPS)/horovod: envs/build_horovod.py envs/horovod.lock $(STAMPS)/packages
	@echo "Set-up 3/4: Horovod"
	$(BIN)/python envs/build_horovod.py
	touch $@

$(STAMPS)/profiles: $(STAMPS)/horovod $(wildcard workflow/profiles/*)
	@echo "Set-up 4/4: profiles"
	$(BIN)/ffn profiles link
	touch $@
	echo "Set up. To type commands yourself: source $(BIN)/activate"

$(STAMPS)/dev: envs/requirements-dev.lock $(STAMPS)/packages
	@echo "Set-up: test and check tools"
	$(PIP) install --quiet --require-hashes -r envs/requirements-dev.lock
	touch $@

# --- use ---------------------------------------------------------------------------------------------------------

demo: setup ## Run the whole chain on the embedded synthetic volume and show the scores
	@began=$$SECONDS
	snakemake --cores $(CORES)
	echo
	cat results/demo/evaluate/scores.md
	echo
	echo "Done in $$(( (SECONDS - began + 59) / 60 )) min. Results: results/demo (curves and overlay: results/demo/report)"
	echo "Look at it in Neuroglancer: source $(BIN)/activate && ffn view results/demo"

test: setup-dev ## Run all tests
	@$(PYTEST) $(PYTEST_ARGS)

test-fast: setup-dev ## Run the tests without those that take longer than about 20 s
	@$(PYTEST) -m "not slow" $(PYTEST_ARGS)

lint: setup-dev ## Check style, types and the workflow
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

bench: setup-dev ## Run all benchmarks, or one: make bench BENCH=name
	@for script in $(if $(BENCH),benchmarks/$(BENCH).py,$(BENCHMARKS)); do
		[ -f "$$script" ] || { echo "error: no benchmark '$(BENCH)'; there are: $(notdir $(basename $(BENCHMARKS)))" >&2; exit 2; }
		python "$$script"
	done

docs: setup ## Regenerate config/schema.json and docs/reference/config.md from the config model
	@for made in schema:config/schema.json table:docs/reference/config.md; do
		target=$${made#*:}
		ffn config "$${made%%:*}" > "$$target.partial"
		mv "$$target.partial" "$$target"
		echo "wrote $$target"
	done

lock: setup-dev ## Resolve envs/*.in anew into envs/*.lock and the conda files (UPGRADE=1: newest versions)
	@for name in requirements requirements-gpu requirements-dev; do
		UV_CUSTOM_COMPILE_COMMAND="make lock" uv pip compile --quiet --universal --python-version 3.11 \
			--fork-strategy fewest --generate-hashes --no-annotate $(if $(UPGRADE),--upgrade) \
			envs/$$name.in --output-file envs/$$name.lock
	done
	python envs/conda_files.py

clean: ## Remove .venv and caches; results and the Horovod wheel in your cache stay
	rm -rf $(VENV) *.egg-info build .pytest_cache .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
