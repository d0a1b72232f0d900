PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := demo
TEST_JOBS ?= 2
# Processes share the cores; threads of libraries would only wait for one another.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(TEST_JOBS) --dist loadfile --no-loadscope-reorder

.PHONY: help install test test-all coverage chaos lint demo clean

help:
	@echo "make demo      everything once, on a small corpus that it generates, under $(DEMO)/"
	@echo "make test      run the tests, without those marked slow"
	@echo "make test-all  run all of them"
	@echo "make coverage  run all of them, and list the lines that none of them reaches"
	@echo "make chaos     kill extraction and embedding at 100 moments and feed them 1,000 broken files"
	@echo "make lint      run the linters and the type checker"
	@echo "make clean     remove $(DEMO)/ and the environment in $(VENV)/"

install: $(VENV)/installed

$(VENV)/installed: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "error: Python 3.10 or newer is needed, $(PYTHON) is " + sys.version.split()[0] + "\nhint: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	@echo "installing PyTorch and the rest into $(VENV): several GB, some minutes"
	$(RUN) -m pip install -q -q --editable '.[dev]'
	@touch $@

test: install
	$(PYTEST) -m "not slow"

test-all: install
	$(PYTEST)

coverage: install
	$(PYTEST) --cov

chaos: install
	KILLS=100 MUTANTS=1000 $(RUN) -m pytest -s tests/chaos

lint: install
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy

demo: install
	$(RUN) -m data.demo -o $(DEMO)/videos
	$(RUN) -m pipeline.extract $(DEMO)/videos/DFD_REAL $(DEMO)/videos/DFD_FAKE -o $(DEMO)/cache
	$(RUN) -m pipeline.inspect $(DEMO)/cache --sheet $(DEMO)/sheet.png
	rm -rf $(DEMO)/embeddings $(DEMO)/run  # the weights may have come within reach, or out of it
	$(RUN) -m features.embed $(DEMO)/cache -o $(DEMO)/embeddings --streams flow --fallback random:0
	$(RUN) -m model.fit $(DEMO)/embeddings -o $(DEMO)/run --tune 8
	$(RUN) -m model.evaluate $(DEMO)/run
	$(RUN) -m model.predict $(DEMO)/run $(DEMO)/videos/new/unseen_real.mp4 $(DEMO)/videos/new/unseen_fake.mp4
	@echo
	@echo "videos      $(DEMO)/videos      a small corpus; new/ has two videos of nobody in it"
	@echo "cache       $(DEMO)/cache       frames and flow maps; $(DEMO)/sheet.png shows some"
	@echo "embeddings  $(DEMO)/embeddings"
	@echo "run         $(DEMO)/run         model, metrics.json, predictions.csv"
	@echo "report      $(DEMO)/run/report.html"

clean:
	rm -rf $(DEMO) $(VENV)
