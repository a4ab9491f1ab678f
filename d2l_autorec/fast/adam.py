"""Adam, whose update on a CPU is one compiled loop."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from .._mxnet import mx
from .arrays import view
from .compiled import parallel


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
        if {array.shape for array in (grad, *state)} != {weight.shape}:
            raise ValueError(f"gradient and state are not shaped like {weight.shape}")
        arrays = (view(a).ravel() for a in (weight, grad, *state))
        _update(*arrays, *map(np.float32, settings))


FASTER = {"adam": "fusedadam"}  # what takes the place of an MXNet optimizer


@parallel(error_model="numpy")
def _update(  # type: ignore[no-untyped-def]
    weight, grad, mean, var, lr, wd, beta1, beta2, epsilon, rescale_grad
):
    one = np.float32(1)
    for i in numba.prange(weight.size):
        g = grad[i] * rescale_grad + wd * weight[i]
        mean[i] = beta1 * mean[i] + (one - beta1) * g
        var[i] = beta2 * var[i] + (one - beta2) * g * g
        weight[i] -= lr * mean[i] / (np.sqrt(var[i]) + epsilon)
