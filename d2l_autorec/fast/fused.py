"""A step of training whose cost follows the ratings, each weight updated in place.

With the encoder's weights stored as users x hidden units, a rating touches one
contiguous row of them, as it does of the decoder's. So forward and backward take time
for ratings x hidden units, and nothing takes time for items x users. A row's gradient
goes into Adam's update as soon as it is known, and is never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .._mxnet import autograd, gluon, mx, one_at_a_time
from ..data import checked
from ..model import AutoRec
from .adam import FusedAdam, Rates, adam
from .arrays import state_of, view, view_grad
from .cells import is_known, losses_at, members
from .compiled import in_shares
from .products import (
    Cells,
    add_rows,
    add_to_rows,
    by_columns,
    check_fit,
    dot_rows,
    part,
    product,
)
from .rows import AddUp, add_up, corrupted, deepen, initialized, is_layerwise
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

    Attributes
    ----------
    share : callable or None
        Adds up an array over workers who have some of the users each.
    """

    share: AddUp | None = None

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
        self._taken: set[AutoRec] = set()
        self._arrays: dict[str, mx.np.ndarray] = {}

    @one_at_a_time
    def __call__(self, batch: sp.csr_matrix) -> None:
        """Train on a batch of rows of ratings."""
        samples, length = batch.shape
        mean_over = self.cells_per_row or length
        optimizer = self.trainer.optimizer
        optimizer.rescale_grad = self.trainer._scale / (samples * mean_over)
        cells = by_columns(checked(batch))
        for net in members(self.net):
            self._total += self._train(net, cells) / mean_over
        # What is left: those that have a gradient.
        self.trainer.step(samples * mean_over, ignore_stale_grad=True)
        self._samples += samples
        self._examples += samples * length

    def finish(self) -> tuple[float, int]:
        """End an epoch; network and trainer are up to date again."""
        for net in self._taken:
            for own, array in zip(self._encoders[net], self._moments(net.encoder)):
                array[:] = own.T
        self._taken = set()
        return super().finish()

    def corrupted(self, net: AutoRec, ratings: np.ndarray) -> np.ndarray:
        """Drop a share of the inputs, where a network asks for it."""
        return corrupted(net, ratings)

    def _train(self, net: AutoRec, cells: Cells) -> float:
        """Update the large weights; find the others' gradients, and the losses' sum."""
        with autograd.train_mode():
            inputs = cells._replace(ratings=self.corrupted(net, cells.ratings))
        encoder = self._encoder(net, len(cells.starts) - 1)
        shape = cells.num_shares, cells.num_rows, encoder.weight.shape[1]
        sums = self._array("sums", shape[1:])
        parts, bias = self._array("parts", shape), net.encoder.bias.data(self._device)
        arrays = view(bias), view(parts), view(sums)
        add_up(inputs, encoder.weight, *arrays, self.share)
        if sums.grad is None:
            sums.attach_grad()
        with autograd.record():
            hidden = deepen(net, sums)
        initialized(net.decoder, hidden)
        check_fit(cells, len(hidden), net.decoder.weight.shape[0])
        total, errors = 0.0, None
        if not self._is_squared(net.decoder):
            total, errors = self._losses(net.decoder, cells, hidden)
        d_hidden = self._array("d_hidden", hidden.shape)
        total += self._train_decoder(net.decoder, cells, errors, hidden, d_hidden)
        hidden.backward(d_hidden)
        d_sums = view(sums.grad)
        rates = self._rates(net.encoder)
        in_shares(_train_encoder, cells.num_shares, inputs, d_sums, encoder, rates)
        d_sums.sum(axis=0, out=view_grad(net.encoder.bias, self._device))
        return total

    def _encoder(self, net: AutoRec, length: int) -> Moments:
        """Return a network's first layer as it is kept during an epoch."""
        if net not in self._taken:
            initialized(net.encoder, mx.np.zeros((1, length), ctx=self._device))
            arrays = self._moments(net.encoder)
            if net not in self._encoders:
                empty = (np.empty(array.shape[::-1], np.float32) for array in arrays)
                self._encoders[net] = Moments(*empty)
            for own, array in zip(self._encoders[net], arrays):
                own[:] = array.T
            self._taken.add(net)
        return self._encoders[net]

    def _train_decoder(
        self,
        layer: gluon.nn.Dense,
        cells: Cells,
        errors: np.ndarray | None,
        hidden: mx.np.ndarray,
        d_hidden: mx.np.ndarray,
    ) -> float:
        """Update a last layer, write the gradient of `hidden`; return the loss."""
        parts = view(self._array("parts", (cells.num_shares, *hidden.shape)))
        losses = in_shares(
            _train_decoder,
            cells.num_shares,
            cells,
            errors,
            view(hidden),
            self._moments(layer),
            view(layer.bias.data(self._device)),
            self._rates(layer),
            parts,
            view_grad(layer.bias, self._device),
        )
        parts.sum(axis=0, out=view(d_hidden))
        if self.share:
            self.share(view(d_hidden))
        return float(sum(losses))

    def _array(self, name: str, shape: tuple[int, ...]) -> mx.np.ndarray:
        """Return an array to write to, the same one each time as long as it fits."""
        if name not in self._arrays or self._arrays[name].shape != shape:
            self._arrays[name] = mx.np.empty(shape, ctx=self._device)
        return self._arrays[name]

    def _is_squared(self, layer: gluon.nn.Dense) -> bool:
        """Tell whether it is half the squared error that a layer's outputs meet."""
        loss: Any = self.loss
        half = type(loss) is gluon.loss.L2Loss and loss._weight == 1
        return half and getattr(layer.act, "linear", layer.act is None)

    def _losses(
        self, layer: gluon.nn.Dense, cells: Cells, hidden: mx.np.ndarray
    ) -> tuple[float, np.ndarray]:
        """Let MXNet compute any other loss: its sum, and its gradient at the cells."""
        if not cells.ratings.size:  # MXNet computes nothing on empty arrays
            return 0.0, cells.ratings
        losses, grad = losses_at(layer, hidden, cells, self.loss)
        return float(losses.asnumpy().sum(dtype=float)), view(grad)

    def _moments(self, layer: gluon.nn.Dense) -> Moments:
        """See a layer's weights and moments, as network and trainer have them."""
        weight = view(layer.weight.data(self._device))
        return Moments(weight, *map(view, state_of(self.trainer, layer.weight)))

    def _rates(self, layer: gluon.nn.Dense) -> Rates:
        rates: Rates = self.trainer.optimizer.rates(
            self.trainer._param2idx[layer.weight.name]
        )
        return rates


@product
def _train_encoder(share, cells, d_sums, encoder, rates):  # type: ignore[no-untyped-def]
    gradient = np.empty(d_sums.shape[1], np.float32)
    for column in range(cells.bounds[share], cells.bounds[share + 1]):
        its = slice(cells.starts[column], cells.starts[column + 1])
        gradient[:] = 0
        add_rows(d_sums, cells.rows[its], cells.ratings[its], gradient)
        _update(encoder, column, gradient, rates)


@product
def _train_decoder(  # type: ignore[no-untyped-def]
    share, cells, errors, hidden, decoder, bias, rates, d_hidden, d_bias
):
    gradient = np.empty(hidden.shape[1], np.float32)
    some = np.empty(hidden.shape[0], np.float32)
    loss = 0.0
    d_hidden[share] = 0
    for column in range(cells.bounds[share], cells.bounds[share + 1]):
        its = slice(cells.starts[column], cells.starts[column + 1])
        rows, weight = cells.rows[its], decoder.weight[column]
        error = some[: len(rows)]
        if errors is None:
            dot_rows(hidden, rows, weight, error)
            error += bias[column] - cells.ratings[its]
            loss += (error * error).sum() / 2
        else:
            error[:] = errors[its]
        gradient[:] = 0
        add_rows(hidden, rows, error, gradient)
        d_bias[column] = error.sum()
        add_to_rows(d_hidden[share], rows, error, weight)
        _update(decoder, column, gradient, rates)
    return loss


@part
def _update(moments, column, gradient, rates):  # type: ignore[no-untyped-def]
    weight, mean, var = moments
    adam(weight[column], gradient, mean[column], var[column], rates)
