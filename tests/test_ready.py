"""How MXNet is imported: with names that NumPy removed, and with settings."""

import os
import subprocess
import sys

import mxnet as mx
import numpy
import pytest

from d2l_autorec import _ready

SETTINGS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MXNET_ENGINE_TYPE")


def python(code, **changes):
    """Run code in a fresh Python; return what it prints."""
    environment = {n: value for n, value in os.environ.items() if n not in SETTINGS}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**environment, **changes},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


# Stands in for MXNet: asks for what MXNet does as it is imported.
ASKING = """
import importlib, os, sys, types
import numpy
from distutils.version import LooseVersion
stats = importlib.import_module("scipy.stats")

REMOVED = (
    *("Inf", "PINF", "NINF", "NAN", "NaN", "PZERO", "NZERO", "alltrue", "product"),
    *("round_", "sometrue", "trapz", "in1d", "mirr", "msort", "npv", "pmt", "ppmt"),
    *("pv", "rate"),
)
found = {name: getattr(numpy, name) for name in REMOVED}
assert LooseVersion("1.9") < LooseVersion("1.17")
assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
assert int(os.environ["OMP_NUM_THREADS"]) > 0
split = types.SimpleNamespace(is_enabled=lambda name: False)
runtime = types.SimpleNamespace(Features=lambda: split)
np = types.SimpleNamespace(split=lambda ary, sections, axis=0: sections)
def waitall():
    assert os.environ["MXNET_ENGINE_TYPE"] == "NaiveEngine"
    os.write(2, b"from compiled code")
nd = types.SimpleNamespace(waitall=waitall)
"""
IMPORTING = """
import os, sys, warnings
import numpy
warnings.simplefilter("ignore")
before = numpy.__getattr__, dict(os.environ)
import d2l_autorec
import mxnet
assert (numpy.__getattr__, dict(os.environ)) == before
assert not {"distutils", "distutils.version"} & sys.modules.keys()
for name in ("PINF", "product", "npv"):
    try: assert getattr(numpy, name) is None
    except AttributeError: pass
assert "scipy.stats" not in sys.modules
assert numpy.isclose(mxnet.stats.entropy([0.5, 0.5]), numpy.log(2))
try: mxnet.found["npv"](0.1, [1])
except NotImplementedError as error: print(error)
os.write(2, b"later")
"""


def test_mxnet_gets_what_it_asks_for_and_nothing_of_it_is_left(tmp_path):
    (tmp_path / "mxnet.py").write_text(ASKING)
    done = subprocess.run(
        [sys.executable, "-c", IMPORTING],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "later"), done.stderr
    assert done.stdout == "NumPy has no npv any more\n"


def test_mxnet_itself_leaves_environment_and_numpy_as_they_were():
    code = IMPORTING[: IMPORTING.index("assert not {")]
    python(f"{code}\nd2l_autorec.AutoRec\nassert dict(os.environ) == before[1]")


@pytest.mark.parametrize(
    "variable",
    [
        *("OMP_NUM_THREADS=", "OMP_NUM_THREADS=64", "NUMBA_NUM_THREADS=2"),
        *("MXNET_GPU_MEM_POOL_TYPE=Round", "MXNET_HOME=x", "MXNET_VERSION=1.9.1"),
        *("MXNET_MKLDNN_CACHE_NUM=-1", "MXNET_ENGINE_TYPE=ThreadedEngine"),
        *("NUMBA_DISABLE_JIT=0", "NUMBA_CPU_FEATURES=+avx,-avx2", "NUMBA_OPT=max"),
        *("TQDM_MININTERVAL=.5", "TQDM_MININTERVAL=inf", "TQDM_UNIT=x"),
    ],
)
def test_variables_that_libraries_take_stay(monkeypatch, variable):
    monkeypatch.setenv(*variable.split("="))
    _ready.check_variables()


def test_no_variable_ends_a_program_that_imports_mxnet():
    code = """
import d2l_autorec
try:
    import mxnet
except d2l_autorec.errors.InvalidVariable as error:
    print(error)
"""
    assert python(code, OMP_NUM_THREADS="abc").endswith("from 1 to 9999\n")


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="counts threads")
def test_the_engine_starts_no_thread():
    count = """
import os
before = len(os.listdir("/proc/self/task"))
import d2l_autorec; import mxnet as mx
from d2l_autorec import AutoRec; mx.nd.ones(3).asnumpy()
print(len(os.listdir("/proc/self/task")) - before)
"""
    assert python(count, OMP_NUM_THREADS="1") == "0\n"


@pytest.mark.parametrize("trouble", ["sys.stderr = None", "import os; os.close(2)"])
def test_it_is_imported_without_a_standard_error(trouble):
    code = f"import sys; {trouble}; import d2l_autorec._mxnet; print(1)"
    assert python(code) == "1\n"


@pytest.mark.slow
def test_an_import_that_failed_before_does_no_harm():
    code = """
try:
    import mxnet  # fails where NumPy is new
except AttributeError:
    pass
from d2l_autorec import AutoRec
import mxnet as mx
net = AutoRec(3, 5)
net.initialize()
print(net(mx.np.ones((2, 5))).shape)
"""
    assert python(code) == "(2, 5)\n"


def test_who_lacks_mxnet_is_told_the_line_to_run():
    code = """
import sys
sys.modules["mxnet"] = None  # as if it were not installed
from d2l_autorec.errors import MXNetMissing
try:
    from d2l_autorec import AutoRec
except MXNetMissing as error:
    print(error)
"""
    assert "python -m pip install --no-deps mxnet==1.9.1" in python(code)


def test_arrays_are_split_at_numpys_integers():
    parts = mx.np.split(mx.np.arange(5), [numpy.int64(2), numpy.int64(3)])
    assert [part.tolist() for part in parts] == [[0, 1], [2], [3, 4]]
    assert [len(part) for part in mx.np.split(mx.np.arange(6), 3)] == [2, 2, 2]
