r"""Steps of training in which each rating is predicted from the others of its row.

The loss at an observed cell is that of a network whose input lacks this very rating,
which the network could copy otherwise. Through one layer of sigmoid units that takes
but a sigmoid more: with :math:`s_i` what the encoder makes of row *i*, :math:`W_u` and
:math:`V_u` the weights of column *u* and :math:`c_u` its bias,

.. math:: \hat r_{iu} = V_u \cdot \sigma(s_i - r_{iu} W_u) + c_u

so the cost still follows the ratings times the hidden units. A prediction elsewhere is
that of any `AutoRec`, whose input does not hold what it is asked for.

References
----------
H. Steck, "Autoencoders that don't overfit towards the Identity", NeurIPS 2020, on why
autoencoders that predict should not copy, and dropping inputs alone does not keep them
from it. H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019,
whose linear model has a diagonal of zeros to this end; through a nonlinear layer each
cell takes a hidden layer of its own, which is what we do.
"""

from __future__ import annotations

import numpy as np

from ..model import AutoRec
from .adam import adam
from .arrays import aligned, view
from .between import sigmoid
from .compiled import in_shares
from .fused import FusedStep, Learner, begin_sums, train_bias, update_part
from .parcels import FineParcel, RoundedParcel
from .products import Cells, add_rows, check_fit, product
from .rows import multiply


class LeaveOneOutStep(FusedStep):
    """A `FusedStep` in which each rating is predicted from the others of its row.

    It is for networks of one sigmoid layer without hidden dropout, a linear output and
    half the squared error.
    """

    def learner(self, net: AutoRec) -> Learner:
        """Make what trains a network."""
        return _LeaveOneOut(net, self)


class _LeaveOneOut(Learner):
    """A network that a `LeaveOneOutStep` trains."""

    def __init__(self, net: AutoRec, step: FusedStep) -> None:
        super().__init__(net, step)
        self.sums = aligned(0, 0)

    def train(self, cells: Cells, step: FusedStep) -> float:
        """Begin a step on a batch, as `Learner.train`."""
        net, num_shares = self.net, cells.num_shares
        inputs = cells._replace(ratings=step.inputs(net, cells))
        encoder = self._layer(net.encoder, len(cells.starts) - 1)
        weight, bias = encoder.weight.weight, encoder.bias.weight
        if len(self.sums) != cells.num_rows:
            self.sums = aligned(cells.num_rows, bias.size)
        sums = self.sums
        parts = self._parts(num_shares, sums)
        multiply(inputs, weight, parts)
        begin_sums(parts, step, RoundedParcel)().sum(axis=0, out=sums)
        sums[:, : bias.size] += bias
        decoder = self._layer(net.decoder, bias.size)
        check_fit(cells, len(sums), len(decoder.weight.weight))
        # What the encoder's weights learn of the inputs that were left out, until they
        # learn the rest; Gluon has made room for it.
        own = view(net.encoder.weight.grad(self.device)).reshape(weight.shape)
        arrays = cells, inputs.ratings, sums, weight, decoder, self._rates(net.decoder)
        losses = in_shares(_train_decoder, num_shares, *arrays, parts, own)
        finish = begin_sums(parts, step, FineParcel)

        def end() -> None:
            d_sums, rates = finish().sum(axis=0), self._rates(net.encoder)
            in_shares(_train_encoder, num_shares, inputs, d_sums, own, encoder, rates)

        self._rest = end
        return float(sum(losses))


@product
def _train_decoder(  # type: ignore[no-untyped-def]
    share, cells, inputs, sums, encoder, decoder, rates, d_sums, own
):
    weight, bias = decoder
    one, size, num_hidden = np.float32(1), sums.shape[1], encoder.shape[1]
    # As long as a row of `sums`, so that no part of a row is left over.
    w, v = np.zeros(size, np.float32), np.zeros(size, np.float32)
    d_w, d_v = np.empty(size, np.float32), np.empty(size, np.float32)
    units, powers = np.empty(size, np.float32), np.empty(size, np.int32)
    first, stop = cells.bounds[share], cells.bounds[share + 1]
    d_bias = np.zeros(stop - first, np.float32)
    loss = 0.0
    d_sums[share] = 0
    for column in range(first, stop):
        w[:num_hidden], v[:num_hidden] = encoder[column], weight.weight[column]
        d_w[:] = 0
        d_v[:] = 0
        for k in range(cells.starts[column], cells.starts[column + 1]):
            r, s, d_s = inputs[k], sums[cells.rows[k]], d_sums[share, cells.rows[k]]
            for i in range(size):
                units[i] = s[i] - r * w[i]
            sigmoid(units, powers)
            error = bias.weight[column] - cells.ratings[k]
            for i in range(size):
                error += units[i] * v[i]
            loss += error * error / 2
            d_bias[column - first] += error
            for i in range(size):
                slope = error * v[i] * units[i] * (one - units[i])
                d_v[i] += error * units[i]
                d_s[i] += slope
                d_w[i] -= r * slope
        own[column] = d_w[:num_hidden]
        adam(
            weight.weight[column],
            d_v,
            weight.mean[column],
            weight.var[column],
            rates.weight,
        )
    update_part(bias, first, stop, d_bias, rates.bias)
    return loss


@product
def _train_encoder(share, cells, d_sums, own, encoder, rates):  # type: ignore[no-untyped-def]
    weight, mean, var = encoder.weight
    gradient = np.zeros(d_sums.shape[1], np.float32)
    for column in range(cells.bounds[share], cells.bounds[share + 1]):
        its = slice(cells.starts[column], cells.starts[column + 1])
        gradient[: weight.shape[1]] = own[column]
        add_rows(d_sums, cells.rows[its], cells.ratings[its], gradient)
        adam(weight[column], gradient, mean[column], var[column], rates.weight)
    train_bias(share, len(cells.bounds) - 1, d_sums, encoder.bias, rates.bias)
