"""The workers' connections, each with each, over which they add up arrays.

MXNet's parameter server can do it, too, but everything goes through the server then,
and is copied several times on its way.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np

_TOKEN, _RANK = 16, 4  # bytes
# Seconds for which a worker looks out for the others before it sleeps, as who sleeps is
# woken up late. Whoever shares its core goes first meanwhile.
_AWAKE = 0.02


class Links:
    """A worker's connections with all others.

    Parameters
    ----------
    rank : int
        Of this worker, from 0.
    peers : mapping of int to socket.socket
        The others, by rank.
    lose : callable
        Called with the rank of one who has gone; it does not return.

    Attributes
    ----------
    rank : int
    size : int
        Number of workers.
    """

    def __init__(
        self,
        rank: int,
        peers: Mapping[int, socket.socket],
        lose: Callable[[int], NoReturn],
    ) -> None:
        self.rank, self.size, self._lose = rank, len(peers) + 1, lose
        self._links = {one: _Link(one, peers[one]) for one in sorted(peers)}

    def sum(self, array: np.ndarray) -> None:
        """Replace a contiguous float32 array by the sum over all workers.

        Each adds up a slice of it, in the workers' order, and tells the others: all get
        the same bits.
        """
        values: np.ndarray = np.ndarray(array.size, np.float32, array)
        slices = np.array_split(values, self.size)
        own = slices[self.rank]
        into = {rank: np.empty_like(own) for rank in self._links}
        self._exchange({rank: slices[rank] for rank in into}, into)
        into[self.rank] = own.copy()
        own[:] = sum(into[rank] for rank in range(self.size))
        self._exchange(
            dict.fromkeys(self._links, own), {rank: slices[rank] for rank in self._links}
        )

    def _exchange(
        self, out: Mapping[int, np.ndarray], into: Mapping[int, np.ndarray]
    ) -> None:
        """Send an array to each of the others, and receive one from each."""
        pieces: list[_Piece] = []
        for rank, link in self._links.items():
            for queue, memory in ((link.out, out[rank]), (link.into, into[rank])):
                if memory.size:
                    pieces.append(_Piece(memory))
                    queue.append(pieces[-1])
        sleeps = time.monotonic() + _AWAKE
        while any(piece.rest for piece in pieces):
            if time.monotonic() >= sleeps:
                self._advance(None)
            elif not self._advance(0):
                os.sched_yield()

    def _advance(self, seconds: float | None) -> bool:
        """Send and receive what can be at once; say whether there was anything."""
        links = self._links.values()
        senders = [link for link in links if link.out]
        receivers = [link for link in links if link.into]
        receivers, senders, _ = select.select(receivers, senders, [], seconds)
        for link in senders:
            self._move(link, link.out, link.peer.send)
        for link in receivers:
            self._move(link, link.into, link.peer.recv_into)
        return bool(senders or receivers)

    def _move(
        self, link: _Link, queue: deque[_Piece], move: Callable[[memoryview], int]
    ) -> None:
        """Move some bytes of a queue's first piece."""
        try:
            length = move(queue[0].rest)
        except BlockingIOError:
            return
        except OSError:
            length = 0
        if not length:
            self._lose(link.rank)
        queue[0].rest = queue[0].rest[length:]
        if not queue[0].rest:
            queue.popleft()


class _Piece:
    """Memory on its way: the bytes that are left of it."""

    def __init__(self, memory: np.ndarray) -> None:
        self.rest = memory.data.cast("B")


class _Link:
    """A connection with a worker, and what is going out and coming in, in order."""

    def __init__(self, rank: int, peer: socket.socket) -> None:
        peer.setblocking(False)
        self.rank, self.peer = rank, peer
        self.out: deque[_Piece] = deque()
        self.into: deque[_Piece] = deque()

    def fileno(self) -> int:
        """Let `select` take it for its socket."""
        return self.peer.fileno()


def meet(
    rank: int, host: str, tell: Callable[[Any], list[Any]]
) -> dict[int, socket.socket]:
    """Connect with all other workers.

    Parameters
    ----------
    rank : int
        Of this worker.
    host : str
        Its address, which others can reach.
    tell : callable
        Lets all know what each has to say: from that of this worker to a list of all,
        by rank.

    Returns
    -------
    dict of int to socket.socket
        The others, by rank.

    Raises
    ------
    OSError
        If one cannot be reached.
    """
    token = secrets.token_bytes(_TOKEN)
    with socket.create_server((host, 0)) as listener:
        own = (*listener.getsockname()[:2], token.hex())
        addresses = tell(own)
        peers = {}
        for other, (*address, key) in enumerate(addresses[:rank]):
            peers[other] = socket.create_connection(tuple(address))
            peers[other].sendall(bytes.fromhex(key) + rank.to_bytes(_RANK, "big"))
        expected = range(rank + 1, len(addresses))
        peers.update(_admitted(listener, token, expected))
    for peer in peers.values():
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return peers


def _admitted(
    listener: socket.socket, token: bytes, expected: Iterable[int]
) -> dict[int, socket.socket]:
    """Let others connect until all are there that are expected; strangers may wait."""
    missing, found = set(expected), {}
    waiting: list[socket.socket] = []
    while missing:
        for one in select.select([listener, *waiting], [], [])[0]:
            if one is listener:
                waiting.append(listener.accept()[0])
                continue
            waiting.remove(one)
            hello = b""
            with suppress(OSError):
                hello = one.recv(_TOKEN + _RANK)  # so little comes as a whole
            rank = int.from_bytes(hello[_TOKEN:], "big")
            if secrets.compare_digest(hello[:_TOKEN], token) and rank in missing:
                missing.remove(rank)
                found[rank] = one
            else:
                one.close()
    for stranger in waiting:
        stranger.close()
    return found
