"""Local low-rank matrix approximation.

References
----------
J. Lee, S. Kim, G. Lebanon, Y. Singer, "Local Low-Rank Matrix Approximation", ICML 2013.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .biased_mf import BiasedMF


@dataclass(eq=False)
class LLORMA(BiasedMF):
    r"""Low-rank models of neighborhoods, averaged by how near a pair is to each.

    A neighborhood is around an anchor :math:`(u', i')`, a training rating drawn at
    random. The distance of users is the angle between their factors in a `BiasedMF` of
    all ratings, :math:`d(u, u') = \arccos(p_u \cdot p_{u'} / \|p_u\| \|p_{u'}\|)`, and
    that of items likewise. The local model counts a rating with the weight
    :math:`K(d(u, u')) K(d(i, i'))`, where :math:`K(d) = \max(0, 1 - d^2 / h^2)` is
    Epanechnikov's kernel. The prediction is the mean of the local models by these
    weights (Nadaraya and Watson's); that of the one for all where all are 0.

    The local models have the settings of the one for all. In the paper, they are
    without a mean and biases.
    """

    num_factors: int = 20
    wd: float = 0.25
    lr: float = 0.05
    num_epochs: int = 24
    num_anchors: int = 50  # neighborhoods
    width: float = 2.5  # their radius h, in radians

    title = "LLORMA"

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        for _ in super().fit(train_rows, seed):
            yield 0
        self.whole = self.factors
        rng = np.random.default_rng([seed, 1])
        anchors = rng.choice(len(train_rows), min(self.num_anchors, len(train_rows)))
        users, items = self.ratings.indices(train_rows[anchors])
        near_users = angles(self.whole.user_factors[0], users)
        near_items = angles(self.whole.item_factors[0], items)
        weights = kernel(near_users, self.width), kernel(near_items, self.width)
        yield from self.learn(train_rows, weights, rng)
        self.num_parameters += self.whole.num_parameters

    def predict(self, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        index = self.ratings.indices(rows)
        local, whole = self.factors.predict(*index), self.whole.predict(*index)
        found = np.where(np.isnan(local), whole, local)
        return np.asarray(self.mean + self.unit * found)


def angles(factors: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Measure angles, shape (num_anchors, num_rows), in radians from 0 to pi.

    A row of zeros is at right angles to all.
    """
    norms = np.linalg.norm(factors, axis=1, keepdims=True)
    unit = factors / np.where(norms == 0, 1, norms)
    return np.asarray(np.arccos(np.clip(unit[anchors] @ unit.T, -1, 1)))


def kernel(distance: np.ndarray, width: float) -> np.ndarray:
    """Weigh by distance: 1 at 0, 0 from `width` on (Epanechnikov, unscaled)."""
    return np.asarray(np.maximum(1 - (distance / width) ** 2, 0))
