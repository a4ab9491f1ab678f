"""Generated ratings, for where no others can be had."""

from __future__ import annotations

import numpy as np

from .table import Ratings

SYNTHETIC = "synthetic-100k"


def synthetic_ratings(seed: int = 0) -> Ratings:
    """Generate ratings of ML-100K's shape, which follow from the seed.

    Activity and popularity have long tails; a rating is a mean, a user's and an item's
    bias, a product of hidden factors, a non-linear taste for its theme, and noise.
    """
    num_users, num_items, num_ratings, num_factors = 943, 1682, 100_000, 8
    rng = np.random.default_rng(seed)
    activity = rng.permutation((np.arange(num_users) + 20.0) ** -1.1)
    popularity = rng.permutation((np.arange(num_items) + 15.0) ** -1.1)
    # Gumbel noise on log-weights, and the largest kept: a weighted draw of cells
    # without repetition.
    score = (
        np.log(activity)[:, None]
        + np.log(popularity)
        + rng.gumbel(size=(num_users, num_items))
    )
    # No user without a rating and no item without one.
    score[np.arange(num_users), score.argmax(axis=1)] = np.inf
    score[score.argmax(axis=0), np.arange(num_items)] = np.inf
    cells = np.argpartition(score.ravel(), -num_ratings)[-num_ratings:]
    user, item = np.divmod(rng.permutation(np.sort(cells)), num_items)

    user_factors = rng.normal(size=(num_users, num_factors))
    item_factors = rng.normal(size=(num_items, num_factors))
    theme = rng.normal(size=(num_items, 2))
    taste = rng.normal(size=(num_users, 2))
    rating = (
        3.5
        + 0.45 * rng.normal(size=num_users)[user]
        + 0.5 * rng.normal(size=num_items)[item]
        + 0.15 * (user_factors[user] * item_factors[item]).sum(axis=1)
        + 0.4 * np.tanh(2 * (taste[user] * theme[item]).sum(axis=1))
        + 0.75 * rng.normal(size=num_ratings)
    )
    return Ratings(
        SYNTHETIC,
        user.astype(np.int32),
        item.astype(np.int32),
        np.clip(np.rint(rating), 1, 5).astype(np.float32),
        874_724_710 + rng.integers(0, 18_561_928, num_ratings),
        np.arange(1, num_users + 1),
        np.arange(1, num_items + 1),
    )
