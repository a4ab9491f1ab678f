"""How good a trained model is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon
from ..evaluators import Accuracy, accuracy
from ..ratings import Ratings
from ..topn import Popularity
from ..topn import evaluate as evaluate_lists
from ..training import Training
from .reconstruction import Reconstruction

if TYPE_CHECKING:
    from ..training import Run
    from .predictor import Predictor

_CELLS = 2**25  # predictions that measuring lists takes, about


def list_measures(
    net: gluon.Block, run: Run, k: int = 10
) -> dict[str, dict[str, float]]:
    """Measure the lists of a model of ratings, with those of popularity beside.

    Everything that a user has no training rating of is ranked. A hit is an item of the
    test part whose rating is the mean of the training ratings or higher. Of many users
    a sample is taken. Empty if there is no such item.
    """
    train_mat, test_mat = run.parts.train_mat, run.parts.test_mat
    if test_mat is None:
        return {}
    liked = test_mat.multiply(test_mat >= train_mat.data.mean()).tocsc()
    trained = np.bincount(train_mat.indices, minlength=train_mat.shape[1]) > 0
    users = np.flatnonzero((np.diff(liked.indptr) > 0) & trained)
    users = users[:: len(users) * train_mat.shape[0] // _CELLS + 1]
    if not len(users):
        return {}
    parts_of_users = train_mat.tocsc()[:, users].tocsr(), liked[:, users].tocsr()
    lists = _Lists(net, run, users)
    return beside_popularity("this network", lists, parts_of_users, train_mat, k)


def beside_popularity(
    name: str,
    model: Any,
    given_and_test: tuple[sp.csr_matrix, sp.csr_matrix],
    train_mat: sp.csr_matrix,
    k: int = 10,
    known: bool = True,
) -> dict[str, dict[str, float]]:
    """Measure a model's lists as `topn.evaluate` does, with popularity's beside."""
    models = {name: model, "popularity": Popularity().fit(train_mat)}
    return {
        title: evaluate_lists(one, *given_and_test, [k], known).mean
        for title, one in models.items()
    }


class _Lists:
    """The lists of a model of ratings for some users of the training."""

    def __init__(self, net: gluon.Block, run: Run, users: np.ndarray) -> None:
        train_mat = run.parts.train_mat
        self._model = Reconstruction(net, run.recipe, train_mat)
        self._users, self._counts = users, np.diff(train_mat.indptr)

    def scores(self, rows: sp.csr_matrix, users: np.ndarray) -> np.ndarray:
        """Predict what the users would rate all items that have a training rating."""
        with np.errstate(over="ignore", invalid="ignore"):  # an error tells of it
            found = self._model.of_users(self._users[users])
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
