"""Training on several machines, over MXNet's parameter server.

The processes of a training, which may all run the same command, are one scheduler, at
least one server and the workers; ``DMLC_ROLE`` tells each what it is. As MXNet is
imported, a scheduler or server starts to serve and never comes back from the import. A
worker goes on, and `join` connects it with the others.

A process that dies would leave the others waiting for ever. So each of them sends
heartbeats to the scheduler; when one falls silent the scheduler ends, and without a
scheduler so do the rest.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import sys
import threading
from typing import Any

from .errors import ClusterError

# Heartbeats are ps-lite's, which MXNet's parameter server is built on.
_ROLES = ("scheduler", "server", "worker")
_SCHEDULER, _SERVERS_AND_WORKERS = 1, 2 + 4  # ps-lite's names for groups of nodes
_SECONDS_TO_MEET = 600
_TIMEOUT, _SECONDS_OF_SILENCE = "PS_HEARTBEAT_TIMEOUT", "60"


class Team:
    """The workers of a training, and this one's place among them.

    Parameters
    ----------
    kvstore : mxnet.kvstore.KVStore
        Connected with the others.

    Attributes
    ----------
    rank : int
        Of this worker, from 0.
    size : int
        Number of workers.

    Notes
    -----
    Gluon's trainer could drive the key-value store, too. But it pulls the first weights
    by the keys under which it then pushes gradients, without waiting in between, and a
    worker that is slow to pull takes the gradients for its weights.
    """

    def __init__(self, kvstore: Any) -> None:
        self._kvstore = kvstore
        self._keys: set[str] = set()
        self.rank: int = kvstore.rank
        self.size: int = kvstore.num_workers

    def add_up(self, key: str, copies: list[Any]) -> None:
        """Replace arrays by their sum over all workers and devices.

        Parameters
        ----------
        key : str
            What they are; every worker asks for the same keys in the same order.
        copies : list of mxnet.np.ndarray
            This worker's, one for each of its devices.
        """
        if key not in self._keys:
            self._keys.add(key)
            self._kvstore.init(key, copies[0])
        self._kvstore.push(key, copies)
        self._kvstore.pull(key, out=copies)


def check_environment() -> None:
    """Check the variables that say who takes part, where, and who counts as dead.

    Raises
    ------
    ClusterError
        If one is missing or is not what it should be.
    """
    role = os.environ.get("DMLC_ROLE")
    if role not in _ROLES:
        found = "is not set" if role is None else f"is {role!r}"
        raise ClusterError(f"DMLC_ROLE {found}; it is one of {', '.join(_ROLES)}")
    if not os.environ.get("DMLC_PS_ROOT_URI"):
        raise ClusterError("DMLC_PS_ROOT_URI, the scheduler's address, is not set")
    counts = ("DMLC_PS_ROOT_PORT", "DMLC_NUM_SERVER", "DMLC_NUM_WORKER", _TIMEOUT)
    for name in counts:
        value = os.environ.get(name, _SECONDS_OF_SILENCE if name == _TIMEOUT else "")
        if not (value.isdecimal() and int(value)):
            found = repr(value) if value else "not set"
            raise ClusterError(f"{name} is {found}; it is a whole number from 1")


def join(kind: str) -> Team:
    """Connect this worker with the others; wait until all of them are there.

    Parameters
    ----------
    kind : str
        Of the key-value store: ``'dist_sync'``.

    Returns
    -------
    Team
    """
    from ._mxnet import mx

    with _Deadline("not all processes were there"):
        kvstore = mx.kv.create(kind)
    over = threading.Event()
    watch = threading.Thread(target=_watch, args=(over, kvstore.handle), daemon=True)
    watch.start()
    atexit.register(_part, kvstore, over, watch)
    return Team(kvstore)


def prepare() -> None:
    """Get ready for the import of MXNet, which is all that a server ever does."""
    os.environ.setdefault("PS_HEARTBEAT_INTERVAL", "5")  # seconds
    # A process that started this one may have chosen the other engine for itself.
    os.environ.pop("MXNET_ENGINE_TYPE", None)
    role = os.environ["DMLC_ROLE"]
    if role != "worker":
        print(f"{role}: serves until the training is over", flush=True)
        never = threading.Event()
        threading.Thread(target=_watch, args=(never,), daemon=True).start()


class _Deadline:
    """End this process if what it waits for in MXNet takes too long."""

    def __init__(self, failure: str) -> None:
        self._failure = failure
        self._met = threading.Event()

    def __enter__(self) -> None:
        threading.Thread(target=self._wait, daemon=True).start()

    def __exit__(self, *error: object) -> None:
        self._met.set()

    def _wait(self) -> None:
        if not self._met.wait(_SECONDS_TO_MEET):
            _leave(f"{self._failure} after {_SECONDS_TO_MEET} s")


def _part(kvstore: Any, over: threading.Event, watch: threading.Thread) -> None:
    """Say goodbye, for which all workers meet; later Python would run no watch."""
    from ._mxnet import mx

    over.set()
    watch.join()  # it uses what is freed now
    with _Deadline("not all processes had finished"):
        mx.base.check_call(mx.base._LIB.MXKVStoreFree(kvstore.handle))
    kvstore.handle = None


def _watch(over: threading.Event, handle: Any = None) -> None:
    """End this process when one that it hears from has fallen silent.

    The scheduler hears from all, the others from the scheduler. They wait for each
    other inside of MXNet, so a thread has to do it, and it cannot be done gently.
    """
    timeout = int(os.environ.get(_TIMEOUT, _SECONDS_OF_SILENCE))
    heard = _SCHEDULER
    if os.environ["DMLC_ROLE"] == "scheduler":
        heard = _SERVERS_AND_WORKERS
    dead = ctypes.c_int()
    while not over.wait(1):
        # The main thread may still be, or for a server stay, inside of the import.
        if "mxnet.kvstore.kvstore_server" not in sys.modules:
            continue
        library = sys.modules["mxnet.base"]._LIB
        if handle is None:
            handle = ctypes.c_void_p()
            library.MXKVStoreCreate(b"dist", ctypes.byref(handle))
        library.MXKVStoreGetNumDeadNode(handle, heard, ctypes.byref(dead), timeout)
        if dead.value:
            who = "the scheduler" if heard == _SCHEDULER else "a worker or a server"
            _leave(f"{who} was silent for {timeout} s; the training cannot go on")


def _leave(reason: str) -> None:
    """Leave without the goodbye for which MXNet waits for all processes."""
    role = os.environ["DMLC_ROLE"]
    print(f"\nerror: {role}: {reason}", file=sys.stderr, flush=True)
    os._exit(1)
