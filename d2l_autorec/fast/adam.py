"""Adam by compiled loops, for dense arrays and for a first layer on sparse rows.

`FastStep` trains a whole autoencoder at the observed cells. Networks whose loss is over
all cells take these: MXNet's own update of an array takes three times as long.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from .compiled import compiled, in_shares, num_threads
from .products import by_columns, multiply
from .step import Rates, Weights, adam, train_columns


class Adam:
    """Adam, with Gluon's default numbers, for arrays and maybe a `SparseEncoder`.

    Parameters
    ----------
    values : sequence of numpy.ndarray of float32
        Contiguous; they are written to.
    lr, wd : float
        The learning rate, and the share of a value that is added to its gradient.
    encoder : SparseEncoder, optional
        Is updated, too, by the rows of its latest `forward`.
    """

    def __init__(
        self,
        values: Sequence[np.ndarray],
        lr: float,
        wd: float = 0.0,
        encoder: "SparseEncoder | None" = None,
    ) -> None:
        self._weights = [_weights(value.reshape(-1)) for value in values]
        self._encoder = encoder
        self._encoder_weights = _weights(encoder.weight) if encoder else None
        self._lr, self._wd, self._num_updates = lr, wd, 0

    def step(
        self, gradients: Sequence[np.ndarray], d_sums: np.ndarray | None = None
    ) -> None:
        """Update all: by the values' gradients, and that of the encoder's sums."""
        self._num_updates += 1
        rates, size = self._rates(), num_threads()
        for weights, gradient in zip(self._weights, gradients):
            in_shares(_update, size, size, weights, gradient.reshape(-1), rates)
        if self._encoder and self._encoder_weights and d_sums is not None:
            train_columns(self._encoder.cells, d_sums, self._encoder_weights, rates)

    def _rates(self) -> Rates:
        beta1, beta2, epsilon = 0.9, 0.999, 1e-8
        correction = (1 - beta2**self._num_updates) ** 0.5
        correction /= 1 - beta1**self._num_updates
        numbers = self._lr * correction, self._wd, beta1, beta2, epsilon, 1.0
        return Rates(*map(np.float32, numbers))


class SparseEncoder:
    """The linear part of a dense layer on sparse rows.

    Parameters
    ----------
    weight : numpy.ndarray of float32, shape (num_columns, num_hidden)
        The memory that `Adam` writes to.
    """

    def __init__(self, weight: np.ndarray) -> None:
        self.weight = weight

    def forward(self, rows: sp.csr_matrix) -> np.ndarray:
        """Multiply rows with the weight: (num_rows, num_hidden)."""
        self.cells = by_columns(rows)
        return multiply(self.cells, self.weight)


def _weights(value: np.ndarray) -> Weights:
    return Weights(value, np.zeros_like(value), np.zeros_like(value))


@compiled
def _update(share, num_shares, weights, gradient, rates):  # type: ignore[no-untyped-def]
    size = gradient.size
    its = slice(share * size // num_shares, (share + 1) * size // num_shares)
    adam(weights, its, gradient[its], rates)
