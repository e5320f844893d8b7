PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.DEFAULT_GOAL := help
.PHONY: help install demo test test-all test-spark check bench format docs tensorboard

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[tensorboard,wandb,dev]'
	mkdir -p $(VENV)/checkout && ln -sfn '$(CURDIR)' $(VENV)/checkout/tailmatch  # for mypy and editors
	touch $@

install: $(INSTALLED)  ## make .venv with the tested versions

demo: export OMP_NUM_THREADS = 1  # tiny tensors: on few cores, threads would mostly wait for each other
demo: $(INSTALLED)  ## train and test FixMatch + DARP on embedded long-tailed digits (one minute)
	$(BIN)/tailmatch fit --config configs/demo.yaml --overwrite true
	$(BIN)/tailmatch test --run_dir runs/demo --ckpt_path best
	@echo 'TensorBoard: make tensorboard, then open http://localhost:6006 (logs in runs/demo)'

test: $(INSTALLED)  ## run the tests but those of Spark, and of many alike a part
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup --ignore tests/spark -m 'not exhaustive'

test-all: $(INSTALLED)  ## run all tests but those of Spark
	$(BIN)/python -m pytest --numprocesses auto --dist loadgroup --ignore tests/spark

test-spark: $(VENV)/installed-spark  ## run the tests that need Spark and Java 17
	TAILMATCH_SPARK_TESTS=required $(BIN)/python -m pytest tests/spark

$(VENV)/installed-spark: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[spark]'
	touch $@

bench: $(INSTALLED)  ## measure the speed, and write the tables of docs/performance.md (15 to 30 minutes)
	$(BIN)/python -m benchmarks.bench

check: $(INSTALLED)  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## put the code into format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/installed-docs  ## build the site in build/site; a dead link fails
	$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning --keep-going --conf-dir docs --doctree-dir build/doctrees . build/site
	TAILMATCH_DOCS_TESTS=required $(BIN)/python -m pytest --quiet tests/docs/test_site.py
	@echo 'Open build/site/index.html'

$(VENV)/installed-docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

tensorboard: $(INSTALLED)  ## show the logs of all runs
	$(BIN)/tensorboard --logdir runs
