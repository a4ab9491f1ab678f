"""What is between an encoder's sums and the last hidden layer, forward and backward.

MXNet computes it, but for one layer of sigmoid units, which is the book's: there loops
take a quarter of the time. The units that dropout keeps are those that MXNet draws in
any case, so that a seed means the same.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
import scipy.sparse as sp

from .._mxnet import autograd, gluon, mx
from ..model import AutoRec
from .arrays import aligned, dense, on_device, view
from .compiled import compiled, in_shares, num_threads_for
from .draws import Draws
from .products import by_columns
from .rows import (
    balanced,
    deepen,
    initialized,
    is_layerwise,
    multiply,
    transposed,
)

# Replaces an array by the sum of what several workers have of it.
AddUp = Callable[[np.ndarray], None]

_OPTIONS = {"error_model": "numpy", "fastmath": {"contract"}}


class Between:
    """The layers between encoder and decoder, by MXNet.

    Arrays of rows are `aligned`: their rows may be longer than needed.

    Parameters
    ----------
    net : AutoRec
        That `rows.is_layerwise`.
    num_rows : int
        Of a batch.
    num_sums : int
        Of a row: the encoder's units.

    Attributes
    ----------
    num_rows : int
    num_units : int
        Of the last hidden layer; known after `forward`.
    d_sums : numpy.ndarray of float32, shape (batch_size, ...)
        What `backward` returns.
    """

    def __init__(self, net: AutoRec, num_rows: int, num_sums: int) -> None:
        self.net, self.num_rows, self.num_units = net, num_rows, num_sums
        self.d_sums, self.hidden = aligned(num_rows, num_sums), aligned(0, 0)

    def prepare(self, draws: Draws) -> None:
        """Do what does not depend on the sums, which may be on their way.

        Parameters
        ----------
        draws : Draws
            Of the training.
        """

    def forward(self, parts: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Compute the last hidden layer, when it is prepared.

        Parameters
        ----------
        parts : numpy.ndarray of float32, shape (num_shares, batch_size, ...)
            They add up to what the encoder's weights make of the ratings.
        bias : numpy.ndarray of float32, shape (num_sums,)
            The encoder's.

        Returns
        -------
        numpy.ndarray of float32, shape (batch_size, ...)
        """
        self.sums = mx.np.array(parts.sum(axis=0)[:, : bias.size] + bias)
        self.sums.attach_grad()
        with autograd.record():
            self.last = deepen(self.net, self.sums)
        self.num_units = self.last.shape[1]
        if not self.hidden.size:
            self.hidden = aligned(*self.last.shape)
        self.hidden[:, : self.num_units] = view(self.last)
        return self.hidden

    def backward(self, parts: np.ndarray) -> np.ndarray:
        """Find the gradient of the encoder's sums.

        Parameters
        ----------
        parts : numpy.ndarray of float32, shape (num_shares, batch_size, ...)
            They add up to the gradient of the last hidden layer.

        Returns
        -------
        numpy.ndarray of float32, shape (batch_size, ...)
        """
        self.last.backward(mx.np.array(parts.sum(axis=0)[:, : self.num_units]))
        self.d_sums[:, : self.sums.shape[1]] = view(self.sums.grad)
        return self.d_sums

    def predict(self, parts: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Compute the last hidden layer as it is when nothing is trained.

        Parameters
        ----------
        parts, bias
            As for `forward`.

        Returns
        -------
        numpy.ndarray of float32, shape (batch_size, num_units)
        """
        sums = mx.np.array(parts.sum(axis=0)[:, : bias.size] + bias)
        return view(deepen(self.net, sums))


class OneSigmoid(Between):
    """The same for one layer of sigmoid units, by loops."""

    def __init__(self, net: AutoRec, num_rows: int, num_sums: int) -> None:
        super().__init__(net, num_rows, num_sums)
        self.kept = self.all_kept = np.ones((num_rows, num_sums), np.float32)
        self.drawn = np.empty_like(self.all_kept)
        self.hidden = aligned(num_rows, num_sums)
        self.num_shares = num_threads_for(num_rows * num_sums, 2**17)

    @staticmethod
    def fits(net: AutoRec) -> bool:
        """Tell whether a network has one such layer and no other."""
        act = net.encoder.act
        return (
            type(act) is gluon.nn.Activation
            and act._act_type == "sigmoid"
            and type(net.dropout) is gluon.nn.Dropout
            and not len(getattr(net, "deeper", ()))
        )

    def prepare(self, draws: Draws) -> None:
        """Draw the units to keep, as `Between.prepare`."""
        if self.net.dropout._rate:
            draws.keep(self.net.dropout, self.drawn)
            self.kept = self.drawn

    def forward(self, parts: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Compute the hidden layer, as `Between.forward`."""
        arrays = parts, bias, self.kept, self.hidden
        in_shares(_activate, self.num_shares, self.num_shares, *arrays)
        return self.hidden

    def backward(self, parts: np.ndarray) -> np.ndarray:
        """Find the gradient of the sums, as `Between.backward`."""
        share_kept = np.float32(1 - self.net.dropout._rate)
        arrays = parts, self.hidden, share_kept, self.d_sums
        in_shares(_derive, self.num_shares, self.num_shares, *arrays)
        return self.d_sums

    def predict(self, parts: np.ndarray, bias: np.ndarray) -> np.ndarray:
        """Compute the hidden layer with all units, as `Between.predict`."""
        self.kept = self.all_kept
        return self.forward(parts, bias)[:, : bias.size]


def between(net: AutoRec, num_rows: int, num_sums: int) -> Between:
    """Make what fits a network; the arguments are those of `Between`."""
    kind = OneSigmoid if OneSigmoid.fits(net) else Between
    return kind(net, num_rows, num_sums)


def encoding(
    net: AutoRec, device: mx.Context, share: AddUp | None = None
) -> Callable[[sp.csr_matrix], mx.np.ndarray]:
    """Get ready to compute last hidden layers, with the weights as they are now.

    Parameters
    ----------
    net : AutoRec
        Initialized on the device.
    device : mxnet.Context
        A CPU.
    share : callable, optional
        Adds up the sums of workers who have some of the users each; the network is one
        that `is_layerwise` then.

    Returns
    -------
    callable
        From rows of ratings, shape (batch_size, num_users), to an mxnet.np.ndarray of
        float32, shape (batch_size, num_hidden).
    """
    if not is_layerwise(net):
        return lambda rows: net.encode(dense(rows, device))
    layer, layers = net.encoder, None
    weight = parts = np.empty((0, 0), np.float32)

    def encode(rows: sp.csr_matrix) -> mx.np.ndarray:
        nonlocal layers, weight, parts
        if not weight.size:
            initialized(layer, rows.shape[1], device)
            weight = transposed(view(layer.weight.data(device)))
        cells = by_columns(rows)
        cells = cells._replace(ratings=balanced(net, cells, share))
        if not layers or layers.num_rows != cells.num_rows:
            layers = between(net, cells.num_rows, weight.shape[1])
            parts = aligned(cells.num_shares, cells.num_rows, weight.shape[1])
        multiply(cells, weight, parts)
        sums = parts
        if share:
            sums = parts.sum(axis=0, keepdims=True)
            share(sums[0])
        hidden = layers.predict(sums, view(layer.bias.data(device)))
        return on_device(hidden.copy(), device)

    return encode


@compiled(**_OPTIONS)
def _activate(share, size, parts, bias, kept, hidden):  # type: ignore[no-untyped-def]
    powers = np.empty(bias.size, np.int32)
    for row in range(share * len(hidden) // size, (share + 1) * len(hidden) // size):
        values, factors = hidden[row], kept[row]
        for i in range(bias.size):
            values[i] = bias[i]
        _add(parts, row, values)
        sigmoid(values, powers)
        for i in range(bias.size):
            values[i] *= factors[i]


@compiled(**_OPTIONS)
def _derive(share, size, parts, hidden, share_kept, d_sums):  # type: ignore[no-untyped-def]
    one = np.float32(1)
    for row in range(share * len(hidden) // size, (share + 1) * len(hidden) // size):
        units, gradient = hidden[row], d_sums[row]
        gradient[:] = 0
        _add(parts, row, gradient)
        # With s the sigmoid, a unit is s / share_kept and its slope s (1 - s) /
        # share_kept; or both are 0.
        for i in range(gradient.size):
            gradient[i] *= units[i] * (one - share_kept * units[i])


@numba.njit(**_OPTIONS)
def _add(parts, row, out):  # type: ignore[no-untyped-def]
    for k in range(len(parts)):
        part = parts[k, row]
        for i in range(out.size):
            out[i] += part[i]


@numba.njit(**_OPTIONS)
def sigmoid(values, powers):  # type: ignore[no-untyped-def]
    """Replace as many values as there are powers to work in."""
    # A machine's vectors have no exponential: exp(-x) is 2**n exp(r), with a whole n
    # and |r| <= log(2) / 2, where a polynomial will do.
    one, limit = np.float32(1), np.float32(87)
    for i in range(powers.size):
        x = -values[i]
        x = limit if x > limit else x  # neither is true of NaN, which stays
        x = -limit if x < -limit else x
        n = np.floor(x * np.float32(1.4426950408889634) + np.float32(0.5))
        r = x - n * np.float32(0.693145751953125)
        r -= n * np.float32(1.428606765330187e-06)
        e = np.float32(1 / 720) + r * np.float32(1 / 5040)
        e = np.float32(1 / 120) + r * e
        e = np.float32(1 / 24) + r * e
        e = np.float32(1 / 6) + r * e
        e = np.float32(1 / 2) + r * e
        values[i] = one + r * (one + r * e)
        # A float32 of 2**n has the exponent n, and nothing else.
        powers[i] = np.int32((n + np.float32(127)) * np.float32(2**23))
    factors = powers.view(np.float32)
    for i in range(powers.size):
        values[i] = one / (one + values[i] * factors[i])
