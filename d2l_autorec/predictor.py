"""Predictions and recommendations from a trained model.

AutoRec predicts a rating by reconstructing the item's row of training ratings and
reading the user's cell. The hidden layer of an item does not depend on the user, and
the cell needs only the user's own row of the decoder's weights, so that the matrix of
all users and all items is never built.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .checkpoint import Checkpoint, Run
from .data import row_batches
from .errors import DataError
from .loop import try_all_devices
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
    return Predictor(checkpoint.network(try_all_devices()[:1]), checkpoint.run)


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
        self, user_id: Any, n: int = 10, include_rated: bool = False
    ) -> list[Recommendation]:
        """Recommend the items that a user is predicted to rate highest.

        Parameters
        ----------
        user_id
            Raw id.
        n : int
            How many, at most.
        include_rated : bool
            Whether items may come up that the user has rated.

        Returns
        -------
        list of Recommendation
            Best first. Items without a training rating are left out: nothing tells
            one of them from another.

        Raises
        ------
        DataError
            If the user is unknown, or has no training rating.
        """
        user = self._user_index(user_id)
        rated = [] if include_rated else self._rated[user].indices
        scores = self._hidden @ self._weight[user] + self._bias[user]
        return self._best(scores, rated, n)

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
        if unknown not in ("error", "item-mean"):
            raise ValueError(f"unknown is 'error' or 'item-mean', not {unknown!r}")
        if not isinstance(pairs, pd.DataFrame):
            pairs = pd.DataFrame(list(pairs), columns=["user_id", "item_id"])
        users = self._indices(pairs["user_id"], self.run.user_ids, self._user_counts)
        items = self._indices(pairs["item_id"], self.run.item_ids, self._item_counts)
        known = (users >= 0) & (items >= 0)
        if unknown == "error" and not known.all():
            first = int(np.argmin(known))
            noun, column = (
                ("user", "user_id") if users[first] < 0 else ("item", "item_id")
            )
            raise _unknown(noun, pairs[column].iloc[first], first + 1)
        predictions = np.where(items >= 0, self._item_means[items], self._mean)
        for chunk in np.array_split(np.flatnonzero(known), len(known) // 10_000 + 1):
            user, item = users[chunk], items[chunk]
            cells = np.einsum("ij,ij->i", self._hidden[item], self._weight[user])
            predictions[chunk] = cells + self._bias[user]
        return predictions - self.run.rating_offset
