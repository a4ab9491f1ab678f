"""Commands as processes, where something that is always there is not.

Each ends with its exit status and one line. The command is a fake one, which takes a
tenth of the time that importing MXNet does.
"""

import io
import os
import signal
import sys
import time

import pytest

from d2l_autorec.commands import process

FAKE = """
import os, sys, time
from d2l_autorec import errors
from d2l_autorec.commands import cli, process

def command():
    print("Am\\xe9lie")
    {}

process.run(command, os._exit)
"""
OK = "Amélie\n"
BAD = "raise errors.DataError('bad')"
NO_HOME = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"), os.devnull + "/no")
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NO_MEMORY = "error: not enough memory\n"
LESS = "import resource as r; r.setrlimit(r.RLIMIT_AS, 2 * [400 << 20])"
DRAW = "from d2l_autorec.serving import save_figure as s; from matplotlib.figure import"


@pytest.fixture
def closed_pipe():
    """The end to write to of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    yield writer
    os.close(writer)


@pytest.mark.parametrize(
    ("flags", "does", "code", "out", "err"),
    [
        ([], "", 0, OK, ""),
        ([], BAD, 1, OK, "error: bad\n"),
        (["-O"], BAD, 1, OK, "error: bad\n"),
        (["-OO", "-W", "error"], BAD, 1, OK, "error: bad\n"),
        (["-OO"], "import mxnet", 1, OK, "error: MXNet cannot be imported without doc"),
        ([], "bytearray(1 << 62)", 1, OK, NO_MEMORY),
        ([], "import numpy; numpy.ones(1 << 50)", 1, OK, NO_MEMORY[:-1]),
        # As MXNet says it, after a traceback of its own.
        ([], "raise RuntimeError('\\nFailed to allocate CPU')", 1, OK, NO_MEMORY),
        (
            [],
            "raise ImportError('tslib') from ImportError('failed to map segment')",
            1,
            OK,
            NO_MEMORY,
        ),
        ([], "raise RuntimeError('can\\'t start new thread')", 1, OK, NO_MEMORY),
        # Half of its libraries would end the process.
        (
            [],
            f"{LESS}; import mxnet",
            1,
            OK,
            f"{NO_MEMORY[:-1]}: MXNet takes 400 MiB\n",
        ),
        ([], "cli.Parser(prog='c').parse_args(['-h'])", 0, OK + "usage: c", ""),
        ([], "cli.Parser(prog='c').parse_args(['-x'])", 2, OK, "c: error: unrec"),
        ([], "raise OSError(28, 'No space', 'f')", 1, OK, "error: f: No space\n"),
        ([], "raise OSError(100, 'Network is down')", 1, OK, "error: Network is d"),
        ([], "raise SystemExit(3)", 3, OK, ""),
    ],
)
def test_exit_status_and_line(run, flags, does, code, out, err):
    found = run(*flags, "-c", FAKE.format(does), encoding="utf-8")
    assert found[0] == code
    assert found[1].startswith(out) and found[2].startswith(err)
    assert bool(found[2]) == bool(err) and found[2].count("\n") == bool(err)


@pytest.mark.parametrize(
    ("changes", "does", "out"),
    [
        (ASCII, "", "Am\\xe9lie\n"),
        ({"PYTHONIOENCODING": "latin-1"}, "print('\\u2028')", "Am\xe9lie\n\\u2028\n"),
        ({"PYTHONIOENCODING": "utf-8"}, "print('\\udc80')", "Am\xe9lie\n\\udc80\n"),
        pytest.param(
            *(NO_HOME, f"{DRAW} Figure; s(Figure(), 'f.png')", None),
            marks=pytest.mark.slow,  # it looks for all fonts anew
        ),
    ],
)
def test_an_environment_that_is_odd(run, tmp_path, changes, does, out):
    options = {"env": {**os.environ, **changes}, "cwd": tmp_path, "encoding": "latin-1"}
    if changes.get("PYTHONIOENCODING") == "utf-8":
        options["encoding"] = "utf-8"
    found = run("-c", FAKE.format(does), **options)
    assert found[0] == 0, found
    assert out is None or found[1] == out


@pytest.mark.parametrize(
    "variable",
    [
        *("OMP_NUM_THREADS=abc", "OMP_NUM_THREADS=4,2", "OMP_NUM_THREADS=99999"),
        *("MXNET_CPU_WORKER_NTHREADS=abc", "MXNET_CPU_WORKER_NTHREADS=2147483648"),
        *("MXNET_EXEC_BULK_EXEC_TRAIN=abc", "MXNET_ENABLE_CYTHON=abc"),
        *("MXNET_ENGINE_TYPE=Naive", "MXNET_ENGINE_TYPE="),
        *("NUMBA_DISABLE_JIT=1", "NUMBA_NUM_THREADS=0", "NUMBA_CPU_FEATURES=abc"),
        *("TQDM_MININTERVAL=abc", "TQDM_NCOLS=2.5", "TQDM_GUI=1"),
    ],
)
def test_a_variable_that_a_library_does_not_take(run, variable):
    """Some of them would end the process by SIGABRT or SIGSEGV."""
    name, _, value = variable.partition("=")
    does = "from tqdm import tqdm; from d2l_autorec import fast; tqdm().close()"
    code, out, err = run("-c", FAKE.format(does), env={**os.environ, name: value})
    assert (code, out) == (2, "")
    assert err.startswith(
        f"error: the environment variable {name} is {value!r}; it has to be "
    )
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("does", "stdout", "stderr", "code", "said"),
    [
        ("", "closed", "", 1, "error: standard output: Bad file descriptor\n"),
        ("", "pipe", "", 1, "error: standard output: Broken pipe\n"),
        ("", "full", "", 1, "error: standard output: No space left on device\n"),
        ("print(99999 * 'x')", "pipe", "", 1, "error: standard output: Broken pipe\n"),
        ("cli.Parser().parse_args(['-h'])", "pipe", "", 1, "error: standard output: B"),
        (BAD, "closed", "", 1, "error: bad\n"),
        (BAD, "pipe", "", 1, "error: bad\n"),
        ("", "", "closed", 0, OK),
        ("print(end='', file=sys.stderr)", "", "closed", 0, OK),
        (BAD, "", "closed", 1, OK),
        (BAD, "", "pipe", 1, OK),
        (BAD, "", "full", 1, OK),
        (BAD, "closed", "closed", 1, ""),
        ("cli.Parser().parse_args(['-x'])", "", "closed", 2, OK),
        ("cli.Parser().parse_args(['-x'])", "", "pipe", 2, OK),
        # What is opened next does not get the number of what is closed.
        ("os._exit(os.open('f', os.O_CREAT))", "closed", "closed", 3, ""),
    ],
)
def test_streams_that_are_not_there(
    run, closed_pipe, tmp_path, does, stdout, stderr, code, said
):
    with open("/dev/full", "w") as full:
        ends = {"pipe": closed_pipe, "full": full}
        options = {
            n: ends[v] for n, v in (("stdout", stdout), ("stderr", stderr)) if v in ends
        }
        closed = [n for n, v in ((1, stdout), (2, stderr)) if v == "closed"]

        def close():
            for number in closed:
                os.close(number)

        # Unbuffered, each print would fail by itself.
        env = {**os.environ, "PYTHONUNBUFFERED": ""}
        options.update(env=env, cwd=tmp_path, encoding="utf-8")
        found = run("-c", FAKE.format(does), preexec_fn=close, **options)
    assert found[0] == code, found
    assert ((found[1] or "") + (found[2] or "")).startswith(said)


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    "writes",
    [
        "for n in range(10 ** 6): print(n)",
        "sys.stdout.flush(); sys.stdout.buffer.write(bytes(10 ** 6))",
    ],
    ids=["lines", "at once"],
)
def test_a_pipe_that_closes_after_the_first_line(start, writes, unbuffered):
    """As of ``| head -1``."""
    env = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    process = start("-c", FAKE.format(writes), env=env, encoding="utf-8")
    assert process.stdout.readline() == OK
    process.stdout.close()
    assert process.wait(timeout=60) == 1
    assert process.stderr.read() == "error: standard output: Broken pipe\n"
    process.stdout = None


@pytest.mark.parametrize(
    ("signals", "said"),
    [
        ([signal.SIGINT], "interrupted\n"),
        ([signal.SIGTERM], "terminated\n"),
        ([signal.SIGINT, signal.SIGINT], "interrupted\n"),
        ([signal.SIGTERM, signal.SIGTERM, signal.SIGINT], "terminated\n"),
        ([signal.SIGINT, signal.SIGTERM], "interrupted\n"),
    ],
    ids=lambda value: (
        "+".join(s.name for s in value) if isinstance(value, list) else ""
    ),
)
def test_signals_leave_everything_in_order(start, signals, said):
    body = """
    try:
        print("ready", flush=True)
        time.sleep(60)
    finally:
        print("leaving", flush=True)
        sys.stdin.readline()
        print("left", flush=True)
"""
    process = start("-c", FAKE.format(body.lstrip()), stdin=-1, encoding="utf-8")
    assert [process.stdout.readline() for _ in range(2)] == [OK, "ready\n"]
    process.send_signal(signals[0])
    assert process.stdout.readline() == "leaving\n"
    for number in signals[1:]:
        process.send_signal(number)
    out, err = process.communicate("\n", timeout=60)
    assert (process.returncode, out, err) == (1, "left\n", said)


def test_signals_that_were_ignored_stay_so(run):
    """As of what a shell has in its background."""
    body = "os.kill(os.getpid(), 2)"
    ignore = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
    assert run("-c", ignore + FAKE.format(body), encoding="utf-8") == (0, OK, "")


# In this process.


def test_a_stream_that_cannot_be_changed_will_do(monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit, match="0"):
        process.run(lambda: print("fine"))
    assert out.getvalue() == "fine\n"


def test_ctrl_c_is_not_lost_while_an_array_is_freed(capsys):
    class Array:
        def __del__(self):
            raise KeyboardInterrupt

    def command():
        array = Array()
        del array
        for _ in range(6000):
            time.sleep(0.01)

    with pytest.raises(SystemExit, match="1"):
        process.run(command)
    assert capsys.readouterr().err == "interrupted\n"
