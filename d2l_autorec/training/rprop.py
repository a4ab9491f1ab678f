"""Rprop, the optimizer of the AutoRec paper, which MXNet lacks.

References
----------
M. Riedmiller, H. Braun, "A Direct Adaptive Method for Faster Backpropagation Learning:
The RPROP Algorithm", IEEE International Conference on Neural Networks, 1993. C. Igel,
M. Hüsken, "Improving the Rprop Learning Algorithm", ICSC Symposium on Neural
Computation, 2000.
"""

from __future__ import annotations

from typing import Any

from .._mxnet import mx


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
