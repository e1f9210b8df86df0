# PYTHON names the interpreter, PORT the web port, PYTEST_ARGS what to test. VENV names an
# environment that is used as it is; without it, one is made here and kept up to date.
RUN = $(or $(VENV),.venv)/bin/python
TEST = $(or $(VENV),.venv-dev)/bin/python

.PHONY: help run test firefox

help:
	@echo "make run      start the site (PORT=8000) until Ctrl-C"
	@echo "make test     run every test"
	@echo "make firefox  walk through the site in Firefox, if that is installed"

run:
	@$(if $(VENV),,bin/venv .venv requirements.txt)
	@exec $(RUN) -m CeleryProgressbar.dev

test:
	@$(if $(VENV),,bin/venv .venv-dev requirements-dev.txt)
	@exec $(TEST) -m pytest $(or $(PYTEST_ARGS),--cov)

firefox:
	@$(if $(VENV),,bin/venv .venv-dev requirements-dev.txt)
	@exec $(TEST) -m pytest -m nightly tests/firefox
