"""Steps of training whose columns are shared out over workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from ..fast import (
    Cells,
    FusedStep,
    LeaveOneOutStep,
    SparseStep,
    backward_at_some,
    balanced,
    corrupted,
    dense,
    drops_inputs,
    in_columns,
    members,
)
from ..loop import Losses

if TYPE_CHECKING:
    from .portion import Portion


class _Shared(SparseStep):
    """What the steps have in common.

    Parameters
    ----------
    portion : Portion
        This worker's columns.
    *args
        As for `SparseStep`; the last one says what losses are divided by.
    """

    def __init__(self, portion: Portion, *args: Any) -> None:
        super().__init__(*args)
        self.portion = portion

    def add_up(self, total: float) -> float:
        """Add up the losses of all workers."""
        sum_of_all = np.array([total], np.float32)
        self.portion.team.add_up(sum_of_all)
        return super().add_up(float(sum_of_all[0]))

    def finish(self) -> tuple[float, int]:
        """End an epoch; the examples are those of all workers."""
        train_loss, examples = super().finish()
        own = self.portion.stop - self.portion.start
        return train_loss, examples // own * self.portion.num_columns

    def inputs(self, net: Any, cells: Cells) -> np.ndarray:
        """Make of ratings, column by column, the inputs that one process would."""
        team = self.portion.team
        ratings = balanced(net, cells, team.add_up)
        if not drops_inputs(net):
            return ratings
        # All draw for all, whose columns follow on one another. A float32 counts
        # exactly up to 2**24.
        counts = np.zeros((team.size, 2), np.float32)
        counts[team.rank] = divmod(ratings.size, 2**20)
        team.add_up(counts)
        ends = (counts @ [2**20, 1]).cumsum().astype(int)
        its = slice(ends[team.rank] - ratings.size, ends[team.rank])
        ratings_of_all = np.zeros(ends[-1], np.float32)
        ratings_of_all[its] = ratings
        return corrupted(net, ratings_of_all)[its]


class SharedFusedStep(_Shared, FusedStep):
    """A `FusedStep` on a worker's columns."""

    def __init__(self, portion: Portion, *args: Any) -> None:
        super().__init__(portion, *args)
        self.share = portion.team.start


class SharedLeaveOneOutStep(SharedFusedStep, LeaveOneOutStep):
    """A `LeaveOneOutStep` on a worker's columns."""


class SharedStep(_Shared):
    """A `SparseStep` on a worker's columns, for optimizers other than Adam."""

    def backward(self, batch: sp.csr_matrix) -> Losses:
        """Compute the losses of this worker's cells, and its gradients."""
        parts, cells, share = [], batch.tocsc(), self.portion.team.add_up
        by_column = in_columns(cells)
        for net in members(self.net):
            ratings = self.inputs(net, by_column)
            inputs = sp.csc_matrix((ratings, cells.indices, cells.indptr), batch.shape)
            rows = dense(inputs.tocsr(), self.devices[0])
            parts.append(backward_at_some(net, rows, cells, self.loss, share))
        samples, length = batch.shape
        return Losses(parts, samples, length, self.cells_per_row or length)


# What workers do in place of the steps of one process.
SHARED: dict[type[SparseStep], Callable[..., _Shared]] = {
    SparseStep: SharedStep,
    FusedStep: SharedFusedStep,
    LeaveOneOutStep: SharedLeaveOneOutStep,
}
