# make demo: set up, open the app on the bundled model.   make test: set up, lint, run the tests.
# make test-all: the long forms too, such as 100 kills of a run and 50 steps of every combination.
# A second call installs nothing again: the environment is made anew only when requirements change.

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: demo test test-all requirements

demo: $(READY)
	$(BIN)/python app.py

test: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile

test-all: test
	$(BIN)/python -m pytest -m slow

$(READY): requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $(READY)

# After a change of pyproject.toml: exact versions of everything, for all platforms.
requirements: $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --group test --universal --python-version 3.11 \
		--no-header --no-emit-index-url --no-emit-find-links -o requirements.txt
