"""How far predictions are from held-out ratings.

References
----------
*Dive into Deep Learning*, "AutoRec: Rating Prediction with Autoencoders".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as onp
import scipy.sparse as sp

from ._mxnet import gluon, mx
from .data import as_float32, check_ratings
from .errors import TrainingDiverged


class Accuracy(NamedTuple):
    """How far predictions are from held-out ratings, in the unit of these.

    Attributes
    ----------
    rmse, mae : float
        See the functions of these names.
    """

    rmse: float
    mae: float


def accuracy(predictions: Any, ratings: Any) -> Accuracy:
    """Measure predictions in both ways; the arguments are those of `rmse`.

    Raises
    ------
    TrainingDiverged
        If a prediction is not finite, or too far off for its square to be.
    """
    found = Accuracy(rmse(predictions, ratings), mae(predictions, ratings))
    if not onp.isfinite(found).all():
        raise TrainingDiverged(
            f"the RMSE of {onp.size(predictions):,} predictions is {found.rmse}, their "
            f"MAE {found.mae}; a lower learning rate (lr) may help"
        )
    return found


def rmse(predictions: Any, ratings: Any) -> float:
    """Root of the mean squared error over all pairs at once.

    Parameters
    ----------
    predictions, ratings : array_like, shape (num_pairs,)
        Predicted and held-out ratings.

    Returns
    -------
    float
        In the unit of the ratings.
    """
    error = onp.asarray(predictions, onp.float64) - onp.asarray(ratings, onp.float64)
    return float(onp.sqrt(onp.mean(error**2)))


def mae(predictions: Any, ratings: Any) -> float:
    """Mean absolute error over all pairs at once.

    Parameters
    ----------
    predictions, ratings : array_like, shape (num_pairs,)
        Predicted and held-out ratings.

    Returns
    -------
    float
        In the unit of the ratings.
    """
    error = onp.asarray(predictions, onp.float64) - onp.asarray(ratings, onp.float64)
    return float(onp.mean(onp.abs(error)))


def reconstruct(
    network: gluon.Block, inter_matrix: Iterable[Any], devices: Sequence[mx.Context]
) -> Iterator[onp.ndarray]:
    """Reconstruct a matrix batch by batch, each batch shared out over the devices.

    Parameters
    ----------
    network : mxnet.gluon.Block
        A trained `AutoRec`.
    inter_matrix : iterable of array, each of shape (batch_size, num_users)
        The training matrix in order.
    devices : sequence of mxnet.Context
        Where the network's parameters are.

    Yields
    ------
    numpy.ndarray of float32, shape (batch_size, num_users)
        Predicted ratings.
    """
    for batch in inter_matrix:
        rows = as_float32(batch)
        shares = gluon.utils.split_and_load(rows, devices, even_split=False)
        outputs = [network(share) for share in shares if len(share)]
        yield onp.concatenate([output.asnumpy() for output in outputs])


def evaluator(
    network: gluon.Block,
    inter_matrix: Iterable[Any],
    test_data: Any,
    devices: Sequence[mx.Context],
) -> float:
    """RMSE of AutoRec's reconstruction over the held-out ratings.

    Parameters
    ----------
    network : mxnet.gluon.Block
        A trained `AutoRec`.
    inter_matrix : iterable of array, each of shape (batch_size, num_users)
        Batches of the *training* matrix in order: what the predictions are made from.
    test_data : array or scipy.sparse.csr_matrix, shape (num_items, num_users)
        The held-out ratings, 0 or not stored where there is none.
    devices : sequence of mxnet.Context
        Where the network's parameters are.

    Returns
    -------
    float
        Pooled over the observed cells of `test_data`, in the unit of the ratings.

    Raises
    ------
    ValueError
        If the batches have another number of rows than `test_data`; a `DataError` if
        `test_data` holds no rating, or something else than finite, positive ones, each
        once.
    """
    if isinstance(test_data, mx.nd.NDArray):
        test_data = test_data.asnumpy()
    if not sp.issparse(test_data):
        test_data = sp.csr_matrix(test_data)
    test_data = check_ratings("test_data", test_data)
    predictions, stop = [onp.empty(0)], 0
    for outputs in reconstruct(network, inter_matrix, devices):
        start, stop = stop, stop + len(outputs)
        held_out = test_data[start:stop].tocoo()
        predictions.append(outputs[held_out.row, held_out.col])
    if stop != test_data.shape[0]:
        raise ValueError(f"{stop} rows to score against {test_data.shape[0]} held out")
    return rmse(onp.concatenate(predictions), test_data.data)
