"""An autoencoder's first layer on sparse rows, at a cost that follows the ratings.

Gluon keeps the weights as hidden units x users. Transposed, each rating touches one
contiguous row of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from .._mxnet import autograd, gluon, mx
from ..model import AutoRec
from .arrays import row_bounds
from .compiled import in_shares, num_threads_for
from .products import Cells, add_to_rows, ask_for, check_fit, product

# Vectors transposed at a time, which fit into the second cache.
_BLOCK = 256
_Encode = TypeVar("_Encode", bound=Callable[..., Any])
_layerwise: set[Callable[..., Any]] = {AutoRec.encode}


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


def row_factors(net: AutoRec, counts: np.ndarray) -> np.ndarray:
    """Say by what a network multiplies the inputs of rows.

    Parameters
    ----------
    net : AutoRec
        With a `balance` and a `typical` number of ratings, if it has any factors.
    counts : numpy.ndarray, shape (num_rows,)
        How many ratings each row has.

    Returns
    -------
    numpy.ndarray of float32, shape (num_rows,)
    """
    if not getattr(net, "balance", 0):
        return np.ones(len(counts), np.float32)
    shares = net.typical / np.maximum(counts, 1)
    factors: np.ndarray = (shares**net.balance).astype(np.float32)
    return factors


def balanced(
    net: AutoRec, cells: Cells, share: Callable[[np.ndarray], object] | None = None
) -> np.ndarray:
    """Multiply ratings by their `row_factors`, if a network has any.

    Parameters
    ----------
    net : AutoRec
        The network.
    cells : Cells
        The ratings.
    share : callable, optional
        Adds up the counts of workers who have some of the users each.

    Returns
    -------
    numpy.ndarray of float32, shape (num_ratings,)
    """
    if not getattr(net, "balance", 0):
        return cells.ratings
    counts = np.bincount(cells.rows, minlength=cells.num_rows).astype(np.float32)
    if share:
        share(counts)
    given: np.ndarray = cells.ratings * row_factors(net, counts)[cells.rows]
    return given


def drops_inputs(net: AutoRec) -> bool:
    """Tell whether a network drops a share of its inputs in training."""
    return getattr(net, "corruption", None) is not None


def corrupted(net: AutoRec, ratings: np.ndarray) -> np.ndarray:
    """Drop a share of the inputs, as a network may ask for in training."""
    if drops_inputs(net) and ratings.size:
        with autograd.train_mode():
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


def transposed(matrix: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Transpose a matrix, a large one by all threads.

    Parameters
    ----------
    matrix : numpy.ndarray of float32, contiguous
    out : numpy.ndarray of float32, contiguous, optional
        Memory to write to, of the same size.

    Returns
    -------
    numpy.ndarray of float32
    """
    out = np.empty_like(matrix) if out is None else out
    out = out.reshape(matrix.shape[::-1])
    size = num_threads_for(out.size, 2**20)
    in_shares(_transpose, size, row_bounds(max(out.shape), size), matrix, out)
    return out


def _transpose(
    share: int, bounds: list[tuple[int, int]], matrix: np.ndarray, out: np.ndarray
) -> None:
    start, stop = bounds[share]
    for first in range(start, stop, _BLOCK):
        its = slice(first, min(first + _BLOCK, stop))
        if len(matrix) > len(out):
            out[:, its] = matrix[its].T
        else:
            out[its] = matrix[:, its].T


def initialized(layer: gluon.nn.Dense, length: int, device: mx.Context) -> None:
    """Let a layer draw its weights, if it does not know the length of its inputs."""
    try:
        layer.weight.data(device)
    except gluon.parameter.DeferredInitializationError:
        layer(mx.np.zeros((1, length), ctx=device))
        mx.nd.waitall()  # for the memory of what was drawn to be free again


def multiply(cells: Cells, weight: np.ndarray, parts: np.ndarray) -> None:
    """Multiply rows of ratings with an encoder's weights.

    Parameters
    ----------
    cells : Cells
        The ratings.
    weight : numpy.ndarray of float32, shape (num_users, num_hidden)
        Transposed.
    parts : numpy.ndarray of float32, shape (num_shares, batch_size, ...)
        What each share comes to is written there; rows may be longer than needed.
    """
    check_fit(cells, parts.shape[1], len(weight))
    in_shares(_multiply, cells.num_shares, cells, weight, parts)


@product
def _multiply(share, cells, weight, parts):  # type: ignore[no-untyped-def]
    parts[share] = 0
    # As long as a row of `parts`, so that no part of a row is left over.
    vector = np.zeros(parts.shape[2], np.float32)
    for column in range(cells.bounds[share], cells.bounds[share + 1]):
        its = slice(cells.starts[column], cells.starts[column + 1])
        ask_for(weight, column + 1)
        vector[: weight.shape[1]] = weight[column]
        add_to_rows(parts[share], cells.rows[its], cells.ratings[its], vector)
