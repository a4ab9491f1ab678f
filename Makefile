# Everything runs in .venv, which is made with the newest Python from 3.15 to 3.11 that is
# found, or by uv if it is there.
PYTHONS ?= python3.15 python3.14 python3.13 python3.12 python3.11 python3 python
# Numba has no wheel for Intel Macs from 3.14 on.
END := $(if $(filter Darwin,$(shell uname)),14,16)
FITS := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, $(END)))
PY := .venv/bin/python
PIP := $(PY) -m pip install --quiet --constraint constraints.txt

.PHONY: train test test-all results paper anywhere figures notebooks docs constraints clean

train: .venv/installed
	$(PY) -m d2l_autorec.train

test-all: TESTS := -m "slow or not slow"
test test-all: .venv/installed-test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports
	$(PY) -m pytest --numprocesses 2 --dist loadfile $(TESTS)

# Writes the comparison's table, and the picture beside it, anew.
results: .venv/installed
	$(PY) -m d2l_autorec.compare --markdown docs/comparison.md --plot docs/compare.png

# Goes on where it was interrupted; about two hours on 2 cores.
paper: .venv/installed
	$(PY) -m d2l_autorec.paper --out docs/results

# Models on many sets, for hours: goes on where it was interrupted.
anywhere: .venv/installed
	$(PY) benchmarks/anywhere.py

# Writes docs/results.md from what the two above have kept.
figures: .venv/installed
	$(PY) benchmarks/results.py

notebooks: .venv/installed-test
	$(PY) notebooks/build.py

# The reference, from the docstrings.
docs: .venv/installed-test
	$(PY) -m sphinx -q -W -E docs/api build/docs
	@echo "build/docs/index.html"

.venv/bin/python:
	@for python in $(PYTHONS); do \
	    if $$python -c '$(FITS)' 2>/dev/null; then \
	        echo "making .venv with $$($$python --version)"; \
	        exec $$python -m venv .venv; \
	    fi; \
	done; \
	if command -v uv >/dev/null; then \
	    exec uv venv --quiet --python '>=3.11,<3.$(END)' --seed .venv; \
	fi; \
	echo "error: found no Python from 3.11 to 3.15 with venv. Ways out: install one (on" \
	    "Debian and Ubuntu, python3 and python3-venv); or uv, which brings one; or name" \
	    "one, as in make PYTHONS=/path/to/python3.14; or use the Dockerfile" >&2; \
	exit 1

# The constraints spare pip a long search, and pin what the tests have seen. What is
# installed without its dependencies pins some that are too old.
.venv/installed: .venv/bin/python setup.cfg constraints.txt
	$(PIP) --editable .
	$(PIP) --no-deps mxnet==1.9.1
	@touch $@

.venv/installed-notebooks: .venv/installed
	$(PIP) --editable '.[notebooks]'
	@touch $@

.venv/installed-test: .venv/installed
	$(PIP) --editable '.[test]'
	$(PIP) --no-deps d2l==1.0.3
	@touch $@

# PyTorch to measure against, in an environment of its own: the pins differ.
.venv-torch: .venv/bin/python
	.venv/bin/python -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet 'torch==2.13.0' 'numpy<3' scipy

# Run it after a change of the dependencies; it needs uv.
constraints:
	uv pip compile --upgrade --quiet --universal --python-version 3.11 --all-extras \
	    --no-header --no-annotate --output-file constraints.txt setup.cfg

clean:
	rm -rf .venv .venv-torch build dist *.egg-info
