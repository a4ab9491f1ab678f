"""The processes of a training on several machines: who they are, and who has gone.

The processes of a training, which may all run the same command, are one scheduler, at
least one server and the workers; ``DMLC_ROLE`` tells each what it is. As MXNet is
imported, a scheduler or server starts to serve and never comes back from the import. A
worker goes on, and `join` connects it with the others.

A process that dies would leave the others waiting for ever. MXNet can tell who is
alive, but crashes when it is asked too early, and takes a busy machine for a dead one.
So the servers and workers connect with the scheduler once more, and keep these
connections as long as they live. The system closes them when a process ends, however it
ends; one that ends in peace says so first. When a connection closes without a word, the
scheduler ends, and so do the rest.
"""

from __future__ import annotations

import atexit
import fcntl
import functools
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn, TextIO

from ..errors import ClusterError

_ROLES = ("scheduler", "server", "worker")
_WELCOME, _OVER = "welcome", "over"
_SILENCE, _MEETING = "PS_HEARTBEAT_TIMEOUT", "D2L_AUTOREC_MEETING_TIMEOUT"
_SECONDS = {_SILENCE: "60", _MEETING: "600"}
_GET_ADDRESS = 0x8915  # Linux's SIOCGIFADDR
_LAST_PORT = 65534  # the scheduler takes the next one, too


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
    for name in ("DMLC_PS_ROOT_PORT", "DMLC_NUM_SERVER", "DMLC_NUM_WORKER", *_SECONDS):
        value = os.environ.get(name) or _SECONDS.get(name, "")
        if not (value.isdecimal() and int(value)):
            found = repr(value) if value else "not set"
            raise ClusterError(f"{name} is {found}; it is a whole number from 1")
    if _number("DMLC_PS_ROOT_PORT") > _LAST_PORT:
        raise ClusterError(f"DMLC_PS_ROOT_PORT is above {_LAST_PORT}")


def check_recipe(recipe: Any) -> None:
    """Check that workers can have a part of a training's columns each.

    Parameters
    ----------
    recipe : Recipe or Blend
        Its settings.

    Raises
    ------
    ClusterError
        If they cannot.
    """
    for one in recipe.recipes:
        if one.loss == "rmse":
            raise ClusterError(
                "the rmse loss takes the root over all ratings of a batch, and a "
                "worker has but some of them: it is for one process (for several: "
                "--loss paper)"
            )
        if one.optimizer != "adam":
            raise ClusterError(
                f"several workers train by adam, not {one.optimizer}, which is for one "
                "process"
            )


def prepare() -> None:
    """Get ready for the import of MXNet, which is all that a server ever does.

    Raises
    ------
    ClusterError
        If a scheduler or server is not told who takes part, and where; or if a
        scheduler cannot have its ports.
    """
    role = os.environ["DMLC_ROLE"]
    if role == "worker":
        return
    # A process that started this one may have chosen the other engine for itself.
    os.environ.pop("MXNET_ENGINE_TYPE", None)
    check_environment()
    watch = Watch()
    if role == "scheduler":
        _listen(watch)
    else:
        with Deadline(watch, "the scheduler was not there"):
            connect(watch)
    atexit.register(watch.part)
    print(f"{role}: serves until the training is over", flush=True)


@functools.cache
def enter() -> Watch:
    """Connect a worker with the scheduler, which may be done before MXNet is there.

    From then on the others notice it when this process ends.

    Returns
    -------
    Watch
        The same one each time.
    """
    watch = Watch()
    with Deadline(watch, "the scheduler was not there"):
        connect(watch)
    return watch


class Watch:
    """Ends this process when one that it is connected with goes untimely.

    MXNet waits for the others in the main thread, so other threads have to do it, and
    it cannot be done gently.
    """

    def __init__(self) -> None:
        self._peers: list[socket.socket] = []
        self._over = False
        self._lock = threading.Lock()

    def meet(self, peer: socket.socket) -> None:
        """Remember a process that is to be told how this one ends."""
        self._peers.append(peer)

    def host(self) -> str:
        """Return the address from which this process reaches the one that it met."""
        return str(self._peers[0].getsockname()[0])

    def attend(self, lines: TextIO, name: str) -> None:
        """Wait for the last words of a process that was met."""
        words = _hear(lines)
        if words != _OVER:
            self.leave(words or gone(name))

    def part(self) -> None:
        """Say that this process is through, unless an error ends it."""
        if _failed():
            return
        with self._lock:
            self._over = True
            self._tell(_OVER)

    def leave(self, reason: str) -> None:
        """Leave without the goodbye for which MXNet waits for all processes."""
        with self._lock:  # for ever: one reason is enough
            if self._over:
                return
            try:
                self._tell(reason)
                role = os.environ["DMLC_ROLE"]
                print(f"\nerror: {role}: {reason}", file=sys.stderr, flush=True)
            finally:
                os._exit(1)

    def lose(self, reason: str) -> NoReturn:
        """Leave because of another process, if the scheduler does not know better."""
        while True:
            # Who has gone has left the scheduler, too, which will say so.
            time.sleep(_number(_SILENCE))
            self.leave(reason)

    def _tell(self, words: str) -> None:
        for peer in self._peers:
            _say(peer, words)


class Deadline:
    """Ends this process when something takes longer than meeting may.

    Its thread is there before it is needed: at exit Python starts no more.
    """

    def __init__(self, watch: Watch, failure: str) -> None:
        self.failure = failure
        self._watch = watch
        self._begun, self._met = threading.Event(), threading.Event()
        _in_background(self._wait)

    def __enter__(self) -> None:
        self._begun.set()

    def __exit__(self, *error: object) -> None:
        self._met.set()

    def _wait(self) -> None:
        self._begun.wait()
        seconds = _number(_MEETING)
        if not self._met.wait(seconds):
            self._watch.leave(f"{self.failure} after {seconds} s")


def _listen(watch: Watch) -> None:
    """Let the others connect, as the scheduler; all of them have to in time."""
    expected = {role: _number(f"DMLC_NUM_{role.upper()}") for role in _ROLES[1:]}
    present: Counter[str] = Counter()
    host, port = _address()
    try:
        # The other port is MXNet's, which would end with a traceback.
        socket.create_server((host, port - 1)).close()
        listener = socket.create_server((host, port))
    except OSError as error:
        raise ClusterError(f"the scheduler cannot listen: {error.strerror}") from None
    deadline = Deadline(watch, "")
    lock, everyone = threading.Lock(), threading.Event()

    def count() -> None:
        found = [f"{present[role]} of {number}" for role, number in expected.items()]
        deadline.failure = "{} servers and {} workers were there".format(*found)
        if present == expected:
            everyone.set()

    def wait() -> None:
        with deadline:
            everyone.wait()

    def attend(peer: socket.socket, host: str) -> None:
        with peer, peer.makefile(encoding="utf-8", errors="replace") as lines:
            role = _hear(lines)
            if role not in expected:
                return  # a stranger
            with lock:
                if present[role] == expected[role]:
                    _say(peer, f"there are {expected[role]} {role}s already")
                    return
                present[role] += 1
                count()
            # Who is welcome will be told why the training ends, if it does.
            watch.meet(peer)
            _say(peer, _WELCOME)
            watch.attend(lines, f"a {role} at {host}")

    def admit() -> None:
        while True:
            peer, (host, _) = listener.accept()
            _hold(peer)
            _in_background(attend, peer, host)

    count()
    _in_background(wait)
    _in_background(admit)


def connect(watch: Watch) -> None:
    """Connect with the scheduler, which may start later than this process."""
    while True:
        with suppress(OSError):
            peer = socket.create_connection(_address())
            # Where nobody listens yet, a connection may by chance meet itself.
            if peer.getsockname() != peer.getpeername():
                break
            peer.close()
        time.sleep(0.1)
    _hold(peer)
    _say(peer, os.environ["DMLC_ROLE"])
    lines = peer.makefile(encoding="utf-8", errors="replace")
    watch.meet(peer)
    words = _hear(lines)
    if words != _WELCOME:
        watch.leave(words or gone("the scheduler"))
    _in_background(watch.attend, lines, "the scheduler")


def gone(name: str) -> str:
    """Say that a process has gone, and what comes of it."""
    return f"{name} has gone; the training cannot go on"


def _hold(peer: socket.socket) -> None:
    """Keep a connection that says nothing, until the other machine is lost."""
    peer.settimeout(None)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Asked four times, evenly; macOS has another name for the first time.
    wait = min(-(-_number(_SILENCE) // 4), 32767)
    for name in ("TCP_KEEPIDLE", "TCP_KEEPALIVE", "TCP_KEEPINTVL"):
        if hasattr(socket, name):
            peer.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), wait)
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def _say(peer: socket.socket, words: str) -> None:
    with suppress(OSError):  # it has gone
        peer.sendall(f"{words}\n".encode())


def _hear(lines: TextIO) -> str:
    try:
        return lines.readline(1000).rstrip("\n")
    except OSError:
        return ""


def part(kvstore: Any, watch: Watch, end: Deadline) -> None:
    """Say goodbye, for which all workers meet."""
    if _failed():
        sys.stdout.flush()
        os._exit(1)  # the others wait for this one, so they would not come
    from .._mxnet import mx

    with end:
        mx.base.check_call(mx.base._LIB.MXKVStoreFree(kvstore.handle))
    kvstore.handle = None
    watch.part()


def _failed() -> bool:
    """Whether an error ends this process, which a prompt survives."""
    return hasattr(sys, "last_value") and not hasattr(sys, "ps1")


def _in_background(function: Callable[..., None], *args: Any) -> None:
    threading.Thread(target=function, args=args, daemon=True).start()


def address(watch: Watch) -> str:
    """Choose the IP address of this machine for others to connect to, as MXNet does.

    Parameters
    ----------
    watch : Watch
        Of a process that is connected with the scheduler.

    Returns
    -------
    str
        By default, the one from which the scheduler is reached.
    """
    own, interface = os.environ.get("DMLC_NODE_HOST"), os.environ.get("DMLC_INTERFACE")
    if not own and interface and sys.platform == "linux":
        asked = struct.pack("256s", interface.encode())
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            found = fcntl.ioctl(any_socket, _GET_ADDRESS, asked)
        own = socket.inet_ntoa(found[20:24])
    return own or watch.host()


def _address() -> tuple[str, int]:
    return os.environ["DMLC_PS_ROOT_URI"], _number("DMLC_PS_ROOT_PORT") + 1


def _number(name: str) -> int:
    return int(os.environ.get(name) or _SECONDS[name])
