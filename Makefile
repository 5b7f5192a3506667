# book   run every notebook in demo mode and build the book            -> _build/html/index.html
# test   lint, unit, parity and property tests, every notebook, the book
# demo   train and evaluate TextDiff on synthetic phantoms             -> _build/demo/13_textdiff.ipynb
# lint   ruff          lock   write env/requirements-*.txt anew
# All of them make the environment .venv first, when it is missing or env/requirements-cpu.txt has changed.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
LOCK   ?= env/requirements-cpu.txt
VENV   ?= .venv
BIN    := $(VENV)/bin

# Nothing that make runs asks a model hub; the environment's own kernel goes before one in the home folder.
export HF_HUB_OFFLINE := 1
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: book test demo lint lock env clean
.DEFAULT_GOAL := book

book: env
	$(BIN)/python tools/build_book.py

test: lint
	$(BIN)/python -m pytest

demo: env
	mkdir -p _build/demo
	TEXTDIFF_RESULTS=_build/demo $(BIN)/textdiff run 13 -p mode demo --out _build/demo/13_textdiff.ipynb

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lock:
	$(PYTHON) tools/lock.py

env: $(VENV)/.installed

$(VENV)/.installed: $(LOCK) pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else \
	  f"the locked versions need Python 3.11 or newer, {sys.executable} is {sys.version.split()[0]}: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -r $(LOCK)
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf _build $(VENV)
