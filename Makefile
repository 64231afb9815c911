# `make help` lists the targets. Everything runs in .venv, which is made on first use.
PYTHON ?= python3
ARGS ?=
# Test processes side by side, each on one thread: two beat one wherever there are two cores.
WORKERS ?= 2
# What the wheel's own `saccade` is asked to do in a clean environment.
WHEEL_COMMAND ?= train total_timesteps=8192 evaluation.episodes=10 saliency.every=4096 name=wheel

bin := .venv/bin
# The theme would advertise a successor of MkDocs.
mkdocs := NO_MKDOCS_2_WARNING=1 $(bin)/mkdocs
one_thread := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1

.DEFAULT_GOAL := help
.PHONY: help train test slow check format docs docs-pages docs-serve wheel-check pins

help: ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14
	@echo 'PYTHON=python3.11 chooses the interpreter; ARGS="..." is passed on by train, test and slow.'

train: .venv/.installed ## train an agent: the main job, or ARGS="agent=... policy=... env=..."
	$(bin)/saccade train $(ARGS)

test: .venv/.installed ## the tests, without the slow ones
	$(one_thread) $(bin)/python -m pytest -n $(WORKERS) $(ARGS)

slow: .venv/.installed ## the tests that take long, learning among them
	$(one_thread) $(bin)/python -m pytest -m slow -n $(WORKERS) --durations=10 $(ARGS) || \
	  { [ $$? -eq 5 ] && echo 'no test is marked slow'; }

check: .venv/.installed ## formatting, lint and types
	$(bin)/ruff format --check .
	$(bin)/ruff check .
	$(bin)/mypy

format: .venv/.installed ## format, and mend what lint can mend
	$(bin)/ruff format .
	$(bin)/ruff check --fix .

docs: docs-pages ## write tables and figures anew from results/, then build the site into site/
	$(mkdocs) build --strict

docs-serve: docs-pages ## the same, shown at http://127.0.0.1:8000 while pages are edited
	$(mkdocs) serve --strict

docs-pages: .venv/.installed
	$(bin)/python -m saccade.scripts.docs results docs

wheel-check: .venv/.installed ## build the wheel, install it in a clean environment, use it there
	.ci/wheel-check $(WHEEL_COMMAND)

pins: .venv/.installed ## rewrite constraints.txt from what .venv holds
	@{ grep '^#' constraints.txt; \
	  $(bin)/python -m pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+[a-z0-9.]*$$//'; } > .venv/pins
	mv .venv/pins constraints.txt
	@touch .venv/.installed

# The constraints name torch exactly: an open range may choose another build, of several gigabytes.
.venv/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'Saccade needs Python 3.11 or newer, and "$(PYTHON)" is not one. Name one: make PYTHON=python3.11 ...' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	$(bin)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@
