"""Adam, whose update on a CPU is one compiled loop."""

from __future__ import annotations

from typing import Any, NamedTuple

import numba
import numpy as np

from .._mxnet import mx
from .arrays import view
from .compiled import compiled, in_shares, num_threads_for


class Rates(NamedTuple):
    """The numbers of one update by Adam.

    Attributes
    ----------
    lr, wd, beta1, beta2, epsilon, rescale_grad : numpy.float32
        As MXNet's Adam has them; `lr` with the correction of the bias.
    """

    lr: np.float32
    wd: np.float32
    beta1: np.float32
    beta2: np.float32
    epsilon: np.float32
    rescale_grad: np.float32


@mx.optimizer.register
class FusedAdam(mx.optimizer.Adam):
    """MXNet's Adam, whose update of float32 arrays on a CPU is one compiled loop.

    MXNet's own operator takes a root and a quotient at a time, which costs it a fifth
    of a training step. Settings, state and, up to rounding, results are the same; what
    the loop does not do (a GPU, other types, clipped gradients) is left to the
    operator.
    """

    def update(self, index: int, weight: Any, grad: Any, state: Any) -> None:
        """Update a weight in place.

        Parameters
        ----------
        index : int
            Of the parameter.
        weight, grad : mxnet.nd.NDArray, of one shape
            The parameter, and the gradient of the loss.
        state : tuple of two mxnet.nd.NDArray
            Running means of the gradient and of its square.
        """
        if (
            self.clip_gradient
            or weight.context.device_type != "cpu"
            or weight.dtype != np.float32
            or grad.stype != "default"
        ):
            super().update(index, weight, grad, state)
            return
        if {array.shape for array in (grad, *state)} != {weight.shape}:
            raise ValueError(f"gradient and state are not shaped like {weight.shape}")
        arrays = (view(a).ravel() for a in (weight, grad, *state))
        size = num_threads_for(weight.size, 2**14)
        bounds = np.arange(size + 1) * weight.size // size
        in_shares(_update, size, bounds, *arrays, self.rates(index))

    def rates(self, index: int) -> Rates:
        """Begin the next update of a parameter: count it, and say how long it is."""
        self._update_count(index)
        step = self._index_update_count[index]
        lr = self._get_lr(index)
        lr *= (1 - self.beta2**step) ** 0.5 / (1 - self.beta1**step)
        settings = (
            lr,
            self._get_wd(index),
            self.beta1,
            self.beta2,
            self.epsilon,
            self.rescale_grad,
        )
        return Rates(*map(np.float32, settings))


FASTER = {"adam": "fusedadam"}  # what takes the place of an MXNet optimizer


@numba.njit(error_model="numpy", fastmath={"contract"})
def adam(weight, grad, mean, var, rates):  # type: ignore[no-untyped-def]
    """Update float32 arrays of one length."""
    one = np.float32(1)
    for i in range(weight.size):
        g = grad[i] * rates.rescale_grad + rates.wd * weight[i]
        mean[i] = rates.beta1 * mean[i] + (one - rates.beta1) * g
        var[i] = rates.beta2 * var[i] + (one - rates.beta2) * g * g
        weight[i] -= rates.lr * mean[i] / (np.sqrt(var[i]) + rates.epsilon)


@compiled(error_model="numpy")
def _update(share, bounds, weight, grad, mean, var, rates):  # type: ignore[no-untyped-def]
    its = slice(bounds[share], bounds[share + 1])
    adam(weight[its], grad[its], mean[its], var[its], rates)
