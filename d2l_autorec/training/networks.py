"""The networks of a recipe: AutoRec of any depth, activations, with a denoising input.

References
----------
S. Sedhain, A. K. Menon, S. Sanner, L. Xie, "AutoRec: Autoencoders Meet Collaborative
Filtering", WWW 2015.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .._mxnet import autograd, gluon, mx
from .._ready import memory
from ..data import checked
from ..errors import DataError
from ..model import AutoRec
from .biases import range_of
from .settings import Recipe

# Outputs that are stretched over the range of the ratings, and what they range over.
BOUNDED = {"sigmoid": (0, 1), "tanh": (-1, 1)}


class RowScaling(NamedTuple):
    """Multiplication of a row of *n* ratings by (`typical` / *n*) to the `power`."""

    power: float
    typical: float

    def factors(self, counts: Any) -> Any:
        """Compute the factors of rows with so many ratings, an array of any kind."""
        return (self.typical / counts.clip(1, None)) ** self.power


class Output(gluon.nn.HybridBlock):
    """From outputs to ratings: activated; stretched over a range, or clipped to it."""

    def __init__(
        self, activation: str, rating_range: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        if activation in BOUNDED and rating_range is None:
            raise ValueError(f"a {activation} output needs a rating_range")
        self.act = _activation(activation)
        self.linear = activation == "identity"  # in training it changes nothing
        self.bounds = BOUNDED.get(activation)
        self.rating_range = rating_range

    def hybrid_forward(self, F: Any, outputs: Any) -> Any:  # noqa: N803
        """Activate outputs, stretch bounded ones; clip, but not in training."""
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
    activation : str
        One of `settings.ACTIVATIONS`, for the hidden layers (*g* in the paper).
    output : Output, optional
        What makes ratings of the decoder's outputs (*f*); by default nothing is done.
    input_rate : float
        Share of the inputs that training drops: a denoising autoencoder.
    scaling : RowScaling, optional
        What the inputs of a row are multiplied by.
    """

    def __init__(
        self,
        num_hidden: int | Sequence[int],
        num_users: int,
        dropout: float = 0.05,
        activation: str = "sigmoid",
        output: Output | None = None,
        input_rate: float = 0.0,
        scaling: RowScaling | None = None,
    ) -> None:
        first, *others = [num_hidden] if isinstance(num_hidden, int) else num_hidden
        super().__init__(first, num_users, dropout)
        self.input_rate, self.scaling = input_rate, scaling
        self.corruption = gluon.nn.Dropout(input_rate)
        self.encoder = gluon.nn.Dense(first)
        self.act = _activation(activation)
        self.deeper = gluon.nn.Sequential()
        for units in others:
            layer = gluon.nn.Dense(units)  # which by itself takes some activations only
            layer.act = _activation(activation)
            self.deeper.add(layer)
        self.decoder.act = output

    def encode(self, inputs: mx.np.ndarray) -> mx.np.ndarray:
        """Compute the last hidden layer, of shape (batch_size, num_hidden[-1])."""
        if self.scaling:
            counts = mx.np.sign(mx.np.abs(inputs)).sum(axis=1, keepdims=True)
            inputs = inputs * self.scaling.factors(counts)
        return self.deepen(self.encoder(self.corruption(inputs)))

    def deepen(
        self, sums: mx.np.ndarray, drop: Callable[..., mx.np.ndarray] | None = None
    ) -> mx.np.ndarray:
        """Compute the last hidden layer of the encoder's sums; `drop` drops units."""
        drop = drop or self.dropout
        hidden = drop(self.act(sums) if self.act else sums)
        for layer in self.deeper:
            hidden = drop(layer(hidden))
        return hidden


def network(
    recipe: Recipe, train_mat: sp.csr_matrix, length: int | None = None
) -> AutoRec:
    """Make a recipe's network, not yet initialized; the book's is an `AutoRec`.

    A bounded output is stretched over the range of the ratings `train_mat`. Rows are of
    a `length`, where the network is for some of the columns. What would not fit into
    the memory of this machine is a DataError.
    """
    num_rows, num_columns = checked(train_mat).shape[
        :: -1 if recipe.kind == "user" else 1
    ]
    length = length or num_columns
    _check_size(recipe, num_rows, length)
    # What has a normalizer is clipped only as ratings, by `Member`.
    raw = not (recipe.residual or recipe.standardize)
    bounded = raw and (recipe.clip or recipe.output in BOUNDED)
    output, scaling = None, None
    if bounded or recipe.output != "identity":
        output = Output(recipe.output, range_of(train_mat) if bounded else None)
    if recipe.balance:
        counts = np.diff(recipe.rows(train_mat).indptr)
        typical = np.exp(np.log(counts[counts > 0]).mean())  # a geometric mean
        scaling = RowScaling(recipe.balance, float(typical))
    # An optimizer's state is kept in the order of the parameters' names, which Gluon
    # counts up: here they always start from 0.
    layers, beyond = recipe.num_hidden, (output, recipe.input_dropout, scaling)
    is_book = recipe.activation == "sigmoid" and not any(beyond)
    with mx.name.NameManager():
        if is_book and isinstance(layers, int):
            return AutoRec(layers, length, recipe.dropout)
        usual = layers, length, recipe.dropout, recipe.activation
        return DeepAutoRec(*usual, *beyond)


def parameter_shapes(
    recipe: Recipe, shape: tuple[int, int]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """List names and shapes of a network's parameters, as Gluon has them.

    The shape is (num_items, num_users).
    """
    length = shape[0 if recipe.kind == "user" else 1]
    layers = recipe.num_hidden
    sizes = [length, *([layers] if isinstance(layers, int) else layers), length]
    names = ["encoder", *(f"deeper.{i}" for i in range(len(sizes) - 3)), "decoder"]
    for name, before, after in zip(names, sizes, sizes[1:]):
        yield f"{name}.weight", (after, before)
        yield f"{name}.bias", (after,)


def draw_weights(net: AutoRec, length: int, devices: Sequence[mx.Context]) -> None:
    """Draw a network's weights: a row of zeros of a length tells their shapes."""
    for device in devices:
        net(mx.np.zeros((1, length), ctx=device)).wait_to_read()


def _check_size(recipe: Recipe, num_rows: int, length: int) -> None:
    """Check, before anything is allocated, that it would fit into the memory."""
    shapes = parameter_shapes(recipe, (length, length))
    batch_size = min(recipe.batch_size or num_rows, num_rows)
    for what, size in {
        "the parameters": sum(math.prod(shape) for _, shape in shapes),
        f"a batch of {batch_size:,} rows": batch_size * length,
    }.items():
        if 4 * size > memory():
            raise DataError(
                f"{what} would take {4 * size / 2**30:,.0f} GiB; this machine has "
                f"{memory() / 2**30:,.0f}"
            )


def _activation(name: str) -> gluon.nn.HybridBlock | None:
    if name == "identity":
        return None
    if name in ("elu", "selu"):
        return getattr(gluon.nn, name.upper())()
    return gluon.nn.Activation(name)
