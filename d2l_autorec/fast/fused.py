"""A step of training whose cost follows the ratings, each weight updated in place.

With the encoder's weights stored as users x hidden units, a rating touches one
contiguous row of them, as it does of the decoder's. So forward and backward take time
for ratings x hidden units, and nothing takes time for items x users. A row's gradient
goes into Adam's update as soon as it is known, and is never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numba
import numpy as np
import scipy.sparse as sp

from .._mxnet import autograd, gluon, mx, one_at_a_time
from ..model import AutoRec
from .adam import FusedAdam, Rates, adam
from .arrays import on_device, state_of, view, view_grad
from .cells import activate, decode, is_known, members
from .rows import (
    Cells,
    by_columns,
    compiled,
    corrupted,
    deepen,
    encoder_sums,
    initialized,
    is_layerwise,
    transpose,
    transposed,
)
from .step import SparseStep


class Moments(NamedTuple):
    """A layer's weights and what Adam keeps of their gradients.

    Attributes
    ----------
    weight, mean, var : numpy.ndarray of float32, shape (num_users, num_hidden)
    """

    weight: np.ndarray
    mean: np.ndarray
    var: np.ndarray


class FusedStep(SparseStep):
    """A `SparseStep` by Adam on a CPU, for networks that it `fits`.

    From an epoch's first batch until `finish`, the encoder's weights and their moments
    are kept here, transposed; what network and trainer have of them is older.

    Parameters
    ----------
    *args
        As for `SparseStep`.
    """

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
        self._device = self.devices[0]
        self._encoders: dict[AutoRec, Moments] = {}

    @one_at_a_time
    def __call__(self, batch: sp.csr_matrix) -> None:
        """Train on a batch of rows of ratings."""
        samples, length = batch.shape
        mean_over = self.cells_per_row or length
        optimizer = self.trainer.optimizer
        optimizer.rescale_grad = self.trainer._scale / (samples * mean_over)
        cells = by_columns(batch)
        for net in members(self.net):
            self._total += self._train(net, cells) / mean_over
        # What is left: those that have a gradient.
        self.trainer.step(samples * mean_over, ignore_stale_grad=True)
        self._samples += samples
        self._examples += samples * length

    def finish(self) -> tuple[float, int]:
        """End an epoch; network and trainer are up to date again."""
        for net, encoder in self._encoders.items():
            for own, array in zip(encoder, self._moments(net.encoder.weight)):
                transpose(own, array)
        self._encoders = {}
        return super().finish()

    def _train(self, net: AutoRec, cells: Cells) -> float:
        """Update the large weights; find the others' gradients, and the losses' sum."""
        with autograd.train_mode():
            inputs = cells._replace(ratings=corrupted(net, cells.ratings))
        encoder = self._encoder(net, len(cells.starts) - 1)
        bias = view(net.encoder.bias.data(self._device))
        sums = on_device(encoder_sums(inputs, encoder.weight, bias), self._device)
        sums.attach_grad()
        with autograd.record():
            hidden = deepen(net, sums)
        total, d_hidden = self._train_decoder(net.decoder, cells, hidden)
        hidden.backward(on_device(d_hidden, self._device))
        d_sums = view(sums.grad)
        _train_encoder(inputs, d_sums, encoder, self._rates(net.encoder.weight))
        view_grad(net.encoder.bias, self._device)[:] = d_sums.sum(axis=0)
        return total

    def _encoder(self, net: AutoRec, length: int) -> Moments:
        """Return a network's first layer as it is kept during an epoch."""
        if net not in self._encoders:
            initialized(net.encoder, mx.np.zeros((1, length), ctx=self._device))
            arrays = self._moments(net.encoder.weight)
            self._encoders[net] = Moments(*map(transposed, arrays))
        return self._encoders[net]

    def _train_decoder(
        self, layer: gluon.nn.Dense, cells: Cells, hidden: mx.np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Update a last layer; return the losses' sum, and the gradient of `hidden`."""
        initialized(layer, hidden)
        total, d_outputs = 0.0, None
        if not (self._squared and getattr(layer.act, "linear", layer.act is None)):
            total, d_outputs = self._losses(layer, cells, hidden)
        size = len(cells.bounds) - 1
        d_hidden = np.empty((size, *hidden.shape), np.float32)
        losses = np.empty(size)
        _train_decoder(
            cells,
            d_outputs,
            view(hidden),
            self._moments(layer.weight),
            view(layer.bias.data(self._device)),
            self._rates(layer.weight),
            d_hidden,
            view_grad(layer.bias, self._device),
            losses,
        )
        return total + float(losses.sum()), d_hidden.sum(axis=0)

    @property
    def _squared(self) -> bool:
        """Whether the loss is half the squared error, as the compiled loop has it."""
        loss: Any = self.loss
        return type(loss) is gluon.loss.L2Loss and loss._weight == 1

    def _losses(
        self, layer: gluon.nn.Dense, cells: Cells, hidden: mx.np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Let MXNet compute any other loss: its sum, and its gradient at the cells."""
        if not cells.ratings.size:  # MXNet computes nothing on empty arrays
            return 0.0, cells.ratings
        outputs = decode(layer, hidden, cells)
        outputs.attach_grad()
        with autograd.record():
            found = activate(layer, outputs)
            losses = self.loss(found, on_device(cells.ratings, self._device))
        losses.backward()
        return float(losses.asnumpy().sum(dtype=float)), view(outputs.grad)

    def _moments(self, parameter: gluon.Parameter) -> Moments:
        """See a parameter and its moments, as network and trainer have them."""
        weight = view(parameter.data(self._device))
        return Moments(weight, *map(view, state_of(self.trainer, parameter)))

    def _rates(self, parameter: gluon.Parameter) -> Rates:
        rates: Rates = self.trainer.optimizer.rates(
            self.trainer._param2idx[parameter.name]
        )
        return rates


@compiled
def _train_encoder(cells, d_sums, encoder, rates):  # type: ignore[no-untyped-def]
    for share in numba.prange(len(cells.bounds) - 1):
        gradient = np.empty(d_sums.shape[1], np.float32)
        for column in range(cells.bounds[share], cells.bounds[share + 1]):
            gradient[:] = 0
            for cell in range(cells.starts[column], cells.starts[column + 1]):
                row, rating = cells.rows[cell], cells.ratings[cell]
                for k in range(d_sums.shape[1]):
                    gradient[k] += rating * d_sums[row, k]
            adam(
                encoder.weight[column],
                gradient,
                encoder.mean[column],
                encoder.var[column],
                rates,
            )


@compiled
def _train_decoder(  # type: ignore[no-untyped-def]
    cells, d_outputs, hidden, decoder, bias, rates, d_hidden, d_bias, losses
):
    weight = decoder.weight
    for share in numba.prange(len(cells.bounds) - 1):
        d_hidden[share] = 0
        gradient = np.empty(weight.shape[1], np.float32)
        loss = 0.0
        for column in range(cells.bounds[share], cells.bounds[share + 1]):
            gradient[:] = 0
            d_bias[column] = 0
            for cell in range(cells.starts[column], cells.starts[column + 1]):
                row = cells.rows[cell]
                if d_outputs is None:
                    error = bias[column] - cells.ratings[cell]
                    for k in range(weight.shape[1]):
                        error += hidden[row, k] * weight[column, k]
                    loss += error * error / 2
                else:
                    error = d_outputs[cell]
                d_bias[column] += error
                for k in range(weight.shape[1]):
                    gradient[k] += error * hidden[row, k]
                    d_hidden[share, row, k] += error * weight[column, k]
            adam(
                weight[column],
                gradient,
                decoder.mean[column],
                decoder.var[column],
                rates,
            )
        losses[share] = loss
