"""How MXNet is imported: with names that NumPy removed, and with settings."""

import importlib
import os
import subprocess
import sys

import mxnet as mx
import numpy
import pytest

from d2l_autorec import _ready


def python(code, **changes):
    """Run code in a fresh Python; return what it prints."""
    environment = {**os.environ, **changes}
    for name in ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "MXNET_ENGINE_TYPE"):
        if name not in changes:
            environment.pop(name, None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


REMOVED = _ready.REMOVED


def ask(name, module):
    """Ask NumPy for a name, as code of a module would."""
    return eval(f"numpy.{name}", {"numpy": numpy, "__name__": module})


@pytest.mark.parametrize("name", REMOVED)
def test_mxnet_is_given_a_name_that_numpy_does_not_have(name):
    with _ready.removed_names():
        ask(name, "mxnet.numpy.fallback")


def test_mxnet_need_not_wait_for_what_it_hardly_uses(monkeypatch):
    for name in ("scipy.stats", "distutils", "distutils.version"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with _ready.stand_ins():
        from distutils.version import LooseVersion

        stats = importlib.import_module("scipy.stats")
    assert LooseVersion("1.9") < LooseVersion("1.17")
    assert not {"scipy.stats", "distutils", "distutils.version"} & sys.modules.keys()
    assert stats.entropy([0.5, 0.5]) == pytest.approx(numpy.log(2))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("module", ["mxnetlike", "d2l_autorec.model", "__main__"])
def test_nobody_else_is(module):
    def found():
        answers = {}
        for name in REMOVED:
            try:
                answers[name] = type(ask(name, module))
            except AttributeError:
                answers[name] = None
        return answers

    before = found()
    with _ready.removed_names():
        assert found() == before


def test_numpy_is_as_it_was_once_mxnet_is_imported():
    code = """
import numpy, warnings
warnings.simplefilter("ignore")
names = {names}
before = numpy.__getattr__, [hasattr(numpy, name) for name in names]
import d2l_autorec
import mxnet
assert (numpy.__getattr__, [hasattr(numpy, name) for name in names]) == before
"""
    python(code.format(names=list(REMOVED)))


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


def test_a_removed_function_says_so_when_it_is_called():
    with _ready.removed_names():
        npv = ask("npv", "mxnet.numpy.fallback")
    with pytest.raises(NotImplementedError, match="NumPy has no npv any more"):
        npv(0.1, [1])


def test_no_variable_is_left_for_child_processes():
    code = """
import os
before = dict(os.environ)
import d2l_autorec
import mxnet
d2l_autorec.AutoRec
assert dict(os.environ) == before
"""
    python(code)


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
    assert (
        python(f"import sys; {trouble}; import d2l_autorec._mxnet; print(1)") == "1\n"
    )


def test_standard_error_is_open_again_after_an_error(capfd):
    with pytest.raises(ZeroDivisionError), _ready.silent_stderr():
        os.write(2, b"from compiled code")
        raise ZeroDivisionError
    os.write(2, b"later")
    assert capfd.readouterr().err == "later"


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
