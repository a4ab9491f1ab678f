"""A step of training whose cost follows the ratings, each weight updated in place.

With the encoder's weights stored as users x hidden units, a rating touches one
contiguous row of them, as it does of the decoder's. So forward and backward take time
for ratings x hidden units, and nothing takes time for items x users. A row's gradient
goes into Adam's update as soon as it is known, and is never stored.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx, one_at_a_time
from ..model import AutoRec
from .adam import FusedAdam, Rates, adam
from .arrays import aligned, forget, state_of, view
from .between import Between, OneSigmoid, between
from .cells import is_known, losses_at, members
from .compiled import in_shares
from .draws import Draws
from .parcels import FineParcel, Parcel, RoundedParcel
from .products import (
    Cells,
    add_rows,
    add_to_rows,
    ask_for,
    by_columns,
    check_fit,
    dot_rows,
    part,
    product,
)
from .rows import (
    balanced,
    corrupted,
    drops_inputs,
    initialized,
    is_layerwise,
    multiply,
    transposed,
)
from .step import SparseStep


class Moments(NamedTuple):
    """A parameter and what Adam keeps of its gradients.

    Attributes
    ----------
    weight, mean, var : numpy.ndarray of float32, of one shape
    """

    weight: np.ndarray
    mean: np.ndarray
    var: np.ndarray


class Layer(NamedTuple):
    """The parameters of an encoder or a decoder.

    Attributes
    ----------
    weight : Moments of shape (num_users, num_hidden)
    bias : Moments of shape (num_hidden,) or (num_users,)
    """

    weight: Moments
    bias: Moments


class LayerRates(NamedTuple):
    """The numbers of one update of a `Layer`."""

    weight: Rates
    bias: Rates


class FusedStep(SparseStep):
    """A `SparseStep` by Adam on a CPU, for networks that it `fits`.

    From an epoch's first batch until `finish`, the encoder's weights and what the
    trainer keeps of them are transposed, each where another was: neither can be used
    by others in between. The last batch's step ends as the next one begins, or in
    `finish`: what it waits for may be on its way while that batch is taken apart.

    Parameters
    ----------
    *args
        As for `SparseStep`.

    Attributes
    ----------
    share : callable or None
        Begins to add up an array over workers who have some of the users each, in
        parcels of a kind; what it returns waits for the sum, and writes it there.
    draws : Draws
        For all its networks.
    """

    share: Callable[[np.ndarray, type[Parcel]], Callable[[], None]] | None = None

    @staticmethod
    def fits(
        net: gluon.Block, trainer: gluon.Trainer, devices: Sequence[mx.Context]
    ) -> bool:
        """Tell whether it takes the same steps as a `SparseStep` would.

        Parameters
        ----------
        net, trainer, devices
            As for `SparseStep`.

        Returns
        -------
        bool
        """
        optimizer = trainer.optimizer
        return (
            [device.device_type for device in devices] == ["cpu"]
            and type(optimizer) is FusedAdam
            and not optimizer.clip_gradient
            and all(is_known(one) and is_layerwise(one) for one in members(net))
            and all(p.grad_req == "write" for p in net.collect_params().values())
        )

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._learners = [self.learner(net) for net in members(self.net)]
        self._divisor = 0.0  # of the last batch's gradients, until its step ends
        self.draws = Draws()

    def learner(self, net: AutoRec) -> Learner:
        """Make what trains a network."""
        return Learner(net, self)

    def seed(self, seed: int) -> None:
        """Begin an epoch's draws, as `SparseStep.seed`."""
        super().seed(seed)
        # For others, MXNet draws between two of these draws.
        if all(
            OneSigmoid.fits(net) and not drops_inputs(net) for net in members(self.net)
        ):
            self.draws.begin(seed)

    @one_at_a_time
    def __call__(self, batch: sp.csr_matrix) -> None:
        """Train on a batch of rows of ratings."""
        samples, length = batch.shape
        mean_over = self.cells_per_row or length
        cells = by_columns(batch)
        self._end()
        optimizer = self.trainer.optimizer
        optimizer.rescale_grad = self.trainer._scale / (samples * mean_over)
        for learner in self._learners:
            self._total += learner.train(cells, self) / mean_over
        self._divisor = samples * mean_over
        self._samples += samples
        self._examples += samples * length

    def _end(self) -> None:
        """End the step on the last batch."""
        for learner in self._learners:
            learner.end()
        if self._divisor and len(self.trainer._params) > 4 * len(self._learners):
            # Those of layers between encoder and decoder, which alone have a gradient.
            self.trainer.step(self._divisor, ignore_stale_grad=True)
        self._divisor = 0.0

    def finish(self) -> tuple[float, int]:
        """End an epoch; network and trainer are up to date again."""
        self._end()
        for learner in self._learners:
            learner.give_back()
        return super().finish()

    def inputs(self, net: AutoRec, cells: Cells) -> np.ndarray:
        """Make of ratings what a network has for its inputs, in training."""
        return corrupted(net, balanced(net, cells))


class Learner:
    """A network that a `FusedStep` trains.

    Parameters
    ----------
    net : AutoRec
        Its network, or one of them.
    step : FusedStep
        Whose loss and trainer it has.
    """

    def __init__(self, net: AutoRec, step: FusedStep) -> None:
        self.net, self.loss, self.trainer = net, step.loss, step.trainer
        self.device = step.devices[0]
        self.layers: dict[gluon.nn.Dense, Layer] = {}
        self.between: Between | None = None
        self.parts = np.zeros((0, 0, 0), np.float32)
        self._rest: Callable[[], None] | None = None  # of a step

    def train(self, cells: Cells, step: FusedStep) -> float:
        """Begin a step on a batch, which `end` ends; return the sum of losses."""
        net, num_shares = self.net, cells.num_shares
        inputs = cells._replace(ratings=step.inputs(net, cells))
        encoder = self._layer(net.encoder, len(cells.starts) - 1)
        if self.between is None or self.between.num_rows != cells.num_rows:
            self.between = between(net, cells.num_rows, encoder.bias.weight.size)
        layers = self.between
        parts = self._parts(num_shares, layers.d_sums)
        multiply(inputs, encoder.weight.weight, parts)
        bias = encoder.bias.weight
        sums = begin_sums(parts, step, RoundedParcel)
        layers.prepare(step.draws)
        hidden = layers.forward(sums(), bias)
        # Its weights are drawn after what dropout draws, as in a forward pass.
        decoder = self._layer(net.decoder, layers.num_units)
        check_fit(cells, len(hidden), len(decoder.weight.weight))
        is_squared = self._is_squared()
        if is_squared:
            total, errors = 0.0, np.empty_like(cells.ratings)
        else:
            total, errors = self._losses(cells, hidden[:, : layers.num_units])
        parts, rates = self._parts(num_shares, hidden), self._rates(net.decoder)
        arrays = cells, errors, hidden, decoder, rates, parts, is_squared
        total += float(sum(in_shares(_train_decoder, num_shares, *arrays)))
        # Adam makes as much of a small gradient as of a large one.
        sums = begin_sums(parts, step, FineParcel)

        def end() -> None:
            d_sums = layers.backward(sums())
            rates = self._rates(net.encoder)
            in_shares(_train_encoder, num_shares, inputs, d_sums, encoder, rates)

        self._rest = end
        return total

    def end(self) -> None:
        """End a step, if one has begun."""
        rest, self._rest = self._rest, None
        if rest:
            rest()

    def give_back(self) -> None:
        """Bring network and trainer up to date."""
        if self.net.encoder in self.layers:
            own = self.layers[self.net.encoder].weight
            theirs = self._moments(self.net.encoder.weight)
            for array, room in zip(own[::-1], theirs[::-1]):
                transposed(array, room)
        self.layers = {}

    def _layer(self, layer: gluon.nn.Dense, length: int) -> Layer:
        """Return a layer with inputs of a length as it is kept during an epoch."""
        if layer not in self.layers:
            initialized(layer, length, self.device)
            # Gluon has made room for a gradient, which nobody is going to write.
            forget(view(layer.weight.grad(self.device)))
            weight, bias = map(self._moments, (layer.weight, layer.bias))
            if layer is self.net.encoder:
                rooms = np.empty_like(weight.weight), *weight
                weight = Moments(*map(transposed, weight, rooms))
            self.layers[layer] = Layer(weight, bias)
        return self.layers[layer]

    def _moments(self, parameter: gluon.Parameter) -> Moments:
        """See a parameter and its moments, as network and trainer have them."""
        state = state_of(self.trainer, parameter)
        return Moments(*map(view, (parameter.data(self.device), *state)))

    def _parts(self, num_shares: int, rows: np.ndarray) -> np.ndarray:
        """Return room for an array like `rows` from each thread."""
        if self.parts.shape != (num_shares, *rows.shape):
            self.parts = aligned(num_shares, *rows.shape)
        return self.parts

    def _rates(self, layer: gluon.nn.Dense) -> LayerRates:
        """Begin the next update of a layer."""
        index, optimizer = self.trainer._param2idx, self.trainer.optimizer
        both = layer.weight, layer.bias
        return LayerRates(*(optimizer.rates(index[one.name]) for one in both))

    def _is_squared(self) -> bool:
        """Tell whether it is half the squared error that the outputs meet."""
        loss: Any = self.loss
        act = self.net.decoder.act
        half = type(loss) is gluon.loss.L2Loss and loss._weight == 1
        return half and getattr(act, "linear", act is None)

    def _losses(self, cells: Cells, hidden: np.ndarray) -> tuple[float, np.ndarray]:
        """Let MXNet compute any other loss: its sum, and its gradient at the cells."""
        values = mx.np.array(hidden, ctx=self.device)
        losses, grad = losses_at(self.net.decoder, values, cells, self.loss)
        return float(losses.asnumpy().sum(dtype=float)), view(grad)


def begin_sums(
    parts: np.ndarray, step: FusedStep, kind: type[Parcel]
) -> Callable[[], np.ndarray]:
    """Begin to add up what all workers found, where there are several; say how to end.

    What comes of it adds up to the sums.
    """
    if not step.share:
        return lambda: parts
    total = parts[0]
    for other in parts[1:]:
        total += other
    wait = step.share(total, kind)

    def finish() -> np.ndarray:
        wait()
        return parts[:1]

    return finish


@product
def _train_encoder(share, cells, d_sums, encoder, rates):  # type: ignore[no-untyped-def]
    gradient = np.empty(d_sums.shape[1], np.float32)
    for column in range(cells.bounds[share], cells.bounds[share + 1]):
        its = slice(cells.starts[column], cells.starts[column + 1])
        rows, ratings = cells.rows[its], cells.ratings[its]
        ask_for(encoder.weight.weight, column + 1)
        _learn(encoder.weight, column, d_sums, rows, ratings, gradient, rates.weight)
    train_bias(share, len(cells.bounds) - 1, d_sums, encoder.bias, rates.bias)


@part
def train_bias(share, size, d_sums, bias, rates):  # type: ignore[no-untyped-def]
    """Update a share of the encoder's biases, of so many."""
    gradient, length = np.zeros(d_sums.shape[1], np.float32), bias.weight.size
    first, stop = share * length // size, (share + 1) * length // size
    for row in range(len(d_sums)):
        for i in range(first, stop):
            gradient[i] += d_sums[row, i]
    update_part(bias, first, stop, gradient[first:], rates)


@product
def _train_decoder(  # type: ignore[no-untyped-def]
    share, cells, errors, hidden, decoder, rates, d_hidden, is_squared
):
    weight, bias = decoder
    # As long as a row of `hidden`, so that no part of a row is left over.
    vector = np.zeros(hidden.shape[1], np.float32)
    gradient = np.empty(hidden.shape[1], np.float32)
    first, stop = cells.bounds[share], cells.bounds[share + 1]
    d_bias = np.empty(stop - first, np.float32)
    loss = 0.0
    d_hidden[share] = 0
    for column in range(first, stop):
        its = slice(cells.starts[column], cells.starts[column + 1])
        rows, error = cells.rows[its], errors[its]
        ask_for(weight.weight, column + 1)
        vector[: weight.weight.shape[1]] = weight.weight[column]
        if is_squared:
            dot_rows(hidden, rows, vector, error)
            error += bias.weight[column] - cells.ratings[its]
            loss += (error * error).sum() / 2
        add_to_rows(d_hidden[share], rows, error, vector)
        d_bias[column - first] = error.sum()
        _learn(weight, column, hidden, rows, error, gradient, rates.weight)
    update_part(bias, first, stop, d_bias, rates.bias)
    return loss


@part
def _learn(moments, column, matrix, rows, factors, gradient, rates):  # type: ignore[no-untyped-def]
    weight, mean, var = moments
    ask_for(mean, column + 1)
    ask_for(var, column + 1)
    gradient[:] = 0
    add_rows(matrix, rows, factors, gradient)
    adam(weight[column], gradient, mean[column], var[column], rates)


@part
def update_part(moments, first, stop, gradient, rates):  # type: ignore[no-untyped-def]
    """Update some values of a parameter."""
    weight, mean, var = moments
    its = slice(first, stop)
    adam(weight[its], gradient, mean[its], var[its], rates)
