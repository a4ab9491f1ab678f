r"""The fast step of training: Adam on a CPU, at a cost that follows the ratings.

A row of weights is updated as soon as its gradient is known, which is never stored. The
step learns what the book's `Step` learns, up to rounding.

With `leave_one_out`, each rating is predicted from the others of its row: the loss at a
cell is that of a network whose input lacks this very rating, which the network could
copy otherwise. Through one layer of sigmoid units that takes but a sigmoid more: with
:math:`s_i` the encoder's sums of row *i*, :math:`W_u` and :math:`V_u` the weights of
column *u* and :math:`c_u` its bias,

.. math:: \hat r_{iu} = V_u \cdot \sigma(s_i - r_{iu} W_u) + c_u

References
----------
D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015. H. Steck,
"Autoencoders that don't overfit towards the Identity", NeurIPS 2020, on why
autoencoders that predict should not copy; a hidden layer for each cell is our own way.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .._mxnet import autograd, gluon, mx, one_at_a_time
from ..data import checked
from ..loop import Step
from ..model import AutoRec
from .arrays import fill, view
from .compiled import call, compiled, in_shares, inlined
from .hidden import dropout_mask, sigmoid
from .network import SparseNetwork, Workers
from .products import Cells, add_rows, add_shares, add_to_rows, by_columns, check_fit


class Weights(NamedTuple):
    """A parameter, and Adam's running means of its gradient and of the square."""

    value: np.ndarray
    mean: np.ndarray
    var: np.ndarray


class Rates(NamedTuple):
    """The numbers of an update, as MXNet's Adam has them."""

    lr: Any
    wd: Any
    beta1: Any
    beta2: Any
    epsilon: Any
    rescale: Any


class FastStep(Step):
    """A `Step` on sparse rows by Adam on one CPU, for networks that it `fits`.

    It keeps the encoder's weights in memory of its own: the Gluon network has them
    after `finish`, and `read` takes what somebody has written there.

    Parameters
    ----------
    net, loss, trainer, devices, mean_over
        As for `Step`; the network has its weights.
    workers : Workers, optional
        With other columns of the same rows.
    leave_one_out : bool
        Predict each rating from the others of its row: for one layer of sigmoid units
        without dropout, a linear output and half the squared error.
    """

    def __init__(
        self,
        net: gluon.Block,
        loss: Callable[[Any, Any], Any],
        trainer: gluon.Trainer,
        devices: Sequence[mx.Context],
        mean_over: float | None = None,
        workers: Workers | None = None,
        leave_one_out: bool = False,
    ) -> None:
        super().__init__(net, loss, trainer, devices, mean_over)
        self.leave_one_out = leave_one_out
        self.rng = np.random.default_rng()
        self.num_updates = 0
        self.sparse = SparseNetwork(net, workers)
        self._parameters = net._collect_params_with_prefix()
        self.spare_gradients(net)
        self._weights = {
            name: Weights(value, np.zeros_like(value), np.zeros_like(value))
            for name, value in self._values()
        }

    @staticmethod
    def fits(trainer: gluon.Trainer, devices: Sequence[mx.Context]) -> bool:
        """Tell whether it learns what a `Step` of the same arguments would."""
        on_cpu = [device.device_type for device in devices] == ["cpu"]
        optimizer = trainer.optimizer
        is_adam = type(optimizer) is mx.optimizer.Adam and not optimizer.clip_gradient
        return on_cpu and is_adam

    @staticmethod
    def spare_gradients(net: AutoRec) -> None:
        """Let Gluon make no room for gradients that are never stored."""
        for layer in (net.encoder, net.decoder):
            layer.weight.grad_req = layer.bias.grad_req = "null"

    def seed(self, seed: Sequence[int]) -> None:
        """Seed the dropout of the next batch."""
        self.rng = np.random.default_rng(seed)

    def read(self) -> None:
        """Go on with parameters that somebody has written to the Gluon network."""
        self.sparse.read()

    def _values(self) -> Iterator[tuple[str, np.ndarray]]:
        """Name the parameters as Gluon does; the encoder's weights are transposed."""
        for name, parameter in self._parameters.items():
            if name == "encoder.weight":
                yield name, self.sparse.encoder_weight
            else:
                yield name, view(parameter.list_data()[0])

    def state(self) -> dict[str, np.ndarray]:
        """Return Adam's state by name."""
        arrays = {"num_updates": np.array(self.num_updates)}
        for name, weights in self._weights.items():
            arrays |= {f"{name}.mean": weights.mean, f"{name}.var": weights.var}
        return arrays

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Go on from a state that `state` returned; of another, it is a ValueError."""
        own = self.state()
        fill(own, state, "this network")
        self.num_updates = int(own["num_updates"])

    def __call__(self, batch: sp.csr_matrix) -> None:
        """Train on a batch of rows of ratings."""
        self.learn(checked(batch))

    @one_at_a_time
    @np.errstate(over="ignore", invalid="ignore")  # the loss tells of it
    def learn(self, batch: sp.csr_matrix) -> None:
        """Do so on rows of a matrix that was checked as a whole."""
        samples, length = batch.shape
        mean_over = self.mean_over or length
        sparse = self.sparse
        self._begin_update(samples * mean_over)
        cells = by_columns(batch)
        inputs = cells._replace(ratings=self._dropped(sparse.scaled(cells)))
        sums = sparse.sums(inputs)
        if self.leave_one_out:
            total, d_sums, d_own = self._train_left_out(cells, inputs, sums)
        else:
            hidden = sparse.layers.forward(sums, self.rng)
            total, errors = self._errors(sparse.decode(hidden, cells), cells.ratings)
            d_hidden = self._train_decoder(cells, errors, hidden)
            d_sums, d_own = sparse.layers.backward(d_hidden), _NONE
        self._train_encoder(inputs, d_sums, d_own)
        self._train_deeper()
        self._total += total / mean_over
        self._samples += samples
        self._examples += samples * length

    @np.errstate(over="ignore")
    def finish(self) -> tuple[float, int]:
        """End an epoch: the Gluon network has the weights."""
        self.sparse.write()
        total = np.array([self._total], np.float32)
        self.sparse.workers.sum(total)
        self._total = float(total[0])
        return super().finish()

    def _dropped(self, ratings: np.ndarray) -> np.ndarray:
        """Drop a share of the inputs, if the network asks for it."""
        rate = getattr(self.net, "input_rate", 0)
        if not rate:
            return ratings
        # All workers draw for all, whose columns follow on one another.
        first, size = self.sparse.workers.span(ratings.size)
        mask = dropout_mask((size,), rate, self.rng)
        return np.asarray(ratings * mask[first : first + ratings.size])

    def _errors(
        self, outputs: np.ndarray, ratings: np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Compute the sum of the losses, and their gradient at the outputs."""
        act = self.net.decoder.act
        is_linear = getattr(act, "linear", act is None)
        loss: Any = self.loss
        if is_linear and type(loss) is gluon.loss.L2Loss and loss._weight == 1:
            errors = outputs - ratings
            return float(np.square(errors, dtype=float).sum()) / 2, errors
        if not outputs.size:  # MXNet computes nothing on empty arrays
            return 0.0, outputs
        values = mx.np.array(outputs)
        values.attach_grad()
        with autograd.record():
            found = act(values) if act else values
            losses = loss(found, mx.np.array(ratings))
        losses.backward()
        return float(losses.asnumpy().sum(dtype=float)), view(values.grad)

    def _train_decoder(
        self, cells: Cells, errors: np.ndarray, hidden: np.ndarray
    ) -> np.ndarray:
        """Update the decoder; return the gradient of the last hidden layer."""
        d_hidden = np.zeros((cells.num_shares, *hidden.shape), np.float32)
        arrays = cells, errors, hidden, *self._layer("decoder"), d_hidden
        in_shares(_train_decoder, cells.num_shares, *arrays)
        return self._sum(d_hidden)

    def _train_left_out(
        self, cells: Cells, inputs: Cells, sums: np.ndarray
    ) -> tuple[float, np.ndarray, np.ndarray]:
        """Do as forward and `_train_decoder`, each rating predicted from the others.

        The last array is what the encoder's weights learn of the inputs left out.
        """
        weight = self._weights["encoder.weight"].value
        d_sums = np.zeros((cells.num_shares, *sums.shape), np.float32)
        d_own = np.empty_like(weight)
        layers = weight, *self._layer("decoder")
        arrays = cells, inputs.ratings, sums, layers
        losses = in_shares(_train_left_out, cells.num_shares, *arrays, d_sums, d_own)
        return float(sum(losses)), self._sum(d_sums), d_own

    def _train_encoder(
        self, inputs: Cells, d_sums: np.ndarray, d_own: np.ndarray
    ) -> None:
        """Update the encoder by the gradient of its sums."""
        (weight, bias), (rates, bias_rates) = self._layer("encoder")
        train_columns(inputs, d_sums, weight, rates, d_own)
        call(_update, bias, d_sums.sum(axis=0), bias_rates)

    def _train_deeper(self) -> None:
        """Update the layers between, whose gradients are in Gluon's arrays."""
        for name, parameter in self._parameters.items():
            if name.startswith("deeper"):
                weights = (array.reshape(-1) for array in self._weights[name])
                gradient = view(parameter.grad(self.devices[0])).reshape(-1)
                call(_update, Weights(*weights), gradient, self._rates(name))

    def _sum(self, shares: np.ndarray) -> np.ndarray:
        """Add up over threads and workers."""
        total = add_shares(shares)
        self.sparse.workers.sum(total)
        return total

    def _begin_update(self, divisor: float) -> None:
        self.num_updates += 1
        optimizer = self.trainer.optimizer
        optimizer.num_update = self.num_updates  # which its schedule goes by
        correction = (1 - optimizer.beta2**self.num_updates) ** 0.5
        correction /= 1 - optimizer.beta1**self.num_updates
        self._base = Rates(
            optimizer.learning_rate * correction,
            optimizer.wd,
            optimizer.beta1,
            optimizer.beta2,
            optimizer.epsilon,
            1 / divisor,
        )

    def _rates(self, name: str) -> Rates:
        wd = self._base.wd * self._parameters[name].wd_mult
        base = self._base._replace(wd=wd)
        return Rates(*map(np.float32, base))

    def _layer(self, name: str) -> tuple[tuple[Weights, ...], tuple[Rates, ...]]:
        """Return weight and bias of a layer, and the rates of their updates."""
        names = f"{name}.weight", f"{name}.bias"
        weights = tuple(self._weights[one] for one in names)
        return weights, tuple(self._rates(one) for one in names)


_NONE = np.empty((0, 0), np.float32)


def train_columns(
    inputs: Cells,
    d_sums: np.ndarray,
    weight: Weights,
    rates: Rates,
    d_own: np.ndarray = _NONE,
) -> None:
    """Update an encoder's weight by the gradient of its sums, column by column."""
    check_fit(inputs, len(d_sums), len(weight.value))
    arrays = inputs, d_sums, d_own, weight, rates
    in_shares(_train_encoder, inputs.num_shares, *arrays)


@inlined
def adam(weights, at, gradient, rates):  # type: ignore[no-untyped-def]
    """Update a row, or a slice, of a parameter."""
    value, mean, var = weights.value[at], weights.mean[at], weights.var[at]
    one = np.float32(1)
    for i in range(value.size):
        g = gradient[i] * rates.rescale + rates.wd * value[i]
        mean[i] = rates.beta1 * mean[i] + (one - rates.beta1) * g
        var[i] = rates.beta2 * var[i] + (one - rates.beta2) * g * g
        value[i] -= rates.lr * mean[i] / (np.sqrt(var[i]) + rates.epsilon)


@compiled
def _update(weights, gradient, rates):  # type: ignore[no-untyped-def]
    adam(weights, slice(0, gradient.size), gradient, rates)


@compiled
def _train_decoder(share, cells, errors, hidden, layer, rates, d_hidden):  # type: ignore[no-untyped-def]
    weight, bias = layer
    gradient = np.empty(hidden.shape[1], np.float32)
    first, stop = cells.bounds[share], cells.bounds[share + 1]
    d_bias = np.empty(stop - first, np.float32)
    for column in range(first, stop):
        its = slice(cells.starts[column], cells.starts[column + 1])
        rows, error = cells.rows[its], errors[its]
        add_to_rows(d_hidden[share], rows, error, weight.value[column])
        gradient[:] = 0
        add_rows(hidden, rows, error, gradient)
        adam(weight, column, gradient, rates[0])
        d_bias[column - first] = error.sum()
    adam(bias, slice(first, stop), d_bias, rates[1])


@compiled
def _train_encoder(share, cells, d_sums, d_own, weight, rates):  # type: ignore[no-untyped-def]
    gradient = np.empty(d_sums.shape[1], np.float32)
    for column in range(cells.bounds[share], cells.bounds[share + 1]):
        its = slice(cells.starts[column], cells.starts[column + 1])
        gradient[:] = 0
        if d_own.size:
            gradient[:] = d_own[column]
        add_rows(d_sums, cells.rows[its], cells.ratings[its], gradient)
        adam(weight, column, gradient, rates)


@compiled
def _train_left_out(share, cells, inputs, sums, layers, d_sums, d_own):  # type: ignore[no-untyped-def]
    encoder, (weight, bias), rates = layers
    one, size = np.float32(1), sums.shape[1]
    d_v, units = np.empty(size, np.float32), np.empty(size, np.float32)
    powers = np.empty(size, np.int32)
    first, stop = cells.bounds[share], cells.bounds[share + 1]
    d_bias, loss = np.zeros(stop - first, np.float32), 0.0
    for column in range(first, stop):
        w, v, d_w = encoder[column], weight.value[column], d_own[column]
        d_w[:] = d_v[:] = 0
        for k in range(cells.starts[column], cells.starts[column + 1]):
            r, s, d_s = inputs[k], sums[cells.rows[k]], d_sums[share, cells.rows[k]]
            for i in range(size):
                units[i] = s[i] - r * w[i]
            sigmoid(units, powers)
            error = bias.value[column] - cells.ratings[k]
            for i in range(size):
                error += units[i] * v[i]
            loss += error * error / 2
            d_bias[column - first] += error
            for i in range(size):
                slope = error * v[i] * units[i] * (one - units[i])
                d_v[i] += error * units[i]
                d_s[i] += slope
                d_w[i] -= r * slope
        adam(weight, column, d_v, rates[0])
    adam(bias, slice(first, stop), d_bias, rates[1])
    return loss
