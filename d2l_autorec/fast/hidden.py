"""The hidden layers, from the encoder's sums to the decoder's input, and back.

MXNet computes them, but for one layer of sigmoid units, which is the book's: there
loops take a quarter of the time. NumPy's generator draws the dropout masks.
"""

from typing import Any

import numba
import numpy as np

from .._mxnet import autograd, gluon, mx
from ..model import AutoRec
from .arrays import view
from .compiled import compiled, in_shares, num_threads


def hidden_layers(net: AutoRec) -> "SigmoidLayer | MXNetLayers":
    """Make what computes a network's hidden layers.

    ``forward(sums, rng)`` does so in training, ``backward(d_hidden)`` returns the
    gradient of the sums, ``predict(sums)`` drops nothing; arrays are float32 of shape
    (batch_size, num_units).
    """
    act = getattr(net, "act", net.encoder.act)
    sigmoid = type(act) is gluon.nn.Activation and act._act_type == "sigmoid"
    if sigmoid and not len(getattr(net, "deeper", ())):
        return SigmoidLayer(net.dropout._rate)
    return MXNetLayers(net)


def dropout_mask(
    shape: tuple[int, ...], rate: float, rng: np.random.Generator
) -> np.ndarray:
    """Draw a dropout mask: 0 for a dropped unit, 1 / (1 - rate) for any other."""
    kept = rng.random(shape, np.float32) >= np.float32(rate)
    return np.asarray(kept * np.float32(1 / (1 - rate)))


class SigmoidLayer:
    """One layer of sigmoid units, by compiled loops."""

    def __init__(self, rate: float) -> None:
        self.rate = rate
        self.hidden = np.empty((0, 0), np.float32)

    def forward(self, sums: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Compute the units, and drop some."""
        self.hidden = self.predict(sums)
        if self.rate:
            self.hidden *= dropout_mask(sums.shape, self.rate, rng)
        return self.hidden

    def backward(self, d_hidden: np.ndarray) -> np.ndarray:
        """Compute the gradient of the sums."""
        # With s the sigmoid, a unit is s / kept and its slope s (1 - s) / kept, or both
        # are 0.
        kept = np.float32(1 - self.rate)
        return np.asarray(d_hidden * self.hidden * (1 - kept * self.hidden))

    def predict(self, sums: np.ndarray) -> np.ndarray:
        """Compute the units."""
        hidden, size = np.empty_like(sums), num_threads()
        in_shares(_sigmoid_rows, size, size, sums, hidden)
        return hidden


class MXNetLayers:
    """Any hidden layers, by MXNet's operators."""

    def __init__(self, net: Any) -> None:
        self.net = net

    def forward(self, sums: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Compute the layers, and drop units of each."""
        rate = self.net.dropout._rate

        def drop(layer: mx.np.ndarray) -> mx.np.ndarray:
            if not rate:
                return layer
            return layer * mx.np.array(dropout_mask(layer.shape, rate, rng))

        self.sums = mx.np.array(sums)
        self.sums.attach_grad()
        with autograd.record():
            self.hidden = self.net.deepen(self.sums, drop)
        return view(self.hidden)

    def backward(self, d_hidden: np.ndarray) -> np.ndarray:
        """Compute the gradients; those of parameters are in Gluon's arrays."""
        self.hidden.backward(mx.np.array(d_hidden))
        return view(self.sums.grad)

    def predict(self, sums: np.ndarray) -> np.ndarray:
        """Compute the layers."""
        return view(self.net.deepen(mx.np.array(sums), lambda layer: layer))


@compiled
def _sigmoid_rows(share, num_shares, sums, hidden):  # type: ignore[no-untyped-def]
    powers = np.empty(sums.shape[1], np.int32)
    first, stop = share * len(sums) // num_shares, (share + 1) * len(sums) // num_shares
    for row in range(first, stop):
        hidden[row] = sums[row]
        sigmoid(hidden[row], powers)


# Sums in another order would undo the two steps of the remainder.
@numba.njit(error_model="numpy", fastmath={"contract"})
def sigmoid(values, powers):  # type: ignore[no-untyped-def]
    """Replace values by their sigmoids; as many int32 are to work in."""
    # A machine's vectors have no exponential: exp(-x) is 2**n exp(r), with a whole n
    # and |r| <= log(2) / 2, where a polynomial will do.
    one, limit = np.float32(1), np.float32(87)
    for i in range(values.size):
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
    for i in range(values.size):
        values[i] = one / (one + values[i] * factors[i])
