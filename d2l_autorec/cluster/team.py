"""The workers of a training: the processes that mpiexec has started."""

import atexit
import os
import socket
import sys
import time
from collections.abc import Mapping
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from ..errors import ClusterError
from ..fast import Workers
from .shard import Shard, spill
from .start import MEETING, SUM, enter, seconds

if TYPE_CHECKING:
    from mpi4py import MPI

# Seconds for which a worker looks out for the others before it sleeps between two
# looks: MPI by itself would keep its core busy for as long as it waits.
_AWAKE, _NAP = 0.02, 0.0005


class Team(Workers):
    """The workers of a training, and the rank of this one.

    Parameters
    ----------
    comm : mpi4py.MPI.Comm
        All of them.

    Attributes
    ----------
    rank : int
        Of this worker, from 0. The first worker has 0.
    size : int
        Number of workers.
    """

    def __init__(self, comm: "MPI.Comm") -> None:
        self._comm, self._meetings = comm, comm.Dup()
        self.rank, self.size = comm.rank, comm.size

    def share_out(
        self, rows: sp.csr_matrix, num_steps: float, train_mat: sp.csr_matrix
    ) -> Shard:
        """Take this worker's columns of the rows that all learn from.

        Both matrices are then in files; the rows were made of `train_mat`.
        """
        shard = Shard(self, rows, num_steps)
        for matrix in (rows, train_mat):
            spill(matrix)
        return shard

    def sum(self, array: np.ndarray) -> None:
        """Replace a contiguous float32 array by its sum over all workers.

        All get the same bits, as the tests check for MPICH.
        """
        from mpi4py import MPI

        self._wait(self._comm.Iallreduce(MPI.IN_PLACE, _flat(array)))

    def gather(self, array: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Gather float32 arrays, of `counts` numbers each, at the first worker."""
        whole = np.empty(0 if self.rank else counts.sum(), np.float32)
        where = [whole, counts, counts.cumsum() - counts, "f"]
        self._wait(self._comm.Igatherv(_flat(array), where))
        return whole

    def scatter(self, array: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Scatter the first worker's float32 array, `counts` numbers to each worker."""
        own = np.empty(counts[self.rank], np.float32)
        where = [_flat(array), counts, counts.cumsum() - counts, "f"]
        self._wait(self._comm.Iscatterv(where, own))
        return own

    def broadcast(self, value: Any) -> Any:
        """Broadcast a small value of the first worker."""
        self.barrier()
        return self._comm.bcast(value)

    def span(self, size: int) -> tuple[int, int]:
        """Return the number of a batch's ratings before this worker's, and of all."""
        sizes = np.zeros(self.size, np.int64)
        self._wait(self._comm.Iallgather(np.array([size], np.int64), sizes))
        return int(sizes[: self.rank].sum()), int(sizes.sum())

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Check that all workers start from the same; otherwise end all of them.

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
        self.barrier()
        first, *others = self._comm.allgather(own)
        for rank, other in enumerate(others, 1):
            for name in {**first, **other}:
                if name != "host" and first.get(name) != other.get(name):
                    if self.rank:
                        self.barrier()  # the first one, which ends all instead
                    raise ClusterError(
                        f"worker {rank} at {other['host']} and worker 0 at "
                        f"{first['host']} differ in {name}: {other.get(name)} and "
                        f"{first.get(name)}"
                    )

    def barrier(self) -> None:
        """Wait for all workers (a barrier)."""
        self._wait(self._meetings.Ibarrier(), MEETING)

    def _wait(self, request: "MPI.Request", timeout: str = SUM) -> None:
        """Wait for the other workers without spinning; Python serves signals."""
        start = time.monotonic()
        while not request.Test():
            waited = time.monotonic() - start
            if waited < _AWAKE:
                os.sched_yield()
            elif waited < seconds(timeout):
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
        Without mpi4py, for other devices, or if MPI does not know the others.
    """
    if devices and [device.device_type for device in devices] != ["cpu"]:
        raise ClusterError(
            "a worker has one device, a CPU; for more of a machine start more workers"
        )
    team = Team(enter())
    atexit.register(_finish, team, os.getpid())
    return team


def _finish(team: Team, pid: int) -> None:
    """Finalize MPI after all workers; if one does not, mpiexec ends the others."""
    failed = hasattr(sys, "last_value")  # by an exception that nobody caught
    if failed or os.getpid() != pid:
        return
    try:
        team.barrier()
    except ClusterError as error:
        print(f"error: {error}", file=sys.stderr, flush=True)
        os._exit(1)
    from mpi4py import MPI

    MPI.Finalize()


def _flat(array: np.ndarray) -> np.ndarray:
    """See a contiguous float32 array as a row of numbers."""
    assert array.dtype == np.float32 and array.flags.c_contiguous
    return array.reshape(-1)
