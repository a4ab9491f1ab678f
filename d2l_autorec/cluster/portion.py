"""A worker's portion of a training: some columns of the rows, and their weights.

Both large weights of the network have a vector for each column (a user, or for a
user-based model an item). A worker keeps those of its own columns, what the optimizer
knows of them, and its ratings. All that the workers tell each other of a batch is what
they add up in the hidden layer, of batch_size x num_hidden numbers, once forward and
once backward: each then has the same hidden layer, and does the same with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx
from ..errors import ClusterError
from ..fast import (
    COLUMN_COST,
    SparseStep,
    encoding,
    members,
    reconstruction,
    state_of,
    view,
)
from .step import SHARED

if TYPE_CHECKING:
    from .team import Team

# Numbers sent, and drawn, at a time, where many are.
_BLOCK, _DRAWN = 2**20, 2**16


class Portion:
    """The columns of one worker, next to each other, and what it does with them.

    Parameters
    ----------
    team : Team
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

    def __init__(self, team: Team, rows: sp.csr_matrix, num_steps: float = 1) -> None:
        self.team, self.num_columns = team, rows.shape[1]
        if self.num_columns < team.size:
            raise ClusterError(
                f"{self.num_columns} columns cannot be shared out over {team.size} "
                "workers"
            )
        ratings = np.bincount(rows.indices, minlength=self.num_columns)
        cost = np.concatenate([[0], (ratings + COLUMN_COST * num_steps).cumsum()])
        number = np.arange(team.size + 1)
        bounds = cost.searchsorted(number * cost[-1] / team.size)
        # Each has at least one.
        bounds = bounds.clip(number, self.num_columns - team.size + number)
        self.start, self.stop = bounds[team.rank : team.rank + 2].tolist()
        self.rows = self.own(rows)

    def own(self, cells: sp.csr_matrix) -> sp.csr_matrix:
        """Take this worker's columns out of a matrix of all."""
        return cells[:, self.start : self.stop]

    def initialize(
        self, net: gluon.Block, start: Any, devices: Sequence[mx.Context]
    ) -> None:
        """Initialize a network of this worker's columns as one of all columns.

        Parameters
        ----------
        net : AutoRec or an average of several
            Its weights are drawn as they are first needed.
        start : mxnet.initializer.Initializer
            Draws them.
        devices : sequence of mxnet.Context
            As for Gluon.
        """
        for parameter, axis in self._shared(net).items():
            if parameter.name.endswith("weight"):
                parameter.init = _Cutting(start, axis, self)
        net.initialize(start, devices)

    def step(
        self,
        kind: type[SparseStep],
        net: gluon.Block,
        loss: Callable[[Any, Any], Any],
        trainer: gluon.Trainer,
        devices: Sequence[mx.Context],
        cells_per_row: float | None = None,
    ) -> SparseStep:
        """Make the step of training that all workers take together.

        Parameters
        ----------
        kind : type
            That one process would take.
        net, loss, trainer, devices, cells_per_row
            As for `SparseStep`, with a network of this worker's columns and a trainer
            without a key-value store.

        Returns
        -------
        SparseStep
            Takes batches of this worker's columns, of the same rows on all workers.
        """
        mean_over = cells_per_row or self.num_columns
        return SHARED[kind](self, net, loss, trainer, devices, mean_over)

    def encode(
        self, net: gluon.Block, device: mx.Context
    ) -> Callable[[sp.csr_matrix], mx.np.ndarray]:
        """Get ready to compute last hidden layers, which all workers do together.

        Parameters
        ----------
        net : AutoRec
            With the weights of this worker's columns.
        device : mxnet.Context
            That it is on.

        Returns
        -------
        callable
            From this worker's columns of rows of ratings to an mxnet.np.ndarray of
            float32, shape (batch_size, num_hidden).
        """
        return encoding(net, device, self.team.add_up)

    def predict_cells(
        self,
        net: gluon.Block,
        cells: sp.csr_matrix,
        device: mx.Context,
        batch_size: int = 256,
    ) -> np.ndarray:
        """Reconstruct single cells, which all workers do together.

        Parameters
        ----------
        net : AutoRec or an average of several
            With the weights of this worker's columns.
        cells : scipy.sparse.csr_matrix, shape (num_rows, num_columns)
            The cells are those that it stores, the same on all workers.
        device : mxnet.Context
            That the network is on.
        batch_size : int
            Rows at a time.

        Returns
        -------
        numpy.ndarray of float32, shape (num_cells,)
            In the order in which the cells are stored.
        """
        predicted = np.zeros(cells.nnz, np.float32)
        places = sp.csr_matrix(
            (np.arange(cells.nnz), cells.indices, cells.indptr), cells.shape
        )
        rows = np.flatnonzero(np.diff(cells.indptr))
        reconstruct = reconstruction(net, device, self.team.add_up)
        for first in range(0, len(rows), batch_size):
            batch = rows[first : first + batch_size]
            asked = self.own(places[batch]).tocsc()
            predicted[asked.data] = reconstruct(self.rows[batch], asked).asnumpy()
        self.team.add_up(predicted)
        return predicted

    def gather(
        self,
        net: gluon.Block,
        trainer: gluon.Trainer,
        whole: tuple[gluon.Block, gluon.Trainer] | None,
        with_state: bool,
    ) -> None:
        """Put the portions of all workers together at the first one.

        Parameters
        ----------
        net, trainer
            Of this worker's columns.
        whole : (mxnet.gluon.Block, mxnet.gluon.Trainer), optional
            Of all columns, to be written to; at the first worker alone.
        with_state : bool
            Whether the optimizer's state is asked for, too.
        """
        targets: Iterator[Any] = iter(())
        if whole:
            targets = self._arrays(*whole, with_state)
        for array, axis in self._arrays(net, trainer, with_state):
            target, _ = next(targets, (None, None))
            if axis is not None:
                self._gather(array.swapaxes(0, axis), axis, target)
            elif target is not None:
                target[...] = array
        if whole:
            _set_numbers(whole[1], trainer)

    def scatter(
        self,
        whole: tuple[gluon.Block, gluon.Trainer],
        net: gluon.Block,
        trainer: gluon.Trainer,
    ) -> None:
        """Take this worker's portion of a training that is there as a whole.

        Parameters
        ----------
        whole : (mxnet.gluon.Block, mxnet.gluon.Trainer)
            Of all columns.
        net, trainer
            Of this worker's, to be written to.
        """
        its = slice(self.start, self.stop)
        for (array, axis), (found, _) in zip(
            self._arrays(net, trainer), self._arrays(*whole)
        ):
            array[...] = (
                found if axis is None else found[(slice(None),) * axis + (its,)]
            )
        _set_numbers(trainer, whole[1])

    def _gather(self, array: np.ndarray, axis: int, target: np.ndarray | None) -> None:
        """Add up blocks in which each worker has written its columns."""
        if target is not None:
            target = target.swapaxes(0, axis)
        size = max(1, _BLOCK // max(1, array[0].size))
        for first in range(0, self.num_columns, size):
            last = min(first + size, self.num_columns)
            block = np.zeros((last - first, *array.shape[1:]), np.float32)
            start, stop = max(first, self.start), min(last, self.stop)
            if start < stop:
                own = array[start - self.start : stop - self.start]
                block[start - first : stop - first] = own
            self.team.add_up(block)
            if target is not None:
                target[first:last] = block

    def _arrays(
        self, net: gluon.Block, trainer: gluon.Trainer, with_state: bool = True
    ) -> Iterator[tuple[np.ndarray, int | None]]:
        """See parameters and state, and which axis of each has the columns."""
        shared = self._shared(net)
        for parameter in trainer._params:
            state = state_of(trainer, parameter) if with_state else ()
            for array in (*parameter.list_data(), *state):
                yield view(array), shared.get(parameter)

    def _shared(self, net: gluon.Block) -> dict[gluon.Parameter, int]:
        """Say which axis of a parameter has the columns, where one has."""
        return {
            parameter: axis
            for one in members(net)
            for parameter, axis in (
                (one.encoder.weight, 1),
                (one.decoder.weight, 0),
                (one.decoder.bias, 0),
            )
        }


class _Cutting(mx.init.Initializer):
    """Draws a weight of all columns, some rows of it at a time, and keeps its own."""

    def __init__(self, start: Any, axis: int, portion: Portion) -> None:
        super().__init__()
        self.start, self.axis, self.portion = start, axis, portion

    def _init_weight(self, name: str, array: Any) -> None:
        own, start, stop = view(array), self.portion.start, self.portion.stop
        shape = [*array.shape]
        shape[self.axis] = self.portion.num_columns
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


def _set_numbers(trainer: gluon.Trainer, like: gluon.Trainer) -> None:
    """Let an optimizer be as far as another one is."""
    for name, value in vars(like.optimizer).items():
        if isinstance(value, (int, float)):
            setattr(trainer.optimizer, name, value)
