"""A worker's shard of a training: some columns of the rows, and their weights.

Both large weights of the network have a vector for each column (a user, or for a
user-based model an item). A worker keeps those of its own columns, what the optimizer
knows of them, and its ratings. All that the workers tell each other of a batch is what
they add up in the hidden layer, of batch_size x num_hidden numbers, once forward and
once backward: each then has the same hidden layer, and does the same with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import mx
from ..errors import ClusterError
from ..fast import COLUMN_COST, view

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
    """The columns of one worker, next to each other.

    Parameters
    ----------
    workers : Team
        The workers, each of which has about the same work.
    rows : scipy.sparse.csr_matrix, shape (num_rows, num_columns)
        Ratings to learn from, of all workers.
    num_steps : float
        Of an epoch.

    Attributes
    ----------
    num_columns : int
        Of all workers.
    start, stop : int
        This worker's first column, and the one after its last.
    rows : scipy.sparse.csr_matrix, shape (num_rows, stop - start)
        This worker's ratings.

    Raises
    ------
    ClusterError
        If there are fewer columns than workers.
    """

    def __init__(self, workers: Team, rows: sp.csr_matrix, num_steps: float) -> None:
        self.workers, self.num_columns = workers, rows.shape[1]
        size, rank = workers.size, workers.rank
        if self.num_columns < size:
            raise ClusterError(
                f"{self.num_columns} columns cannot be shared out over {size} workers"
            )
        ratings = np.bincount(rows.indices, minlength=self.num_columns)
        cost = np.concatenate([[0], (ratings + COLUMN_COST * num_steps).cumsum()])
        number = np.arange(size + 1)
        bounds = cost.searchsorted(number * cost[-1] / size)
        # Each has at least one.
        bounds = bounds.clip(number, self.num_columns - size + number)
        self.start, self.stop = bounds[rank : rank + 2].tolist()
        self.rows = rows[:, self.start : self.stop]

    def initializer(self, start: Any, axis: int) -> Any:
        """Return what draws a weight of all columns, and keeps this worker's."""
        return _Cutting(start, axis, self)

    def gather(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Put arrays of all workers together; the first worker alone gets any."""
        whole = {}
        for name, array in arrays.items():
            axis = _AXES.get(name)
            whole[name] = array if axis is None else self._gather(array, axis)
        return {} if self.workers.rank else whole

    def cut(self, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Take this worker's columns of arrays of all."""
        own = {}
        for name, array in arrays.items():
            columns = slice(self.start, self.stop)
            axis = _AXES.get(name)
            own[name] = array
            if axis is not None:
                own[name] = array[:, columns] if axis else array[columns]
        return own

    def _gather(self, array: np.ndarray, axis: int) -> np.ndarray:
        """Add up blocks in which each worker has written its columns."""
        array = array.swapaxes(0, axis)
        length = 0 if self.workers.rank else self.num_columns
        whole = np.empty((length, *array.shape[1:]), np.float32)
        size = max(1, _BLOCK // max(1, array[0].size))
        for first in range(0, self.num_columns, size):
            last = min(first + size, self.num_columns)
            block = np.zeros((last - first, *array.shape[1:]), np.float32)
            start, stop = max(first, self.start), min(last, self.stop)
            if start < stop:
                own = array[start - self.start : stop - self.start]
                block[start - first : stop - first] = own
            self.workers.sum(block)
            if length:
                whole[first:last] = block
        return whole.swapaxes(0, axis)


class _Cutting(mx.init.Initializer):
    """Draws a weight of all columns, some rows of it at a time, and keeps its own."""

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
