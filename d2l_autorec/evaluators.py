"""The error of predictions on held-out ratings.

References
----------
*Dive into Deep Learning*, "AutoRec: Rating Prediction with Autoencoders".
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as onp
import scipy.sparse as sp

from ._mxnet import gluon, mx
from .data import as_float32, check_ratings
from .errors import TrainingDiverged


class Accuracy(NamedTuple):
    """Both errors of predictions, in the unit of the ratings."""

    rmse: float
    mae: float


def accuracy(predictions: Any, ratings: Any) -> Accuracy:
    """Return both errors; `TrainingDiverged` if one is not finite."""
    found = Accuracy(rmse(predictions, ratings), mae(predictions, ratings))
    if not onp.isfinite(found).all():
        raise TrainingDiverged(
            f"the RMSE of {onp.size(predictions):,} predictions is {found.rmse}, their "
            f"MAE {found.mae}; a lower learning rate (lr) may help"
        )
    return found


def rmse(predictions: Any, ratings: Any) -> float:
    """Compute the root of the mean squared error over all pairs at once.

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
    """Compute the mean absolute error over all pairs at once.

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
    """Yield the reconstruction of each batch of rows, which the devices share."""
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
    """Compute the RMSE of AutoRec's reconstruction over the held-out ratings.

    Parameters
    ----------
    network : mxnet.gluon.Block
        A trained `AutoRec`.
    inter_matrix : iterable of array, each of shape (batch_size, num_users)
        Batches of the *training* matrix in order, from which the network predicts.
    test_data : array or scipy.sparse.csr_matrix, shape (num_items, num_users)
        The held-out ratings; all other cells are 0 or not stored.
    devices : sequence of mxnet.Context
        Those of the network's parameters.

    Returns
    -------
    float
        Pooled over the observed cells of `test_data`, in the unit of the ratings.

    Raises
    ------
    ValueError
        If the number of rows differs, or (`DataError`) if `test_data` has no rating, a
        rating that is not finite and positive, or a cell twice.
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
