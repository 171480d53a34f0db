# make demo    set everything up and train the default job
# make test    set everything up and run the tests
# make check   lint and types
# make lock    pin today's versions in constraints.txt
PYTHON ?= python3
VENV := .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin

.PHONY: demo test check format lock clean

demo: $(READY)
	$(RUN)/gmma train experiments/digits.py --resume

test: $(READY)
	$(RUN)/pytest -n 2 --dist worksteal

check: $(READY)
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/mypy gmma

format: $(READY)
	$(RUN)/ruff check --fix .
	$(RUN)/ruff format .

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "gmma needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --upgrade pip
	$(RUN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

lock:
	$(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet --editable '.[test]'
	.lock/bin/python -m pip freeze --exclude-editable > constraints.txt
	rm -rf .lock

clean:
	rm -rf $(VENV) .jax_cache build *.egg-info
