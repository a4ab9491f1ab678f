"""The validation part: setting it aside, and choosing the epoch on it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from ..curve import Epoch
from ..curve import best_epoch as best_epoch
from ..errors import DataError

if TYPE_CHECKING:
    import pandas as pd

    from .._mxnet import gluon


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


def stop_early(
    epochs: Iterable[Epoch],
    patience: int,
    yardstick: float = math.inf,
    latest: int = 0,
) -> Iterator[Epoch]:
    """Stop a training when its validation RMSE no longer gets better.

    Parameters
    ----------
    epochs : iterable of Epoch
        With `valid_rmse`.
    patience : int
        Epochs in a row without a new best before it stops.
    yardstick : float
        They count from the first epoch that is below this on: while a network is still
        finding the mean, its RMSE swings.
    latest : int
        They count from this epoch on in any case.

    Yields
    ------
    Epoch
        The same ones, as long as it goes on.
    """
    best, since, counting = math.inf, 0, False
    for epoch in epochs:
        yield epoch
        assert epoch.valid_rmse is not None
        counting |= epoch.valid_rmse < yardstick or epoch.epoch >= latest
        if epoch.valid_rmse < best:
            best, since = epoch.valid_rmse, 0
        elif counting:
            since += 1
        if since == patience:
            return


def keep_best(net: gluon.Block, epochs: Iterable[Epoch]) -> Iterator[Epoch]:
    """Leave a network, after its training, as it was after its best epoch.

    Parameters
    ----------
    net : mxnet.gluon.Block
        That is trained.
    epochs : iterable of Epoch
        Of its training; without `valid_rmse`, nothing is changed.

    Yields
    ------
    Epoch
        The same ones.
    """
    best, kept = math.inf, {}
    parameters = net._collect_params_with_prefix()  # names of several may be equal
    for epoch in epochs:
        if epoch.valid_rmse is not None and epoch.valid_rmse < best:
            best = epoch.valid_rmse
            kept = {n: p.data(p.list_ctx()[0]).copy() for n, p in parameters.items()}
        yield epoch
    for name, values in kept.items():
        parameters[name].set_data(values)
