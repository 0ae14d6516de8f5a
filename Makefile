# `make demo` and `make test` set everything up in a local virtual environment first; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0

.PHONY: demo test lint types studies setup setup-alfworld clean

demo: $(VENV)/.ready
	$(BIN)/leap run src/leap/recipes/quickstart.yaml

test: $(VENV)/.ready-dev
	$(BIN)/python -m pytest

# The paper's claims as experiments, two at a time; the same command goes on after any interruption (docs/studies.md).
STUDIES := theory on-policy better-than-teacher bc-react self-improvement methods privilege one-model
studies: $(VENV)/.ready-dev
	printf '%s\n' $(STUDIES) | OMP_NUM_THREADS=1 xargs -P 2 -I NAME $(BIN)/leap study NAME

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check src tests examples benchmarks

types: $(VENV)/.ready-dev
	$(BIN)/pyright

setup: $(VENV)/.ready-dev

# The real ALFWorld engine: compiles fast-downward (GPL) and jericho, a few minutes. Optional.
setup-alfworld: $(VENV)/.ready-dev
	$(BIN)/pip install -q -e '.[alfworld]'

# PyTorch first and pinned: on Linux, a bare requirement would bring gigabytes of CUDA packages to a laptop without a GPU.
# Where the CPU build is not what pip finds, it is taken from PyTorch's own index by setting PIP_EXTRA_INDEX_URL.
$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "leap needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --disable-pip-version-check $(TORCH)
	touch $@

$(VENV)/.ready: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e '.[train]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e '.[train,dev]'
	touch $@

clean:
	rm -rf $(VENV) runs
