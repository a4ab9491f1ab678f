"""Optimizers: the AutoRec paper's Rprop, which MXNet lacks, and a faster Adam.

References
----------
M. Riedmiller, H. Braun, "A Direct Adaptive Method for Faster Backpropagation Learning:
The RPROP Algorithm", IEEE International Conference on Neural Networks, 1993. C. Igel,
M. Hüsken, "Improving the Rprop Learning Algorithm", ICSC Symposium on Neural
Computation, 2000.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as onp

from ._mxnet import mx
from .compiled import parallel, view


@mx.optimizer.register
class Rprop(mx.optimizer.Optimizer):
    r"""Resilient propagation, for gradients of the whole data at once.

    Parameters
    ----------
    learning_rate : float
        Size of the first step.
    **kwargs
        As for `mxnet.optimizer.Optimizer`.

    Notes
    -----
    Of a gradient only the signs count. Each weight has a step size of its own, which
    grows by 1.2 while the sign stays, and shrinks by 0.5 when it changes; the weight
    then rests for one step (the variant without backtracking of Igel and Hüsken, 2000,
    with the factors of Riedmiller and Braun, 1993). Signs that change from batch to
    batch would shrink the steps to nothing, so a batch has to be all of the rows.
    """

    grow, shrink = 1.2, 0.5
    smallest, largest = 1e-6, 50.0

    def __init__(self, learning_rate: float = 0.001, **kwargs: Any) -> None:
        super().__init__(learning_rate=learning_rate, **kwargs)

    def create_state(self, index: int, weight: mx.nd.NDArray) -> tuple[Any, Any]:
        """Make the last gradient and the step sizes of a parameter.

        Parameters
        ----------
        index : int
            Of the parameter.
        weight : mxnet.nd.NDArray
            The parameter.

        Returns
        -------
        tuple of mxnet.nd.NDArray
            Shaped like `weight`.
        """
        return mx.nd.zeros_like(weight), mx.nd.full(
            weight.shape, self.lr, ctx=weight.context
        )

    def update(
        self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: Any
    ) -> None:
        """Update a parameter in place.

        Parameters
        ----------
        index : int
            Of the parameter.
        weight, grad : mxnet.nd.NDArray
            The parameter and its gradient.
        state : tuple of mxnet.nd.NDArray
            As `create_state` made it.
        """
        last, size = state
        self._update_count(index)
        grad = grad * self.rescale_grad + self._get_wd(index) * weight
        agreement = mx.nd.sign(grad * last)
        grown, shrunk = agreement > 0, agreement < 0
        factor = 1 + (self.grow - 1) * grown + (self.shrink - 1) * shrunk
        size[:] = mx.nd.clip(size * factor, self.smallest, self.largest)
        last[:] = grad * (1 - shrunk)
        weight -= mx.nd.sign(last) * size


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
            or weight.dtype != onp.float32
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
        arrays = (view(a).ravel() for a in (weight, grad, *state))
        _update(*arrays, *map(onp.float32, settings))


FASTER = {"adam": "fusedadam"}  # what takes the place of an MXNet optimizer


@parallel(error_model="numpy")
def _update(  # type: ignore[no-untyped-def]
    weight, grad, mean, var, lr, wd, beta1, beta2, epsilon, rescale_grad
):
    one = onp.float32(1)
    for i in numba.prange(weight.size):
        g = grad[i] * rescale_grad + wd * weight[i]
        mean[i] = beta1 * mean[i] + (one - beta1) * g
        var[i] = beta2 * var[i] + (one - beta2) * g * g
        weight[i] -= lr * mean[i] / (onp.sqrt(var[i]) + epsilon)
