"""Rprop, the optimizer of the AutoRec paper, and the state of Gluon's optimizers.

References
----------
M. Riedmiller, H. Braun, "A Direct Adaptive Method for Faster Backpropagation Learning:
The RPROP Algorithm", IEEE International Conference on Neural Networks, 1993. C. Igel,
M. Hüsken, "Improving the Rprop Learning Algorithm", ICSC Symposium on Neural
Computation, 2000.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._mxnet import gluon, mx
from ..fast import fill


@mx.optimizer.register
class Rprop(mx.optimizer.Optimizer):
    """Resilient propagation, for gradients of the whole data at once."""

    # Of a gradient only the signs count. Each weight has a step size of its own, which
    # grows while the sign stays, and shrinks when it changes; the weight then rests for
    # one step, as in the variant of Igel and Hüsken without backtracking. The factors
    # are those of Riedmiller and Braun.
    grow, shrink = 1.2, 0.5
    smallest, largest = 1e-6, 50.0

    def create_state(self, index: int, weight: mx.nd.NDArray) -> tuple[Any, Any]:
        """Make the last gradient and the step sizes of a parameter, of its shape."""
        return mx.nd.zeros_like(weight), mx.nd.full(
            weight.shape, self.lr, ctx=weight.context
        )

    def update(
        self, index: int, weight: mx.nd.NDArray, grad: mx.nd.NDArray, state: Any
    ) -> None:
        """Update a parameter in place."""
        last, size = state
        self._update_count(index)
        grad = grad * self.rescale_grad + self._get_wd(index) * weight
        agreement = mx.nd.sign(grad * last)
        grown, shrunk = agreement > 0, agreement < 0
        factor = 1 + (self.grow - 1) * grown + (self.shrink - 1) * shrunk
        size[:] = mx.nd.clip(size * factor, self.smallest, self.largest)
        last[:] = grad * (1 - shrunk)
        weight -= mx.nd.sign(last) * size


def gluon_state(trainer: gluon.Trainer) -> dict[str, np.ndarray]:
    """Return an optimizer's state by name; MXNet's own way to save it is a pickle."""
    num_updates = trainer._updaters[0].optimizer.num_update
    arrays = _arrays(trainer, 0)  # those of other devices are equal
    state = {name: array.asnumpy() for name, array in arrays.items()}
    return {**state, "num_updates": np.array(num_updates)}


def set_gluon_state(trainer: gluon.Trainer, saved: Mapping[str, np.ndarray]) -> None:
    """Go on from a state of `gluon_state`; of another optimizer, it is a ValueError."""
    for number, updater in enumerate(trainer._updaters):
        optimizer, count = updater.optimizer, np.array(0)
        arrays = {**_arrays(trainer, number), "num_updates": count}
        fill(arrays, saved, type(optimizer).__name__)
        # Each parameter's count of updates starts here.
        optimizer.num_update = optimizer.begin_num_update = int(count)


def _arrays(trainer: gluon.Trainer, number: int) -> dict[str, mx.nd.NDArray]:
    """Name the arrays of the state on a device, made as Gluon does if they are not."""
    updater, device = trainer._updaters[number], trainer._contexts[number]
    optimizer, arrays = updater.optimizer, {}
    kind = type(optimizer).__name__.lower()
    for index, parameter in enumerate(trainer._params):
        if index not in updater.states:
            weight = parameter.data(device).as_nd_ndarray()  # as an updater has it
            state = optimizer.create_state_multi_precision(index, weight)
            updater.states[index], updater.states_synced[index] = state, True
        state = updater.states[index]  # None, an array, or several
        several = state if isinstance(state, tuple) else (state,)
        for leaf, array in enumerate(several):
            if array is not None:
                arrays[f"{kind}.{index}.{leaf}"] = array
    return arrays
