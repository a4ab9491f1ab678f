"""Restricted Boltzmann machines for collaborative filtering.

References
----------
R. Salakhutdinov, A. Mnih, G. Hinton, "Restricted Boltzmann Machines for Collaborative
Filtering", ICML 2007.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..fast import Boltzmann
from .estimators import Estimator, half_cosine

MAX_LEVELS = 10  # softmax units a rating; of more levels, neighbors are joined


@dataclass(eq=False)
class RBM(Estimator):
    r"""A restricted Boltzmann machine whose visible units are levels of ratings.

    Parameters
    ----------
    ratings, devices
        As for `Estimator`; it is trained on the CPU.
    kind : {'item', 'user'}
        Whether a visible vector is an item's ratings or a user's.
    num_hidden : int
        Binary hidden units.
    num_epochs : int
        Passes over the visible vectors.
    max_steps : int
        Gibbs steps of contrastive divergence in the last epochs; 1 in the first.
    batch_size : int
        Visible vectors a mini-batch.
    lr : float
        Length of a step, which falls to 0 along half a cosine.
    momentum, wd : float
        As for `Boltzmann.step`.

    Notes
    -----
    A prediction is the expectation of the level, given the probabilities of the hidden
    units with the training ratings.
    """

    kind: str = "item"
    num_hidden: int = 100
    num_epochs: int = 30
    max_steps: int = 1
    batch_size: int = 32
    lr: float = 0.2
    momentum: float = 0.9
    wd: float = 0.02

    cold = "from what is known of the other: near its mean"

    @property
    def title(self) -> str:
        """I-RBM or U-RBM."""
        return f"{self.kind[0].upper()}-RBM"

    def fit(self, train_data: pd.DataFrame, seed: int) -> Iterator[int]:  # noqa: D102
        rng = np.random.default_rng(seed)
        self.levels, codes = rating_levels(train_data["rating"].to_numpy(np.float64))
        self.visible = self._cells(train_data, codes)
        shares = level_shares(self.visible, len(self.levels))
        self.machine = Boltzmann(shares, self.num_hidden, rng)
        num_rows = self.visible.shape[0]
        for epoch in range(self.num_epochs):
            lr = half_cosine(self.lr, epoch, self.num_epochs)
            num_steps = 1 + epoch * self.max_steps // self.num_epochs
            order = rng.permutation(num_rows)
            for first in range(0, num_rows, self.batch_size):
                rows = self.visible[order[first : first + self.batch_size]]
                self.machine.step(rows, num_steps, lr, self.momentum, self.wd, rng)
            yield epoch + 1

    def predict(self, pairs: pd.DataFrame) -> np.ndarray:  # noqa: D102
        cells = self._cells(pairs, np.arange(len(pairs)))
        predictions = np.empty(len(pairs), np.float32)
        expected = self.machine.expect(self.visible, self.levels, cells)
        predictions[cells.data] = expected
        return predictions

    @property
    def num_parameters(self) -> int:  # noqa: D102
        return sum(parameter.size for parameter in self.machine.parameters)

    @property
    def num_ticks(self) -> int:  # noqa: D102
        return self.num_epochs

    def _cells(self, pairs: pd.DataFrame, values: np.ndarray) -> sp.csr_matrix:
        """Lay values of pairs out, a visible vector a row."""
        users, items = self.ratings.indices(pairs)
        shape = (self.ratings.num_items, self.ratings.num_users)
        cells = sp.csr_matrix((values, (items, users)), shape)
        return cells if self.kind == "item" else cells.T.tocsr()


def rating_levels(rating: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the levels of ratings.

    Parameters
    ----------
    rating : numpy.ndarray of float, shape (num_ratings,)
        On any scale.

    Returns
    -------
    levels : numpy.ndarray of float, shape (num_levels,)
        The distinct ratings, ascending; if they are more than `MAX_LEVELS`, means of
        about equally many ratings each.
    codes : numpy.ndarray of int, shape (num_ratings,)
        The level of each rating, from 0.
    """
    levels, codes = np.unique(rating, return_inverse=True)
    if len(levels) > MAX_LEVELS:
        codes = pd.qcut(rating, MAX_LEVELS, labels=False, duplicates="drop")
        _, codes = np.unique(codes, return_inverse=True)
        levels = np.bincount(codes, rating) / np.bincount(codes)
    return levels, codes


def level_shares(
    visible: sp.csr_matrix, num_levels: int, prior: float = 5.0
) -> np.ndarray:
    """Count how often a level is given in each column.

    Parameters
    ----------
    visible : scipy.sparse.csr_matrix of int, shape (num_rows, num_columns)
        Levels, from 0.
    num_levels : int
        How many there are.
    prior : float
        Ratings that each column has besides, of the levels as they are in all columns.

    Returns
    -------
    numpy.ndarray of float, shape (num_columns, num_levels)
        Above 0; they add up to 1.
    """
    num_columns = visible.shape[1]
    place = visible.indices * num_levels + visible.data
    counts = np.bincount(place, minlength=num_columns * num_levels)
    counts = counts.reshape(num_columns, num_levels)
    counts = counts + prior * counts.sum(axis=0) / counts.sum()
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))
