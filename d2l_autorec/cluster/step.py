"""Steps of training whose columns are shared out over workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import mx
from ..fast import (
    FusedStep,
    SparseStep,
    backward_at_some,
    corrupted,
    dense,
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

    def corrupted(self, net: Any, ratings: np.ndarray) -> np.ndarray:
        """Drop a share of the inputs; then let all workers draw alike again."""
        if getattr(net, "corruption", None) is None:
            return ratings
        team = self.portion.team
        # NumPy's generator is the same on all: it draws the order of the rows.
        *seeds, next_seed = np.random.randint(2**31 - 1, size=team.size + 1).tolist()
        mx.random.seed(seeds[team.rank])
        ratings = corrupted(net, ratings)
        mx.random.seed(next_seed)
        return ratings


class SharedFusedStep(_Shared, FusedStep):
    """A `FusedStep` on a worker's columns."""

    def __init__(self, portion: Portion, *args: Any) -> None:
        super().__init__(portion, *args)
        self.share = portion.team.add_up


class SharedStep(_Shared):
    """A `SparseStep` on a worker's columns, for optimizers other than Adam."""

    def backward(self, batch: sp.csr_matrix) -> Losses:
        """Compute the losses of this worker's cells, and its gradients."""
        parts, cells, share = [], batch.tocsc(), self.portion.team.add_up
        for net in members(self.net):
            ratings = self.corrupted(net, batch.data)
            inputs = sp.csr_matrix((ratings, batch.indices, batch.indptr), batch.shape)
            rows = dense(inputs, self.devices[0])
            parts.append(backward_at_some(net, rows, cells, self.loss, share))
        samples, length = batch.shape
        return Losses(parts, samples, length, self.cells_per_row or length)
