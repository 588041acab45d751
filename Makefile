# Every target below sets up first what it needs (scripts/setup.sh).
.DEFAULT_GOAL := help
.PHONY: help setup demo up cluster test chaos-log chaos-cluster soak upgrade-test check bench lock clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## Install everything: system packages, .venv
	@scripts/setup.sh

demo: setup  ## Start a cloud on this machine, boot a VM in it, show its history
	@.venv/bin/nebula demo $(ARGS)

up: setup  ## Start a cloud on this machine; Ctrl-C stops all but running guests
	@.venv/bin/nebula up $(ARGS)

cluster: setup  ## Start a cluster of three hosts in network namespaces of this machine, as root; Ctrl-C removes it
	@.venv/bin/python -m cli.local.cluster $(ARGS)

test: WORKERS ?= 6
# Or each of the many processes that the tests start would compile all that it imports, again.
test: export PYTHONDONTWRITEBYTECODE =
# Setup then installs a browser, too.
test: export NEBULA_BROWSER = true
test: setup  ## Run the tests against real servers (ARGS="-k servers")
	@.venv/bin/pytest --numprocesses $(WORKERS) --no-loadscope-reorder $(ARGS)

chaos-log: KILLS ?= 500
chaos-log: WRITERS ?= 16
chaos-log: setup  ## Kill the log's server 500 times under 16 writers; was its word kept? (SEED=7 KILLS=500 WRITERS=16)
	@.venv/bin/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --kills $(KILLS) --writers $(WRITERS) $(ARGS)

chaos-cluster: SECONDS ?= 600
chaos-cluster: setup  ## Faults on a cluster in network namespaces: was its word kept? As root (SECONDS=600 SEED=7 ARGS="--classes …")
	@.venv/bin/python -m tests.cluster --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

soak: SECONDS ?= 300
soak: setup  ## Random commands and kills on 50 simulated nodes and QEMU; does all agree? (SECONDS=300 SEED=7)
	@.venv/bin/python -m tests.soak --seconds $(SECONDS) $(if $(SEED),--seed $(SEED)) $(ARGS)

upgrade-test: setup  ## The version before beside this one under load, in several orders, and back (SEED=7 ARGS="--orders any")
	@.venv/bin/python -m tests.upgrade $(if $(SEED),--seed $(SEED)) $(ARGS)

check: setup  ## Lint, format, types (also of the console), who may import whom, dead code, bill of materials (sbom.cdx.json)
	@.venv/bin/ruff check
	@.venv/bin/ruff format --check
	@.venv/bin/mypy
	@.venv/bin/lint-imports
	@.venv/bin/vulture
	@.venv/bin/python scripts/sbom.py
	@.venv/bin/python scripts/console_types.py

bench: setup  ## Measure rates and latencies
	@.venv/bin/python -m bench all $(ARGS)

lock: setup  ## Pin the newest versions of all Python packages in requirements.lock
	@.venv/uv/bin/uv pip compile pyproject.toml --group dev --upgrade --generate-hashes --no-emit-index-url \
	  --no-annotate --universal --python-version 3.11 --custom-compile-command "make lock" -o requirements.lock

clean:  ## Remove what setup and the checks made here; data and system packages stay
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
