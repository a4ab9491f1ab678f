"""Predictions and recommendations from a trained model.

AutoRec predicts a rating by reconstructing the item's row of training ratings and
reading the user's cell. The hidden layer of an item does not depend on the user, and
the cell needs only the user's own row of the decoder's weights, so that the matrix of
all users and all items is never built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ._mxnet import mx
from .checkpoint import Checkpoint, Run
from .errors import DataError
from .loop import try_all_gpus
from .model import AutoRec


class Recommendation(NamedTuple):
    """An item for a user.

    Attributes
    ----------
    item_id
        Raw id.
    rating : float
        Predicted, in the unit of the ratings file.
    title : str or None
        Where the data set has one.
    """

    item_id: Any
    rating: float
    title: str | None


def load_model(directory: str | Path) -> Predictor:
    """Load a trained model.

    Parameters
    ----------
    directory : path
        That a training saved to.

    Returns
    -------
    Predictor
        With the parameters of the best epoch on the validation part, or of the last
        one where there is no such part.

    Raises
    ------
    ModelError
        If there is no model, a file of it is damaged or missing, or it has another
        version's format.
    """
    checkpoint = Checkpoint.open(directory)
    return Predictor(checkpoint.network(try_all_gpus()[:1]), checkpoint.run)


class Predictor:
    """Predicts ratings with a trained item-based AutoRec.

    Parameters
    ----------
    net : AutoRec
        Trained, on one device.
    run : Run
        What it was trained on.

    Attributes
    ----------
    run : Run
    """

    def __init__(self, net: AutoRec, run: Run) -> None:
        self.net, self.run = net, run

    def recommend(
        self,
        user_id: Any,
        n: int = 10,
        include_rated: bool = False,
        unknown: str = "error",
    ) -> list[Recommendation]:
        """Recommend the items that a user is predicted to rate highest.

        Parameters
        ----------
        user_id
            Raw id.
        n : int
            How many, at most.
        include_rated : bool
            Whether items may come up that the user has rated, in whichever part.
        unknown : {'error', 'item-mean'}
            As for `predict`.

        Returns
        -------
        list of Recommendation
            Best first. Items without a training rating are left out: nothing tells
            one of them from another.

        Raises
        ------
        DataError
            If the user has no training rating.
        """
        user = self._known([user_id], "user", unknown)[0]
        if user < 0:
            return self._best(self._item_means.copy(), [], n)
        rated = [] if include_rated else self._rated[:, user].indices
        return self._best(
            self._hidden @ self._weight[user] + self._bias[user], rated, n
        )

    def recommend_new(
        self, ratings: Mapping[Any, float], n: int = 10, include_rated: bool = False
    ) -> list[Recommendation]:
        r"""Recommend items to someone who was not in the training.

        Parameters
        ----------
        ratings : mapping
            Raw item id to the rating that the new user gave it, in the unit of the
            ratings file.
        n, include_rated
            As for `recommend`.

        Returns
        -------
        list of Recommendation
            Best first.

        Raises
        ------
        DataError
            If an item has no training rating.

        Notes
        -----
        The decoder has no row of weights for the new user, so one is estimated, with
        all else held fixed. Users' rows (weights and bias), as the training found
        them, have a mean :math:`\mu` and a covariance :math:`\Sigma`. With these as a
        normal prior, the new user's row is the mean of the posterior given the ratings
        *r* of items whose hidden layers (and a 1 for the bias) are the rows of *H*:

        .. math:: w = \mu + \Sigma H^T (H \Sigma H^T + s^2 I)^{-1} (r - H \mu),

        where :math:`s^2` is the mean squared error on the training ratings.
        """
        items = self._known(list(ratings), "item", "error")
        given = np.array(list(ratings.values()), float) + self.run.rating_offset
        rows = np.column_stack([self._weight, self._bias])[self._user_counts > 0]
        mean, rows = rows.mean(axis=0), rows - rows.mean(axis=0)
        hidden = np.column_stack([self._hidden[items], np.ones(len(items))])
        spread = hidden @ rows.T / np.sqrt(len(rows))  # (num_rated, num_users)
        gram = spread @ spread.T + self._noise * np.eye(len(items))
        share = spread.T @ np.linalg.solve(gram, given - hidden @ mean)
        row = mean + rows.T @ share / np.sqrt(len(rows))
        scores = self._hidden @ row[:-1].astype(np.float32) + row[-1]
        return self._best(scores, [] if include_rated else items, n)

    def predict(self, pairs: Any, unknown: str = "error") -> np.ndarray:
        """Predict single ratings.

        Parameters
        ----------
        pairs : pandas.DataFrame or iterable of (user_id, item_id)
            Raw ids; of a frame, the columns ``user_id`` and ``item_id``.
        unknown : {'error', 'item-mean'}
            What to do about a user or an item without a training rating: refuse, or
            give the mean of the item's training ratings (for an unknown item, of all).

        Returns
        -------
        numpy.ndarray of float64, shape (num_pairs,)
            In the unit of the ratings file; not clipped to its scale.

        Raises
        ------
        DataError
            For the first unknown id.
        """
        if not isinstance(pairs, pd.DataFrame):
            pairs = pd.DataFrame(list(pairs), columns=["user_id", "item_id"])
        users = self._known(pairs["user_id"], "user", unknown)
        items = self._known(pairs["item_id"], "item", unknown)
        mean = self.run.train_mat.data.mean()
        predictions = np.where(items < 0, mean, self._item_means[items])
        known = (users >= 0) & (items >= 0)
        predictions[known] = self._cells(users[known], items[known])
        return predictions - self.run.rating_offset

    @cached_property
    def _hidden(self) -> np.ndarray:
        """The hidden layer of each item: float32, shape (num_items, num_hidden)."""
        # Most of a row is unobserved: a sparse product is far faster than the layer.
        encoder = self.net.encoder
        sums = self.run.train_mat @ encoder.weight.data().asnumpy().T
        sums += encoder.bias.data().asnumpy()
        hidden: np.ndarray = encoder.act(mx.np.array(sums)).asnumpy()
        return hidden

    @cached_property
    def _weight(self) -> np.ndarray:
        weight: np.ndarray = self.net.decoder.weight.data().asnumpy()
        return weight  # (num_users, num_hidden)

    @cached_property
    def _bias(self) -> np.ndarray:
        bias: np.ndarray = self.net.decoder.bias.data().asnumpy()
        return bias  # (num_users,)

    @cached_property
    def _user_counts(self) -> np.ndarray:
        return np.bincount(self.run.train_mat.indices, minlength=len(self._bias))

    @cached_property
    def _item_counts(self) -> np.ndarray:
        counts: np.ndarray = np.diff(self.run.train_mat.indptr)
        return counts

    @cached_property
    def _item_means(self) -> np.ndarray:
        sums = self.run.train_mat.sum(axis=1, dtype=np.float64).A1
        means: np.ndarray = sums / np.maximum(self._item_counts, 1)
        return means

    @cached_property
    def _rated(self) -> sp.csc_matrix:
        """What each user has rated in any part, by columns."""
        run = self.run
        parts = [run.train_mat, run.test_mat, run.valid_mat]
        return sum(part for part in parts if part is not None).tocsc()

    @cached_property
    def _noise(self) -> float:
        """Mean squared error on the training ratings, or a sample if they are many."""
        cells = self.run.train_mat.tocoo()
        some = slice(None, None, cells.nnz // 100_000 + 1)
        predicted = self._cells(cells.col[some], cells.row[some])
        return float(np.mean((predicted - cells.data[some]) ** 2))

    def _cells(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Reconstruct single cells, some thousands at a time."""
        predictions = np.empty(len(users))
        for start in range(0, len(users), 10_000):
            part = slice(start, start + 10_000)
            user, item = users[part], items[part]
            products = np.einsum("ij,ij->i", self._hidden[item], self._weight[user])
            predictions[part] = products + self._bias[user]
        return predictions

    def _known(self, ids: Sequence[Any], noun: str, unknown: str) -> np.ndarray:
        """Translate raw ids to indices; -1 where there is no training rating."""
        if unknown not in ("error", "item-mean"):
            raise ValueError(f"unknown is 'error' or 'item-mean', not {unknown!r}")
        index, counts = self._index[noun], getattr(self, f"_{noun}_counts")
        found = index.get_indexer(pd.Index(ids))
        trained = (found >= 0) & (counts[found] > 0)
        if unknown == "error" and not trained.all():
            raw_id = list(ids)[int(np.argmin(trained))]
            if found[np.argmin(trained)] < 0:
                raise DataError(
                    f"unknown {noun} {raw_id!r}; the model knows {len(index):,} "
                    f"{noun}s, such as {index[0]!r}"
                )
            raise DataError(f"{noun} {raw_id!r} has no rating in the training part")
        return np.where(trained, found, -1)

    @cached_property
    def _index(self) -> dict[str, pd.Index]:
        return {
            "user": pd.Index(self.run.user_ids),
            "item": pd.Index(self.run.item_ids),
        }

    def _best(
        self, scores: np.ndarray, excluded: Sequence[int] | np.ndarray, n: int
    ) -> list[Recommendation]:
        """Pick the highest scores; of equal ones, items with more ratings first."""
        allowed = self._item_counts > 0
        allowed[excluded] = False
        items = np.flatnonzero(allowed)
        best = items[np.lexsort((-self._item_counts[items], -scores[items]))[:n]]
        ids = self.run.item_ids[best].tolist()
        ratings = (scores[best] - self.run.rating_offset).tolist()
        return [
            Recommendation(item_id, rating, self.run.titles.get(item_id))
            for item_id, rating in zip(ids, ratings)
        ]
