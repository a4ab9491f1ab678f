"""Matrix factorization with a mean and biases, whose penalty and rank are tuned.

References
----------
Y. Koren, R. Bell, C. Volinsky, "Matrix Factorization Techniques for Recommender
Systems", Computer 42(8), 2009.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from .._mxnet import mx
from ..errors import TrainingDiverged
from ..fast import Factors
from .estimators import Estimator


@dataclass(eq=False)
class BiasedMF(Estimator):
    r"""The mean, biases and factors of users and items, by stochastic gradient descent.

    The penalty of a user's or an item's bias and factors, :math:`\lambda` in
    `Factors.step`, is `wd` divided by the root of the number of its ratings. Ratings
    are counted from their mean, in units of their standard deviation, so that the
    settings do not depend on the scale. It is trained on the CPU.
    """

    num_factors: int = 100
    wd: float = 1.0
    lr: float = 0.02  # falls to 0 along half a cosine
    num_epochs: int = 40

    title = "BiasedMF"

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        all_users = np.ones((1, self.ratings.num_users))
        all_items = np.ones((1, self.ratings.num_items))
        rng = np.random.default_rng(seed)
        yield from self.learn(train_rows, (all_users, all_items), rng)

    def learn(
        self,
        train_rows: np.ndarray,
        weights: tuple[np.ndarray, np.ndarray],
        rng: np.random.Generator,
    ) -> Iterator[int]:
        """Learn models side by side, by their users' and items' weights in `Factors`.

        It yields as `fit`; factors that are not finite are a TrainingDiverged.
        """
        users, items = self.ratings.indices(train_rows)
        rating = self.ratings.rating[train_rows].astype(np.float64)
        self.mean, self.unit = rating.mean(), rating.std() or 1.0
        rating = (rating - self.mean) / self.unit
        self.factors = Factors(self.num_factors, *weights, rng)
        self.num_parameters = self.factors.num_parameters
        counts = (
            np.bincount(users, minlength=self.ratings.num_users),
            np.bincount(items, minlength=self.ratings.num_items),
        )
        # Without a training rating, there is nothing to predict from.
        self.factors.user_factors[:, counts[0] == 0] = 0
        self.factors.item_factors[:, counts[1] == 0] = 0
        penalties = [self.wd / np.sqrt(count.clip(1)) for count in counts]
        schedule = mx.lr_scheduler.CosineScheduler(self.num_epochs, self.lr)
        for epoch in range(self.num_epochs):
            order = rng.permutation(len(rating))
            drawn = (users[order], items[order], rating[order])
            self.factors.step(*drawn, schedule(epoch), *penalties)
            if not self.factors.are_finite():
                raise TrainingDiverged(
                    f"{self.title}: epoch {epoch + 1} diverged; try a smaller lr than "
                    f"{self.lr:g}"
                )
            yield epoch + 1

    def predict(self, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        found = self.factors.predict(*self.ratings.indices(rows))
        return np.asarray(self.mean + self.unit * found)
