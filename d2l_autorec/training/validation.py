"""The validation part: setting it aside, and choosing the epoch on it."""

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..curve import Epoch
from ..errors import DataError

if TYPE_CHECKING:
    from .training import Training


def hold_out(
    rows: np.ndarray, valid_ratio: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Set a random share of the training ratings aside, to choose something on.

    Returned are the rows to fit and to validate on, in the order of `rows`; the same
    seed sets the same rows aside. An empty part is a DataError.
    """
    size = round(valid_ratio * len(rows))
    if not 0 < size < len(rows):
        raise DataError(
            f"{valid_ratio:g} of {len(rows)} training ratings leaves a part empty"
        )
    held = np.zeros(len(rows), bool)
    held[np.random.default_rng(seed).choice(len(rows), size, replace=False)] = True
    return rows[~held], rows[held]


class EarlyStopping:
    """Ends a training after `patience` epochs in a row without a new best RMSE.

    They count from the first epoch whose validation RMSE is below the `baseline` on, as
    it swings while a network is still finding the mean; or from the `latest` epoch on.
    """

    def __init__(
        self, patience: int, baseline: float = math.inf, latest: int = 0
    ) -> None:
        self.patience, self.baseline, self.latest = patience, baseline, latest
        self._best, self._since, self._counting = math.inf, 0, False

    def ends(self, epoch: Epoch) -> bool:
        """Tell whether a training ends with an epoch, the next one of it."""
        assert epoch.valid_rmse is not None
        self._counting |= epoch.valid_rmse < self.baseline or epoch.epoch >= self.latest
        if epoch.valid_rmse < self._best:
            self._best, self._since = epoch.valid_rmse, 0
        elif self._counting:
            self._since += 1
        return self._since >= self.patience


def until(
    stopping: EarlyStopping | None, epochs: Iterable[Epoch], past: Iterable[Epoch] = ()
) -> Iterator[Epoch]:
    """Yield epochs up to that which ends the training; one of the past may have."""
    if stopping and any([stopping.ends(epoch) for epoch in past]):  # counts them all
        return
    for epoch in epochs:
        yield epoch
        if stopping and stopping.ends(epoch):
            return


class BestEpoch:
    """Keeps the parameters of a training's best epoch on the validation part."""

    def __init__(self, training: "Training") -> None:
        self.training = training
        self._best = math.inf
        self._kept: dict[str, Any] = {}

    def keep(self, epoch: Epoch) -> None:
        """Keep what was learned up to an epoch, if that is the best one so far."""
        if epoch.valid_rmse is not None and epoch.valid_rmse < self._best:
            self._best, self._kept = epoch.valid_rmse, self.training.parameters()

    def parameters(self) -> dict[str, Any]:
        """Return what was kept; without a validation part, what was learned last."""
        return self._kept if self._best < math.inf else self.training.parameters()
