"""What of the ratings a network need not learn: their mean and scale, and biases.

References
----------
Y. Koren, "Factor in the Neighbors: Scalable and Accurate Collaborative Filtering", ACM
TKDD 4(1), 2010. N. Hug, "Surprise: A Python library for recommender systems", JOSS
5(52), 2020.
"""

from typing import Any

import numpy as np
import scipy.sparse as sp

from ..evaluators import Accuracy, accuracy
from .settings import Recipe

# Standardized ratings have this mean: about what MovieLens' mean is in units of its
# standard deviation. An input of 0 is a rating that is missing, so theirs is not.
SHIFT = 3.2


class Normalizer:
    """A level for each cell; a network learns what is left, in units of `scale`."""

    mean: float
    user_bias: np.ndarray
    item_bias: np.ndarray
    scale: float

    def at(self, users: Any, items: Any) -> np.ndarray:
        """Return the levels of cells, by their indices, in the unit of the ratings."""
        return np.asarray(self.mean + self.user_bias[users] + self.item_bias[items])

    def learned(self, inter_mat: sp.csr_matrix) -> sp.csr_matrix:
        """Return ratings (num_items, num_users) less their level; a 0 stays stored."""
        cells = inter_mat.tocoo()
        left = (cells.data - self.at(cells.col, cells.row)) / self.scale
        return sp.csr_matrix(
            (left.astype(np.float32), inter_mat.indices, inter_mat.indptr),
            inter_mat.shape,
        )

    def restore(self, outputs: np.ndarray, levels: Any) -> np.ndarray:
        """Turn a network's outputs (..., num_cells) into ratings again."""
        return np.asarray(levels + self.scale * outputs)

    def of_new_user(self, items: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        """Return the levels (num_items,) of a new user who gave items these ratings."""
        return np.asarray(self.mean + self.item_bias)


class Standardizer(Normalizer):
    """One level for all cells, so that ratings have mean `SHIFT` and variance 1."""

    def __init__(self, train_mat: sp.csr_matrix) -> None:
        num_items, num_users = train_mat.shape
        self.user_bias, self.item_bias = np.zeros(num_users), np.zeros(num_items)
        rating = train_mat.data.astype(np.float64)
        self.scale = float(rating.std()) or 1.0
        self.mean = float(rating.mean()) - SHIFT * self.scale


class Biases(Normalizer):
    r"""The mean of the ratings, and a bias of each user and item, shrunk towards 0.

    A user or an item without a rating in `train_mat`, (num_items, num_users), has a
    bias of 0; `scale` is the standard deviation of what is left, or 1 if that is 0.

    :math:`\hat r_{ui} = \mu + b_u + b_i`, by alternating least squares as in Koren
    (2010). Ten sweeps and the regularisation of 10 (items) and 15 (users) are the
    defaults of Surprise's ``BaselineOnly``; nothing was tuned here.
    """

    item_reg, user_reg, num_sweeps = 10, 15, 10

    def __init__(self, train_mat: sp.csr_matrix) -> None:
        cells = train_mat.tocoo()
        # What bincount would turn them into, ten times.
        items, users = cells.row.astype(np.intp), cells.col.astype(np.intp)
        rating = cells.data.astype(np.float64)
        num_items, num_users = train_mat.shape
        self.mean = float(rating.mean())
        self.user_bias = np.zeros(num_users)
        of_items = np.bincount(items, None, num_items) + self.item_reg
        of_users = np.bincount(users, None, num_users) + self.user_reg
        # Means as if `item_reg`, or `user_reg`, zeros were among what is averaged.
        for _ in range(self.num_sweeps):
            left = rating - self.mean - self.user_bias[users]
            self.item_bias = np.bincount(items, left, num_items) / of_items
            left = rating - self.mean - self.item_bias[items]
            self.user_bias = np.bincount(users, left, num_users) / of_users
        left = rating - self.at(users, items)
        self.scale = float(left.std()) or 1.0

    def of_new_user(self, items: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        """Add the bias that a user with these ratings has in training."""
        levels = super().of_new_user(items, ratings)
        left = (ratings - levels[items]).sum()
        return np.asarray(levels + left / (len(items) + self.user_reg))


def baselines(train_mat: sp.csr_matrix, held_out: sp.csr_matrix) -> dict[str, Accuracy]:
    """Score what any network has to beat: the ``global_mean``, and ``biases``."""
    biases, cells = Biases(train_mat), held_out.tocoo()
    mean = np.full(cells.nnz, biases.mean)
    return {
        "global_mean": accuracy(mean, cells.data),
        "biases": accuracy(biases.at(cells.col, cells.row), cells.data),
    }


def normalizer_of(recipe: Recipe, train_mat: sp.csr_matrix) -> Normalizer | None:
    """Make what a recipe's network leaves out of what it learns, if it does."""
    if recipe.residual:
        return Biases(train_mat)
    return Standardizer(train_mat) if recipe.standardize else None


def range_of(train_mat: sp.csr_matrix) -> tuple[float, float]:
    """Return the lowest and the highest rating."""
    return float(train_mat.data.min()), float(train_mat.data.max())
