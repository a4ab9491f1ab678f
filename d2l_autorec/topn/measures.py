r"""How good lists are: measures by the full ranking of all unseen items.

For each user, all items that are not among the given ones are ranked; none is sampled.
Of equal scores, the lower item index comes first, everywhere.

With :math:`y_n` 1 if the n-th item of a user's list is one of the T held-out ones and
else 0:

.. math:: \mathrm{ndcg@k} = \frac{\sum_{n \le k} y_n / \log_2(n + 1)}
                                 {\sum_{n \le \min(k, T)} 1 / \log_2(n + 1)}, \quad
          \mathrm{recall@k} = \frac{1}{T} \sum_{n \le k} y_n, \quad
          \mathrm{precision@k} = \frac{1}{k} \sum_{n \le k} y_n

map@k is :math:`\frac{1}{T} \sum_{n \le k} y_n\, \mathrm{precision@n}`, mrr@k one over
the place of the first hit, or 0, and hit_rate@k whether there is one. coverage@k is the
share of all items that are in anybody's list. All but the last are means over the users
with a held-out item.

References
----------
W. Krichene, S. Rendle, "On Sampled Metrics for Item Recommendation", KDD 2020. C. D.
Manning, P. Raghavan, H. Schütze, *Introduction to Information Retrieval*, 2008.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from ..data import checked
from ..errors import DataError

if TYPE_CHECKING:
    import pandas as pd

AT = (10, 20, 50)
_CELLS = 2**22  # scores that are computed at once


class Evaluation(NamedTuple):
    """How good a model's lists are.

    Attributes
    ----------
    mean : dict of str to float
        ``'ndcg@10'`` and so on, each from 0 to 1.
    users : numpy.ndarray of int, shape (num_users,)
        The columns of the matrices that have a held-out item.
    values : dict of str to numpy.ndarray, each of shape (num_users,)
        Each measure but coverage of these users.
    """

    mean: dict[str, float]
    users: np.ndarray
    values: dict[str, np.ndarray]

    @property
    def per_user(self) -> "pd.DataFrame":
        """A column for each measure but coverage, and a row for each user."""
        import pandas as pd

        return pd.DataFrame(self.values, index=self.users)


def evaluate(
    model: Any,
    given_mat: sp.csr_matrix,
    test_mat: sp.csr_matrix,
    at: Sequence[int] = AT,
    known: bool = True,
) -> Evaluation:
    """Rank all unseen items of users, and look for their held-out items.

    Parameters
    ----------
    model : TopN
        Fitted; or any object with the method `scores` of one.
    given_mat, test_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        What the model is given of each user, and what it is to find.
    at : sequence of int
        Lengths of lists.
    known : bool
        Whether the users are those that the model was fitted to, in the same order
        (weak generalisation); else they are new ones (strong generalisation).

    Returns
    -------
    Evaluation

    Raises
    ------
    DataError
        If no pair is held out, or the shapes differ.
    """
    if checked(given_mat).shape != checked(test_mat).shape:
        raise DataError(f"given {given_mat.shape}, held out {test_mat.shape}")
    given, test = given_mat.T.tocsr(), test_mat.T.tocsr()
    users = np.flatnonzero(np.diff(test.indptr))
    if not len(users):
        raise DataError("no pair is held out: there is nothing to measure")
    size = max(1, _CELLS // test.shape[1])
    lists = []
    for start in range(0, len(users), size):
        batch = users[start : start + size]
        scores = model.scores(given[batch], batch if known else None)
        lists.append(top_k(scores, given[batch], max(at)))
    return measure(np.concatenate(lists), test[users], at)._replace(users=users)


def top_k(scores: np.ndarray, seen: sp.csr_matrix, k: int) -> np.ndarray:
    """List each row's best k unseen items with a finite score; -1 is no item."""
    scores = np.where(np.isnan(scores), -np.inf, scores)
    scores[seen.nonzero()] = -np.inf
    lists = np.full((len(scores), k), -1)
    last = min(k, scores.shape[1])
    least = np.partition(scores, -last, axis=1)[:, -last, None]
    row, item = np.nonzero((scores >= least) & (scores > -np.inf))
    # Several may have the least score: they are sorted, too, and some cut off.
    order = np.lexsort((item, -scores[row, item], row))
    row, item = row[order], item[order]
    place = np.arange(len(row)) - np.searchsorted(row, row)
    kept = place < k
    lists[row[kept], place[kept]] = item[kept]
    return lists


def measure(lists: np.ndarray, test: sp.csr_matrix, at: Sequence[int]) -> Evaluation:
    """Measure lists by held-out items.

    Parameters
    ----------
    lists : numpy.ndarray of int, shape (num_users, max(at))
        Item indices, best first; -1 where there is no item.
    test : scipy.sparse.csr_matrix, shape (num_users, num_items)
        The held-out items, at least one a row.
    at : sequence of int
        Lengths of lists.

    Returns
    -------
    Evaluation
    """
    num_items = test.shape[1]
    held_out = np.ravel_multi_index(test.nonzero(), test.shape)
    listed = np.arange(len(lists))[:, None] * num_items + lists
    hits = np.isin(listed, held_out) & (lists >= 0)  # (num_users, max(at))
    relevant = np.diff(test.indptr)
    places = np.arange(1, max(at) + 1)
    gains = np.cumsum(hits / np.log2(places + 1), axis=1)
    ideal = np.cumsum(1 / np.log2(places + 1))
    found = np.cumsum(hits, axis=1)
    precisions = np.cumsum(hits * found / places, axis=1)
    first = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, np.inf)
    columns, coverage = {}, {}
    for k in at:
        columns[f"ndcg@{k}"] = gains[:, k - 1] / ideal[np.minimum(k, relevant) - 1]
        columns[f"recall@{k}"] = found[:, k - 1] / relevant
        columns[f"precision@{k}"] = found[:, k - 1] / k
        columns[f"map@{k}"] = precisions[:, k - 1] / relevant
        columns[f"mrr@{k}"] = np.where(first <= k, 1 / first, 0)
        columns[f"hit_rate@{k}"] = (first <= k).astype(float)
        covered = np.unique(lists[:, :k])
        coverage[f"coverage@{k}"] = float((covered >= 0).sum() / num_items)
    mean = {name: float(values.mean()) for name, values in columns.items()}
    return Evaluation({**mean, **coverage}, np.arange(len(lists)), columns)
