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
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import numpy as np

from ..fast import Parcel, row_bounds

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
        self._spare: defaultdict[tuple[type[Parcel], int], list[Parcel]]
        self._spare = defaultdict(list)

    def start(self, array: np.ndarray, kind: type[Parcel]) -> Callable[[], None]:
        """Begin to replace an array by the sum of what all workers have of it.

        Parameters
        ----------
        array : numpy.ndarray of float32, contiguous
            Every worker begins, and ends, sums of arrays of the same sizes in the same
            order. It is to be left alone until the end.
        kind : type
            Of what the numbers are sent in, the same for all workers.

        Returns
        -------
        callable
            Waits for the sum. All workers get the same one, to the bit.
        """
        # Its memory, which has no gaps.
        values: np.ndarray = np.ndarray(array.size, np.float32, array)
        # Two tell each other everything. Of several each adds up a slice, and tells the
        # others what it came to, so that no number has to go to everybody.
        if self.size == 2:
            slices = [values, values]
        else:
            slices = [values[i:j] for i, j in row_bounds(len(values), self.size)]
        own = slices[self.rank]
        out = {rank: self._parcel(kind, slices[rank].size) for rank in self._links}
        into = {rank: self._parcel(kind, own.size) for rank in self._links}
        packed = {rank: out[rank].pack(slices[rank]) for rank in out}
        wait = self._exchange(packed, into)

        def finish() -> None:
            wait()
            for parcel in into.values():
                parcel.add_to(own)
            self._put_away(*out.values(), *into.values())
            if self.size > 2:
                self._tell(kind, own, slices)

        return finish

    def _tell(
        self, kind: type[Parcel], own: np.ndarray, slices: Sequence[np.ndarray]
    ) -> None:
        """Let all others know this worker's slice, and find out what theirs are."""
        parcel = self._parcel(kind, own.size)
        packed = parcel.pack(own)
        into = {rank: self._parcel(kind, slices[rank].size) for rank in self._links}
        self._exchange(dict.fromkeys(into, packed), into)()
        for rank in into:
            into[rank].copy_to(slices[rank])
        self._put_away(parcel, *into.values())

    def _parcel(self, kind: type[Parcel], size: int) -> Parcel:
        """Find or make a parcel: new memory would take as long as the sum."""
        spare = self._spare[kind, size]
        return spare.pop() if spare else kind(size)

    def _put_away(self, *parcels: Parcel) -> None:
        for parcel in parcels:
            self._spare[type(parcel), parcel.size].append(parcel)

    def _exchange(
        self, out: Mapping[int, np.ndarray], into: Mapping[int, Parcel]
    ) -> Callable[[], None]:
        """Begin to send each of the others what is packed, and to receive a parcel."""
        pieces: list[_Piece] = []
        for rank, link in self._links.items():
            ways = (link.out, out[rank]), (link.into, into[rank].memory)
            for queue, memory in ways:
                if memory.size:
                    pieces.append(_Piece(memory))
                    queue.append(pieces[-1])
        while self._advance(0):
            pass

        def finish() -> None:
            sleeps = time.monotonic() + _AWAKE
            while any(piece.rest for piece in pieces):
                if time.monotonic() >= sleeps:
                    self._advance(None)
                elif not self._advance(0):
                    os.sched_yield()

        return finish

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
