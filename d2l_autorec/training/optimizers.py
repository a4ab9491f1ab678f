"""Rprop, the optimizer of the AutoRec paper, and the state of Gluon's optimizers.

References
----------
M. Riedmiller, H. Braun, "A Direct Adaptive Method for Faster Backpropagation Learning:
The RPROP Algorithm", IEEE International Conference on Neural Networks, 1993. C. Igel,
M. Hüsken, "Improving the Rprop Learning Algorithm", ICSC Symposium on Neural
Computation, 2000.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from .._mxnet import gluon, mx


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
    updater = trainer._updaters[0]  # those of other devices are equal
    arrays = {
        f"{index}.{number}": leaf.asnumpy()
        for index, state in sorted(updater.states.items())
        for number, leaf in enumerate(_leaves(state))
    }
    return {**arrays, "num_updates": np.array(updater.optimizer.num_update)}


def set_gluon_state(trainer: gluon.Trainer, saved: Mapping[str, np.ndarray]) -> None:
    """Go on from a state that `gluon_state` returned, on every device.

    Raises
    ------
    ValueError
        If it is not of this optimizer and these parameters, by the array's name.
    """
    num_updates = int(saved["num_updates"])
    for updater, device in zip(trainer._updaters, trainer._contexts):
        optimizer, unused = updater.optimizer, saved.keys() - {"num_updates"}
        # Each parameter's count of updates starts here.
        optimizer.num_update = optimizer.begin_num_update = num_updates
        for index, parameter in enumerate(trainer._params):
            weight = parameter.data(device).as_nd_ndarray()  # as an updater has it
            state = optimizer.create_state_multi_precision(index, weight)
            for number, leaf in enumerate(_leaves(state)):
                name = f"{index}.{number}"
                if name not in unused or saved[name].shape != leaf.shape:
                    raise ValueError(f"{name} has not the shape {leaf.shape}")
                leaf[:] = saved[name]
                unused.remove(name)
            updater.states[index], updater.states_synced[index] = state, True
        if unused:
            raise ValueError(f"{min(unused)} is not of {type(optimizer).__name__}")


def _leaves(state: Any) -> Iterator[Any]:
    """Walk the arrays in an optimizer's state: None, an array, or a nest of them."""
    if isinstance(state, (tuple, list)):
        for part in state:
            yield from _leaves(part)
    elif state is not None:
        yield state
