"""How well held-out items are ranked for their users.

References
----------
A. Bellogín, P. Castells, I. Cantador, "Precision-Oriented Evaluation of Recommender
Systems: An Algorithmic Comparison", RecSys 2011. K. Järvelin, J. Kekäläinen, "Cumulated
Gain-Based Evaluation of IR Techniques", ACM TOIS 20(4), 2002.
"""

import numpy as np
import scipy.sparse as sp

from ..errors import DataError
from ..topn import measure

CUTOFF = 10
MEASURES = "NDCG@10", "recall@10", "precision@10"


def ranking(
    predictions: np.ndarray, user_index: np.ndarray, relevant: np.ndarray, seed: int
) -> dict[str, float]:
    r"""Measure rankings by the protocol that Bellogín et al. call *TestRatings*.

    For each user, the items of the user's held-out ratings, and no others, are ranked
    by their predicted ratings.

    Parameters
    ----------
    predictions : numpy.ndarray of float, shape (num_ratings,)
        Predicted for held-out ratings.
    user_index : numpy.ndarray of int, shape (num_ratings,)
        Their users.
    relevant : numpy.ndarray of bool, shape (num_ratings,)
        Whether their items are relevant.
    seed : int
        Draws the order of items with equal predictions.

    Returns
    -------
    dict of str to float
        ``'NDCG@10'``, ``'recall@10'`` and ``'precision@10'``, each from 0 to 1, as a
        mean over the users with at least one relevant item.

    Raises
    ------
    DataError
        If no item is relevant.

    Notes
    -----
    With :math:`y_n` 1 if the n-th of a user's N ranked items is relevant and else 0, R
    of them being relevant:

    .. math:: \mathrm{NDCG@10} = \frac{\sum_{n \le 10} y_n / \log_2(n + 1)}
                                      {\sum_{n \le \min(10, R)} 1 / \log_2(n + 1)},
              \quad
              \mathrm{recall@10} = \frac{\sum_{n \le 10} y_n}{R}, \quad
              \mathrm{precision@10} = \frac{\sum_{n \le 10} y_n}{\min(10, N)}
    """
    if not relevant.any():
        raise DataError(
            "all held-out ratings are below the mean of the training ratings: no item "
            "is relevant, and there is nothing to rank"
        )
    lists, order, user, sizes = _lists(predictions, user_index, seed)
    hits = relevant[order]
    cells = np.ones(hits.sum()), (user[hits], order[hits])
    test = sp.csr_matrix(cells, (len(sizes), len(order)))
    counted = np.diff(test.indptr) > 0
    found = measure(lists[counted], test[counted], [CUTOFF]).per_user
    # A list is no longer than there are items.
    found["precision@10"] *= CUTOFF / sizes[counted].clip(max=CUTOFF)
    mean = found.rename(columns={"ndcg@10": "NDCG@10"}).mean()
    return {name: float(mean[name]) for name in MEASURES}


def _lists(
    predictions: np.ndarray, user_index: np.ndarray, seed: int
) -> tuple[np.ndarray, ...]:
    """Rank by user: the lists of rows; all rows, their users, and the users' sizes."""
    ties = np.random.default_rng(seed).permutation(len(predictions))
    order = np.lexsort((np.argsort(ties), -predictions, user_index))
    _, user, sizes = np.unique(
        user_index[order], return_inverse=True, return_counts=True
    )
    place = np.arange(len(order)) - (np.cumsum(sizes) - sizes)[user]  # from 0
    lists = np.full((len(sizes), CUTOFF), -1)
    top = place < CUTOFF
    lists[user[top], place[top]] = order[top]
    return lists, order, user, sizes
