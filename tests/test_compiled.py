"""Compiled loops among processes, threads and folders; and the memory they work on."""

import os
import shutil
import sys
from pathlib import Path

import mxnet as mx
import numba
import numpy as onp
import pytest
from test_checkpoint import CPU, make_run, train

import d2l_autorec
from d2l_autorec.fast.arrays import view
from d2l_autorec.fast.compiled import compiled, in_shares
from d2l_autorec.training import Training

TOY = """
import multiprocessing, os, sys, threading
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import scipy.sparse as sp
from d2l_autorec import Recipe, seed_everything, try_all_gpus
from d2l_autorec.training import Parts, Run, Training

def ratings():
    rng = np.random.default_rng(0)
    cells = rng.integers(1, 6, (300, 500)) * (rng.random((300, 500)) < 0.2)
    return sp.csr_matrix(cells.astype(np.float32))

def train(_=None):
    recipe = Recipe(num_hidden=200, num_epochs=3, batch_size=100)
    parts = Parts(ratings(), ratings())
    training = Training(Run(parts, recipe, 1), try_all_gpus())
    return [epoch.train_loss for epoch in training.epochs()]

def in_threads(function):
    barrier = threading.Barrier(8)
    def at_once(_):
        barrier.wait()
        return function()
    with ThreadPoolExecutor(8) as threads:
        return list(threads.map(at_once, range(8)))
"""


def done(run, code, folder=None, **environment):
    """Run code in a process, which says nothing wrong; return what it prints."""
    code, out, err = run(
        "-c", TOY + code, cwd=folder, env={**os.environ, **environment}
    )
    assert (code, err) == (0, "")
    return out


SCRIPTS = {
    "forked processes train after a training": """
expected = train()
with multiprocessing.get_context("fork").Pool(2) as pool:
    for found in pool.map(train, range(2)):
        np.testing.assert_allclose(found, expected, rtol=1e-4)
""",
    "a forked process finds that no thread computed": """
import time, warnings
from d2l_autorec._mxnet import one_at_a_time

entered, done = threading.Event(), []

@one_at_a_time
def compute():
    entered.set()
    time.sleep(0.2)
    done.append(True)

threading.Thread(target=compute).start()
entered.wait()
warnings.simplefilter("ignore")  # Python 3.12 warns of a fork beside threads
child = os.fork()
if not child:
    one_at_a_time(lambda: os._exit(0 if done else 1))()
assert os.waitpid(child, 0)[1] == 0
""",
    "NumPy's semantics hold in every thread": """
try_all_gpus()
from d2l_autorec._mxnet import mx

def semantics():
    return mx.util.is_np_shape(), mx.util.is_np_array(), mx.np.ones((0, 2)).shape

assert in_threads(semantics) == 8 * [(True, True, (0, 2))]
""",
    "threads train at once": """
train()
for losses in in_threads(train):
    assert losses[-1] < 0.7 * losses[0]
""",
    "threads share a saved model": """
from d2l_autorec import load_model

def ask(model):
    pairs = [(f"{user:03}", item) for user in range(9) for item in range(100, 108)]
    new = model.recommend_new({100: 3.0, 104: 1.0})
    return model.predict(pairs).tolist(), model.recommend("003"), new

expected, model = ask(load_model(".")), load_model(".")
assert in_threads(lambda: ask(model)) == 8 * [expected]
""",
}


@pytest.mark.parametrize("title", SCRIPTS)
def test_processes_and_threads(run, tmp_path, title):
    if "fork" in title and not hasattr(os, "fork"):
        pytest.skip("nothing can be forked")
    if "saved" in title:
        train(tmp_path, make_run())
    package = str(Path(d2l_autorec.__file__).parents[1])
    done(run, SCRIPTS[title], tmp_path, PYTHONPATH=package)


@pytest.mark.parametrize("given", ["1", "2"])
def test_loops_have_as_many_threads_as_mxnet(run, given):
    code = """
train()
from d2l_autorec._mxnet import openmp
from d2l_autorec.fast.compiled import num_threads
print(num_threads(), openmp("omp_get_max_threads", num_threads)())
"""
    threads = {"OMP_NUM_THREADS": given, "NUMBA_NUM_THREADS": "4"}
    assert done(run, code, **threads) == f"{given} {given}\n"


@pytest.mark.slow  # it compiles all loops
def test_it_works_where_no_folder_can_be_written(run, tmp_path):
    package = tmp_path / "d2l_autorec"
    origin = Path(d2l_autorec.__file__).parent
    shutil.copytree(origin, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "__pycache__").write_text("not a folder, whoever asks")
    nowhere = dict.fromkeys(
        ("HOME", "XDG_CACHE_HOME", "NUMBA_CACHE_DIR"), f"{os.devnull}/none"
    )
    code = "print(sys.modules['d2l_autorec'].__file__, len(train()))"
    found = done(run, code, tmp_path, **nowhere)
    assert found == f"{package / '__init__.py'} 3\n"


@numba.njit
def doubled(value):
    return value * 2


@compiled
def double(share, values):
    values[share] = doubled(values[share])


@pytest.mark.slow  # it compiles a loop, whose room is seldom missing
def test_it_works_where_machine_code_finds_no_room(monkeypatch):
    def full(cache, *args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("numba.core.caching.Cache.save_overload", full)
    monkeypatch.setattr("numba.core.caching.Cache.load_overload", lambda *args: None)
    values = onp.arange(3.0)
    in_shares(double, 3, values)
    assert values.tolist() == [0, 2, 4]


@pytest.mark.parametrize(
    "settings", [{}, {"num_hidden": (4, 3)}, {"leave_one_out": True, "dropout": 0}]
)
def test_a_loop_does_not_call_python(settings):
    # As Numba does for an array that is returned; a Ctrl-C there is a SystemError.
    list(Training(make_run(**settings), CPU).epochs())  # compiles
    files = set()

    def note(frame, *_):
        file, names = frame.f_code.co_filename, set()
        while frame:
            names.add(frame.f_code.co_name)
            frame = frame.f_back
        if "typeof_pyval" not in names:  # older ones, before a loop, for its arguments
            files.add(file)

    sys.setprofile(note)
    try:
        list(Training(make_run(**settings), CPU).epochs())
    finally:
        sys.setprofile(None)
    assert d2l_autorec.fast.compiled.__file__ in files
    numbas = str(Path(numba.__file__).parent)
    assert not [file for file in files if file.startswith(numbas)]


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
def test_a_view_is_the_arrays_memory(dtype):
    array = mx.np.arange(6, dtype=dtype).reshape(2, 3)
    seen = view(array)
    assert seen.dtype == onp.dtype(dtype)
    assert seen.tolist() == [[0, 1, 2], [3, 4, 5]]
    seen[1, 2] = 9
    assert array[1, 2] == 9


def test_a_view_keeps_the_array():
    seen = view(mx.np.ones((300, 700)))
    assert not any(mx.np.zeros((300, 700)).any() for _ in range(10))
    assert (seen == 1).all()
