"""An autoencoder at some cells of its output alone.

A decoder computes every cell of a row, though only the observed ones, 1 to 6 % of them,
have a loss. On a CPU, what is here computes those and nothing else, forward and
backward: the product that the literature calls a sampled dense-dense one. On other
devices, and for networks that compute their output in a way of their own, the whole
output is computed and the cells are picked from it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numba
import numpy as np
import scipy.sparse as sp

from .._mxnet import autograd, gluon, mx, npx, one_at_a_time
from ..model import AutoRec
from .arrays import dense, observed_cells, on_device, row_bounds, view, view_grad
from .compiled import num_threads, parallel

# Sums may be taken in any order, as in a matrix product.
_compiled = parallel(fastmath={"reassoc", "contract"})


def members(net: gluon.Block) -> list[AutoRec]:
    """Return the networks that an average is taken over; of a single one, itself."""
    return getattr(net, "members", [net])


@one_at_a_time
def reconstruct_at(
    net: gluon.Block, inputs: mx.np.ndarray, cells: sp.csc_matrix
) -> mx.np.ndarray:
    """Reconstruct rows of ratings at some cells.

    Parameters
    ----------
    net : AutoRec or an average of several
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
    nets = members(net)
    if len(nets) > 1:
        return sum(reconstruct_at(one, inputs, cells) for one in nets) / len(nets)
    if not _is_known(net) or inputs.ctx.device_type != "cpu":
        return _pick(net, inputs, cells)
    return _activate(net.decoder, _decode(net.decoder, net.encode(inputs), cells))


@one_at_a_time
def backward_at(
    net: AutoRec,
    inputs: mx.np.ndarray,
    cells: sp.csc_matrix,
    loss: Callable[[Any, Any], Any],
) -> mx.np.ndarray:
    """Compute the loss at some cells, and the gradients of the parameters.

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
    ratings = on_device(cells.data.astype(np.float32, copy=False), inputs.ctx)
    written = all(p.grad_req == "write" for p in net.collect_params().values())
    if not written or not _is_known(net) or inputs.ctx.device_type != "cpu":
        with autograd.record():
            losses = loss(_pick(net, inputs, cells), ratings)
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


def predict_cells(
    net: gluon.Block,
    train_mat: sp.csr_matrix,
    cells: sp.csr_matrix,
    devices: Sequence[mx.Context],
    batch_size: int = 256,
    cold: float | None = None,
) -> np.ndarray:
    """Reconstruct single cells of the rating matrix.

    Parameters
    ----------
    net : AutoRec or an average of several
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
    rows = np.flatnonzero(np.diff(cells.indptr))
    predicted = np.empty(cells.nnz, np.float32)
    # Each cell holds its place in the answer: a batch lists its cells by column.
    places = sp.csr_matrix(
        (np.arange(cells.nnz), cells.indices, cells.indptr), cells.shape
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
        cold_items = np.repeat(np.diff(train_mat.indptr) == 0, np.diff(cells.indptr))
        ratings_of = np.bincount(train_mat.indices, minlength=train_mat.shape[1])
        predicted[cold_items | (ratings_of[cells.indices] == 0)] = cold
    return predicted


def _is_known(net: gluon.Block) -> bool:
    """Tell whether a network's outputs are those that `_decode` and `_activate` give.

    A subclass may encode as it likes, but not decode.
    """
    return (
        isinstance(net, AutoRec)
        and type(net).forward is AutoRec.forward
        and type(net).reconstruct is AutoRec.reconstruct
        and type(net.decoder) is gluon.nn.Dense
        and net.decoder.bias is not None
        and _is_cellwise(net.decoder.act)
    )


def _is_cellwise(act: Any) -> bool:
    """Tell whether an activation takes each cell by itself."""
    known = act is None or isinstance(act, gluon.nn.Activation)
    return known or getattr(act, "cellwise", False)


def _pick(
    net: gluon.Block, inputs: mx.np.ndarray, cells: sp.csc_matrix
) -> mx.np.ndarray:
    """Compute the whole output, and pick some cells."""
    own = isinstance(net, AutoRec) and type(net).forward is AutoRec.forward
    # The book's forward would, in training, put a mask on what `reconstruct` gives.
    outputs = net.reconstruct(inputs) if own else net(inputs)
    return npx.gather_nd(outputs, observed_cells(cells, inputs.ctx))


def _activate(layer: gluon.nn.Dense, outputs: mx.np.ndarray) -> mx.np.ndarray:
    return layer.act(outputs) if layer.act else outputs


def _decode(
    layer: gluon.nn.Dense, hidden: mx.np.ndarray, cells: sp.csc_matrix
) -> mx.np.ndarray:
    """Compute a layer's outputs at some cells, short of its activation."""
    try:
        layer.weight.data(hidden.ctx)
    except gluon.parameter.DeferredInitializationError:
        layer(hidden)  # Gluon learns the layer's width from its first input
    parameters = (p.data(hidden.ctx) for p in (layer.weight, layer.bias))
    outputs = np.empty(cells.nnz, np.float32)
    _outputs_at(*map(view, (hidden, *parameters)), *_shares(cells), outputs)
    return on_device(outputs, hidden.ctx)


def _decode_backward(
    layer: gluon.nn.Dense,
    hidden: mx.np.ndarray,
    cells: sp.csc_matrix,
    grad: mx.np.ndarray,
) -> mx.np.ndarray:
    """Write the gradients of the layer's parameters; return that of `hidden`."""
    indptr, indices, bounds = _shares(cells)
    d_hidden = np.empty((len(bounds) - 1, *hidden.shape), np.float32)
    arrays = map(view, (grad, hidden, layer.weight.data(hidden.ctx)))
    grads = (view_grad(p, hidden.ctx) for p in (layer.weight, layer.bias))
    _gradients_at(*arrays, indptr, indices, bounds, d_hidden, *grads)
    return on_device(d_hidden.sum(axis=0), hidden.ctx)


def _shares(cells: sp.csc_matrix) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Share the columns out so that each thread has about as many cells."""
    size = num_threads()
    shares = np.arange(size + 1) * cells.nnz // size
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
                row, total = rows[cell], np.float32(0)
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
