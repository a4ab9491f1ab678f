"""What tests share: data, processes, and the cores of the machine."""

import gc
import logging
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from importlib import import_module
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:
    # Several workers share the cores, and this is before NumPy or MXNet starts threads.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from hypothesis import settings

import d2l_autorec  # noqa: F401  before any test imports MXNet
from d2l_autorec.commands.process import run as run_command

# A shell has what runs in its background ignore Ctrl-C, which some tests send; what
# they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
# The same few examples in every run; or as many as are asked for, others each time.
FUZZ = "D2L_AUTOREC_FUZZ"
settings.register_profile(
    "here",
    max_examples=int(os.environ.get(FUZZ, 50)),
    derandomize=FUZZ not in os.environ,
    deadline=None,
)
settings.load_profile("here")


def write_u_data(folder: Path, num_users=30, num_items=40, seed=0) -> Path:
    """Write an ml-100k/u.data in which every user and item occurs and times tie."""
    rng = np.random.default_rng(seed)
    cells = rng.random((num_users, num_items)) < 0.3
    cells[np.arange(num_users), np.arange(num_users) % num_items] = True
    cells[np.arange(num_items) % num_users, np.arange(num_items)] = True
    rows = [
        (user + 1, item + 1, rng.integers(1, 6), rng.integers(880_000_000, 880_000_009))
        for user, item in rng.permutation(np.argwhere(cells))
    ]
    (folder / "ml-100k").mkdir(parents=True)
    text = "".join("\t".join(map(str, row)) + "\n" for row in rows)
    (folder / "ml-100k" / "u.data").write_text(text)
    return folder


@pytest.fixture(scope="session")
def small_folder(tmp_path_factory):
    """A data folder with a small ml-100k, to be left as it is."""
    return write_u_data(tmp_path_factory.mktemp("small") / "data")


@pytest.fixture
def small_data(small_folder, tmp_path, monkeypatch):
    """A data folder with a small ml-100k, which the package's lookup finds."""
    folder = shutil.copytree(small_folder, tmp_path / "data")
    monkeypatch.setenv("D2L_AUTOREC_DATA", str(folder))
    return folder


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No data anywhere, and servers that refuse."""
    monkeypatch.delenv("D2L_AUTOREC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("d2l_autorec.ratings.datasets.SERVERS", ("http://localhost:9",))


@pytest.fixture
def logged(caplog):
    """What the package logs, whatever a command has done with its messages."""
    log = logging.getLogger("d2l_autorec")
    log.addHandler(caplog.handler)
    with caplog.at_level(logging.DEBUG, log.name):
        yield caplog
    log.removeHandler(caplog.handler)


@pytest.fixture
def short_pretraining(monkeypatch):
    """A twentieth of the passes, where it does not matter how good they are."""
    monkeypatch.setattr("d2l_autorec.training.member.NUM_EPOCHS", 10)


@pytest.fixture(scope="module")
def two_threads():
    """The loops as they run, in parallel, whatever the number of test workers."""
    from d2l_autorec._mxnet import openmp

    before = openmp("omp_get_max_threads", int)()
    openmp("omp_set_num_threads", int)(2)
    yield
    openmp("omp_set_num_threads", int)(before)


def real(name: str) -> Path:
    """Return the folder of a real data set, or skip the test."""
    root = os.environ.get("D2L_AUTOREC_DATA")
    if not root or not (Path(root) / name).is_dir():
        pytest.skip(f"needs the real {name} in $D2L_AUTOREC_DATA")
    return Path(root) / name


@pytest.fixture
def real_ml_100k():
    return real("ml-100k")


def pytest_sessionstart(session):
    """Compile the loops once, before several workers would all do so at once."""
    if session.config.getoption("numprocesses", None):
        subprocess.run(
            [sys.executable, "-m", "d2l_autorec.train", "--quiet"]
            + ["--dataset", "synthetic-100k", "-k", "4", "-e", "1"],
            stdout=subprocess.DEVNULL,
            timeout=600,
        )


def pytest_collection_finish(session):
    """Set aside what was imported: MXNet collects garbage with each `DataLoader`."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def command(capsys):
    """Run a command in this process: its exit status, standard output and error."""

    def command(name, *argv):
        main = import_module(f"d2l_autorec.{name}").main
        with pytest.raises(SystemExit) as stopped:
            run_command(lambda: main([str(word) for word in argv]))
        return (stopped.value.code, *capsys.readouterr())

    return command


@pytest.fixture
def start():
    """Start Python in a process; at the end kill it and all that it started."""
    processes = []

    def start(*argv, **options):
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        processes.append(
            subprocess.Popen(
                [sys.executable, *map(str, argv)],
                **{**pipes, **options},
                start_new_session=True,
            )
        )
        return processes[-1]

    yield start
    for process in processes:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)


@pytest.fixture
def run(start):
    """Run Python in a process to its end: its exit code, standard output and error."""

    def run(*argv, **options):
        process = start(*argv, **options)
        out, err = process.communicate(timeout=240)
        return process.returncode, out, err

    return run
