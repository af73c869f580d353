# `make demo` and `make test` work on a fresh clone with Python 3.11 or newer; .venv is made when it is missing or outdated.
PYTHON ?= python3
RUN := .venv/bin/python
# How many processes `make test` uses, a whole file of tests each: half of its time is waiting, so more than cores. In
# the order of their folders: what takes longest (chaos, e2e) begins first, so that nobody waits for it at the end.
JOBS ?= 3
ARGS ?=

.PHONY: demo test check bench chaos fuzz compat tour fix lock venv

demo: venv
	@exec $(RUN) airlock.py demo $(ARGS)

test: venv
	$(RUN) -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: venv
	$(RUN) -m ruff format --check --quiet .
	$(RUN) -m ruff check --quiet .
	$(RUN) -m mypy
	.venv/bin/lint-imports
	$(RUN) -m pytest tests/unit tests/playbooks -n 2
	$(RUN) airlock.py policy check
	$(RUN) airlock.py policy test

# What the hop costs, in a quarter of an hour; ARGS="--server debian" has a server with TLS, "--idle 2000" takes 20 GB.
bench: ROUNDS ?= 5
bench: venv
	$(RUN) -m tests.bench --rounds $(ROUNDS) $(ARGS)

# The fault matrix, RUNS seeds from SEED on; then the machines in every order, then the bars. A release, which first proves
# that the checks notice a missing reaper: RUNS=1000 FULL=1.
chaos: RUNS ?= 40
chaos: SEED ?= 1
chaos: FULL ?=
chaos: venv
	$(if $(FULL),$(RUN) -m tests.chaos --prove)
	$(RUN) -m tests.chaos --runs $(RUNS) --seed $(SEED) $(ARGS)
	CHAOS_EXAMPLES=$(if $(FULL),10000,1000) $(RUN) -m pytest -n 0 tests/chaos/test_machines.py --timeout 3600
	$(RUN) -m tests.chaos --bars $(if $(FULL),--full)

# What reads what others wrote, fed with anything; a failure prints its seed and its smallest example.
fuzz: SECONDS ?= 300
fuzz: venv
	$(RUN) -m tests.fuzz --seconds $(SECONDS) $(ARGS)

# The suites that asyncpg and SQLAlchemy publish, through the broker and through a plain forwarder; downloads them once.
compat: venv
	$(RUN) -m tests.compat $(ARGS)

# The pictures of the README, taken from the running demo; needs a browser (apt install chromium).
tour: venv
	$(RUN) -m tests.e2e.tour

fix: venv
	$(RUN) -m ruff format .
	$(RUN) -m ruff check --fix .

lock:
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv" >&2; exit 1; }
	uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --extra dev --generate-hashes \
		--no-emit-index-url --no-emit-find-links --no-annotate --no-header --output-file requirements.lock

venv:
	@command -v $(PYTHON) >/dev/null || { \
		echo "$(PYTHON) is not installed: apt install python3 python3-venv, or brew install python@3.13" >&2; exit 1; }
	@$(PYTHON) bootstrap.py
