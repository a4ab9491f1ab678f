"""A run: ratings cut into parts, a recipe and a seed."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from .._mxnet import mx
from ..curve import Epoch
from ..evaluators import Accuracy
from ..ratings import Ratings, check_ids, is_text
from .biases import yardstick
from .blend import make_training
from .settings import FINITE, NON_NEGATIVE_INT, POSITIVE_INT, Blend, Recipe
from .training import Parts, Team, Training, range_of


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
    recipe : Recipe or Blend
        Settings of the training.
    seed : int
        Of the whole run.
    split : mapping
        How the parts were cut, for reports.
    patience : int, optional
        Epochs without a new best on `valid_mat` before the training stops.

    Raises
    ------
    ValueError
        If one of them is not so, by its name; a `DataError` for the ids and matrices.
    """

    name: str
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: Mapping[Any, str]
    train_mat: sp.csr_matrix
    test_mat: sp.csr_matrix | None
    valid_mat: sp.csr_matrix | None
    rating_offset: float
    recipe: Recipe | Blend
    seed: int
    split: Mapping[str, Any]
    patience: int | None = None

    def __post_init__(self) -> None:
        """Check each field: a run may come from a file that somebody forged."""
        patient = self.patience is None or POSITIVE_INT.allow(self.patience)
        for name, fits, wanted in (
            ("name", is_text(self.name), "a text"),
            ("titles", _are_titles(self.titles), "a text for an item"),
            ("rating_offset", FINITE.allow(self.rating_offset), FINITE.wanted),
            ("recipe", isinstance(self.recipe, (Recipe, Blend)), "a Recipe or a Blend"),
            ("seed", NON_NEGATIVE_INT.allow(self.seed), NON_NEGATIVE_INT.wanted),
            ("split", _is_report(self.split), "words and numbers by name"),
            ("patience", patient, f"{POSITIVE_INT.wanted} or None"),
        ):
            if not fits:
                value = reprlib.repr(getattr(self, name))
                raise ValueError(f"{name}={value} is not {wanted}")
        for name in ("user_ids", "item_ids"):
            check_ids(name, getattr(self, name))
        shape = len(self.item_ids), len(self.user_ids)
        for name, matrix in self.parts.checked(shape)._asdict().items():
            object.__setattr__(self, name, matrix)
        if self.patience and self.valid_mat is None:
            raise ValueError(f"patience={self.patience} needs a validation part")

    @classmethod
    def of(
        cls,
        ratings: Ratings,
        train_data: Any,
        test_data: Any = None,
        valid_data: Any = None,
        *,
        recipe: Recipe | Blend,
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

    @property
    def rating_range(self) -> tuple[float, float]:
        """The lowest and the highest training rating, in the unit of the file."""
        low, high = range_of(self.train_mat)
        return low - self.rating_offset, high - self.rating_offset

    @cached_property
    def yardstick(self) -> Yardstick | None:
        """What simple models have; None if nothing is held out."""
        for part, held_out in (("test", self.test_mat), ("validation", self.valid_mat)):
            if held_out is not None:
                return Yardstick(part, yardstick(self.train_mat, held_out))
        return None

    def refit(self, recipe: Recipe | Blend, chosen: Epoch) -> Run:
        """Make the run that trains on the validation part as well.

        Parameters
        ----------
        recipe : Recipe or Blend
            That ends with the chosen epoch, where a cosine schedule ends, too; see
            `Training.chosen`.
        chosen : Epoch
            On the validation part.

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
            recipe=recipe,
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
        return make_training(
            *(self.recipe, self.parts, devices, self.seed, trained, team)
        )


def _are_titles(titles: Any) -> bool:
    return isinstance(titles, Mapping) and all(map(is_text, titles.values()))


def _is_report(split: Any) -> bool:
    return isinstance(split, Mapping) and all(
        is_text(name)
        and (value in (None, True, False) or is_text(value) or FINITE.allow(value))
        for name, value in split.items()
    )
