"""How far predictions are from held-out ratings.

References
----------
*Dive into Deep Learning*, "AutoRec: Rating Prediction with Autoencoders".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as onp
import scipy.sparse as sp

from ._mxnet import gluon, mx
from .data import dense, row_bounds
from .model import AutoRec, Average
from .sampled import reconstruct_at


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
        shares = gluon.utils.split_and_load(batch, devices, even_split=False)
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
    test_data : array or scipy.sparse matrix, shape (num_items, num_users)
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
        If the batches have another number of rows than `test_data`, or `test_data`
        holds no rating.
    """
    if isinstance(test_data, mx.nd.NDArray):
        test_data = test_data.asnumpy()
    test_data = sp.csr_matrix(test_data)
    predictions, stop = [onp.empty(0)], 0
    for outputs in reconstruct(network, inter_matrix, devices):
        start, stop = stop, stop + len(outputs)
        held_out = test_data[start:stop].tocoo()
        predictions.append(outputs[held_out.row, held_out.col])
    if stop != test_data.shape[0]:
        raise ValueError(f"{stop} rows to score against {test_data.shape[0]} held out")
    if not test_data.nnz:
        raise ValueError("test_data holds no rating")
    return rmse(onp.concatenate(predictions), test_data.data)


def held_out_rmse(
    net: AutoRec | Average,
    train_mat: sp.csr_matrix,
    test_mat: sp.csr_matrix,
    devices: Sequence[mx.Context],
    batch_size: int = 256,
    cold: float | None = None,
) -> float:
    """RMSE as `evaluator` gives it, from sparse matrices and in less time.

    Parameters
    ----------
    net, train_mat, devices, batch_size, cold
        As for `predict_cells`.
    test_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        The held-out ratings.

    Returns
    -------
    float
        Pooled over the ratings in `test_mat`, in their unit.
    """
    predictions = predict_cells(net, train_mat, test_mat, devices, batch_size, cold)
    return rmse(predictions, test_mat.data)


def predict_cells(
    net: AutoRec | Average,
    train_mat: sp.csr_matrix,
    cells: sp.csr_matrix,
    devices: Sequence[mx.Context],
    batch_size: int = 256,
    cold: float | None = None,
) -> onp.ndarray:
    """Reconstruct single cells of the rating matrix.

    Parameters
    ----------
    net : AutoRec or Average
        Trained.
    train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        What the predictions are made from.
    cells : scipy.sparse.csr_matrix, shape (num_items, num_users)
        The cells are those that it stores; rows without any are not reconstructed.
    devices : sequence of mxnet.Context
        Where the network's parameters are.
    batch_size : int
        Rows that are dense at a time.
    cold : float, optional
        Predict this for items and users without a rating in `train_mat`; by default
        they get what the network makes of them.

    Returns
    -------
    numpy.ndarray of float32, shape (num_cells,)
        In the order in which the cells are stored.
    """
    rows = onp.flatnonzero(onp.diff(cells.indptr))
    predicted = onp.empty(cells.nnz, onp.float32)
    # Each cell holds its place in the answer: a batch lists its cells by column.
    places = sp.csr_matrix(
        (onp.arange(cells.nnz), cells.indices, cells.indptr), cells.shape
    )
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        found = []
        for device, bounds in zip(devices, row_bounds(len(batch), len(devices))):
            share = batch[slice(*bounds)]
            if share.size:
                asked = places[share].tocsc()
                inputs = dense(train_mat[share], device)
                found.append((asked.data, reconstruct_at(net, inputs, asked)))
        for place, outputs in found:
            predicted[place] = outputs.asnumpy()
    if cold is not None:
        cold_items = onp.repeat(onp.diff(train_mat.indptr) == 0, onp.diff(cells.indptr))
        ratings_of = onp.bincount(train_mat.indices, minlength=train_mat.shape[1])
        predicted[cold_items | (ratings_of[cells.indices] == 0)] = cold
    return predicted
