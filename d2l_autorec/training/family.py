"""The family that AutoRec is from: any depth, activations, averages of several.

References
----------
S. Sedhain, A. K. Menon, S. Sanner, L. Xie, "AutoRec: Autoencoders Meet Collaborative
Filtering", WWW 2015.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .._mxnet import autograd, gluon, mx
from ..fast import layerwise
from ..model import AutoRec

# Outputs that are stretched over the range of the ratings, and what they range over.
BOUNDED = {"sigmoid": (0, 1), "tanh": (-1, 1)}


class DeepAutoRec(AutoRec):
    r"""The family that AutoRec is from: any depth, activations, a denoising input.

    Its defaults are `AutoRec`.

    Parameters
    ----------
    num_hidden : int or sequence of int
        Units of each hidden layer, in order.
    num_users : int
        Length of an input row. Rows may just as well be what one user gave all items:
        that is U-AutoRec, and this is then the number of items.
    dropout : float
        Share of each hidden layer's units that training drops.
    activation, output : str
        One of `settings.ACTIVATIONS`, for the hidden layers (*g* in the paper) and for
        the output (*f*).
    input_dropout : float
        Share of the inputs that training drops: a denoising autoencoder.
    rating_range : (float, float), optional
        The lowest and the highest rating, to which predictions are then held. An output
        that is bounded by itself, sigmoid or tanh, needs it and is stretched over it;
        any other is clipped, but not in training.
    balance, typical : float
        The inputs of a row with *n* ratings are multiplied by (`typical` / *n*) to the
        power of `balance`, so that one with many does not drive all hidden units to
        their limits.

    Raises
    ------
    ValueError
        If a bounded output has no range to be stretched over.
    """

    def __init__(
        self,
        num_hidden: int | Sequence[int],
        num_users: int,
        dropout: float = 0.05,
        activation: str = "sigmoid",
        output: str = "identity",
        input_dropout: float = 0.0,
        rating_range: tuple[float, float] | None = None,
        balance: float = 0.0,
        typical: float = 1.0,
    ) -> None:
        first, *others = [num_hidden] if isinstance(num_hidden, int) else num_hidden
        super().__init__(first, num_users, dropout)
        if output in BOUNDED and rating_range is None:
            raise ValueError(f"a {output} output needs a rating_range")
        self.balance, self.typical = balance, typical
        self.corruption = gluon.nn.Dropout(input_dropout) if input_dropout else None
        self.encoder = _dense(first, activation)
        self.deeper = gluon.nn.Sequential()
        for units in others:
            self.deeper.add(_dense(units, activation))
        self.decoder = gluon.nn.Dense(num_users)
        self.decoder.act = Output(output, rating_range)

    @layerwise
    def encode(self, inputs: mx.np.ndarray) -> mx.np.ndarray:
        """Compute the last hidden layer, of shape (batch_size, num_hidden[-1])."""
        if self.balance:
            counts = mx.np.sign(mx.np.abs(inputs)).sum(axis=1, keepdims=True)
            share = self.typical / mx.np.maximum(counts, 1)
            inputs = inputs * share**self.balance
        if self.corruption:
            inputs = self.corruption(inputs)
        hidden = super().encode(inputs)
        for layer in self.deeper:
            hidden = self.dropout(layer(hidden))
        return hidden


class Output(gluon.nn.HybridBlock):
    """From a decoder's outputs to ratings.

    Parameters
    ----------
    activation, rating_range
        As for `DeepAutoRec`.
    """

    def __init__(
        self, activation: str, rating_range: tuple[float, float] | None
    ) -> None:
        super().__init__()
        self.act = _activation(activation)
        self.cellwise = True  # it takes each cell by itself
        self.linear = activation == "identity"  # in training it changes nothing
        self.bounds = BOUNDED.get(activation)
        self.rating_range = rating_range

    def hybrid_forward(self, F: Any, outputs: Any) -> Any:  # noqa: N803
        """Activate outputs; stretch those that are bounded; clip, but not in training.

        Parameters
        ----------
        F : module
            Gluon's, for arrays or for symbols.
        outputs : mxnet.np.ndarray of float32, of any shape
            What the decoder gives.

        Returns
        -------
        mxnet.np.ndarray of float32
            Of the same shape.
        """
        if self.act:
            outputs = self.act(outputs)
        if self.rating_range:
            low, high = self.rating_range
            if self.bounds:
                bottom, top = self.bounds
                outputs = low + (outputs - bottom) * ((high - low) / (top - bottom))
            if not autograd.is_training():
                outputs = F.np.clip(outputs, low, high)
        return outputs


class Average(gluon.nn.Sequential):
    """The mean of several networks that are trained side by side.

    Parameters
    ----------
    members : sequence of AutoRec
        Told apart by their initial weights.

    Notes
    -----
    Each learns for itself by a `SparseStep`; by the book's `Step`, their mean would.
    """

    def __init__(self, members: Sequence[AutoRec]) -> None:
        super().__init__()
        self.add(*members)

    def forward(self, inputs: mx.np.ndarray) -> mx.np.ndarray:
        """Reconstruct rows of ratings, as `AutoRec` does."""
        return sum(net(inputs) for net in self) / len(self)

    @property
    def members(self) -> list[AutoRec]:
        """The networks; this one, if a subclass makes more of them than their mean."""
        return [*self] if type(self).forward is Average.forward else [self]


def _dense(units: int, activation: str) -> gluon.nn.Dense:
    """Make a dense layer; by name, Gluon's own takes only some activations."""
    layer = gluon.nn.Dense(units)
    layer.act = _activation(activation)
    return layer


def _activation(name: str) -> gluon.nn.HybridBlock | None:
    if name == "identity":
        return None
    if name in ("elu", "selu"):
        return getattr(gluon.nn, name.upper())()
    return gluon.nn.Activation(name)
