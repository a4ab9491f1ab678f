"""Biases: how far each user and each item is from the mean, and what is left then.

References
----------
Y. Koren, "Factor in the Neighbors: Scalable and Accurate Collaborative Filtering", ACM
TKDD 4(1), 2010. N. Hug, "Surprise: A Python library for recommender systems", JOSS
5(52), 2020.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp

from ..evaluators import Accuracy, accuracy


class Biases:
    r"""The mean of the ratings, and a bias of each user and item, shrunk towards 0.

    Parameters
    ----------
    train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        Ratings to learn from.

    Attributes
    ----------
    mean : float
        Of the ratings.
    user_bias, item_bias : numpy.ndarray of float64, shapes (num_users,), (num_items,)
        0 for those without a rating.
    scale : float
        Standard deviation of what is left of the ratings; 1 if that is nothing.

    Notes
    -----
    :math:`\hat r_{ui} = \mu + b_u + b_i`, by alternating least squares as in Koren
    (2010). Ten sweeps and the regularisation of 10 (items) and 15 (users) are the
    defaults of Surprise's ``BaselineOnly``; nothing was tuned here. Ratings that are
    multiplied by a number and shifted by another have predictions, and a scale, that
    are, too.
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

    def at(self, users: Any, items: Any) -> np.ndarray:
        """Predict ratings.

        Parameters
        ----------
        users, items : array_like of int, shape (num_cells,)
            Indices.

        Returns
        -------
        numpy.ndarray of float64, shape (num_cells,)
            In the unit of the ratings.
        """
        return np.asarray(self.mean + self.user_bias[users] + self.item_bias[items])

    def residuals(self, inter_mat: sp.csr_matrix) -> sp.csr_matrix:
        """Compute what is left of ratings, in units of `scale`.

        Parameters
        ----------
        inter_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
            Ratings.

        Returns
        -------
        scipy.sparse.csr_matrix of float32, shape (num_items, num_users)
            It stores the same cells, be it a 0.
        """
        cells = inter_mat.tocoo()
        left = (cells.data - self.at(cells.col, cells.row)) / self.scale
        return sp.csr_matrix(
            (left.astype(np.float32), inter_mat.indices, inter_mat.indptr),
            inter_mat.shape,
        )

    def restore(self, outputs: np.ndarray, levels: Any) -> np.ndarray:
        """Turn residuals into ratings again.

        Parameters
        ----------
        outputs : numpy.ndarray, shape (..., num_cells)
            In units of `scale`.
        levels : array_like, shape (num_cells,)
            The predictions of the biases for these cells.

        Returns
        -------
        numpy.ndarray of float64, shape (..., num_cells)
            In the unit of the ratings.
        """
        return np.asarray(levels + self.scale * outputs)

    def of_new_user(self, items: np.ndarray, ratings: np.ndarray) -> np.ndarray:
        """Predict the ratings of a user who was not in the training.

        Parameters
        ----------
        items : numpy.ndarray of int, shape (num_ratings,)
            Indices.
        ratings : numpy.ndarray, shape (num_ratings,)
            What the user gave them.

        Returns
        -------
        numpy.ndarray of float64, shape (num_items,)
            Of all items, by the bias that a user with these ratings has in training.
        """
        levels = self.mean + self.item_bias
        left = (ratings - levels[items]).sum()
        return np.asarray(levels + left / (len(items) + self.user_reg))


def yardstick(train_mat: sp.csr_matrix, held_out: sp.csr_matrix) -> dict[str, Accuracy]:
    """Score what any network has to beat.

    Parameters
    ----------
    train_mat, held_out : scipy.sparse.csr_matrix, shape (num_items, num_users)
        Ratings to learn from, and to score on.

    Returns
    -------
    dict
        The scores of the ``global_mean`` and of ``biases``.
    """
    biases, cells = Biases(train_mat), held_out.tocoo()
    mean = np.full(cells.nnz, biases.mean)
    return {
        "global_mean": accuracy(mean, cells.data),
        "biases": accuracy(biases.at(cells.col, cells.row), cells.data),
    }
