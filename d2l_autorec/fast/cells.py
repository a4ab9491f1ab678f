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

import numpy as np
import scipy.sparse as sp

from .._mxnet import autograd, gluon, mx, npx, one_at_a_time
from ..data import checked
from ..errors import DataError
from ..model import AutoRec
from .arrays import dense, observed_cells, on_device, row_bounds, view, view_grad
from .between import AddUp, encoding
from .compiled import in_shares
from .products import (
    Cells,
    add_rows,
    add_to_rows,
    check_fit,
    dot_rows,
    in_columns,
    product,
)
from .rows import deepen, initialized


def members(net: gluon.Block) -> list[AutoRec]:
    """Return the networks that an average is taken over; of a single one, itself."""
    return getattr(net, "members", [net])


Reconstruct = Callable[[sp.csr_matrix, sp.csr_matrix], mx.np.ndarray]


def reconstruction(
    net: gluon.Block, device: mx.Context, share: AddUp | None = None
) -> Reconstruct:
    """Get ready to reconstruct rows of ratings at some cells.

    Parameters
    ----------
    net : AutoRec or an average of several
        Initialized on the device; as it is now.
    device : mxnet.Context
        Where to compute.
    share : callable, optional
        Adds up an array over workers who have some of the users each.

    Returns
    -------
    callable
        From two sparse matrices of shape (batch_size, num_users), ratings and the cells
        that are asked for, to an mxnet.np.ndarray of float32, shape (num_cells,), in
        the order of the cells by columns.
    """
    nets = members(net)
    if len(nets) > 1:
        each = [reconstruction(one, device, share) for one in nets]
        return lambda rows, cells: sum(one(rows, cells) for one in each) / len(each)
    if not is_known(net) or device.device_type != "cpu":
        return lambda rows, cells: _pick(net, dense(rows, device), cells.tocsc())
    encode = encoding(net, device, share)

    @one_at_a_time
    def reconstruct(rows: sp.csr_matrix, cells: sp.csr_matrix) -> mx.np.ndarray:
        outputs = _decode(net.decoder, encode(rows), in_columns(cells.tocsc()))
        return _activate(net.decoder, outputs)

    return reconstruct


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
    written = all(p.grad_req == "write" for p in net.collect_params().values())
    if not written or not is_known(net) or inputs.ctx.device_type != "cpu":
        ratings = on_device(cells.data.astype(np.float32, copy=False), inputs.ctx)
        with autograd.record():
            losses = loss(_pick(net, inputs, cells), ratings)
        losses.backward()
        return losses
    with autograd.record():
        hidden = net.encode(inputs)
    by_column = in_columns(cells)
    losses, grad = losses_at(net.decoder, hidden, by_column, loss)
    hidden.backward(_decode_backward(net.decoder, hidden, by_column, grad))
    return losses


@one_at_a_time
def backward_at_some(
    net: AutoRec,
    inputs: mx.np.ndarray,
    cells: sp.csc_matrix,
    loss: Callable[[Any, Any], Any],
    share: AddUp,
) -> mx.np.ndarray:
    """Do as `backward_at`, where several workers have some of the users each.

    Parameters
    ----------
    net, inputs, cells, loss
        As for `backward_at`, on a CPU; of this worker's users.
    share : callable
        Adds up an array over the workers.

    Returns
    -------
    mxnet.np.ndarray of float32, shape (num_cells,)
        The losses.
    """
    layer, device = net.encoder, inputs.ctx
    initialized(layer, inputs.shape[1], device)
    weight, bias = layer.weight.data(device), layer.bias.data(device)
    with autograd.record():
        own = npx.fully_connected(
            inputs, weight, no_bias=True, num_hidden=weight.shape[0]
        )
    sums = own.copy()
    share(view(sums))
    sums.attach_grad()
    with autograd.record():
        hidden = deepen(net, sums + bias)
    by_column = in_columns(cells)
    losses, grad = losses_at(net.decoder, hidden, by_column, loss)
    d_hidden = _decode_backward(net.decoder, hidden, by_column, grad)
    share(view(d_hidden))
    hidden.backward(d_hidden)
    own.backward(sums.grad)
    return losses


def predict_cells(
    net: gluon.Block,
    train_mat: sp.csr_matrix,
    cells: sp.csr_matrix,
    devices: Sequence[mx.Context],
    batch_size: int = 256,
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

    Returns
    -------
    numpy.ndarray of float32, shape (num_cells,)
        In the order in which the cells are stored.

    Raises
    ------
    DataError
        If an index lies outside its matrix, or the shapes differ.
    """
    if checked(cells).shape != checked(train_mat).shape:
        raise DataError(f"cells of {cells.shape} in a matrix of {train_mat.shape}")
    rows = np.flatnonzero(np.diff(cells.indptr))
    predicted = np.empty(cells.nnz, np.float32)
    # Each cell holds its place in the answer: a batch lists its cells by column.
    places = sp.csr_matrix(
        (np.arange(cells.nnz), cells.indices, cells.indptr), cells.shape
    )
    reconstruct = [reconstruction(net, device) for device in devices]
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        found = []
        for one, bounds in zip(reconstruct, row_bounds(len(batch), len(devices))):
            share = batch[slice(*bounds)]
            if share.size:
                asked = places[share].tocsc()
                found.append((asked.data, one(train_mat[share], asked)))
        for place, outputs in found:
            predicted[place] = outputs.asnumpy()
    return predicted


def is_known(net: gluon.Block) -> bool:
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


def losses_at(
    layer: gluon.nn.Dense,
    hidden: mx.np.ndarray,
    cells: Cells,
    loss: Callable[[Any, Any], Any],
) -> tuple[mx.np.ndarray, mx.np.ndarray]:
    """Compute a layer's losses at some cells, and their gradient there.

    Parameters
    ----------
    layer : mxnet.gluon.nn.Dense
        The decoder of a network that `is_known`.
    hidden : mxnet.np.ndarray of float32, shape (batch_size, num_hidden)
        What it is given.
    cells : Cells
        The cells, and what is to be predicted there.
    loss : callable
        As for `backward_at`.

    Returns
    -------
    losses, grad : mxnet.np.ndarray of float32, shape (num_cells,)
        The gradient is of the layer's outputs, short of its activation.
    """
    outputs = _decode(layer, hidden, cells)
    if not outputs.size:  # MXNet computes nothing on empty arrays
        return outputs, outputs
    outputs.attach_grad()
    with autograd.record():
        found = _activate(layer, outputs)
        losses = loss(found, on_device(cells.ratings, hidden.ctx))
    losses.backward()
    return losses, outputs.grad


def _activate(layer: gluon.nn.Dense, outputs: mx.np.ndarray) -> mx.np.ndarray:
    return layer.act(outputs) if layer.act and outputs.size else outputs


def _decode(
    layer: gluon.nn.Dense, hidden: mx.np.ndarray, cells: Cells
) -> mx.np.ndarray:
    """Compute a layer's outputs at some cells, short of its activation."""
    initialized(layer, hidden.shape[1], hidden.ctx)
    parameters = (p.data(hidden.ctx) for p in (layer.weight, layer.bias))
    check_fit(cells, len(hidden), layer.weight.shape[0])
    outputs = np.empty(cells.ratings.size, np.float32)
    arrays = map(view, (hidden, *parameters))
    in_shares(_outputs_at, cells.num_shares, cells, *arrays, outputs)
    return on_device(outputs, hidden.ctx)


def _decode_backward(
    layer: gluon.nn.Dense, hidden: mx.np.ndarray, cells: Cells, grad: mx.np.ndarray
) -> mx.np.ndarray:
    """Write the gradients of the layer's parameters; return that of `hidden`."""
    d_hidden = np.empty((cells.num_shares, *hidden.shape), np.float32)
    arrays = map(view, (grad, hidden, layer.weight.data(hidden.ctx)))
    grads = (view_grad(p, hidden.ctx) for p in (layer.weight, layer.bias))
    in_shares(_gradients_at, cells.num_shares, cells, *arrays, d_hidden, *grads)
    return on_device(d_hidden.sum(axis=0), hidden.ctx)


@product
def _outputs_at(  # type: ignore[no-untyped-def]
    share, cells, hidden, weight, bias, outputs
):
    for column in range(cells.bounds[share], cells.bounds[share + 1]):
        its = slice(cells.starts[column], cells.starts[column + 1])
        dot_rows(hidden, cells.rows[its], weight[column], outputs[its])
        outputs[its] += bias[column]


@product
def _gradients_at(  # type: ignore[no-untyped-def]
    share, cells, grad, hidden, weight, d_hidden, d_weight, d_bias
):
    d_hidden[share] = 0
    for column in range(cells.bounds[share], cells.bounds[share + 1]):
        its = slice(cells.starts[column], cells.starts[column + 1])
        rows, errors = cells.rows[its], grad[its]
        d_weight[column] = 0
        add_rows(hidden, rows, errors, d_weight[column])
        d_bias[column] = errors.sum()
        add_to_rows(d_hidden[share], rows, errors, weight[column])
