"""Matrix factorization, the model to compare AutoRec with, and its two evaluators.

References
----------
*Dive into Deep Learning*, "Matrix Factorization". Y. Koren, R. Bell, C. Volinsky,
"Matrix Factorization Techniques for Recommender Systems", Computer 42(8), 2009.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as onp

from ._mxnet import gluon, mx
from .evaluators import rmse


class MF(gluon.nn.HybridBlock):
    r"""The matrix factorization of the book.

    Parameters
    ----------
    num_factors : int
        Length of the vector of a user or an item.
    num_users, num_items : int
        Numbers of users and items.

    Notes
    -----
    .. math:: \hat r_{ui} = p_u \cdot q_i + b_u + b_i

    There is no global mean: the biases have to learn it. The book's is a plain
    ``Block``; this one can be compiled (``net.hybridize()``).
    """

    def __init__(self, num_factors: int, num_users: int, num_items: int) -> None:
        super().__init__()
        self.P = gluon.nn.Embedding(num_users, num_factors)
        self.Q = gluon.nn.Embedding(num_items, num_factors)
        self.user_bias = gluon.nn.Embedding(num_users, 1)
        self.item_bias = gluon.nn.Embedding(num_items, 1)

    def hybrid_forward(self, F: Any, user_index: Any, item_index: Any) -> Any:
        """Predict the ratings of pairs: three arrays of shape (batch_size,)."""
        product = self.P(user_index) * self.Q(item_index)  # (batch_size, num_factors)
        bias = self.user_bias(user_index) + self.item_bias(item_index)
        return product.sum(axis=1) + bias.reshape(-1)


def mf_evaluator(
    net: gluon.Block, test_iter: Iterable[Any], devices: Sequence[mx.Context]
) -> float:
    """Average the running averages of the batches' RMSEs, as the book does.

    Parameters
    ----------
    net : mxnet.gluon.Block
        A trained `MF`.
    test_iter : iterable of list of array, each of shape (batch_size,)
        User indices, item indices and held-out ratings.
    devices : sequence of mxnet.Context
        Those of the network's parameters.

    Returns
    -------
    float
        In the unit of the ratings.

    Raises
    ------
    ValueError
        If `test_iter` holds no rating.

    Notes
    -----
    The book calls it ``evaluator``. It is not an RMSE over the held-out ratings: it
    weighs early batches more than late ones, and changes with the batch size and the
    number of devices. Compare models by `mf_pooled_evaluator`.
    """
    errors: list[float] = []
    averages = []
    for shares in _predict(net, test_iter, devices):
        errors += (rmse(*share) for share in shares)
        averages.append(onp.mean(errors))
    return float(onp.mean(averages))


def mf_pooled_evaluator(
    net: gluon.Block, test_iter: Iterable[Any], devices: Sequence[mx.Context]
) -> float:
    """Compute the RMSE of matrix factorization over all held-out ratings at once.

    Parameters
    ----------
    net, test_iter, devices
        As for `mf_evaluator`.

    Returns
    -------
    float
        In the unit of the ratings, and comparable with AutoRec's `evaluator`.

    Raises
    ------
    ValueError
        If `test_iter` holds no rating.
    """
    batches = _predict(net, test_iter, devices)
    predictions, ratings = zip(*(share for shares in batches for share in shares))
    return rmse(onp.concatenate(predictions), onp.concatenate(ratings))


def _predict(
    net: gluon.Block, test_iter: Iterable[Any], devices: Sequence[mx.Context]
) -> Iterator[list[tuple[onp.ndarray, onp.ndarray]]]:
    """Yield predictions and ratings of each batch, one pair of arrays a device."""
    empty = True
    for batch in test_iter:
        loaded = (
            gluon.utils.split_and_load(values, devices, even_split=False)
            for values in batch
        )
        # A batch smaller than the number of devices leaves some without a share.
        shares = [share for share in zip(*loaded) if len(share[0])]
        outputs = [net(users, items) for users, items, _ in shares]
        yield [
            (output.asnumpy(), ratings.asnumpy())
            for output, (_, _, ratings) in zip(outputs, shares)
        ]
        empty = False
    if empty:
        raise ValueError("test_iter holds no rating")
