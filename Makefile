# `make run` trains the bundled digits to a pushed model; `make test` runs every check.
# Everything lives in .venv, on the Python named in .python-version. uv installs, since TFX declares
# an upper bound on Python that pip obeys and uv does not (docs/supply-chain.md).

VERSION := $(shell cat .python-version)
PYTHON ?= python$(VERSION)
BIN := .venv/bin
UV_VERSION := 0.13.9
INSTALL := $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode
COMPILE := $(BIN)/uv pip compile --quiet --python-version $(VERSION) --generate-hashes \
	--no-strip-extras --no-header --exclude-newer 2026-10-27

NEXT_GLIBC := 2.39

.PHONY: run test test-next unit component e2e lint format bench bench-quick torture fuzz reproduce audit licences lock install install-dev clean

run: install ## Train the digits preset to a pushed model.
	@$(BIN)/plateau run digits $(ARGS)

# One session of all tests: what takes long begins first, and short ones fill up both processes.
test: lint install-dev .venv-kfp/.installed .venv-audit/.installed ## Every check.
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m "not torture" tests $(ARGS)

# The wheels are marked for this glibc; uv does not offer them on an older one.
test-next: .venv/.uv ## Digits and the unit tests with TFX 1.21, in an environment of its own.
	@glibc=$$(ldd --version 2>/dev/null | sed -n '1s/.* //p'); \
	if [ "$$(printf '%s\n' $(NEXT_GLIBC) "$${glibc:-0}" | sort -V | head -n 1)" = $(NEXT_GLIBC) ]; \
	then $(MAKE) --no-print-directory .venv-next/.tested; \
	else echo "TFX 1.21 is not tested: its ml-metadata and tensorflow-data-validation need glibc $(NEXT_GLIBC) or newer, and this machine has $${glibc:-none}."; fi

.PHONY: .venv-next/.tested
.venv-next/.tested: .venv-next/.installed
	.venv-next/bin/plateau --version
	.venv-next/bin/plateau run digits --output runs/next
	.venv-next/bin/python -m pytest --numprocesses auto --dist worksteal -m "not component and not e2e and not torture" tests $(ARGS)

# TFMA 0.52 leaves its configuration out of its public names, where the Evaluator of TFX 1.21
# looks for it. Packages are copied, so that the cache of uv keeps the file as it is.
.venv-next/.installed: .venv/.uv requirements-next.txt pyproject.toml
	@$(BIN)/uv venv --quiet --clear --no-python-downloads --python $(BIN)/python .venv-next
	@$(BIN)/uv pip install --quiet --python .venv-next/bin/python --link-mode copy --compile-bytecode \
		--override requirements-next.txt --editable ".[cli,dev]"
	@echo "from tensorflow_model_analysis.proto.config_pb2 import *" >> \
		$$(echo .venv-next/lib/python*/site-packages/tensorflow_model_analysis)/__init__.py
	@touch $@

unit: install-dev ## Tests that take seconds.
	$(BIN)/python -m pytest --numprocesses auto --dist worksteal -m "not training and not component and not e2e and not torture" tests $(ARGS)

component: install-dev .venv-kfp/.installed .venv-audit/.installed ## Tests that train, or run real Beam, TFMA and TFX: up to tens of seconds each.
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile -m "component or training" tests $(ARGS)

e2e: install-dev .venv-kfp/.installed ## Tests that run whole pipelines.
	$(BIN)/python -m pytest --numprocesses auto --dist loadfile --no-loadscope-reorder -m e2e tests $(ARGS)

lint: install-dev ## Style, types and the direction of imports.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install-dev ## Apply the style.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install-dev ## Speed, memory, schedules, a run by component, scale: hours; results in benchmarks/results. ARGS="speed memory" for some of them.
	$(BIN)/python -m benchmarks $(ARGS)

bench-quick: install-dev ## The same at toy size: minutes; results in runs/benchmarks-quick.
	$(BIN)/python -m benchmarks --quick $(ARGS)

torture: install-dev ## Kills, full disks and deleted artifacts, each component in turn: half an hour or more.
	$(BIN)/python -m pytest -m torture tests $(ARGS)

fuzz: install-dev ## Fuzz every reader of outside data, a minute each; ARGS="table --seconds 600".
	$(BIN)/python -m tests.fuzz $(ARGS)

reproduce: install-dev ## The strategies on CIFAR-10 and on a table, side by side: an hour or two; pages in docs/results.
	$(BIN)/python -m benchmarks.reproduce $(ARGS)

# What is locked is looked up as it is: nothing is resolved or installed.
AUDIT := .venv-audit/bin/pip-audit --format json --progress-spinner off --desc off --aliases on --disable-pip --require-hashes

audit: install .venv-audit/.installed ## Known vulnerabilities of what is locked; needs a service that lists them.
	@$(AUDIT) --requirement requirements.lock --requirement deploy/requirements-gpu.lock $(ARGS) | $(BIN)/python deploy/audit.py docs/supply-chain.md

licences: install-dev ## Write docs/licences.md from the metadata of what requirements.lock installs.
	@$(BIN)/pip-licenses --python $(BIN)/python --with-system --format markdown --order name --output-file docs/licences.md \
		--packages $$(sed -n 's/^\([a-z0-9._-]*\).*==.*/\1/p' requirements.lock)
	@printf '%s\n' '# Licences of what is installed' '' 'Written by `make licences`, which runs pip-licenses.' '' | cat - docs/licences.md > docs/.licences && mv docs/.licences docs/licences.md

lock: .venv/.uv ## Write the lock files from pyproject.toml.
	$(COMPILE) --extra cli --output-file requirements.lock pyproject.toml
	$(COMPILE) --extra cli --extra dev --constraint requirements.lock --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --constraint requirements.lock \
		--output-file deploy/requirements-gpu.lock deploy/requirements-gpu.in
	printf "kfp==2.17.0\nkfp-kubernetes==2.17.0\n" | $(BIN)/uv pip compile --quiet --python-version $(VERSION) --generate-hashes \
		--no-strip-extras --no-header --no-python-downloads - --output-file requirements-kfp.lock
	echo "kubernetes-validate==1.33.1" | $(COMPILE) --no-python-downloads --constraint requirements.lock \
		--output-file requirements-kubernetes.lock -
	echo "pip-audit==2.10.1" | $(BIN)/uv pip compile --quiet --python-version $(VERSION) --generate-hashes \
		--no-strip-extras --no-header --no-python-downloads - --output-file requirements-audit.lock

install: .venv/.installed ## What running needs.

install-dev: .venv/.installed-dev ## What running and testing need.

.venv/.installed: .venv/.uv requirements.lock pyproject.toml
	@echo "Installing requirements.lock (about 3 GB, once) ..."
	@$(INSTALL) --require-hashes --requirement requirements.lock
	@$(INSTALL) --no-deps --editable .
	@touch $@

# The validator of the manifests lies where nothing looks for it: the Kubernetes client that TFX
# imports would load it, for a second, in every run.
.venv/.installed-dev: .venv/.installed requirements-dev.lock requirements-kubernetes.lock
	@$(INSTALL) --require-hashes --requirement requirements-dev.lock
	@$(BIN)/uv pip uninstall --quiet --python $(BIN)/python kubernetes-validate
	@$(INSTALL) --target .venv/share/kubernetes-validate \
		--require-hashes --requirement requirements-kubernetes.lock
	@touch $@

# The newest client of Kubeflow Pipelines needs another protobuf than TFX.
.venv-kfp/.installed: .venv/.uv requirements-kfp.lock
	@$(BIN)/uv venv --quiet --clear --no-python-downloads --python $(BIN)/python .venv-kfp
	@$(BIN)/uv pip install --quiet --python .venv-kfp/bin/python --compile-bytecode \
		--require-hashes --requirement requirements-kfp.lock
	@touch $@

# pip-audit needs newer packages than TFX.
.venv-audit/.installed: .venv/.uv requirements-audit.lock
	@$(BIN)/uv venv --quiet --clear --no-python-downloads --python $(BIN)/python .venv-audit
	@$(BIN)/uv pip install --quiet --python .venv-audit/bin/python --compile-bytecode \
		--require-hashes --requirement requirements-audit.lock
	@touch $@

.venv/.uv: .python-version
	@command -v $(PYTHON) >/dev/null && $(PYTHON) --version >/dev/null 2>&1 || { echo \
	"Plateau needs Python $(VERSION), which its lock files are made for, and '$(PYTHON)' is not there: \
	install it (pyenv install $(VERSION), or uv python install $(VERSION)), or name one with make PYTHON=/path/to/python$(VERSION)." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != tuple(map(int, "$(VERSION)".split("."))))' || { echo \
	"Plateau needs Python $(VERSION), which its lock files are made for, and '$(PYTHON)' is $$($(PYTHON) --version)." >&2; exit 1; }
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@touch $@

clean: ## Remove the environment; runs/ stays.
	rm -rf .venv .venv-kfp .venv-audit .venv-next
