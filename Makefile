# make demo    set everything up, obtain real artifacts, build examples/lab.yaml, show what it made
# make test    everything, a real cluster included (Linux with Docker; on Debian as root from scratch)
# make test-long  the lab's longest tests, which make test leaves out
# make check   the quick half: format, lint, types, unit and shell tests
# make docs    docs/cluster-yaml.md from the models
# make bench   what a build and a fetch cost, as ratios of commands in one run; fails where a bound is broken
# make lab-up | lab-down | lab-shell NODE=master1      the lab's hosts, to play with

LAB_CACHE = $(or $(BUNDLER_LAB_CACHE),$(HOME)/.cache/bundler-lab)
PYTHON = .venv/bin/python
BUILD = .venv/bin/bundler build -c examples/lab.yaml -o dist --mirror $(LAB_CACHE)/mirror --pins $(LAB_CACHE)/pins.yaml
LIST_NODES = $(PYTHON) -c 'import sys, yaml; print(*(sys.argv[1].format(**node) for node in yaml.safe_load(open("examples/lab.yaml"))["nodes"]))'
# one more than processors: the longest tests wait for most of their time
WORKERS = $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
SHELL_SCRIPTS = $(shell git ls-files '*.sh' .ci/run scripts/lab/runc-wrapper scripts/lab/host/usr/local/lib/lab/fixups)

.PHONY: demo test test-others test-lab test-long check lint docs bench venv lab lab-up lab-down lab-shell clean

demo: venv lab
	$(BUILD)
	@echo
	@cat dist/SHA256SUMS && du -ch dist/*.tar.gz | tail -1
	@echo "artifacts: $$(cat $(LAB_CACHE)/source.txt) (see README.md, What is verified)"
	@.venv/bin/bundler inspect dist/lab-worker1.tar.gz | head -12

# Side by side: the lab waits for most of its time, and goes before the rest where both want a processor.
test: lint lab
	@$(MAKE) --no-print-directory --jobs=2 --keep-going test-lab test-others

test-others:
	nice $(PYTHON) -m pytest -q -n $(WORKERS) --dist worksteal tests/unit tests/golden tests/shell tests/component

test-lab:
	@mkdir -p .lab
	@echo "the lab's tests run beside the others; what they say comes at the end, and meanwhile: tail -f .lab/output"
	@$(PYTHON) -m pytest tests/lab -m "not long" --durations=20 >.lab/output 2>&1; code=$$?; cat .lab/output; exit $$code

test-long: lint lab
	$(PYTHON) -m pytest tests/lab -m long

check: lint
	$(PYTHON) -m pytest -q -n $(WORKERS) --dist worksteal tests/unit tests/golden tests/shell

lint: venv
	@scripts/setup.sh check
	.venv/bin/ruff format --check --quiet .
	.venv/bin/ruff check --quiet .
	.venv/bin/mypy
	shellcheck -x $(SHELL_SCRIPTS)

bench: venv lab
	@failed=; for script in bench bench_fetch; do \
		$(PYTHON) scripts/$$script.py || failed=yes; done; [ -z "$$failed" ]

docs: venv
	$(PYTHON) scripts/make_reference.py

venv:
	@scripts/setup.sh venv

lab:
	@scripts/setup.sh lab

lab-up: demo
	@scripts/lab/hosts.sh down
	@scripts/lab/hosts.sh up $$($(LIST_NODES) '{name}={address}')
	@for node in $$($(LIST_NODES) '{name}'); do \
		docker exec bundlerlab-$$node mkdir -p /root && \
		docker cp dist/lab-$$node.tar.gz bundlerlab-$$node:/root/ && \
		docker exec bundlerlab-$$node tar -xzf /root/lab-$$node.tar.gz -C /root || exit 1; done
	@echo "on each host: /root/lab-NODE/install.sh        (make lab-shell NODE=master1)"

lab-down:
	@scripts/lab/hosts.sh down

lab-shell:
	@scripts/lab/hosts.sh shell $(NODE)

clean:
	rm -rf .venv dist .lab .mypy_cache .ruff_cache .pytest_cache examples/*.state
