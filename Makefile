# make demo    set everything up and train the default job, or go on with it after Ctrl-C
# make test    set everything up and run the tests
# make check   lint and types
# make docs    build the site of docs/ and of docstrings in build/site; a broken link is an error
# make lock    pin today's versions for this Python: constraints.txt (3.11) or constraints-3.13.txt
#
# With another Python, beside the first: make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
READY := $(VENV)/.ready
RUN := $(VENV)/bin
# The newest jax asks for Python 3.12; on 3.11 it is 0.10.
MINOR := import sys; print(sys.version_info[:2])
LOCK := import sys; print("constraints.txt" if sys.version_info < (3, 12) else "constraints-3.13.txt")

.PHONY: demo test check format docs same-python lock clean

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

# A Python that was asked for is the one that runs.
same-python:
	@test "$(origin PYTHON)" = file || test ! -x $(RUN)/python \
	  || test "$$($(RUN)/python -c '$(MINOR)')" = "$$($(PYTHON) -c '$(MINOR)')" \
	  || { echo "$(VENV) has another Python than $(PYTHON); name another folder (VENV=.venv-other)"; exit 1; }

# What the theme says of its own end, in May 2027, is no warning about these pages.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(RUN)/mkdocs build --strict

$(VENV)/.docs: $(READY)
	$(RUN)/python -m pip install --quiet --constraint "$$($(RUN)/python -c '$(LOCK)')" --editable '.[docs]'
	@touch $@

$(READY): pyproject.toml constraints.txt constraints-3.13.txt | same-python
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "gmma needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(RUN)/python || $(PYTHON) -m venv $(VENV)
	$(RUN)/python -m pip install --quiet --upgrade pip
	$(RUN)/python -m pip install --quiet --constraint "$$($(RUN)/python -c '$(LOCK)')" --editable '.[test]'
	@touch $@

# transformers and peft without what they ask for: which torch there is, CI says.
lock:
	$(PYTHON) -m venv .lock
	.lock/bin/python -m pip install --quiet --editable '.[test,docs]'
	.lock/bin/python -m pip install --quiet --no-deps 'transformers>=5' peft
	.lock/bin/python -m pip freeze --exclude-editable > "$$(.lock/bin/python -c '$(LOCK)')"
	rm -rf .lock

clean:
	rm -rf $(VENV) .jax_cache build *.egg-info
