"""The workers of a training: the processes that mpiexec has started."""

from __future__ import annotations

import atexit
import os
import signal
import socket
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from ..errors import ClusterError
from ..fast import Workers
from .shard import Shard

if TYPE_CHECKING:
    from mpi4py import MPI

# Seconds to wait for the others: as they start and end, and in a sum.
_TIMEOUTS = {"D2L_AUTOREC_MEETING_TIMEOUT": 600, "D2L_AUTOREC_SUM_TIMEOUT": 60}
_MEETING, _SUM = _TIMEOUTS
# Seconds for which a worker looks out for the others before it sleeps between two
# looks: MPI by itself would keep its core busy for as long as it waits.
_AWAKE, _NAP = 0.02, 0.0005


class Team(Workers):
    """The workers of a training, and this one's place among them.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        All of them.

    Attributes
    ----------
    rank : int
        Of this worker, from 0.
    size : int
        Number of workers.
    """

    def __init__(self, comm: MPI.Comm) -> None:
        self._comm = comm
        self.rank, self.size = comm.rank, comm.size

    def share_out(self, rows: sp.csr_matrix, num_steps: float) -> Shard:
        """Take this worker's columns of the rows that all learn from."""
        return Shard(self, rows, num_steps)

    def sum(self, array: np.ndarray) -> None:
        """Replace a contiguous float32 array by its sum over all workers.

        Each adds up a slice of it, so that all get the same bits.
        """
        from mpi4py import MPI

        values: np.ndarray = np.ndarray(array.size, np.float32, array)
        bounds = np.arange(self.size + 1) * array.size // self.size
        counts = np.diff(bounds)
        own = np.empty(counts[self.rank], np.float32)
        self._wait(self._comm.Ireduce_scatter(values, own, counts.tolist(), MPI.SUM))
        slices = [values, counts, bounds[:-1], MPI.FLOAT]
        self._wait(self._comm.Iallgatherv(own, slices))

    def span(self, size: int) -> tuple[int, int]:
        """Return how many of a batch's ratings come before this worker's, and all."""
        sizes = np.zeros(self.size, np.int64)
        self._wait(self._comm.Iallgather(np.array([size], np.int64), sizes))
        return int(sizes[: self.rank].sum()), int(sizes.sum())

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Go on if all workers start from the same; otherwise end all of them.

        Parameters
        ----------
        facts : mapping
            What has to be the same, by what it is called.

        Raises
        ------
        ClusterError
            At the first worker, which ends the others.
        """
        own = {"host": socket.gethostname()}
        for name, value in facts.items():
            text = str(value)
            short = len(text) <= 32
            own[name] = text if short else sha256(text.encode()).hexdigest()[:12]
        self.meet()
        first, *others = self._comm.allgather(own)
        for rank, other in enumerate(others, 1):
            for name in {**first, **other}:
                if name != "host" and first.get(name) != other.get(name):
                    if self.rank:
                        self.meet()  # the first one, which ends all instead
                    raise ClusterError(
                        f"worker {rank} at {other['host']} and worker 0 at "
                        f"{first['host']} differ in {name}: {other.get(name)} and "
                        f"{first.get(name)}"
                    )

    def meet(self) -> None:
        """Wait until all workers have come here."""
        self._wait(self._comm.Ibarrier(), _MEETING)

    def _wait(self, request: MPI.Request, timeout: str = _SUM) -> None:
        """Wait for the others, and leave the core to them; Python serves signals."""
        start = time.monotonic()
        while not request.Test():
            waited = time.monotonic() - start
            if waited < _AWAKE:
                os.sched_yield()
            elif waited < _seconds(timeout):
                time.sleep(_NAP)
            else:
                raise ClusterError(
                    f"worker {self.rank} has waited {waited:.0f} s for the others "
                    f"({timeout})"
                )


def join(devices: list[Any] | None = None) -> Team:
    """Meet the other processes that mpiexec has started.

    Parameters
    ----------
    devices : list of mxnet.Context, optional
        That this worker trains on: a CPU.

    Returns
    -------
    Team

    Raises
    ------
    ClusterError
        Without mpi4py, for other devices, or where MPI does not know the others.
    """
    if devices and [device.device_type for device in devices] != ["cpu"]:
        raise ClusterError(
            "a worker has one device, a CPU; for more of a machine start more workers"
        )
    # Where one never comes MPI waits for ever. An alarm ends this process, and mpiexec
    # then ends the others.
    signal.alarm(_seconds(_MEETING))
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise ClusterError(
            f"several workers need MPI ({error}): "
            "python -m pip install mpi4py 'mpich>=5'"
        ) from None
    finally:
        signal.alarm(0)
    if MPI.COMM_WORLD.size == 1:
        raise ClusterError(
            "the environment says that there are several tasks, and MPI that this one "
            "is alone: start them by the mpiexec of the MPI that mpi4py was built for"
        )
    team = Team(MPI.COMM_WORLD)
    atexit.register(team.meet)  # before MPI's own end, which would keep the core busy
    return team


def _seconds(name: str) -> int:
    value = os.environ.get(name) or str(_TIMEOUTS[name])
    if not (value.isdecimal() and int(value)):
        raise ClusterError(f"{name} is {value!r}; it is a whole number from 1")
    return int(value)
