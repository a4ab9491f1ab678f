"""Mini-batches whose epochs can be drawn again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .._mxnet import gluon
from ..loop import seed_everything


class SeededBatches:
    """Batches whose epochs start from a seed of their own.

    So an epoch's draws do not depend on the epochs before it, and a training that was
    interrupted goes on as it would have.

    Parameters
    ----------
    loader : mxnet.gluon.data.DataLoader
        Draws a new order for each epoch.
    seed : int or None
        Of the training; None lets the generators just run on.
    trained : int
        Epochs that an earlier training did, with the same seed.
    seed_all : callable
        Seeds the generators.
    """

    def __init__(
        self,
        loader: gluon.data.DataLoader,
        seed: int | None,
        trained: int = 0,
        seed_all: Callable[[int], object] = seed_everything,
    ) -> None:
        self.loader, self.seed, self.seed_all = loader, seed, seed_all
        self.epoch, self.trained = 0, trained

    def __iter__(self) -> Iterator[Any]:
        """Begin an epoch."""
        while self.epoch < self.trained:
            # The samples that an epoch leaves over come first in the next one.
            self._begin()
            for _ in self.loader._batch_sampler:
                pass
        self._begin()
        yield from self.loader

    def _begin(self) -> None:
        self.epoch += 1
        if self.seed is None:
            return
        sequence = np.random.SeedSequence([self.seed, self.epoch])
        self.seed_all(int(sequence.generate_state(1)[0] >> 1))
