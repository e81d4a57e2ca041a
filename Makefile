.DEFAULT_GOAL = help

LAB_CACHE = $(or $(BUNDLER_LAB_CACHE),$(HOME)/.cache/bundler-lab)
PYTHON = .venv/bin/python
BUILD = .venv/bin/bundler build -c scripts/lab.yaml -o dist --mirror $(LAB_CACHE)/mirror --pins $(LAB_CACHE)/pins.yaml
LIST_NODES = $(PYTHON) -c 'import sys, yaml; print(*(sys.argv[1].format(**node) for node in yaml.safe_load(open("scripts/lab.yaml"))["nodes"]))'
# Two more than processors: the longest tests wait for most of their time.
WORKERS = $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 2)))
PYTEST = $(PYTHON) -m pytest -q -n $(WORKERS)
# Python keeps what it compiled, tests with rewritten asserts among them: hundreds of its processes start in a run.
export PYTHONDONTWRITEBYTECODE =
# It is there while the lab of `make test` has not measured the first installation (tests/lab/conftest.py).
MEASURING = .lab/measuring
SHELL_SCRIPTS = $(shell git ls-files '*.sh' .ci/run scripts/lab/runc-wrapper scripts/lab/host/usr/local/lib/lab/fixups scripts/lab/conformance/images/httpd/usr/local/bin/httpd-foreground)

.PHONY: help demo check test test-others test-lab test-long test-machines test-conformance lint format docs site bench audit catalogue requirements release venv lab lab-up lab-down lab-shell clean

help: ## print this list
	@echo "usage: make TARGET"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s  %s\n", $$1, $$2 }' Makefile

demo: venv lab ## build scripts/lab.yaml from real artifacts and show what is in it (prepares the machine first)
	$(BUILD)
	@echo
	@cat dist/SHA256SUMS && du -ch dist/*.tar.gz | tail -1
	@echo "artifacts: $$(cat $(LAB_CACHE)/source.txt) (see docs/development/testing.md)"
	@.venv/bin/bundler inspect dist/lab-worker1.tar.gz | head -12

check: venv ## lint, types, import contracts, unit and golden tests, fast shell tests: no Docker, no lab
	@scripts/setup.sh check
	@$(MAKE) --no-print-directory --jobs=2 --keep-going lint test-quick audit

test: venv ## run all tests, a real five-host cluster included (Linux with Docker; on Debian as root from scratch)
	@scripts/setup.sh check
	@scripts/setup.sh lab
	@mkdir -p .lab && touch $(MEASURING)
	@$(MAKE) --no-print-directory --jobs=3 --keep-going lint test-lab test-others

test-quick:
	BUNDLER_TEST_SHELLS=dash $(PYTEST) --dist worksteal -m "not slow and not long" tests/unit tests/golden tests/shell

# The lab waits for most of its time, so it runs next to the other tests and has priority over them. They begin
# when the lab has measured the first installation, or after 15 minutes.
# A file's tests run in one process, so that its programs start once; the files that take longest are the first.
test-others:
	@tries=900; while [ -e $(MEASURING) ] && [ $$tries -gt 0 ]; do sleep 1; tries=$$((tries - 1)); done
	nice $(PYTEST) --dist loadfile --no-loadscope-reorder -m "not long" tests/component tests/unit tests/golden tests/shell

test-lab:
	@mkdir -p .lab
	@echo "the lab's tests run at the same time as the others; their output follows at the end (tail -f .lab/output)"
	@$(PYTHON) -m pytest tests/lab -m "not long" -n 2 --dist loadgroup --durations=20 >.lab/output 2>&1; code=$$?; rm -f $(MEASURING); cat .lab/output; exit $$code

test-long: venv lab ## run the lab's longest tests: upgrades under load, 30 kills and power cuts, growth, rotation, every crash point (3 h)
	-@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[scanners]' || echo "syft cannot be installed: its tests are skipped"
	-@$(PYTHON) -m pip install --quiet --disable-pip-version-check --editable '.[kms]' || echo "grpcio cannot be installed: its tests are skipped"
	$(PYTHON) -m pytest tests/lab -m long
	$(PYTEST) --dist loadfile -m long tests/component
	BUNDLER_TEST_SHELLS=dash,busybox,bash BUNDLER_CRASH_POINTS=all $(PYTEST) --dist worksteal tests/shell

test-machines: venv lab ## run clusters on machines with kernels of their own: reboots, power cuts, firewalls (QEMU; hours without KVM)
	@scripts/setup.sh machines
	$(PYTHON) -m pytest tests/machines --durations=20

test-conformance: venv lab ## run Kubernetes' own conformance tests on the five hosts; reports in .lab/conformance (1 h)
	@scripts/lab/conformance.sh
	$(PYTHON) -m pytest tests/conformance; code=$$?; cat .lab/conformance*/summary.txt; exit $$code

lint: venv ## check format, style, types, import contracts and shell scripts
	.venv/bin/ruff format --check --quiet .
	.venv/bin/ruff check --quiet .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	.venv/bin/shfmt -d $(SHELL_SCRIPTS)
	shellcheck -x $(SHELL_SCRIPTS)

format: venv ## format Python and shell
	.venv/bin/ruff check --quiet --fix-only .
	.venv/bin/ruff format --quiet .
	.venv/bin/shfmt -w $(SHELL_SCRIPTS)

audit: venv ## compare requirements.txt with known vulnerabilities; without a network it says so and passes
	@$(PYTHON) scripts/audit.py requirements.txt requirements-build.txt

catalogue: venv ## compare the catalog with Kubernetes' sources: make catalogue MINOR=1.38 SOURCE=DIR-or-archive [WRITE=yes]
	@test -n "$(MINOR)" && test -n "$(SOURCE)" || { echo "usage: make catalogue MINOR=1.38 SOURCE=DIR-or-archive [REVISION=v1.38.0] [WRITE=yes]" >&2; exit 2; }
	@$(PYTHON) -m scripts.catalogue "$(MINOR)" "$(SOURCE)" $(if $(REVISION),--revision "$(REVISION)") $(if $(WRITE),--write)

requirements: venv ## lock the builder's Python packages again: requirements.txt, requirements-build.txt
	scripts/requirements.sh

docs: venv ## write docs/reference/cluster-yaml.md, cli.md, weak-settings.md and the default versions from the code
	$(PYTHON) scripts/make_reference.py

site: venv ## build the documentation as static HTML that works without a network (build/site/index.html)
	$(PYTHON) scripts/site.py build/site
	@echo build/site/index.html

bench: venv lab ## measure build and download as ratios of commands in one run; fail where a bound is broken
	@failed=; for script in bench bench_fetch bench_addons; do \
		$(PYTHON) scripts/$$script.py || failed=yes; done; [ -z "$$failed" ]

release: venv ## build wheel, sdist, single-file zipapp, hash-locked requirements and SHA256SUMS into build/release
	scripts/release.sh build/release

lab-up: demo ## boot the lab's five hosts with their bundles unpacked, to play with
	@scripts/lab/hosts.sh down
	@scripts/lab/hosts.sh up $$($(LIST_NODES) '{name}={address}')
	@for node in $$($(LIST_NODES) '{name}'); do \
		docker exec bundlerlab-$$node mkdir -p /root && \
		docker cp dist/lab-$$node.tar.gz bundlerlab-$$node:/root/ && \
		docker exec bundlerlab-$$node tar -xzf /root/lab-$$node.tar.gz -C /root || exit 1; done
	@echo "on each host: /root/lab-NODE/install.sh        (make lab-shell NODE=master1)"

lab-shell: ## open a root shell on a host of the lab: make lab-shell NODE=master1
	@scripts/lab/hosts.sh shell $(NODE)

lab-down: ## remove the lab's hosts
	@scripts/lab/hosts.sh down

lab: ## prepare the lab only: Docker, artifacts, host image (Kubernetes is compiled once where upstream is unreachable)
	@scripts/setup.sh lab

venv: ## make or update the virtual environment .venv
	@scripts/setup.sh venv

clean: ## remove everything that make wrote into this folder; the lab's cache stays
	rm -rf .venv build dist .lab .mypy_cache .ruff_cache .pytest_cache .import_linter_cache scripts/*.state
