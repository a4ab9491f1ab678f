"""Numbers packed for the way from one worker to another."""

from __future__ import annotations

import numpy as np

from .compiled import call, compiled

# Of so many neighbours, each is rounded to a share of the largest. What is too small to
# have an inverse, or to count for anything, is 0.
_BLOCK, _TINY = 256, np.float32(1e-30)


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
        Where what was packed is received; contiguous.
    """

    memory: np.ndarray

    def __init__(self, size: int) -> None:
        self.size = size
        self.memory = np.empty(size, np.float32)

    def pack(self, values: np.ndarray) -> np.ndarray:
        """Pack numbers.

        Parameters
        ----------
        values : numpy.ndarray of float32, shape (size,), contiguous
            They become what comes out.

        Returns
        -------
        numpy.ndarray
            What to send: here, the numbers themselves.
        """
        return values

    def add_to(self, values: np.ndarray) -> None:
        """Add the numbers to others."""
        np.add(values, self.memory, out=values)

    def copy_to(self, values: np.ndarray) -> None:
        """Replace other numbers."""
        values[:] = self.memory


class RoundedParcel(Parcel):
    """A parcel of half of the bytes, whose numbers are rounded.

    Each is off by up to 1/65534 of the largest one among its neighbours; where one is
    not finite, none of them is.
    """

    bytes_more = 0  # of a number, beyond two

    def __init__(self, size: int) -> None:
        self.size, num_blocks = size, -(-size // _BLOCK)
        ends = np.array([4 * num_blocks, 2 * size, self.bytes_more * size]).cumsum()
        self.memory = np.empty(ends[-1], np.uint8)
        units, high, low = np.split(self.memory, ends[:-1])
        self._arrays = units.view(np.float32), high.view(np.int16), low

    def pack(self, values: np.ndarray) -> np.ndarray:
        """Pack numbers, as `Parcel.pack`, into its own memory."""
        call(_round, values, *self._arrays)
        return self.memory

    def add_to(self, values: np.ndarray) -> None:
        """Add the numbers to others, as `Parcel.add_to`."""
        call(_add, values, *self._arrays)

    def copy_to(self, values: np.ndarray) -> None:
        """Replace other numbers, as `Parcel.copy_to`."""
        values[:] = 0
        self.add_to(values)


class FineParcel(RoundedParcel):
    """A parcel of three quarters of the bytes, whose numbers are rounded less.

    Each is off by up to a three-millionth of the largest one among its neighbours.
    """

    bytes_more = 1


@compiled(error_model="numpy")
def _round(values, units, high, low):  # type: ignore[no-untyped-def]
    found, numbers = np.zeros(1, np.float32), np.empty(_BLOCK, np.int32)
    shift = 8 if low.size else 0
    finest = np.float32((2**15 - 1) << shift)
    for block in range(units.size):
        its = slice(block * _BLOCK, (block + 1) * _BLOCK)
        own, first, rest = values[its], high[its], low[its]
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
            unit, inverse = largest / finest, finest / largest
        units[block] = unit
        for i in range(own.size):
            numbers[i] = np.int32(np.rint(own[i] * inverse))
            own[i] = unit * np.float32(numbers[i])
            first[i] = np.int16(numbers[i] >> shift)
        for i in range(rest.size):
            rest[i] = np.uint8(numbers[i])


# Workers have to find the same: no product may go into a sum without being rounded.
@compiled(error_model="numpy")
def _add(values, units, high, low):  # type: ignore[no-untyped-def]
    for block in range(units.size):
        its = slice(block * _BLOCK, (block + 1) * _BLOCK)
        own, first, rest, unit = values[its], high[its], low[its], units[block]
        if rest.size:
            for i in range(own.size):
                own[i] += unit * np.float32(np.int32(first[i]) << 8 | rest[i])
        else:
            for i in range(own.size):
                own[i] += unit * np.float32(first[i])
