"""A training on several workers of this machine, all of whose processes it starts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

_GRACE = 20  # seconds for the others to end by themselves


def launch(num_workers: int, argv: Sequence[str]) -> int:
    """Start scheduler, server and workers, and wait for their end.

    The cores are shared out over the workers. Of what the processes say, that of the
    workers is shown: the first one reports, all may have errors to tell.

    Parameters
    ----------
    num_workers : int
        How many.
    argv : sequence of str
        The training command's arguments, for each of them.

    Returns
    -------
    int
        0, or 1 if one of them failed, which has said why.

    Raises
    ------
    KeyboardInterrupt
        If they were interrupted, and have not said so.
    """
    from .._ready import num_cores

    command = [sys.executable, "-m", "d2l_autorec.train", *argv]
    environment = {
        "OMP_NUM_THREADS": str(max(1, num_cores() // num_workers)),
        **os.environ,
        "DMLC_PS_ROOT_URI": "127.0.0.1",
        "DMLC_PS_ROOT_PORT": str(_free_port()),
        "DMLC_INTERFACE": "lo",
        "DMLC_NUM_SERVER": "1",
        "DMLC_NUM_WORKER": str(num_workers),
    }
    processes: list[subprocess.Popen[bytes]] = []
    # Each ignores interrupts until it knows what to do about one.
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for role in ("scheduler", "server", *["worker"] * num_workers):
            processes.append(_start(command, {**environment, "DMLC_ROLE": role}))
        signal.signal(signal.SIGINT, before)
        code = _wait(processes)
    except KeyboardInterrupt:
        workers = processes[2:]
        for _ in range(_GRACE):
            for worker in workers:
                worker.send_signal(signal.SIGINT)
            if _ended(workers, 1):  # one that has just begun does not heed it yet
                break
        if 1 not in [worker.poll() for worker in workers]:
            raise  # none of them has said so
        code = 1
    finally:
        signal.signal(signal.SIGINT, before)
        for process in processes:
            process.kill()
            process.wait()
    return code


def _start(command: Sequence[str], environment: dict[str, str]) -> Any:
    shown = environment["DMLC_ROLE"] == "worker"
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=None if shown else subprocess.DEVNULL,
        stderr=None if shown else subprocess.DEVNULL,
        start_new_session=True,  # a terminal's Ctrl-C reaches it from here alone
    )


def _wait(processes: Sequence[subprocess.Popen[bytes]]) -> int:
    """Wait for the end of all; when one fails, the others have some time for theirs."""
    while None in (codes := [process.poll() for process in processes]):
        if any(codes):
            _ended(processes, _GRACE)
            return 1
        time.sleep(0.1)
    return int(any(codes))


def _ended(processes: Sequence[subprocess.Popen[bytes]], seconds: float) -> bool:
    """Tell whether all have ended after a while."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if all(process.poll() is not None for process in processes):
            return True
        time.sleep(0.1)
    return False


def _free_port() -> int:
    """Find a port that is free, as the next one is."""
    while True:
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            with suppress(OSError, OverflowError):
                socket.create_server(("127.0.0.1", port + 1)).close()
                return port
