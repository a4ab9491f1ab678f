"""The workers of a training, and what they tell each other."""

from __future__ import annotations

import atexit
import json
import socket
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import mx
from ..errors import ClusterError
from ..fast import Workers
from .links import Links, meet
from .shard import Shard
from .processes import Deadline, Watch, address, check_environment, enter, gone, part

_ROOM = 2**13  # bytes, for what a worker tells the others


class Team(Workers):
    """The workers of a training, and this one's place among them.

    Parameters
    ----------
    links : Links
        Its connections with the others.
    watch : Watch
        Ends all of them.

    Attributes
    ----------
    rank : int
        Of this worker, from 0.
    size : int
        Number of workers.
    """

    def __init__(self, links: Links, watch: Watch) -> None:
        self._links, self._watch = links, watch
        self._interrupted = False
        self.rank, self.size = links.rank, links.size

    def share_out(self, rows: sp.csr_matrix, num_steps: float) -> Shard:
        """Share columns out over the workers.

        Parameters
        ----------
        rows : scipy.sparse.csr_matrix, shape (num_rows, num_columns)
            What they learn from.
        num_steps : float
            Of an epoch.

        Returns
        -------
        Shard
            This worker's.
        """
        return Shard(self, rows, num_steps)

    def sum(self, array: np.ndarray) -> None:
        """Replace an array by the sum of what all workers have of it.

        Parameters
        ----------
        array : numpy.ndarray of float32, contiguous
            Every worker adds up arrays of the same sizes in the same order.

        Raises
        ------
        KeyboardInterrupt
            After `interrupt`.
        """
        if self._interrupted:
            raise KeyboardInterrupt
        self._links.sum(array)

    def span(self, size: int) -> tuple[int, int]:
        """Return how many of a batch's ratings come before this worker's, and all."""
        # A float32 counts exactly up to 2**24.
        counts = np.zeros((self.size, 2), np.float32)
        counts[self.rank] = divmod(size, 2**20)
        self.sum(counts)
        ends = (counts @ [2**20, 1]).cumsum().astype(int)
        return int(ends[self.rank]) - size, int(ends[-1])

    def interrupt(self) -> None:
        """Have the next sum fail, as all after it, which the others then wait for."""
        self._interrupted = True

    def compare(self, facts: Mapping[str, Any]) -> None:
        """Go on if all workers start from the same; otherwise end all of them.

        Parameters
        ----------
        facts : mapping
            What has to be the same, by what it is called.
        """
        own = {"host": socket.gethostname()[:64]}
        for name, value in facts.items():
            text = str(value)
            short = len(text) <= 32
            own[name] = text if short else sha256(text.encode()).hexdigest()[:12]
        first, *others = _told(own, self.rank, self.size, self.sum)
        for rank, other in enumerate(others, 1):
            for name in {**first, **other}:
                if name != "host" and first.get(name) != other.get(name):
                    self._watch.leave(
                        f"worker {rank} at {other['host']} and worker 0 at "
                        f"{first['host']} differ in {name}: {other.get(name)} and "
                        f"{first.get(name)}"
                    )


def join(kind: str, devices: list[mx.Context] | None = None) -> Team:
    """Connect this worker with the others; wait until all of them are there.

    Parameters
    ----------
    kind : str
        Of the key-value store: ``'dist_sync'``.
    devices : list of mxnet.Context, optional
        That this worker trains on: a CPU.

    Returns
    -------
    Team

    Raises
    ------
    ClusterError
        If the environment does not say who takes part, and where; or for other devices.
    """
    check_environment()
    if devices and [device.device_type for device in devices] != ["cpu"]:
        raise ClusterError(
            "a worker has one device, a CPU; for more of a machine start more workers"
        )
    watch = enter()
    with Deadline(watch, "not all processes were there"):
        kvstore = mx.kv.create(kind)
        links = _connected(kvstore, watch)
    end = Deadline(watch, "not all workers had finished")
    atexit.register(part, kvstore, watch, end)
    return Team(links, watch)


def _connected(kvstore: Any, watch: Watch) -> Links:
    """Connect workers who have met at a key-value store, where they leave addresses."""

    def add_up(table: np.ndarray) -> None:
        array = mx.np.zeros(table.shape)
        kvstore.init("addresses", array)
        array[:] = table
        # There is nothing on the server that updates anything: it just adds up.
        kvstore.pushpull("addresses", array, out=array)
        table[:] = array.asnumpy()

    rank, size = kvstore.rank, kvstore.num_workers
    try:
        peers = meet(rank, address(watch), lambda own: _told(own, rank, size, add_up))
    except OSError as error:
        watch.lose(f"the workers cannot connect: {error.strerror}")
    return Links(rank, peers, lambda other: watch.lose(gone(f"worker {other}")))


def _told(
    own: Any, rank: int, size: int, add_up: Callable[[np.ndarray], None]
) -> list[Any]:
    """Tell all workers something; return what all have told, by rank."""
    told = json.dumps(own).encode()
    table = np.zeros((size, _ROOM), np.float32)
    table[rank, : len(told)] = np.frombuffer(told, np.uint8)
    add_up(table)
    return [json.loads(row.astype(np.uint8).tobytes().rstrip(b"\0")) for row in table]
