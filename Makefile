# Every target starts from a fresh machine: it makes .venv (and finds or installs Java) first.
SHELL := /bin/bash
CORES ?= $(shell nproc)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

LOCKS := $(addprefix envs/,$(addsuffix .lock,workflow spark train figures dev))
UV := 0.13.8
# Snakemake takes the survey's and the cluster's choices from here: make gates SNAKEMAKE_ARGS="--profile lambda"
SNAKEMAKE_ARGS ?=
SNAKEMAKE := snakemake --cores $(CORES) --rerun-incomplete $(SNAKEMAKE_ARGS)

# What a report is of: what has been made of it. Asking for what has not would run the workflow, or fail.
REPORTED = $(wildcard results/*/gates.json results/*/comparison.json results/generations.csv results/ablations.csv \
	results/datasets/*/page.png results/*/validation.png results/*/selection_function.png results/*/ladder.png results/paper/figures/*.png results/paper/tables/*.csv results/paper/paper.pdf results/targets.json)

.PHONY: help setup java gates negative-control generations ablations datasets finder paper preflight test test-slow lint format bench resume report lock schemas clean-orphans

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 20

setup: .venv/.installed .spark35/.installed java ## make .venv and .spark35 from the locks in envs/, and see to Java

.venv/.installed: $(LOCKS) pyproject.toml
	@echo "Making .venv from envs/*.lock: about two minutes and 7 GB" >&2
	test -x .venv/bin/python || python3 -m venv .venv
	.venv/bin/python -m pip install --quiet uv==$(UV)
	.venv/bin/python -m uv pip install --quiet --python .venv/bin/python $(addprefix -r ,$(LOCKS))
	.venv/bin/python -m uv pip install --quiet --python .venv/bin/python --no-deps --editable .
	@touch $@

# The Spark of EMR beside that of .venv: tests put it first on PYTHONPATH.
.spark35/.installed: envs/spark35.lock | .venv/.installed
	rm -rf .spark35
	.venv/bin/python -m uv pip install --quiet --python .venv/bin/python --target .spark35 -r envs/spark35.lock
	@touch $@

java:
	@command -v java >/dev/null || bash envs/install_java.sh

gates: setup ## the main job on the embedded survey: results/gen5_prime/gates.json
	$(SNAKEMAKE) results/gen5_prime/gates.json
	@python -m dark_halo_scope.evaluation.show_gates results/gen5_prime/gates.json

negative-control: setup ## the same generation without hard negatives, and the comparison that it must lose
	$(SNAKEMAKE) results/gen5_prime_no_hard_negatives/comparison.json
	@python -m dark_halo_scope.evaluation.show_gates results/gen5_prime/gates.json results/gen5_prime_no_hard_negatives/gates.json

generations: setup ## train and gate every generation, and the table of them: results/generations.md
	$(SNAKEMAKE) generations
	@cat results/generations.md

ablations: setup ## train and gate the ablations of Gen5-Prime, and their table: results/ablations.md
	$(SNAKEMAKE) ablations
	@cat results/ablations.md

datasets: setup ## every dataset under config/datasets, packed, each with its page
	$(SNAKEMAKE) datasets

finder: setup ## the finder of real images, from the catalogue of lenses to its selection function
	$(SNAKEMAKE) finder

paper: setup ## every figure, table and number of the paper, and its PDF, which needs LaTeX on this machine
	$(SNAKEMAKE) paper_figures results/paper/paper.pdf

preflight: setup ## check item by item that the main job can run here
	$(SNAKEMAKE) preflight

test: setup ## all tests but the slow ones and those for a GPU
	pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

test-slow: setup ## the tests that take minutes
	pytest -n 2 --dist loadfile --no-loadscope-reorder -m "slow and not gpu"

lint: setup ## ruff, snakefmt, snakemake --lint, mypy, settings schemas
	ruff check lib tests envs
	ruff format --check lib tests envs
	snakefmt --check Snakefile rules
	snakemake --lint
	mypy
	python -m dark_halo_scope.workflow.schemas --check

format: setup ## rewrite the code in the house style
	ruff check --fix lib tests envs
	ruff format lib tests envs
	snakefmt Snakefile rules

bench: setup ## measure speed; copy what it prints to BENCHMARKS.md
	@for bench in tests/bench/bench_*.py; do echo "== $$bench"; python $$bench || exit 1; done

resume: setup ## continue after a crash; refuses while the crashed run's owner lives
	python -m dark_halo_scope.core.resume
	$(MAKE) gates

report: setup ## Snakemake's report of what has been made: results/report.zip
	@test -n "$(REPORTED)" || { echo "There is nothing to report yet; run make gates first." >&2; exit 1; }
	$(SNAKEMAKE) --report results/report.zip $(REPORTED)

lock: setup ## resolve pyproject.toml anew into envs/
	python envs/lock.py

schemas: setup ## write workflow/schemas from the settings models
	python -m dark_halo_scope.workflow.schemas

clean-orphans: setup ## list data that no manifest names; remove with: python -m dark_halo_scope.core.clean_orphans --yes results
	python -m dark_halo_scope.core.clean_orphans results
