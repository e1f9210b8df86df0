# PYTHON names the interpreter, PORT the web port, PYTEST_ARGS what to test.
VENV ?= .venv
VENV_DEV ?= .venv-dev

.PHONY: help run test

help:
	@echo "make run    start the site (PORT=8000) until Ctrl-C"
	@echo "make test   run every test"

run:
	@bin/venv $(VENV) requirements.txt
	@exec $(VENV)/bin/python -m CeleryProgressbar.dev

test:
	@bin/venv $(VENV_DEV) requirements-dev.txt
	@$(VENV_DEV)/bin/python -m pytest $(PYTEST_ARGS)
