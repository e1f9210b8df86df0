# PYTHON names the interpreter, PORT the web port, PYTEST_ARGS what to test. VENV names an
# environment that is used as it is; without it, one is made here and kept up to date.
RUN = $(or $(VENV),.venv)/bin/python
TEST = $(or $(VENV),.venv-dev)/bin/python
BENCH = $(or $(VENV),.venv-bench)/bin/python

# Most tests wait for other processes: three at once keep two cores busy, in the order
# of tests/conftest.py.
EVERY_TEST = -n 3 --no-loadscope-reorder --cov

# What breaks on purpose, by itself and in the real intervals.
FAULTS = $(TEST) -m pytest -m "nightly or not nightly"
REPORTS = var/faults

# Hundreds of processes start: what Python has compiled is kept for the next one.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run test firefox oldest faults-all chaos bench

help:
	@echo "make run      start the site (PORT=8000) until Ctrl-C"
	@echo "make test     run every test"
	@echo "make firefox  walk through the site in Firefox, if that is installed"
	@echo "make oldest   the whole way with the oldest releases that may be installed"
	@echo "make faults-all  break everything, with the real intervals (90 minutes, as root)"
	@echo "make bench    measure it beside others (QUICK=1; ONLY='step latency')"
	@echo "make chaos    break at random for SECONDS=300, as SEED=... says; the seed also"
	@echo "              chooses SERVER=daphne or uvicorn, and LAYER=pubsub or core"

run:
	@$(if $(VENV),,bin/venv .venv requirements.txt)
	@exec $(RUN) -m CeleryProgressbar.dev

test:
	@$(if $(VENV),,bin/venv .venv-dev requirements-dev.txt)
	@exec $(TEST) -m pytest $(or $(PYTEST_ARGS),$(EVERY_TEST))

firefox:
	@$(if $(VENV),,bin/venv .venv-dev requirements-dev.txt)
	@exec $(TEST) -m pytest -m nightly tests/firefox

oldest:
	@bin/venv .venv-oldest requirements-dev.txt
	@.venv-oldest/bin/python -m pip install -q -r requirements-oldest.txt
	@exec .venv-oldest/bin/python -m pytest -n 3 --no-loadscope-reorder \
		tests/core tests/web tests/e2e/test_wire.py tests/faults/test_worker_dies.py

# REPORTS has what was measured; tests/faults/table.py writes it into the documentation.
faults-all:
	@command -v rabbitmq-server >/dev/null || { \
		echo "RabbitMQ is missing, and a part of the faults needs it: install it (on"; \
		echo "Debian: apt install rabbitmq-server). It need not be running."; exit 1; }
	@ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || { \
		echo "libfaketime is missing, for hosts whose clock is wrong: install it (on"; \
		echo "Debian: apt install libfaketime)."; exit 1; }
	@$(if $(VENV),,bin/venv .venv-dev requirements-dev.txt)
	@mkdir -p $(REPORTS)
	@bad=0; export FAULTS_REAL=1; \
	$(FAULTS) tests/core/test_interleavings.py || bad=1; \
	FAULTS_REPORT=$(REPORTS)/storm.json $(FAULTS) tests/faults/test_storm.py || bad=1; \
	FAULTS_REPORT=$(REPORTS)/pubsub.json \
		$(FAULTS) tests/faults --ignore tests/faults/test_storm.py || bad=1; \
	FAULTS_REPORT=$(REPORTS)/core.json FAULTS_CHANNEL_LAYER=core \
		$(FAULTS) tests/faults --ignore tests/faults/test_storm.py \
		--ignore tests/faults/test_web.py || bad=1; \
	$(TEST) -m tests.faults.table $(REPORTS)/core.json $(REPORTS)/storm.json \
		$(REPORTS)/pubsub.json || bad=1; \
	exit $$bad

chaos:
	@$(if $(VENV),,bin/venv .venv-dev requirements-dev.txt)
	@exec $(TEST) -m tests.faults.chaos

bench:
	@$(if $(VENV),,bin/venv .venv-bench benchmarks/peers.txt)
	@exec $(BENCH) -m benchmarks $(if $(QUICK),--quick) $(ONLY)
