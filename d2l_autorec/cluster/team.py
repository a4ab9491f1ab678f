"""The workers of a training, and what they tell each other."""

from __future__ import annotations

import atexit
import json
import os
import socket
from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import mx
from ..errors import ClusterError
from ..fast import view
from .portion import Portion
from .processes import Deadline, Watch, check_environment, enter, part

_ROOM = 2**13  # bytes, for what the workers compare


class Team:
    """The workers of a training, and this one's place among them.

    Parameters
    ----------
    kvstore : mxnet.kvstore.KVStore
        Connected with the others.
    watch : Watch
        Ends all of them.

    Attributes
    ----------
    rank : int
        Of this worker, from 0.
    size : int
        Number of workers.
    """

    def __init__(self, kvstore: Any, watch: Watch) -> None:
        self._kvstore, self._watch = kvstore, watch
        self._buffers: dict[tuple[int, ...], mx.np.ndarray] = {}
        self._interrupted = False
        self.rank: int = kvstore.rank
        self.size: int = kvstore.num_workers

    def share_out(self, rows: sp.csr_matrix, num_steps: float) -> Portion:
        """Share columns out over the workers.

        Parameters
        ----------
        rows : scipy.sparse.csr_matrix, shape (num_rows, num_columns)
            What they learn from.
        num_steps : float
            Of an epoch.

        Returns
        -------
        Portion
            This worker's.
        """
        return Portion(self, rows, num_steps)

    def add_up(self, array: np.ndarray) -> None:
        """Replace an array by the sum of what all workers have of it.

        Parameters
        ----------
        array : numpy.ndarray of float32
            Every worker adds up arrays of the same shapes in the same order.

        Raises
        ------
        KeyboardInterrupt
            After `interrupt`.
        """
        self.start(array)()

    def start(self, array: np.ndarray) -> Callable[[], None]:
        """Begin to do so; the next sum may begin when this one is there.

        Parameters
        ----------
        array : numpy.ndarray of float32
            As for `add_up`.

        Returns
        -------
        callable
            Waits for the sum, and writes it to `array`.
        """
        if self._interrupted:
            raise KeyboardInterrupt
        key = ", ".join(map(str, array.shape))
        if array.shape not in self._buffers:
            self._buffers[array.shape] = mx.np.zeros(array.shape)
            self._kvstore.init(key, self._buffers[array.shape])
        buffer = self._buffers[array.shape]
        view(buffer)[...] = array
        # There is nothing on the server that updates anything: it just adds up.
        self._kvstore.pushpull(key, buffer, out=buffer)

        def finish() -> None:
            array[...] = view(buffer)

        return finish

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
        told = json.dumps(own).encode()
        table = np.zeros((self.size, _ROOM), np.float32)
        table[self.rank, : len(told)] = np.frombuffer(told, np.uint8)
        self.add_up(table)
        first, *others = (
            json.loads(row.astype(np.uint8).tobytes().rstrip(b"\0")) for row in table
        )
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
    # Smaller arrays go to one of several servers as a whole.
    os.environ.setdefault("MXNET_KVSTORE_BIGARRAY_BOUND", "10000")
    watch = enter()
    with Deadline(watch, "not all processes were there"):
        kvstore = mx.kv.create(kind)
    end = Deadline(watch, "not all workers had finished")
    atexit.register(part, kvstore, watch, end)
    return Team(kvstore, watch)
