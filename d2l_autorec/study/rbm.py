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
from scipy.special import expit, softmax

from ..fast import outputs_at
from .estimators import Estimator

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
        Gibbs steps a gradient in the last epochs; 1 in the first.
    batch_size : int
        Visible vectors a mini-batch.
    lr, momentum, wd : float
        Of the gradient ascent; the weight decay spares the biases.

    Notes
    -----
    A visible vector with the levels :math:`k_j` where it has ratings:

    .. math:: P(h_f = 1) = \sigma(b_f + \sum_j W_{k_j j f}), \qquad
              P(k_j = k) \propto \exp(c_{kj} + \sum_f W_{kjf} h_f)

    Contrastive divergence: hidden units are drawn, then levels, then the probabilities
    of the hidden units; the gradient of :math:`W_{kjf}` is :math:`[k_j = k] h_f` with
    the data less the same with what was drawn. A prediction is the expectation of the
    level, given the probabilities of the hidden units with the training ratings. The
    :math:`c_{kj}` start at the logarithms of how often a level is given.
    """

    kind: str = "item"
    num_hidden: int = 100
    num_epochs: int = 50
    max_steps: int = 3
    batch_size: int = 64
    lr: float = 0.05
    momentum: float = 0.9
    wd: float = 0.001

    cold = "what the ratings that there are say of the other: near its mean"

    @property
    def title(self) -> str:
        """I-RBM or U-RBM."""
        return f"{self.kind[0].upper()}-RBM"

    def fit(self, train_data: pd.DataFrame, seed: int) -> Iterator[int]:  # noqa: D102
        rng = np.random.default_rng(seed)
        self.levels, codes = rating_levels(train_data["rating"].to_numpy(np.float64))
        self.visible = self._cells(train_data, codes + 1)
        self.start(rng)
        num_rows = self.visible.shape[0]
        for epoch in range(self.num_epochs):
            num_steps = 1 + epoch * self.max_steps // self.num_epochs
            order = rng.permutation(num_rows)
            for first in range(0, num_rows, self.batch_size):
                rows = order[first : first + self.batch_size]
                self.step(self.visible[rows].tocsc(), num_steps, rng)
            yield epoch + 1

    def start(self, rng: np.random.Generator) -> None:
        """Set the parameters that training starts with.

        Parameters
        ----------
        rng : numpy.random.Generator
            Draws the weights, normal with a standard deviation of 0.01.
        """
        num_levels, num_columns = len(self.levels), self.visible.shape[1]
        cells = self.visible.tocsc()
        counts = np.asarray(one_hot(cells, num_levels).sum(axis=0))
        counts = counts.reshape(num_levels, num_columns)
        total = counts.sum(axis=1, keepdims=True)
        shares = (counts + 5 * total / total.sum()) / (counts.sum(axis=0) + 5)
        weights = rng.normal(0, 0.01, (num_levels, num_columns, self.num_hidden))
        self.weights = weights.astype(np.float32)
        self.visible_bias = np.log(shares).astype(np.float32)
        self.hidden_bias = np.zeros(self.num_hidden, np.float32)
        self._parameters = (self.weights, self.visible_bias, self.hidden_bias)
        self._velocities = [np.zeros_like(p) for p in self._parameters]

    def step(
        self, cells: sp.csc_matrix, num_steps: int, rng: np.random.Generator
    ) -> None:
        """Take a step up the gradient of contrastive divergence.

        Parameters
        ----------
        cells : scipy.sparse.csc_matrix of int, shape (batch_size, num_columns)
            The level in each observed cell, counted from 1.
        num_steps : int
            Gibbs steps.
        rng : numpy.random.Generator
            Draws hidden units and levels.
        """
        data = drawn = one_hot(cells, len(self.levels))
        hidden = given = self.hidden(data)
        for _ in range(num_steps):
            units = (rng.random(given.shape) < given).astype(np.float32)
            chances = self.chances(units, cells)
            # The first level up to which the chances are above a random number.
            above = chances.cumsum(axis=0)[:-1] < rng.random(cells.nnz)
            drawn = one_hot(with_data(cells, above.sum(axis=0) + 1), len(self.levels))
            given = self.hidden(drawn)
        gradients = (
            (data.T @ hidden - drawn.T @ given).reshape(self.weights.shape),
            np.asarray((data - drawn).sum(axis=0)).reshape(self.visible_bias.shape),
            (hidden - given).sum(axis=0),
        )
        for parameter, velocity, gradient in zip(
            self._parameters, self._velocities, gradients
        ):
            velocity *= self.momentum
            velocity += self.lr / cells.shape[0] * gradient
            parameter += velocity
            if parameter is self.weights:
                parameter *= 1 - self.lr * self.wd

    def hidden(self, data: sp.csr_matrix) -> np.ndarray:
        """Compute the probabilities of the hidden units.

        Parameters
        ----------
        data : scipy.sparse.csr_matrix, shape (batch_size, num_levels * num_columns)
            As from `one_hot`.

        Returns
        -------
        numpy.ndarray of float32, shape (batch_size, num_hidden)
        """
        weights = self.weights.reshape(-1, self.num_hidden)
        return np.asarray(expit(self.hidden_bias + data @ weights))

    def chances(self, hidden: np.ndarray, cells: sp.csc_matrix) -> np.ndarray:
        """Compute the probabilities of the levels at some cells.

        Parameters
        ----------
        hidden : numpy.ndarray of float32, shape (batch_size, num_hidden)
            Hidden units, or their probabilities.
        cells : scipy.sparse.csc_matrix, shape (batch_size, num_columns)
            The cells are those that it stores.

        Returns
        -------
        numpy.ndarray of float32, shape (num_levels, num_cells)
            In the order in which the cells are stored.
        """
        inputs = (
            outputs_at(hidden, weights, bias, cells)
            for weights, bias in zip(self.weights, self.visible_bias)
        )
        return np.asarray(softmax(np.stack([*inputs]), axis=0))

    def predict(self, pairs: pd.DataFrame) -> np.ndarray:  # noqa: D102
        # A cell holds the place of its pair, from 1 as a matrix of 0 would be empty.
        cells = self._cells(pairs, np.arange(1, len(pairs) + 1)).tocsc()
        hidden = self.hidden(one_hot(self.visible.tocsc(), len(self.levels)))
        predictions = np.empty(len(pairs))
        predictions[cells.data - 1] = self.levels @ self.chances(hidden, cells)
        return predictions

    @property
    def num_parameters(self) -> int:  # noqa: D102
        return sum(parameter.size for parameter in self._parameters)

    @property
    def num_ticks(self) -> int:  # noqa: D102
        return self.num_epochs

    def _cells(self, pairs: pd.DataFrame, values: np.ndarray) -> sp.csr_matrix:
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


def one_hot(cells: sp.csc_matrix, num_levels: int) -> sp.csr_matrix:
    """Give each level columns of its own.

    Parameters
    ----------
    cells : scipy.sparse.csc_matrix of int, shape (batch_size, num_columns)
        The level in each observed cell, counted from 1.
    num_levels : int
        How many there are.

    Returns
    -------
    scipy.sparse.csr_matrix of float32, shape (batch_size, num_levels * num_columns)
        1 in the cells whose column is that of the level.
    """
    num_rows, num_columns = cells.shape
    column = np.repeat(np.arange(num_columns), np.diff(cells.indptr))
    column += (cells.data - 1) * num_columns
    ones = np.ones(cells.nnz, np.float32)
    shape = (num_rows, num_levels * num_columns)
    return sp.csr_matrix((ones, (cells.indices, column)), shape)


def with_data(cells: sp.csc_matrix, data: np.ndarray) -> sp.csc_matrix:
    """Store other values in the same cells."""
    return sp.csc_matrix((data, cells.indices, cells.indptr), cells.shape)
