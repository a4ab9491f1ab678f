"""A step of training that computes the observed cells alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import scipy.sparse as sp

from .._mxnet import gluon, mx
from ..data import checked
from ..loop import Losses, Step, seed_everything
from .arrays import dense, row_bounds
from .cells import backward_at, members


class SparseStep(Step):
    """The book's step, with the cells without a rating left out instead of masked.

    That has the same gradient and takes less time.

    Parameters
    ----------
    net, trainer, devices
        As for `Step`; the networks of an average each learn for themselves.
    loss : callable
        From predictions and ratings at the observed cells to a loss of each. A cell
        predicted right has to count 0, as it does in Gluon's regression losses.
    cells_per_row : float, optional
        What the sum over a row's cells is divided by. By default that is the length of
        the row, as in the book, where the unobserved cells count as predicted right.
    """

    def __init__(
        self,
        net: gluon.Block,
        loss: Callable[[Any, Any], Any],
        trainer: gluon.Trainer,
        devices: Sequence[mx.Context],
        cells_per_row: float | None = None,
    ) -> None:
        super().__init__(net, loss, trainer, devices)
        self.cells_per_row = cells_per_row

    def seed(self, seed: int) -> None:
        """Begin an epoch's draws.

        Parameters
        ----------
        seed : int
            As for `seed_everything`.
        """
        seed_everything(seed)

    def backward(self, batch: sp.csr_matrix) -> Losses:
        """Compute the losses of a batch's ratings, and the gradients on each device."""
        parts, batch = [], checked(batch)
        for device, (start, stop) in zip(self.devices, self.bounds(batch.shape[0])):
            share, loss = batch[start:stop], self.loss
            if not share.nnz:
                # MXNet computes nothing on empty arrays, and a trainer wants a fresh
                # gradient on every device: a made-up rating, at no weight.
                share = sp.csr_matrix(([1.0], ([0], [0])), (1, batch.shape[1]))
                loss = partial(_nothing, loss)
            inputs, cells = dense(share, device), share.tocsc()
            for net in members(self.net):
                parts.append(backward_at(net, inputs, cells, loss))
        samples, length = batch.shape
        return Losses(parts, samples, length, self.cells_per_row or length)

    def bounds(self, num_rows: int) -> list[tuple[int, int]]:
        """Share the rows of a batch out over the devices."""
        return row_bounds(num_rows, len(self.devices))

    def add_up(self, total: float) -> float:
        """Average the losses over the networks."""
        return total / len(members(self.net))


def _nothing(loss: Callable[[Any, Any], Any], predictions: Any, ratings: Any) -> Any:
    return loss(predictions, ratings) * 0
