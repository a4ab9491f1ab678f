"""A run: ratings cut into parts, a recipe and a seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .._mxnet import mx
from ..curve import Epoch
from ..evaluators import Accuracy
from ..ratings import Ratings
from .biases import yardstick
from .settings import Recipe
from .training import Parts, Team, Training


class Yardstick(NamedTuple):
    """What simple models have on the ratings that a network is judged by.

    Attributes
    ----------
    part : str
        ``'test'``, or ``'validation'`` where there is no test part.
    models : dict
        From a model's name to its `Accuracy`.
    """

    part: str
    models: dict[str, Accuracy]


@dataclass(frozen=True)
class Run:
    """What a training starts from: ratings cut into parts, a recipe and a seed.

    Parameters
    ----------
    name : str
        Of the data.
    user_ids, item_ids : numpy.ndarray
        Raw ids; a position is a ``user_index`` or an ``item_index``.
    titles : mapping
        Raw item id to title, for the items that have one.
    train_mat, test_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        Ratings to learn from, and held-out ratings, which may be None.
    valid_mat : scipy.sparse.csr_matrix, shape (num_items, num_users), optional
        Ratings held out to choose the best epoch on.
    rating_offset : float
        Was added to every rating.
    recipe : Recipe
        Settings of the training.
    seed : int
        Of the whole run.
    split : mapping
        How the parts were cut, for reports.
    patience : int, optional
        Epochs without a new best on `valid_mat` before the training stops.
    """

    name: str
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: Mapping[Any, str]
    train_mat: sp.csr_matrix
    test_mat: sp.csr_matrix | None
    valid_mat: sp.csr_matrix | None
    rating_offset: float
    recipe: Recipe
    seed: int
    split: Mapping[str, Any]
    patience: int | None = None

    @classmethod
    def of(
        cls,
        ratings: Ratings,
        train_data: Any,
        test_data: Any = None,
        valid_data: Any = None,
        *,
        recipe: Recipe,
        seed: int,
        split: Mapping[str, Any],
        patience: int | None = None,
    ) -> Run:
        """Lay the parts of a split out as matrices.

        Parameters
        ----------
        ratings : Ratings
            The whole.
        train_data, test_data, valid_data : pandas.DataFrame
            Its parts; the last two are optional.
        recipe, seed, split, patience
            As for the class.

        Returns
        -------
        Run
        """
        test_mat, valid_mat = (
            None if part is None else ratings.matrix(part)
            for part in (test_data, valid_data)
        )
        return cls(
            ratings.name,
            ratings.user_ids,
            ratings.item_ids,
            ratings.titles,
            ratings.matrix(train_data),
            test_mat,
            valid_mat,
            ratings.rating_offset,
            recipe,
            seed,
            split,
            patience,
        )

    @property
    def parts(self) -> Parts:
        """The three matrices."""
        return Parts(self.train_mat, self.test_mat, self.valid_mat)

    @cached_property
    def yardstick(self) -> Yardstick | None:
        """What simple models have; None if nothing is held out."""
        for part, held_out in (("test", self.test_mat), ("validation", self.valid_mat)):
            if held_out is not None:
                return Yardstick(part, yardstick(self.train_mat, held_out))
        return None

    def refit(self, chosen: Epoch) -> Run:
        """Make the run that trains on the validation part as well.

        Parameters
        ----------
        chosen : Epoch
            On the validation part: it is the last one of the new run, where a cosine
            schedule ends, too.

        Returns
        -------
        Run
            Its split names the epoch and its validation RMSE.
        """
        assert self.valid_mat is not None
        choice = {
            "chosen_epoch": chosen.epoch,
            "chosen_valid_rmse": chosen.valid_rmse,
        }
        return replace(
            self,
            train_mat=(self.train_mat + self.valid_mat).tocsr(),
            valid_mat=None,
            recipe=replace(self.recipe, num_epochs=chosen.epoch),
            split={**self.split, **choice},
            patience=None,
        )

    def train(
        self, devices: list[mx.Context], trained: int = 0, team: Team | None = None
    ) -> Training:
        """Get the training ready.

        Parameters
        ----------
        devices, trained, team
            As for `Training`.

        Returns
        -------
        Training
        """
        return Training(self.recipe, self.parts, devices, self.seed, trained, team)
