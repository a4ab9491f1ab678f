"""Low-rank models of ratings, side by side, each of its own part of them."""

import numpy as np

from .compiled import call, compiled, in_shares, num_threads


class Factors:
    r"""Low-rank models, each with a weight for every user and every item.

    A model predicts :math:`b_u + b_i + p_u \cdot q_i`; of all of them, the mean by
    their weights :math:`w_{mu} w_{mi}` is the prediction.

    Parameters
    ----------
    num_factors : int
        Of each model: the length of :math:`p_u` and :math:`q_i`.
    user_weight, item_weight : numpy.ndarray, (num_models, num_users or num_items)
        How much of a user and an item is a model's, from 0 for nothing.
    rng : numpy.random.Generator
        Draws the initial factors, normal with a standard deviation of 0.1; biases are
        0 at first.

    Attributes
    ----------
    user_bias, item_bias : numpy.ndarray of float32, shape (num_models, num_rows)
    user_factors, item_factors : numpy.ndarray of float32
        Of shape (num_models, num_rows, num_factors).
    """

    def __init__(
        self,
        num_factors: int,
        user_weight: np.ndarray,
        item_weight: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        self.user_weight = user_weight.astype(np.float32)
        self.item_weight = item_weight.astype(np.float32)
        self.user_bias = np.zeros_like(self.user_weight)
        self.item_bias = np.zeros_like(self.item_weight)
        self.user_factors, self.item_factors = (
            rng.normal(0, 0.1, (*weight.shape, num_factors)).astype(np.float32)
            for weight in (user_weight, item_weight)
        )

    @property
    def _arrays(self) -> tuple[np.ndarray, ...]:
        return (
            *(self.user_weight, self.item_weight, self.user_bias, self.item_bias),
            *(self.user_factors, self.item_factors),
        )

    @property
    def num_parameters(self) -> int:
        """How many numbers were learned."""
        return sum(array.size for array in self._arrays[2:])

    def step(
        self,
        users: np.ndarray,
        items: np.ndarray,
        ratings: np.ndarray,
        lr: float,
        user_wd: np.ndarray,
        item_wd: np.ndarray,
    ) -> None:
        r"""Take a step of stochastic gradient descent at each rating, in their order.

        A model's step at a rating is down the gradient of

        .. math:: \frac{1}{2} w_{mu} w_{mi} \left( (r_{ui} - \hat r_{ui})^2
                  + \lambda_u (b_u^2 + \|p_u\|^2)
                  + \lambda_i (b_i^2 + \|q_i\|^2) \right)

        where `lr` is the length of a step, and `user_wd`, (num_users,), and `item_wd`,
        (num_items,), are :math:`\lambda_u` and :math:`\lambda_i`.
        """
        penalties = user_wd.astype(np.float32), item_wd.astype(np.float32)
        ratings = ratings.astype(np.float32, copy=False)
        size = min(num_threads(), len(self.user_weight))
        in_shares(
            _descend,
            size,
            size,
            *((users, items, ratings), self._arrays, np.float32(lr), penalties),
        )

    def are_finite(self) -> bool:
        """Tell whether the models have not diverged."""
        return all(np.isfinite(array).all() for array in self._arrays)

    def predict(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict pairs' ratings, (num_pairs,); NaN where no model has a weight."""
        predictions = np.empty(len(users), np.float32)
        call(_predict, users, items, self._arrays, predictions)
        return predictions


@compiled
def _descend(share, num_shares, rated, arrays, lr, penalties):  # type: ignore[no-untyped-def]
    (users, items, ratings), (user_wd, item_wd) = rated, penalties
    user_weight, item_weight, user_bias, item_bias, p, q = arrays
    for m in range(share, len(user_weight), num_shares):
        for n in range(len(ratings)):
            user, item = users[n], items[n]
            step = lr * user_weight[m, user] * item_weight[m, item]
            if step == 0:
                continue
            error = ratings[n] - user_bias[m, user] - item_bias[m, item]
            product = np.float32(0)
            for k in range(p.shape[2]):
                product += p[m, user, k] * q[m, item, k]
            error -= product
            wd_u, wd_i = user_wd[user], item_wd[item]
            user_bias[m, user] += step * (error - wd_u * user_bias[m, user])
            item_bias[m, item] += step * (error - wd_i * item_bias[m, item])
            for k in range(p.shape[2]):
                before = p[m, user, k]
                p[m, user, k] += step * (error * q[m, item, k] - wd_u * before)
                q[m, item, k] += step * (error * before - wd_i * q[m, item, k])


@compiled
def _predict(  # type: ignore[no-untyped-def]
    users, items, arrays, predictions
):
    user_weight, item_weight, user_bias, item_bias, p, q = arrays
    for n in range(len(users)):
        user, item = users[n], items[n]
        total, weights = np.float32(0), np.float32(0)
        for m in range(len(user_weight)):
            weight = user_weight[m, user] * item_weight[m, item]
            if weight == 0:
                continue
            rating = user_bias[m, user] + item_bias[m, item]
            for k in range(p.shape[2]):
                rating += p[m, user, k] * q[m, item, k]
            total += weight * rating
            weights += weight
        predictions[n] = total / weights
