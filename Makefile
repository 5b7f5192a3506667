# book   run every notebook in demo mode and build the book            -> _build/html/index.html
# test   lint, unit, parity and property tests, every notebook, the book
# pdf    the same as one file to print (needs Chromium or Chrome)      -> _build/print/textdiff.pdf
# epub   the same for a reader                                         -> _build/print/textdiff.epub
# demo   train and evaluate TextDiff on synthetic phantoms             -> _build/demo/13_textdiff.ipynb
# bench  measure what it costs, minutes on two cores; everything with FULL=1 -> results/cost/
# lint   ruff, the notebooks' generated cells, the table of inputs, the page of parameters, types (mypy)
# lock   write env/requirements-*.txt anew; torch and timm too with LATEST=1, else as tools/lock.py pins them
# All of them make the environment .venv first, when it is missing or the lock has changed; on a machine with an
# NVIDIA card with LOCK=env/requirements-cuda.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
LOCK   ?= env/requirements-cpu.txt
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-$(notdir $(LOCK))

# Nothing that make runs asks a model hub; the environment's own kernel goes before one in the home folder.
export HF_HUB_OFFLINE := 1
export JUPYTER_PREFER_ENV_PATH := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: book pdf epub test demo fuzz bench lint lock env clean
.DEFAULT_GOAL := book

book: env
	$(BIN)/python tools/build_book.py

pdf epub: env
	$(BIN)/python tools/print_book.py $@

# By file: what a module's tests share is made once. Groups of tests are not kept together by pytest-xdist 3.8 with pytest 9.2
test: lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

demo: env
	mkdir -p _build/demo
	TEXTDIFF_RESULTS=_build/demo $(BIN)/textdiff run 13 -p mode demo --out _build/demo/13_textdiff.ipynb --force

# Coverage-guided, by atheris (pip install atheris); KINDS="png dicom" SECONDS=600 for more of some
fuzz: env
	for kind in $(or $(KINDS),png tiff dicom nifti.gz xlsx slots safetensors config.json); do \
		$(BIN)/python tests/fuzz/fuzz.py $$kind -max_total_time=$(or $(SECONDS),60) -rss_limit_mb=3000 || exit 1; done

bench: env
	$(BIN)/python -m benchmarks $(if $(FULL),--full) $(if $(BACKBONES),--backbones $(BACKBONES)) $(if $(BEFORE),--before $(BEFORE))

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tools/notebook_cells.py --check
	$(BIN)/python tools/inputs_table.py --check
	$(BIN)/python tools/parameters_page.py --check
	$(BIN)/mypy

lock:
	$(PYTHON) tools/lock.py $(if $(LATEST),--latest)

env: $(STAMP)

$(STAMP): $(LOCK) pyproject.toml
	$(PYTHON) tools/make_env.py $(LOCK) $(VENV)
	rm -f $(VENV)/.installed-*
	touch $@

clean:
	rm -rf _build $(VENV)
