"""How good a trained model is."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..evaluators import Accuracy, accuracy
from ..ratings import Ratings
from ..topn import Popularity
from ..topn import evaluate as lists
from ..training import Training
from .predictor import Predictor

_CELLS = 2**25  # predictions that measuring lists takes, about


def list_measures(model: Predictor, k: int = 10) -> dict[str, dict[str, float]]:
    """Measure the lists of a model of ratings, with those of popularity beside.

    Everything that a user has no training rating of is ranked. A hit is an item of the
    test part whose rating is the mean of the training ratings or higher. Of many users
    a sample is taken. Empty if there is no such item.
    """
    parts = model.run.parts
    train_mat, test_mat = parts.train_mat, parts.test_mat
    if test_mat is None:
        return {}
    liked = test_mat.multiply(test_mat >= train_mat.data.mean()).tocsc()
    trained = np.bincount(train_mat.indices, minlength=train_mat.shape[1]) > 0
    users = np.flatnonzero((np.diff(liked.indptr) > 0) & trained)
    users = users[:: len(users) * train_mat.shape[0] // _CELLS + 1]
    if not len(users):
        return {}
    given, test = train_mat.tocsc()[:, users].tocsr(), liked[:, users].tocsr()
    models = {"this network": _Lists(model, users), "popularity": Popularity()}
    models["popularity"].fit(train_mat)
    return {name: lists(one, given, test, [k]).mean for name, one in models.items()}


class _Lists(Popularity):
    """A model of ratings as one of lists, whose users are some of the training's."""

    def __init__(self, model: Predictor, users: np.ndarray) -> None:
        super().__init__()
        self._model, self._ids = model, model.run.parts.user_ids[users]
        self._counts = np.diff(model.run.parts.train_mat.indptr)

    def scores(self, rows: Any, users: Any = None) -> np.ndarray:
        """Predict what the users would rate all items that have a training rating."""
        found = self._model.scores(self._ids[users].tolist())
        return np.where(self._counts > 0, found, -np.inf)


def evaluate(
    model: Predictor | Training, data: Any, unknown: str = "error"
) -> Accuracy:
    """Score a model on ratings that it was not trained on.

    Parameters
    ----------
    model : Predictor or Training
        As `load_model` returns it, or as it was trained.
    data : pandas.DataFrame, Ratings or scipy.sparse.csr_matrix
        For a predictor, a table with raw ids, ``user_id``, ``item_id`` and ``rating``
        in the unit of the ratings file. For a training, a matrix of items x users, as
        its `Parts` have them.
    unknown : {'error', 'item-mean'}
        As for `Predictor.predict`; a training goes by its recipe's rule for cold users
        and items.

    Returns
    -------
    Accuracy
        RMSE and MAE over all the ratings at once, in their unit.

    Raises
    ------
    DataError
        If a predictor meets an id that it does not know.
    TrainingDiverged
        If the RMSE or the MAE is not finite.
    """
    if isinstance(model, Training):
        return accuracy(model.predict(data), data.data)
    if isinstance(data, Ratings):
        data = data.data
    return accuracy(model.predict(data, unknown), data["rating"])
