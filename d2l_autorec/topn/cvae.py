r"""`CVAE`: items by their content, so that those nobody has taken yet are ranked, too.

A variational autoencoder reads an item's bag of words; the mean :math:`z_j` of its
middle layer is what the item's factor :math:`v_j` is drawn to. The factors minimise

.. math:: \frac{1}{2} \sum_{u,j} c_{uj} (x_{uj} - p_u \cdot v_j)^2
          + \frac{\lambda_u}{2} \sum_u \lVert p_u \rVert^2
          + \frac{\lambda_v}{2} \sum_j \lVert v_j - z_j \rVert^2

by alternating least squares, with the weight :math:`c_{uj}` 1 for a pair and `other`
for all else; the last sum is part of the network's loss, too, and both take turns. An
item without a pair has the factor :math:`z_j`. A user's vector is computed from the
user's set, known or new.

The words have a multinomial likelihood, where the paper's have a Bernoulli one, and the
network is not trained layer by layer first.

References
----------
X. Li, J. She, "Collaborative Variational Autoencoder for Recommender Systems", KDD
2017. Y. Hu, Y. Koren, C. Volinsky, "Collaborative Filtering for Implicit Feedback
Datasets", ICDM 2008, on the weights.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .._mxnet import mx, one_at_a_time
from ..errors import DataError
from ..fast import view
from .autoencoder import Batch
from .model import OnEpoch, TopN, Users, ones
from .multinomial import MultVAE

_SHARED = ("num_hidden", "num_factors", "dropout", "lr", "num_epochs", "batch_size")


@dataclass
class CVAE(TopN):
    """The collaborative variational autoencoder.

    Parameters
    ----------
    num_hidden, num_factors : int
        Units of the network's outer layers, and numbers of a factor.
    l2_users, l2_items : float
        The penalties.
    other : float
        Weight of a cell that is no pair.
    dropout, lr, num_epochs, batch_size
        Of the network: as for `MultDAE`, an item being a row.
    num_rounds : int
        Of least squares, spread over the epochs.
    words : scipy.sparse.csr_matrix, shape (num_items, num_words)
        The items' content, which `fit` needs: an item's words are the stored cells.
    """

    num_hidden: int = 200
    num_factors: int = 50
    l2_users: float = 0.1
    l2_items: float = 10.0
    other: float = 0.01
    dropout: float = 0.2
    lr: float = 0.001
    num_epochs: int = 100
    batch_size: int = 128
    num_rounds: int = 10
    words: sp.csr_matrix | None = field(default=None, repr=False, compare=False)

    def fit_rows(self, rows: sp.csr_matrix, seed: int, on_epoch: OnEpoch) -> None:
        """Train the network on items' words, and solve for the factors now and then."""
        if self.words is None or self.words.shape[0] != rows.shape[1]:
            raise DataError(f"{self.name}: needs the items' words (--item-features)")
        words, items = ones(self.words), rows.T.tocsr()
        warm = np.flatnonzero(np.diff(items.indptr))
        cells = np.array(words.nonzero())
        rows = rows[:, warm]
        every = max(1, self.num_epochs // max(self.num_rounds, 1))
        shared = {name: getattr(self, name) for name in _SHARED}
        content = _Content(**shared, weight=self.l2_items)

        def alternate(epoch: int) -> Any:
            if epoch % every == 0:
                factors = content.means(words)
                old = self.arrays.get("factors", factors)
                users = least_squares(rows, old[warm], self.other, self.l2_users)
                args = items[warm], users, self.other, self.l2_items, factors[warm]
                factors[warm] = least_squares(*args)
                content.targets = factors
                self.arrays = {"factors": factors, "warm": warm, "words": cells}
            return on_epoch and on_epoch(epoch)

        content.fit_rows(words, seed, alternate)

    def scores(self, rows: sp.csr_matrix, users: Users = None) -> np.ndarray:
        """Compute the users' vectors from their sets, and multiply with the factors."""
        factors, warm = self.arrays["factors"], self.arrays["warm"]
        own = ones(rows)[:, warm]
        found = least_squares(own, factors[warm], self.other, self.l2_users)
        return np.asarray(found @ factors.T)

    def item_vectors(self) -> np.ndarray:
        """Return the factors."""
        return self.arrays["factors"]

    def cold_items(self) -> np.ndarray:
        """Return those that have words."""
        return np.setdiff1d(self.arrays["words"][0], self.arrays["warm"])


@dataclass
class _Content(MultVAE):
    """The network on items' words, whose means are drawn to the items' factors."""

    weight: float = 1.0
    targets: np.ndarray | None = None

    def heads(self, body: Any, sums: Any, batch: Batch) -> list[Any]:
        """Add the distance from the factors to the penalty."""
        scores, penalty = super().heads(body, sums, batch)
        if self.targets is not None:
            target = mx.np.array(self.targets[batch.order])
            distance = mx.np.square(body.encode(sums)[0] - target).sum()
            penalty = penalty + self.weight / 2 * distance
        return [scores, penalty]

    @one_at_a_time
    def means(self, words: sp.csr_matrix) -> np.ndarray:
        """Compute the middle layer of all items: (num_items, num_factors)."""
        sums = mx.np.array(self._encoder.forward(self.inputs(words, None)))
        return np.array(view(self._body.encode(sums)[0]))


def least_squares(
    rows: sp.csr_matrix,
    factors: np.ndarray,
    other: float,
    l2: float,
    means: np.ndarray | None = None,
) -> np.ndarray:
    """Solve for the vector of each row: (num_rows, num_factors), float32."""
    # Its products with `factors` come near 1 in the stored cells, with weight 1, and
    # near 0 elsewhere, with weight `other`; it is drawn to its row of `means`, or to 0.
    size = factors.shape[1]
    common = other * factors.T @ factors + l2 * np.eye(size, dtype=np.float32)
    found = np.zeros((rows.shape[0], size), np.float32)
    for number, (start, stop) in enumerate(zip(rows.indptr, rows.indptr[1:])):
        own = factors[rows.indices[start:stop]]
        right = own.sum(axis=0) + (0 if means is None else l2 * means[number])
        found[number] = np.linalg.solve(common + (1 - other) * own.T @ own, right)
    return found


def bag_of_words(texts: Sequence[str]) -> sp.csr_matrix:
    """Find the words in items' texts, for `CVAE`.

    Parameters
    ----------
    texts : sequence of str, length num_items
        A word is a run of letters and digits; upper and lower case are one. Words in
        one text alone are left out: nothing can be learned from them.

    Returns
    -------
    scipy.sparse.csr_matrix of float32, shape (num_items, num_words)
        1 where a word is in a text, the words being in alphabetical order.
    """
    found = [sorted(set(re.findall(r"\w+", text.casefold()))) for text in texts]
    words = pd.Series(found, dtype=object).explode().dropna()
    words = words[words.duplicated(keep=False)]
    column, known = pd.factorize(words, sort=True)
    values = np.ones(len(column), np.float32)
    return sp.csr_matrix((values, (words.index, column)), (len(texts), len(known)))
