"""A worker's shard of a training: some columns of the rows, and their weights.

Both large weights of the network have a vector for each column (a user, or an item in
a user-based model). A worker keeps the vectors, the optimizer's moments and the ratings
of its own columns. For each batch the workers sum the hidden layer, batch_size x
num_hidden numbers, once forward and once backward, so that all have the same one.
"""

import math
import os
from collections.abc import Iterator, Mapping
from tempfile import TemporaryFile
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import mx
from ..errors import ClusterError
from ..fast import COLUMN_COST, release, view

if TYPE_CHECKING:
    from .team import Team

# Numbers sent, and drawn, at a time, where many are.
_BLOCK, _DRAWN = 2**20, 2**16
# Which axis of an array has the columns. The fast step keeps the encoder transposed.
_AXES = {
    "encoder.weight": 1,
    "decoder.weight": 0,
    "decoder.bias": 0,
    **{
        f"{name}.{moment}": 0
        for name in ("encoder.weight", "decoder.weight", "decoder.bias")
        for moment in ("mean", "var")
    },
}


class Shard:
    """The columns of one worker, from `start` to `stop`.

    Its `rows` of ratings, (num_rows, stop - start), are a part of all ratings,
    (num_rows, num_columns). Each worker has about the same work.
    """

    def __init__(self, workers: "Team", rows: sp.csr_matrix, num_steps: float) -> None:
        self.workers, self.num_columns = workers, rows.shape[1]
        size, rank = workers.size, workers.rank
        if self.num_columns < size:
            raise ClusterError(
                f"{self.num_columns} columns cannot be divided among {size} workers"
            )
        ratings = np.bincount(rows.indices, minlength=self.num_columns)
        cost = np.concatenate([[0], (ratings + COLUMN_COST * num_steps).cumsum()])
        number = np.arange(size + 1)
        bounds = cost.searchsorted(number * cost[-1] / size)
        # Each has at least one.
        self._bounds = bounds.clip(number, self.num_columns - size + number)
        self.start, self.stop = self._bounds[rank : rank + 2].tolist()
        self.rows = rows[:, self.start : self.stop]

    def initializer(self, start: Any, axis: int) -> Any:
        """Return an initializer that draws all columns, and keeps this worker's."""
        return _Cutting(start, axis, self)

    def gather(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Gather the workers' arrays in files at the first worker; others get none."""
        found: dict[str, np.ndarray] = {}
        is_first = not self.workers.rank
        for name, array in arrays.items():
            axis = _AXES.get(name)
            if axis is None:
                found[name] = array
                continue
            array = array.swapaxes(0, axis)
            shape = self.num_columns, *array.shape[1:]
            whole = on_disk(shape, np.float32) if is_first else array
            for columns, own, counts in self._pieces(array):
                some = np.ascontiguousarray(array[own], np.float32)
                some = self.workers.gather(some, counts)
                if is_first:
                    whole[columns] = some.reshape(-1, *shape[1:])
                    release(whole)
            found[name] = whole.swapaxes(0, axis)
        return found if is_first else {}

    def scatter(
        self, arrays: Mapping[str, np.ndarray], own: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Take this worker's columns of the first worker's arrays, into its own.

        Raises
        ------
        ValueError
            If the first worker has arrays of other names or shapes.
        """
        if self.workers.rank:
            arrays = own
        elif unknown := own.keys() ^ arrays.keys():
            raise ValueError(f"{min(unknown)} is missing, or not of this network")
        found = {}
        for name, array in own.items():
            axis = _AXES.get(name)
            if axis is None:
                found[name] = self.workers.broadcast(arrays[name])
                continue
            part, whole = array.swapaxes(0, axis), arrays[name].swapaxes(0, axis)
            shape = self.num_columns, *part.shape[1:]
            if not self.workers.rank and whole.shape != shape:
                raise ValueError(f"{name} does not have the shape {shape}")
            for columns, mine, counts in self._pieces(part):
                some = np.ascontiguousarray(whole[columns], np.float32)
                some = self.workers.scatter(some, counts)
                part[mine] = some.reshape(-1, *shape[1:])
            found[name] = array
        return found

    def _pieces(self, array: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
        """Yield blocks: all columns, this worker's, and how many numbers each has."""
        width = array[0].size
        size = max(1, _BLOCK // max(1, width))
        for first in range(0, self.num_columns, size):
            bounds = self._bounds.clip(first, first + size)
            start, stop = bounds[self.workers.rank :][:2].clip(self.start, self.stop)
            mine = slice(start - self.start, stop - self.start)
            yield slice(bounds[0], bounds[-1]), mine, np.diff(bounds) * width


def spill(matrix: sp.csr_matrix) -> None:
    """Move a matrix's ratings to temporary files, and release their memory."""
    for name in ("data", "indices"):
        array = getattr(matrix, name)
        if not isinstance(array, np.memmap):
            copy = on_disk(array.shape, array.dtype)
            copy[...] = array
            setattr(matrix, name, copy)
        release(getattr(matrix, name))


def on_disk(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """Make an array in a temporary file, or in memory if the disk is full."""
    try:
        with TemporaryFile() as file:
            size = math.prod(shape) * np.dtype(dtype).itemsize
            os.posix_fallocate(file.fileno(), 0, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except (OSError, AttributeError, ValueError):  # macOS has no posix_fallocate
        return np.empty(shape, dtype)


class _Cutting(mx.init.Initializer):
    """Draws the weights of all columns, block by block, and keeps the shard's."""

    def __init__(self, start: Any, axis: int, shard: Shard) -> None:
        super().__init__()
        self.start, self.axis, self.shard = start, axis, shard

    def _init_weight(self, name: str, array: Any) -> None:
        own, start, stop = view(array), self.shard.start, self.shard.stop
        shape = [*array.shape]
        shape[self.axis] = self.shard.num_columns
        rows, length = shape
        size = rows
        # Xavier's depend on the shape. Normal ones are drawn two by two.
        if isinstance(self.start, mx.init.Normal):
            size = 2 * max(1, _DRAWN // (2 * length))
        for first in range(0, rows, size):
            last = min(first + size, rows)
            some = mx.np.zeros((last - first, length))
            self.start._init_weight(name, some)
            if self.axis:
                own[first:last] = view(some)[:, start:stop]
            elif first < stop and start < last:
                its = slice(max(first, start), min(last, stop))
                own[its.start - start : its.stop - start] = view(some)[
                    its.start - first : its.stop - first
                ]
