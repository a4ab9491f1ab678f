r"""`EASE`: items from items by one linear map, in closed form; `UserEASE`, its twin.

With X the users x items matrix of ones and zeros, EASE is the ridge regression of each
item on all others. Its twin is that of each *user* on all others, as the user-based
AutoRec is to the item-based one. Both come from one matrix,

.. math:: P = (X^T X + \lambda I)^{-1}

EASE scores item j for the row x by :math:`-(x P)_j / P_{jj}`. The twin's matrix is
:math:`Q = (X X^T + \lambda I)^{-1}`, and user u is left out by the same division, now
by :math:`Q_{uu}`. As :math:`Q X = X P`, the scores of the items that u does not have
are :math:`-(x_u P)_j / Q_{uu}`, whose divisor changes no order. So the twin needs no
users x users matrix, takes new users as EASE does, and differs from it in the division
by :math:`P_{jj}` alone.

References
----------
H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019. H. Steck,
"Autoencoders that don't overfit towards the Identity", NeurIPS 2020, for `dropout`. The
twin by the items' matrix is our own derivation.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from scipy.linalg import lapack

from .._ready import memory
from ..errors import DataError
from .model import OnEpoch, TopN, Users, ones


@dataclass
class EASE(TopN):
    """Score items by a linear map of a user's set, in closed form.

    Parameters
    ----------
    l2 : float
        The penalty lambda.
    dropout : float
        Share of a set that training drops, in the limit of infinitely many draws: adds
        ``dropout / (1 - dropout)`` times an item's count to its penalty.
    power : float
        A user of n items has the weight ``n ** -power``, so that those with many do not
        decide alone; the mean weight over the pairs is 1.
    """

    divided: ClassVar[bool] = True
    l2: float = 500.0
    dropout: float = 0.0
    power: float = 0.0

    def fit_rows(self, rows: sp.csr_matrix, seed: int, on_epoch: OnEpoch) -> None:
        """Invert the items' matrix of common users."""
        num_items = rows.shape[1]
        num_bytes = 20 * num_items**2  # two in float64, and the map in float32
        if num_bytes > memory():
            raise DataError(
                f"{self.name}: {num_items:,} x {num_items:,} numbers for as many items "
                f"need {num_bytes / 1e9:,.0f} GB of memory; this machine has "
                f"{memory() / 1e9:,.0f}"
            )
        sizes = np.diff(rows.indptr)
        weight = np.maximum(sizes, 1.0) ** -self.power
        weight *= rows.nnz / (weight @ sizes)
        gram = (rows.T @ sp.diags(weight) @ rows).toarray(order="F")
        counts = gram.diagonal().copy()
        penalty = self.l2 + self.dropout / (1 - self.dropout) * counts
        np.fill_diagonal(gram, counts + penalty)
        factor, _ = lapack.dpotrf(gram, lower=True, overwrite_a=True)
        inverse, _ = lapack.dpotri(factor, lower=True, overwrite_c=True)
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        if self.divided:
            inverse /= inverse.diagonal().copy()
        np.fill_diagonal(inverse, 0)
        self.arrays = {"weight": (-inverse).astype(np.float32)}

    def scores(self, rows: sp.csr_matrix, users: Users = None) -> np.ndarray:
        """Add up the map's rows of a user's items."""
        return np.asarray(ones(rows) @ self.arrays["weight"])

    def item_vectors(self) -> np.ndarray:
        """Return the map: items are alike that follow from the same others."""
        return self.arrays["weight"].T


@dataclass
class UserEASE(EASE):
    """EASE's user-side twin: users from users, by the same matrix."""

    divided: ClassVar[bool] = False
    l2: float = 2000.0
