"""How far predictions are from held-out ratings.

References
----------
*Dive into Deep Learning*, "AutoRec: Rating Prediction with Autoencoders".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as onp
import scipy.sparse as sp

from ._mxnet import gluon, mx, npx
from .data import dense, observed_cells, row_bounds


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
    inter_matrix : iterable, of shape (batch_size, num_users) each
        Batches of the *training* matrix in order, arrays or scipy.sparse.csr_matrix:
        what the predictions are made from.
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
    pending: list[Any] = []
    for batch in inter_matrix:
        start, stop = stop, stop + batch.shape[0]
        held_out = test_data[start:stop]
        found = []
        for device, (first, last) in zip(
            devices, row_bounds(batch.shape[0], len(devices))
        ):
            wanted, rows = held_out[first:last], batch[first:last]
            if wanted.nnz:
                outputs = network(dense(rows, device))  # (rows, num_users)
                found.append(npx.gather_nd(outputs, observed_cells(wanted, device)))
        # Reading waits; this batch is computed while the next one is put together.
        predictions.extend(part.asnumpy() for part in pending)
        pending = found
    predictions.extend(part.asnumpy() for part in pending)
    if stop != test_data.shape[0]:
        raise ValueError(f"{stop} rows to score against {test_data.shape[0]} held out")
    if not test_data.nnz:
        raise ValueError("test_data holds no rating")
    return rmse(onp.concatenate(predictions), test_data.data)
