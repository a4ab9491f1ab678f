"""An autoencoder at some cells of its output alone.

A decoder computes every cell of a row, though only the observed ones, 1 to 6 % of them,
have a loss. On a CPU, what is here computes those and nothing else, forward and
backward: the product that the literature calls a sampled dense-dense one. On other
devices the whole output is computed and the cells are picked from it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as onp
import scipy.sparse as sp

from ._mxnet import autograd, gluon, np, npx
from .data import observed_cells, on_device, view
from .model import AutoRec, Average, members

# Sums may be taken in any order, as in a matrix product.
_compiled = numba.njit(parallel=True, fastmath={"reassoc", "contract"}, cache=True)


def reconstruct_at(
    net: AutoRec | Average, inputs: np.ndarray, cells: sp.csc_matrix
) -> np.ndarray:
    """Reconstruct rows of ratings at some cells.

    Parameters
    ----------
    net : AutoRec or Average
        Initialized where `inputs` is.
    inputs : mxnet.np.ndarray of float32, shape (batch_size, num_users)
        Ratings, 0 where there is none.
    cells : scipy.sparse.csc_matrix, shape (batch_size, num_users)
        The cells are those that it stores.

    Returns
    -------
    mxnet.np.ndarray of float32, shape (num_cells,)
        In the order in which the cells are stored.
    """
    if inputs.ctx.device_type != "cpu":
        return npx.gather_nd(net(inputs), observed_cells(cells, inputs.ctx))
    nets = members(net)
    outputs = [
        _activate(one.decoder, _decode(one.decoder, one.encode(inputs), cells))
        for one in nets
    ]
    return sum(outputs) / len(nets)


def backward_at(
    net: AutoRec,
    inputs: np.ndarray,
    cells: sp.csc_matrix,
    loss: Callable[[Any, Any], Any],
) -> np.ndarray:
    """Compute the loss at some cells, and write its gradients to the parameters.

    Parameters
    ----------
    net : AutoRec
        Initialized where `inputs` is.
    inputs : mxnet.np.ndarray of float32, shape (batch_size, num_users)
        Ratings, 0 where there is none.
    cells : scipy.sparse.csc_matrix, shape (batch_size, num_users)
        The cells, and what is to be predicted there.
    loss : callable
        From predictions and ratings, each of shape (num_cells,), to a loss of each.

    Returns
    -------
    mxnet.np.ndarray of float32, shape (num_cells,)
        The losses.
    """
    ratings = on_device(cells.data.astype(onp.float32, copy=False), inputs.ctx)
    if inputs.ctx.device_type != "cpu":
        with autograd.record():
            outputs = net.reconstruct(inputs)
            picked = npx.gather_nd(outputs, observed_cells(cells, inputs.ctx))
            losses = loss(picked, ratings)
        losses.backward()
        return losses
    with autograd.record():
        hidden = net.encode(inputs)
    outputs = _decode(net.decoder, hidden, cells)
    outputs.attach_grad()
    with autograd.record():
        losses = loss(_activate(net.decoder, outputs), ratings)
    losses.backward()
    hidden.backward(_decode_backward(net.decoder, hidden, cells, outputs.grad))
    return losses


def _activate(layer: gluon.nn.Dense, outputs: np.ndarray) -> np.ndarray:
    return layer.act(outputs) if layer.act else outputs


def _decode(
    layer: gluon.nn.Dense, hidden: np.ndarray, cells: sp.csc_matrix
) -> np.ndarray:
    """Compute a layer's outputs at some cells, short of its activation."""
    try:
        layer.weight.data(hidden.ctx)
    except gluon.parameter.DeferredInitializationError:
        layer(hidden)  # Gluon learns the layer's width from its first input
    parameters = (p.data(hidden.ctx) for p in (layer.weight, layer.bias))
    outputs = onp.empty(cells.nnz, onp.float32)
    _outputs_at(*map(view, (hidden, *parameters)), *_shares(cells), outputs)
    return on_device(outputs, hidden.ctx)


def _decode_backward(
    layer: gluon.nn.Dense, hidden: np.ndarray, cells: sp.csc_matrix, grad: np.ndarray
) -> np.ndarray:
    """Write the gradients of the layer's parameters; return that of `hidden`."""
    grads = []
    for parameter in (layer.weight, layer.bias):
        parameter.data(hidden.ctx)._fresh_grad = True  # or Gluon's trainer complains
        grads.append(view(parameter.grad(hidden.ctx)))
    d_hidden = onp.empty((numba.get_num_threads(), *hidden.shape), onp.float32)
    arrays = map(view, (grad, hidden, layer.weight.data(hidden.ctx)))
    _gradients_at(*arrays, *_shares(cells), d_hidden, *grads)
    return on_device(d_hidden.sum(axis=0), hidden.ctx)


def _shares(cells: sp.csc_matrix) -> tuple[onp.ndarray, onp.ndarray, onp.ndarray]:
    """Share the columns out so that each thread has about as many cells."""
    num_threads = numba.get_num_threads()
    shares = onp.arange(num_threads + 1) * cells.nnz // num_threads
    bounds = cells.indptr.searchsorted(shares)
    bounds[0], bounds[-1] = 0, cells.shape[1]
    return cells.indptr, cells.indices, bounds


@_compiled
def _outputs_at(  # type: ignore[no-untyped-def]
    hidden, weight, bias, starts, rows, bounds, outputs
):
    for share in numba.prange(len(bounds) - 1):
        for column in range(bounds[share], bounds[share + 1]):
            for cell in range(starts[column], starts[column + 1]):
                row, total = rows[cell], onp.float32(0)
                for k in range(weight.shape[1]):
                    total += hidden[row, k] * weight[column, k]
                outputs[cell] = total + bias[column]


@_compiled
def _gradients_at(  # type: ignore[no-untyped-def]
    grad, hidden, weight, starts, rows, bounds, d_hidden, d_weight, d_bias
):
    for share in numba.prange(len(bounds) - 1):
        d_hidden[share] = 0
        for column in range(bounds[share], bounds[share + 1]):
            d_weight[column] = 0
            d_bias[column] = 0
            for cell in range(starts[column], starts[column + 1]):
                row = rows[cell]
                d_bias[column] += grad[cell]
                for k in range(weight.shape[1]):
                    d_weight[column, k] += grad[cell] * hidden[row, k]
                    d_hidden[share, row, k] += grad[cell] * weight[column, k]
