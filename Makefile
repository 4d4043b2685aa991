# Every command sets up what it needs in .venv by itself, and is quick the second time.
#   make PYTHON=python3.12 test    with another Python

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-gpu test-ecosystem test-oldest lint cards format constraints clean
# The commands share .venv, so they run one after the other even under `make -j`.
.NOTPARALLEL:

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: $(VENV)/.installed-core ## Pretrain a small GPT, make a classifier and an assistant of it, on built-in data, on any machine
	$(BIN)/hfgpt pretrain --config demo --output_dir runs/demo --overwrite_output_dir true
	@echo "The same classifier twice: from random weights, and from what pretraining has learned."
	$(BIN)/hfgpt classify train --config demo --output_dir runs/demo-classifier-random --random_weights true \
		--overwrite_output_dir true
	$(BIN)/hfgpt classify train --config demo --output_dir runs/demo-classifier --overwrite_output_dir true
	@echo "The same assistant twice, too."
	$(BIN)/hfgpt instruct --config demo --output_dir runs/demo-assistant-random --random_weights true \
		--overwrite_output_dir true
	$(BIN)/hfgpt instruct --config demo --output_dir runs/demo-assistant --overwrite_output_dir true
	$(BIN)/hfgpt summary runs/demo runs/demo-classifier-random runs/demo-classifier \
		runs/demo-assistant-random runs/demo-assistant
	@echo "To have hfgpt in this shell: . $(BIN)/activate"

# One thread a process: the tests' models are too small to gain from more, and two processes share the work.
test: $(VENV)/.installed-test ## Run the tests (real data: HFGPT_TEST_DATA=FOLDER)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "not slow" --numprocesses 2

test-slow: $(VENV)/.installed-test ## Run the slow tests
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/.installed-test ## Run the tests of a GPU, which the other tests do not use
	HFGPT_TEST_GPU=1 $(BIN)/python -m pytest tests/gpu

test-ecosystem: $(VENV)/.installed-test ## Run transformers' own tests, of the installed version, on this model
	$(BIN)/python tests/ecosystem/fetch.py
	HF_HUB_OFFLINE=1 RUN_SLOW=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest tests/ecosystem --numprocesses 2

# The tests that need what the oldest environment lacks: text to train on, the book's code, a build.
NEED_MORE := cli data evaluation hub hub_cards hub_push recipes training benchmarks/test_engine.py \
	oracles/test_book.py oracles/test_book_checkpoints.py oracles/test_trl.py test_package.py

test-oldest: $(OLDEST)/.installed ## Run the model's tests with the oldest versions that pyproject.toml admits
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -m "not slow" --numprocesses 2 \
		$(NEED_MORE:%=--ignore=tests/%) -o norecursedirs=ecosystem tests

lint: $(VENV)/.installed-lint ## Check formatting, style, types and the floors' imports
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

cards: $(VENV)/.installed-core ## Write the cards of the demo's models anew from their facts
	$(BIN)/python model_cards/make_cards.py

format: $(VENV)/.installed-lint ## Format the code
	$(BIN)/ruff check --fix-only --quiet .
	$(BIN)/ruff format .

clean: ## Remove the environments, builds and caches; runs/ stays
	rm -rf $(VENV) $(OLDEST) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ----------------------------------------------------------------------------------------------------------------------
# Set-up. A stamp file in .venv stands for "installed as pyproject.toml and constraints.txt now say".
# ----------------------------------------------------------------------------------------------------------------------

# Runs pip install in the environment $(1) with $(2); what pip prints is shown only where it fails.
define install
@echo "Installing $(2) into $(1) (some minutes the first time)"
@$(1)/bin/python -m pip install --disable-pip-version-check $(2) > $(1)/install.log 2>&1 \
	|| { cat $(1)/install.log; exit 1; }
endef

# Makes the empty environment $(1).
define create
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	echo "hfgpt needs Python 3.11 or newer, and $(PYTHON) is not: name one that is, as in 'make PYTHON=python3.12'."; \
	exit 1; } >&2
@$(PYTHON) -m venv $(1)
endef

# The book's own code, an oracle of the tests. It asks for notebooks and TensorFlow, which its models do not need.
BOOK := --no-deps llms-from-scratch

$(VENV)/.created:
	$(call create,$(VENV))
	@touch $@

$(VENV)/.installed-core: $(VENV)/.created pyproject.toml constraints.txt
	$(call install,$(VENV),-c constraints.txt -e ".")
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml constraints.txt
	$(call install,$(VENV),-c constraints.txt -e ".[test]")
	$(call install,$(VENV),-c constraints.txt $(BOOK))
	@touch $@

$(VENV)/.installed-lint: $(VENV)/.created pyproject.toml constraints.txt
	$(call install,$(VENV),-c constraints.txt -e ".[lint]")
	@touch $@

# The oldest versions, without what only data and recipes need; hfgpt itself asks for no more of them than that.
$(OLDEST)/.installed: pyproject.toml requirements-oldest.txt
	$(call create,$(OLDEST))
	$(call install,$(OLDEST),-r requirements-oldest.txt)
	$(call install,$(OLDEST),--no-deps -e .)
	@touch $@

# ----------------------------------------------------------------------------------------------------------------------
# Pins. torch stays at the version pinned now (its pin is moved by hand); everything else is resolved anew.
# ----------------------------------------------------------------------------------------------------------------------

RESOLVED := build/constraints

constraints: ## Resolve all dependencies anew and pin them in constraints.txt
	rm -rf $(RESOLVED)
	$(PYTHON) -m venv $(RESOLVED)
	$(RESOLVED)/bin/python -m pip install --quiet "$$(grep '^torch==' constraints.txt)" ".[dev,energy]"
	$(RESOLVED)/bin/python -m pip install --quiet $(BOOK)
	{ sed '/^[^#]/,$$d' constraints.txt; \
		$(RESOLVED)/bin/python -m pip freeze --all --exclude hfgpt --exclude pip | sed 's/+cpu$$//' | LC_ALL=C sort -f; \
	} > $(RESOLVED)/constraints.txt
	mv $(RESOLVED)/constraints.txt constraints.txt
	rm -rf $(RESOLVED)
