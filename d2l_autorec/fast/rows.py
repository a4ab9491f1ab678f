"""An autoencoder's first layer on sparse rows, at a cost that follows the ratings.

Gluon keeps the weights as hidden units x users. Transposed, each rating touches one
contiguous row of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx
from ..model import AutoRec
from .arrays import dense, on_device, view
from .compiled import num_threads, parallel

# Sums may be taken in any order, as in a matrix product.
compiled = parallel(error_model="numpy", fastmath={"reassoc", "contract"})

# What a column costs besides its cells: an update of its weights takes about as long as
# five cells do.
_COLUMN = 5
_BLOCK = 32

_Encode = TypeVar("_Encode", bound=Callable[..., Any])
_layerwise: set[Callable[..., Any]] = {AutoRec.encode}


class Cells(NamedTuple):
    """The ratings of a batch of rows, column by column.

    Attributes
    ----------
    starts : numpy.ndarray of int, shape (num_columns + 1,)
        Where each column's ratings begin.
    rows : numpy.ndarray of int, shape (num_ratings,)
        The batch's row of each.
    ratings : numpy.ndarray of float32, shape (num_ratings,)
    bounds : numpy.ndarray of int, shape (num_threads + 1,)
        First column of each thread's share of the work.
    num_rows : int
        Of the batch.
    """

    starts: np.ndarray
    rows: np.ndarray
    ratings: np.ndarray
    bounds: np.ndarray
    num_rows: int


def by_columns(rows: sp.csr_matrix | sp.csc_matrix) -> Cells:
    """Sort a batch's ratings by columns, and share the columns out over threads.

    Parameters
    ----------
    rows : scipy.sparse matrix, shape (batch_size, num_users)
        Ratings.

    Returns
    -------
    Cells
    """
    cells = rows.tocsc()
    size = num_threads()
    cost = cells.indptr + _COLUMN * np.arange(len(cells.indptr))
    bounds = cost.searchsorted(np.arange(size + 1) * cost[-1] // size)
    bounds[0], bounds[-1] = 0, cells.shape[1]
    ratings = cells.data.astype(np.float32, copy=False)
    return Cells(cells.indptr, cells.indices, ratings, bounds, cells.shape[0])


def layerwise(encode: _Encode) -> _Encode:
    """Declare that a method `encode` does what `corrupted` and `deepen` do together."""
    _layerwise.add(encode)
    return encode


def is_layerwise(net: AutoRec) -> bool:
    """Tell whether a network encodes in a way that is known here."""
    return (
        type(net).encode in _layerwise
        and type(net.encoder) is gluon.nn.Dense
        and net.encoder.bias is not None
    )


def corrupted(net: AutoRec, ratings: np.ndarray) -> np.ndarray:
    """Drop a share of the inputs, as a network that is trained may ask for."""
    if getattr(net, "corruption", None) and ratings.size:
        ratings = net.corruption(mx.np.array(ratings)).asnumpy()
    return ratings


def deepen(net: AutoRec, sums: mx.np.ndarray) -> mx.np.ndarray:
    """Compute the last hidden layer from the sums of the first one.

    Parameters
    ----------
    net : AutoRec
        That `is_layerwise`.
    sums : mxnet.np.ndarray of float32, shape (batch_size, num_hidden)
        What the encoder's activation is applied to.

    Returns
    -------
    mxnet.np.ndarray of float32, shape (batch_size, num_hidden)
    """
    act = net.encoder.act
    hidden = net.dropout(act(sums) if act is not None else sums)
    for layer in getattr(net, "deeper", ()):
        hidden = net.dropout(layer(hidden))
    return hidden


def encoding(
    net: AutoRec, device: mx.Context
) -> Callable[[sp.csr_matrix], mx.np.ndarray]:
    """Get ready to compute last hidden layers, with the weights as they are now.

    Parameters
    ----------
    net : AutoRec
        Initialized on the device.
    device : mxnet.Context
        A CPU.

    Returns
    -------
    callable
        From rows of ratings, shape (batch_size, num_users), to an mxnet.np.ndarray of
        float32, shape (batch_size, num_hidden).
    """
    if not is_layerwise(net):
        return lambda rows: net.encode(dense(rows, device))
    weight: list[np.ndarray] = []

    def encode(rows: sp.csr_matrix) -> mx.np.ndarray:
        layer = net.encoder
        if not weight:
            initialized(layer, mx.np.zeros((1, rows.shape[1]), ctx=device))
            weight.append(transposed(view(layer.weight.data(device))))
        bias = view(layer.bias.data(device))
        sums = encoder_sums(by_columns(rows), weight[0], bias)
        return deepen(net, on_device(sums, device))

    return encode


def initialized(layer: gluon.nn.Dense, inputs: mx.np.ndarray) -> None:
    """Let a layer draw its weights, if it does not know its width yet."""
    try:
        layer.weight.data(inputs.ctx)
    except gluon.parameter.DeferredInitializationError:
        layer(inputs)


def encoder_sums(cells: Cells, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Multiply rows of ratings with an encoder's weights.

    Parameters
    ----------
    cells : Cells
        The inputs.
    weight : numpy.ndarray of float32, shape (num_users, num_hidden)
        Transposed.
    bias : numpy.ndarray of float32, shape (num_hidden,)

    Returns
    -------
    numpy.ndarray of float32, shape (batch_size, num_hidden)
    """
    size = len(cells.bounds) - 1
    sums = np.empty((size, cells.num_rows, weight.shape[1]), np.float32)
    _encode(cells, weight, sums)
    total: np.ndarray = sums.sum(axis=0)
    total += bias
    return total


def transposed(matrix: np.ndarray) -> np.ndarray:
    """Copy a float32 matrix, transposed."""
    copy = np.empty(matrix.shape[::-1], np.float32)
    transpose(matrix, copy)
    return copy


@compiled
def transpose(matrix, into):  # type: ignore[no-untyped-def]
    """Write a matrix's transpose, block by block, so that both sides stay cached."""
    num_rows, num_columns = matrix.shape
    for block in numba.prange((num_columns + _BLOCK - 1) // _BLOCK):
        left = block * _BLOCK
        right = min(left + _BLOCK, num_columns)
        for top in range(0, num_rows, _BLOCK):
            for column in range(left, right):
                for row in range(top, min(top + _BLOCK, num_rows)):
                    into[column, row] = matrix[row, column]


@compiled
def _encode(cells, weight, sums):  # type: ignore[no-untyped-def]
    for share in numba.prange(len(cells.bounds) - 1):
        sums[share] = 0
        for column in range(cells.bounds[share], cells.bounds[share + 1]):
            for cell in range(cells.starts[column], cells.starts[column + 1]):
                row, rating = cells.rows[cell], cells.ratings[cell]
                for k in range(weight.shape[1]):
                    sums[share, row, k] += rating * weight[column, k]
