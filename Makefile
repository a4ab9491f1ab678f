# Everything runs in .venv, which is made with the first Python from 3.9 to 3.11 that is
# found, or by uv if it is there.
PYTHONS := python3 python3.11 python3.10 python3.9
FITS := import sys, venv, ensurepip; sys.exit(not (3, 9) <= sys.version_info < (3, 12))
PY := .venv/bin/python

.PHONY: train test test-all results paper notebooks constraints clean

train: .venv/installed
	$(PY) -m d2l_autorec.train

test-all: TESTS := -m "slow or not slow"
test test-all: .venv/installed-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pytest --numprocesses 2 --dist loadfile $(TESTS)

# Writes the README's table, and the picture beside it, anew.
results: .venv/installed
	mkdir -p docs
	$(PY) -m d2l_autorec.compare --markdown README.md --plot docs/compare.png

# Goes on where it was interrupted; an hour or more on 2 cores.
paper: .venv/installed
	$(PY) -m d2l_autorec.paper --out docs/results

notebooks: .venv/installed-test
	$(PY) notebooks/build.py

.venv/bin/python:
	@for python in $(PYTHONS); do \
	    if $$python -c '$(FITS)' 2>/dev/null; then \
	        echo "making .venv with $$($$python --version)"; \
	        exec $$python -m venv .venv; \
	    fi; \
	done; \
	if command -v uv >/dev/null; then \
	    exec uv venv --quiet --python '>=3.9,<3.12' --seed .venv; \
	fi; \
	echo "error: MXNet needs Python 3.9, 3.10 or 3.11 (with venv); install one of them, or uv" >&2; \
	exit 1

# The constraints spare pip a long search, and pin what the tests have seen.
.venv/installed: .venv/bin/python setup.cfg constraints.txt
	$(PY) -m pip install --quiet --constraint constraints.txt --editable .
	@touch $@

.venv/installed-test: .venv/installed
	$(PY) -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	@touch $@

# PyTorch to measure against, in an environment of its own: the pins differ.
.venv-torch: .venv/bin/python
	.venv/bin/python -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet 'torch==2.13.0' 'numpy<3' scipy

# Run it after a change of the dependencies; it needs uv.
constraints:
	uv pip compile --quiet --universal --python-version 3.9 --all-extras --no-header \
	    --no-annotate --output-file constraints.txt setup.cfg

clean:
	rm -rf .venv .venv-torch build dist *.egg-info
