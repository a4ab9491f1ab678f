"""How good a trained model is."""

from __future__ import annotations

from typing import Any

from ..evaluators import Accuracy, accuracy
from ..ratings import Ratings
from ..training import Training
from .predictor import Predictor


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
