"""Several workers on this machine: mpiexec starts the command, or `worker.py`.

Nothing here depends on how long something takes: what is waited for comes, or all
processes of the test are ended, and the test fails.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from uuid import uuid4

import numpy as np
import pytest
import scipy.sparse as sp
from worker import FEW, MANY, train

from d2l_autorec import AutoRec, seed_everything
from d2l_autorec._mxnet import mx
from d2l_autorec.cluster import join, shard
from d2l_autorec.commands.train import main as train_command
from d2l_autorec.errors import ClusterError, ModelError
from d2l_autorec.serving import Checkpoint, lock

LIMIT = 300  # seconds for a test, on a machine that is busy with others
MARK = "D2L_AUTOREC_TEST"
LIMITS = "D2L_AUTOREC_SUM_TIMEOUT", "D2L_AUTOREC_MEETING_TIMEOUT"
MPIEXEC = Path(sys.executable).with_name("mpiexec")
WORKER = (sys.executable, Path(__file__).with_name("worker.py"))
TRAIN = (sys.executable, "-m", "d2l_autorec.train", "--quiet", "-k", "8", "-b", "16")


@pytest.fixture
def begin():
    """Start mpiexec, or what becomes one; at the end kill it, and so all it started."""
    started = []

    def begin(*command, **settings):
        marked = {"OMP_NUM_THREADS": "1", MARK: uuid4().hex, **settings}
        process = subprocess.Popen(
            [*map(str, command)],
            env={**os.environ, **marked},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        process.mark = f"{MARK}={marked[MARK]}".encode()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate(timeout=LIMIT)


def end(process):
    """Wait for the end of all processes; return mpiexec's code and what was written."""
    out, err = process.communicate(timeout=LIMIT)
    wait_until(lambda: not family(process))
    return process.returncode, own(out), own(err)


def own(text):
    """Leave out what the libraries of MPI say in a system without /sys."""
    lines = text.splitlines(keepends=True)
    missed = ("[hwloc/linux]", "scandir(/sys/")
    return "".join(one for one in lines if not any(words in one for words in missed))


def family(process, variable=b""):
    """Find what mpiexec has started, by a variable that only some of that may have."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            variables = (folder / "environ").read_bytes().split(b"\0")
            if process.mark in variables and folder.name != str(process.pid):
                found += [folder.name for one in variables if one.startswith(variable)]
    return sorted(map(int, set(found)))


def is_free(folder):
    """Tell whether no process holds a lock; one that ends has no variables before."""
    with suppress(ModelError), lock(folder):
        return True
    return False


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


def wait_until(happened):
    deadline = time.monotonic() + LIMIT
    while not happened():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize(
    ("size", "recipes"),
    [(2, FEW), *(slow(size, MANY) for size in (2, 3, 4))],
)
def test_workers_do_what_one_process_does(
    begin, short_pretraining, tmp_path, size, recipes
):
    process = begin(MPIEXEC, "-n", size, *WORKER, "train", tmp_path, *recipes)
    alone = {name: train(recipe) for name, recipe in recipes.items()}
    code, _, err = end(process)
    assert (code, err) == (0, "")
    first, *others = (
        json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(size)
    )
    for name, (history, weights) in alone.items():
        np.testing.assert_allclose(first[name][0], history, atol=1e-5, err_msg=name)
        assert first[name][1].keys() == weights.keys()
        for array in weights:
            found, expected = first[name][1][array], weights[array]
            np.testing.assert_allclose(found, expected, atol=1e-4, err_msg=name)
        for other in others:
            assert other[name] == [first[name][0], {}]


@pytest.mark.parametrize("size", [slow(2), 3, slow(4)])
def test_workers_add_up_arrays_of_any_size_to_the_same_bits(begin, size):
    assert end(begin(MPIEXEC, "-n", size, *WORKER, "sum")) == (0, "", "")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("recipe", "more"),
    [
        ("--valid-ratio 0.2 --patience 3", ["--workers", "3"]),
        ("--kind user", []),
        ("--preset best --lr 0.01 --schedule constant", ["--workers", "2"]),
    ],
)
def test_any_number_of_workers_goes_on_with_what_two_have_saved(
    run, small_data, tmp_path, recipe, more
):
    said, histories = [], []
    for first, second in ((["--workers", "2"], more), ([], [])):
        folder = tmp_path / f"{len(first)}"
        words = *TRAIN[1:], "-e", "2", *recipe.split(), "--save", folder, *first
        assert run(*words)[::2] == (0, "")
        resume = "--quiet", "-e", "4", "--resume", folder, *second
        code, out, err = run("-m", "d2l_autorec.train", *resume)
        assert (code, err) == (0, "")
        # Once, by the first worker.
        said.append([line for line in out.splitlines() if "/sec" not in line])
        histories.append([epoch[:4] for epoch in Checkpoint.open(folder).history])
    assert said[0] == said[1]
    np.testing.assert_allclose(*np.array(histories, float), atol=1e-4)


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("fork", ""),
        ("error", "AssertionError: no luck"),
        ("exit", "s for the others"),
        slow("kill", ""),
    ],
)
def test_a_worker_that_ends_early_ends_the_others(begin, how, said):
    limits = {LIMITS[0]: "3" if how == "exit" else "60"}
    code, _, err = end(begin(MPIEXEC, "-n", 2, *WORKER, "end", how, **limits))
    assert (code == 0) == (how == "fork") and said in err
    assert (LIMITS[0] in err) == (how == "exit")


@pytest.mark.parametrize("other", [slow("sys.exit(1)"), "time.sleep(300)"])
def test_a_worker_that_never_comes_is_waited_for_with_a_limit(begin, other):
    one = "from d2l_autorec.cluster import enter; enter()"
    one, other = ("-n", 1, sys.executable, "-c", one), f"import sys, time; {other}"
    both = *one, ":", "-n", 1, sys.executable, "-c", other
    assert end(begin(MPIEXEC, *both, **{LIMITS[1]: "3"}))[0] == signal.SIGALRM


SIGNALS = [
    ("mpiexec", 15),
    ("mpiexec", 9),
    ("mpiexec", 1),
    ("worker", 15),
    ("worker", 9),
]


@pytest.mark.parametrize(
    ("whom", "number", "seed"),
    [
        ("mpiexec", 2, None),
        *(slow(*one, None) for one in SIGNALS),
        *(slow(*one, seed) for one in SIGNALS for seed in range(20)),
    ],
)
def test_a_signal_ends_all_and_spares_the_folder(
    begin, small_data, tmp_path, whom, number, seed
):
    draw, folder = random.Random(f"{whom} {number} {seed}"), tmp_path / "model"
    limits = dict.fromkeys(LIMITS, "60" if seed is None else "10")
    train = *TRAIN, "-e", 100000, "--save", folder, "--workers", 2
    process = begin(*train, **limits)
    if seed is None:
        file = folder / "autorec.safetensors"
        wait_until(file.exists)
        first = file.stat().st_ino
        wait_until(lambda: file.stat().st_ino != first)  # the first save has ended
    else:  # before, during and after the start
        time.sleep(draw.uniform(0, draw.choice([2, 8])))
    wait_until(lambda: whom == "mpiexec" or family(process, b"PMI_RANK="))
    victims = [process.pid] if whom == "mpiexec" else family(process, b"PMI_RANK=")
    os.kill(victims[0 if number == 15 else -1], number)  # the first one says something
    code, _, err = end(process)
    assert code
    if number in (2, 15) and seed is None:
        assert err.count("of 100000 epochs are saved, go on with --resume") == 1
    if (folder / "autorec.safetensors").exists():
        wait_until(lambda: is_free(folder))
        trained = len(Checkpoint.open(folder).history)
        train_command(["--quiet", "--resume", f"{folder}", "-e", f"{trained + 1}"])
        assert len(Checkpoint.open(folder).history) == trained + 1


@pytest.mark.parametrize(
    ("flags", "data", "said"),
    [
        (["--seed", 1], "data", "differ in --seed: 1 and 0"),
        ([], "other", "differ in the users: "),
    ],
)
def test_workers_that_differ_are_told_in_what(
    begin, small_data, tmp_path, flags, data, said
):
    lines = (small_data / "ml-100k/u.data").read_text().splitlines(keepends=True)
    (tmp_path / "other" / "ml-100k").mkdir(parents=True)
    (tmp_path / "other/ml-100k/u.data").write_text("".join(lines[:50]))
    other = "-n", 1, "-env", "D2L_AUTOREC_DATA", tmp_path / data, *TRAIN, *flags
    code, out, err = end(begin(MPIEXEC, "-n", 1, *TRAIN, "--seed", 0, ":", *other))
    assert (code, out) == (1, "")
    lines = set(err.splitlines())
    assert len(lines) == 1 and said in err and err.startswith("error: worker 1 at ")


def test_another_number_of_workers_than_mpiexec_starts_is_refused(begin, small_data):
    code, out, err = end(begin(MPIEXEC, "-n", 2, *TRAIN, "--workers", 3))
    assert (code, out) == (1, "")
    assert err == "error: --workers 3, but mpiexec has started 2\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--loss", "rmse", "--wd", "0"], "the rmse loss takes the root over all"),
        (["--optimizer", "sgd"], "several workers train by adam; sgd is for one"),
        ([], "several workers need MPI: python -m pip install"),
    ],
)
def test_what_several_workers_cannot_do_is_said_before_anything_starts(
    monkeypatch, flags, message
):
    monkeypatch.setattr(shutil, "which", lambda name, path: None)
    with pytest.raises(ClusterError, match=message):
        train_command(["--workers", "2", *flags])


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({}, "the environment says that there are several tasks, and MPI that this"),
        ({"D2L_AUTOREC_SUM_TIMEOUT": "1m"}, "D2L_AUTOREC_SUM_TIMEOUT is '1m'; it is"),
        ({"PYTHONPATH": "{}"}, "several workers need MPI (there is none): python -m"),
    ],
)
def test_a_task_that_cannot_meet_the_others_says_so(run, tmp_path, settings, said):
    (tmp_path / "mpi4py.py").write_text("raise ImportError('there is none')")
    settings = {name: text.format(tmp_path) for name, text in settings.items()}
    settings = {**os.environ, "SLURM_STEP_NUM_TASKS": "2", **settings}
    code, out, err = run(*TRAIN[1:], env=settings)
    assert (code, own(out), own(err).count("\n")) == (1, "", 1)
    assert own(err).startswith(f"error: {said}")


def test_a_worker_has_one_device():
    with pytest.raises(ClusterError, match="a worker has one device, a CPU; "):
        join([mx.cpu(0), mx.cpu(1)])


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_columns_are_shared_out_by_their_ratings_each_worker_having_one(size):
    rng = np.random.default_rng(0)
    dense = (rng.random((30, 7)) < [0.9, 0, 0, 0, 0, 0.1, 0.1]).astype(np.float32)
    rows = sp.csr_matrix(dense)
    teams = [SimpleNamespace(rank=rank, size=size) for rank in range(size)]
    shards = [shard.Shard(team, rows, 0) for team in teams]
    assert sp.hstack([one.rows for one in shards]).toarray() == pytest.approx(dense)
    assert all(one.start < one.stop for one in shards)
    if size == 2:
        assert shards[0].stop == 1  # it has most of the ratings
        # Where there are many steps, what counts is the columns.
        assert shard.Shard(teams[0], rows, 1000).stop == 4
    with pytest.raises(ClusterError, match="7 columns cannot be divided among 8"):
        shard.Shard(SimpleNamespace(rank=0, size=8), rows, 0)


@pytest.mark.parametrize("drawn", [6, 30, 10_000])
def test_workers_draw_the_weights_of_one_process_piece_by_piece(monkeypatch, drawn):
    monkeypatch.setattr(shard, "_DRAWN", drawn)
    rows, start = sp.csr_matrix(np.ones((3, 7), np.float32)), mx.init.Normal(0.01)

    def weights(*shards):
        seed_everything(0)
        net = AutoRec(5, shards[0].rows.shape[1] if shards else 7)
        for own in shards:
            net.encoder.weight.init = own.initializer(start, axis=1)
            net.decoder.weight.init = own.initializer(start, axis=0)
        net.initialize(start)
        net(mx.np.zeros((1, net.decoder._units)))
        drawn = [one.weight.data().asnumpy() for one in (net.encoder, net.decoder)]
        return *drawn, mx.np.random.uniform(0, 1, (4,)).asnumpy()

    teams = [SimpleNamespace(rank=rank, size=2) for rank in range(2)]
    first, second = (weights(shard.Shard(team, rows, 0)) for team in teams)
    encoder, decoder, later = weights()
    np.testing.assert_array_equal(np.hstack([first[0], second[0]]), encoder)
    np.testing.assert_array_equal(np.vstack([first[1], second[1]]), decoder)
    assert (first[2] == later).all() and (second[2] == later).all()


@pytest.mark.parametrize("has_room", [True, False])
def test_ratings_are_in_files_if_there_is_room(monkeypatch, has_room):
    def full(*_):
        raise OSError("no space left on device")

    if not has_room:
        monkeypatch.setattr(os, "posix_fallocate", full)
    dense = np.random.default_rng(0).integers(0, 6, (9, 7)).astype(np.float32)
    matrix = sp.csr_matrix(dense)
    for _ in range(2):
        shard.spill(matrix)
        np.testing.assert_array_equal(matrix.toarray(), dense)
    assert isinstance(matrix.data, np.memmap) == has_room
