"""Mini-batches whose epochs can be drawn again."""

from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from ..loop import Step


class SeededBatches:
    """Batches of rows in an order that follows from a seed and the epoch alone."""

    # So a training that was interrupted goes on as it would have, and workers draw
    # alike. As in the book, an incomplete batch waits for the next epoch.

    def __init__(
        self,
        rows: sp.csr_matrix,
        batch_size: int,
        seed: Sequence[int],
        step: Step,
        trained: int = 0,
    ) -> None:
        self.rows, self.batch_size, self.step = rows, batch_size, step
        self.seed, self.epoch = list(seed), trained

    def __iter__(self) -> Iterator[sp.csr_matrix]:
        """Begin an epoch."""
        self.epoch += 1
        num_rows = self.rows.shape[0]
        # The batches are cut from all epochs' orders one after the other: the rows that
        # an epoch leaves over come first in the next one.
        left_over = (self.epoch - 1) * num_rows % self.batch_size
        order = self._order(self.epoch)
        if left_over:
            order = np.concatenate([self._order(self.epoch - 1)[-left_over:], order])
        for number in range(len(order) // self.batch_size):
            # From 1: a seed that ends with 0 is the one without it, the order's.
            self.step.seed([*self.seed, self.epoch, number + 1])
            start = number * self.batch_size
            yield self.rows[order[start : start + self.batch_size]]

    def _order(self, epoch: int) -> np.ndarray:
        rng = np.random.default_rng([*self.seed, epoch])
        return rng.permutation(self.rows.shape[0])
