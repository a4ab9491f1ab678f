"""Numbers packed for the way from one worker to another."""

from __future__ import annotations

import numpy as np

from .compiled import call, compiled

# Numbers that are rounded by the largest one of them, and how finely: a whole number of
# 16 bits says which share of it each is. What is smaller than a gradient can count for,
# and has no inverse, is 0.
_BLOCK, _FINEST, _TINY = 128, np.float32(2**15 - 1), np.float32(1e-30)


class Parcel:
    """Room for float32 numbers, which come out as they went in.

    Parameters
    ----------
    size : int
        How many.

    Attributes
    ----------
    size : int
    memory : numpy.ndarray
        What is sent, contiguous.
    """

    memory: np.ndarray

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = np.empty(size, np.float32)

    def put(self, values: np.ndarray) -> None:
        """Put numbers in.

        Parameters
        ----------
        values : numpy.ndarray of float32, shape (size,)
            They become what comes out.
        """
        self.memory[:] = values

    def add_to(self, values: np.ndarray) -> None:
        """Add the numbers to others."""
        np.add(values, self.memory, out=values)

    def copy_to(self, values: np.ndarray) -> None:
        """Replace other numbers."""
        values[:] = self.memory


class RoundedParcel(Parcel):
    """A parcel of half the bytes, whose numbers are rounded.

    Each is off by up to 1/65534 of the largest one among its neighbours; where one is
    not finite, none of them is.
    """

    def __init__(self, size: int) -> None:
        self.size, num_blocks = size, -(-size // _BLOCK)
        self.memory = np.empty(4 * num_blocks + 2 * size, np.uint8)
        self._units = self.memory[: 4 * num_blocks].view(np.float32)
        self._numbers = self.memory[4 * num_blocks :].view(np.int16)

    def put(self, values: np.ndarray) -> None:
        """Put numbers in, as `Parcel.put`."""
        call(_round, values, self._units, self._numbers)

    def add_to(self, values: np.ndarray) -> None:
        """Add the numbers to others, as `Parcel.add_to`."""
        call(_add, self._units, self._numbers, values)

    def copy_to(self, values: np.ndarray) -> None:
        """Replace other numbers, as `Parcel.copy_to`."""
        values[:] = 0
        self.add_to(values)


@compiled(error_model="numpy")
def _round(values, units, numbers):  # type: ignore[no-untyped-def]
    found = np.zeros(1, np.float32)
    for block in range(units.size):
        its = slice(block * _BLOCK, (block + 1) * _BLOCK)
        own, rounded = values[its], numbers[its]
        # As whole numbers, the bits of floats without their signs have the same order,
        # but for NaN, which is the largest of all.
        bits, most = own.view(np.int32), np.int32(0)
        for i in range(bits.size):
            most = max(most, bits[i] & np.int32(0x7FFFFFFF))
        found.view(np.int32)[0] = most
        largest = found[0]
        if largest < _TINY:
            unit = inverse = np.float32(0)
        else:
            unit, inverse = largest / _FINEST, _FINEST / largest
        units[block] = unit
        for i in range(own.size):
            rounded[i] = np.int16(np.rint(own[i] * inverse))
            own[i] = unit * rounded[i]


# Workers have to find the same: no product may go into a sum without being rounded.
@compiled(error_model="numpy")
def _add(units, numbers, values):  # type: ignore[no-untyped-def]
    for block in range(units.size):
        its = slice(block * _BLOCK, (block + 1) * _BLOCK)
        own, rounded, unit = values[its], numbers[its], units[block]
        for i in range(own.size):
            own[i] += unit * rounded[i]
