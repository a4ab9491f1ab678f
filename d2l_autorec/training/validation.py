"""The validation part: setting it aside, and choosing the epoch on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pandas as pd

from ..curve import Epoch
from ..errors import DataError


def hold_out(
    data: pd.DataFrame, ratio: float, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Set a random part of the training ratings aside, to choose something on.

    Parameters
    ----------
    data : pandas.DataFrame
        Training ratings.
    ratio : float
        Share to set aside, between 0 and 1.
    seed : int
        The same seed sets the same rows aside; MXNet's generator is not used.

    Returns
    -------
    fit_data, valid_data : pandas.DataFrame
        Rows of `data`, in its order.

    Raises
    ------
    DataError
        If a part would be empty.
    """
    size = round(ratio * len(data))
    if not 0 < size < len(data):
        raise DataError(
            f"{ratio:g} of {len(data)} training ratings leaves a part empty"
        )
    held = np.zeros(len(data), bool)
    held[np.random.default_rng(seed).choice(len(data), size, replace=False)] = True
    return data[~held], data[held]


def stop_early(epochs: Iterable[Epoch], patience: int) -> Iterator[Epoch]:
    """Stop a training when its validation RMSE no longer gets better.

    Parameters
    ----------
    epochs : iterable of Epoch
        With `valid_rmse`.
    patience : int
        Epochs in a row without a new best before it stops.

    Yields
    ------
    Epoch
        The same ones, as long as it goes on.
    """
    best, since = math.inf, 0
    for epoch in epochs:
        yield epoch
        assert epoch.valid_rmse is not None
        if epoch.valid_rmse < best:
            best, since = epoch.valid_rmse, 0
        else:
            since += 1
        if since == patience:
            return


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """Choose the epoch to predict with.

    Parameters
    ----------
    history : sequence of Epoch
        Of a training.

    Returns
    -------
    Epoch
        With the lowest validation RMSE; without a validation part, the last one.
    """
    if history[-1].valid_rmse is None:
        return history[-1]
    return min(history, key=lambda epoch: epoch.valid_rmse or 0.0)
