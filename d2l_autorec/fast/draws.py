"""The units that dropout keeps, as MXNet draws them, in a tenth of its time.

On a CPU MXNet has 1024 Mersenne twisters, seeded one after another, each of which draws
a run of an array's numbers, one at a time. Here they are drawn by vectors.

References
----------
M. Matsumoto and T. Nishimura, "Mersenne Twister", ACM TOMACS 8(1), 1998.
"""

from __future__ import annotations

import numba
import numpy as np

from .._mxnet import autograd, gluon, mx
from .arrays import view
from .compiled import compiled, in_shares, num_threads_for

# MXNet's: how many twisters, numbers that one draws at least, and what a seed is
# multiplied by.
_TWISTERS, _RUN, _SEEDS = 1024, 64, 127
_LENGTH = 624  # of a twister, in numbers
# Other twisters would drop the same units with a chance of exp(-2 x this).
_EVIDENCE = 64


class Draws:
    """Units that dropout keeps.

    MXNet draws them until these are known to be the same: the first ones after a seed
    are drawn twice, and compared. From then on MXNet's own generator stays where the
    seeds leave it.
    """

    def __init__(self) -> None:
        self._twisters = _Twisters()
        self._seed: int | None = None  # that MXNet was just given
        self._are_known = False

    def begin(self, seed: int) -> None:
        """Draw what follows a seed that MXNet was given, in the same way each time.

        Once the units drawn first are known, nobody may draw before or between them.
        """
        self._seed = seed
        if self._are_known:
            self._twisters.seed(seed)

    def keep(self, dropout: gluon.nn.Dropout, kept: np.ndarray) -> None:
        """Draw which units to keep.

        Parameters
        ----------
        dropout : mxnet.gluon.nn.Dropout
            The layer.
        kept : numpy.ndarray of float32, contiguous
            What the layer makes of ones in training is written there.
        """
        rate = np.float32(dropout._rate)
        if self._are_known:
            self._twisters.keep(rate, kept)
            return
        with autograd.train_mode():
            kept[...] = view(dropout(mx.np.ones(kept.shape)))
        seed, self._seed = self._seed, None
        if seed is not None and kept.size * rate * (1 - rate) >= _EVIDENCE:
            same = np.empty_like(kept)
            self._twisters.seed(seed)
            self._twisters.keep(rate, same)
            self._are_known = np.array_equal(same, kept)


class _Twisters:
    """MXNet's on a CPU, once they are seeded."""

    def __init__(self) -> None:
        self.states = np.empty((_TWISTERS, _LENGTH), np.uint32)
        self.used = np.empty(_TWISTERS, int)  # numbers of each state

    def seed(self, seed: int) -> None:
        """Seed all, as MXNet does."""
        in_shares(_seed, 1, np.uint32(seed * _SEEDS % 2**32), self.states)
        self.used[:] = _LENGTH

    def keep(self, rate: np.float32, kept: np.ndarray) -> None:
        """Draw which units to keep at a rate of those to drop."""
        num_runs = min(_TWISTERS, -(-kept.size // _RUN))
        length = -(-kept.size // num_runs)
        limit = np.float32(1) - rate
        size = num_threads_for(kept.size, 2**17)
        arrays = self.states, self.used, length, limit, kept.ravel()
        in_shares(_keep, size, size, *arrays)


@compiled()
def _seed(_, seed, states):  # type: ignore[no-untyped-def]
    # Each number takes long to make of the one before, so those of eight at once.
    for first in range(0, len(states), 8):
        some = states[first : first + 8]
        for i in range(8):
            some[i, 0] = seed + np.uint32(first + i)
        for k in range(1, _LENGTH):
            for i in range(8):
                last = some[i, k - 1] ^ (some[i, k - 1] >> np.uint32(30))
                some[i, k] = np.uint32(1812433253) * last + np.uint32(k)


@compiled()
def _keep(share, size, states, used, length, limit, kept):  # type: ignore[no-untyped-def]
    first, stop = share * len(states) // size, (share + 1) * len(states) // size
    nothing, whole = np.float32(0), np.float32(1) / limit
    for i in range(first, stop):
        run = kept[i * length : (i + 1) * length]
        while run.size:
            if used[i] == _LENGTH:
                _twist(states[i])
                used[i] = 0
            numbers = states[i, used[i] : used[i] + run.size]
            for k in range(numbers.size):
                x = numbers[k]
                x ^= x >> np.uint32(11)
                x ^= (x << np.uint32(7)) & np.uint32(0x9D2C5680)
                x ^= (x << np.uint32(15)) & np.uint32(0xEFC60000)
                x ^= x >> np.uint32(18)
                number = np.float32(x) * np.float32(2**-32)
                run[k] = whole if number <= limit else nothing
            used[i] += numbers.size
            run = run[numbers.size :]


@numba.njit
def _twist(state):  # type: ignore[no-untyped-def]
    # In three pieces, none of which reads what it writes a vector's length before.
    for k in range(227):
        state[k] = state[k + 397] ^ _mixed(state[k], state[k + 1])
    for k in range(227, 623):
        state[k] = state[k - 227] ^ _mixed(state[k], state[k + 1])
    state[623] = state[396] ^ _mixed(state[623], state[0])


@numba.njit
def _mixed(one, other):  # type: ignore[no-untyped-def]
    bits = (one & np.uint32(0x80000000)) | (other & np.uint32(0x7FFFFFFF))
    odd = (bits & np.uint32(1)) * np.uint32(0x9908B0DF)
    return (bits >> np.uint32(1)) ^ odd
