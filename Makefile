# What a newcomer needs: `make demo` and `make test`. The lab needs root: without it, the commands that do are run through sudo.
HMCTL := .venv/bin/hmctl
STAMP := .venv/.installed
PASSED := PYTHONDONTWRITEBYTECODE=1 $(foreach v,CI HYPERMESH_LAB_DIR,$(if $($(v)),$(v)=$($(v))))
SUDO := $(if $(filter-out 0,$(shell id -u)),sudo env $(PASSED))

.PHONY: help install demo test lint check bench bench-check clean
help:
	@echo "make demo      three hosts on this machine, joined into one cluster that runs an app"
	@echo "make test      everything: all of check, long simulations, agents as processes, then real hosts"
	@echo "make check     linters, types, unit tests and simulations, without those that take long"
	@echo "make bench     measure; writes docs/benchmarks.md and bench.json"
	@echo "make bench-check  measure, and compare with the recorded ratios"
	@echo "make install   .venv with hmctl, and the packages that the above need"
	@echo "make clean     remove what make made here (labs: $(HMCTL) lab down)"

install: $(STAMP)
$(STAMP): pyproject.toml tools/install.sh
	@tools/install.sh
	@touch $@

demo: install
	@$(SUDO) $(HMCTL) lab up
	@$(HMCTL) -i lab.yaml deploy --yes
	@$(HMCTL) -i lab.yaml status
	@tools/demo.sh $(SUDO)

lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

check: lint
	.venv/bin/pytest -n 3 -q -m "not long" tests/unit tests/sim

test: lint
	.venv/bin/pytest -n 2 -q tests/unit tests/sim
	.venv/bin/pytest tests/integration
	$(SUDO) .venv/bin/pytest -p no:cacheprovider tests/e2e

bench: install
	$(SUDO) .venv/bin/python tests/bench/run.py

bench-check: install
	$(SUDO) .venv/bin/python tests/bench/run.py --check

clean:
	rm -rf .venv .make build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
