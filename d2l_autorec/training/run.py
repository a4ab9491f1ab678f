"""What a training starts from: ratings cut into parts, a recipe and a seed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from ..data import check_ratings
from ..errors import DataError
from ..evaluators import Accuracy
from ..ratings import Ratings, check_ids
from .biases import baselines, range_of
from .settings import NON_NEGATIVE_INT, POSITIVE_INT, Blend, Recipe


def hold_out(
    rows: np.ndarray, valid_ratio: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Set a random share of the training ratings aside, to choose something on.

    Returned are the rows to fit and to validate on, in the order of `rows`; the same
    seed sets the same rows aside. An empty part is a DataError.
    """
    size = round(valid_ratio * len(rows))
    if not 0 < size < len(rows):
        raise DataError(
            f"{valid_ratio:g} of {len(rows)} training ratings leaves a part empty"
        )
    held = np.zeros(len(rows), bool)
    held[np.random.default_rng(seed).choice(len(rows), size, replace=False)] = True
    return rows[~held], rows[held]


class Baseline(NamedTuple):
    """The accuracy of simple models on the ``'test'`` or the ``'validation'`` part."""

    part: str
    models: dict[str, Accuracy]


@dataclass(frozen=True)
class Parts:
    """Ratings cut into parts, as matrices of one shape, and where they came from.

    Parameters
    ----------
    train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        Ratings to learn from: finite, positive, in float32, each cell once, in order.
    test_mat, valid_mat : scipy.sparse.csr_matrix, optional
        Ratings held out to score, and to choose something on.
    name : str
        Of the data.
    user_ids, item_ids : numpy.ndarray, optional
        Raw ids; a position is a ``user_index`` or an ``item_index``. By default they
        are the positions.
    titles : mapping
        Raw item id to title, for the items that have one.
    features : mapping
        Raw item id to words that describe the item.
    rating_offset : float
        Was added to every rating.
    split : mapping
        How the parts were cut, for reports.

    Raises
    ------
    DataError
        If ids or a matrix are not so, by their name.
    """

    train_mat: sp.csr_matrix
    test_mat: sp.csr_matrix | None = None
    valid_mat: sp.csr_matrix | None = None
    name: str = "ratings"
    user_ids: Any = None
    item_ids: Any = None
    titles: Mapping[Any, str] = field(default_factory=dict)
    features: Mapping[Any, str] = field(default_factory=dict)
    rating_offset: float = 0.0
    split: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check ids and matrices; number users and items that have no ids."""
        shape = getattr(self.train_mat, "shape", (0, 0))
        for name, size in zip(("item_ids", "user_ids"), shape):
            if getattr(self, name) is None:
                object.__setattr__(self, name, np.arange(size))
            check_ids(name, getattr(self, name))
        shape = len(self.item_ids), len(self.user_ids)
        for name in ("train_mat", "test_mat", "valid_mat"):
            matrix = getattr(self, name)
            if matrix is not None or name == "train_mat":
                object.__setattr__(self, name, check_ratings(name, matrix, shape))

    @classmethod
    def of(
        cls,
        ratings: Ratings,
        train_rows: Any,
        test_rows: Any = None,
        valid_rows: Any = None,
        split: Mapping[str, Any] | None = None,
    ) -> "Parts":
        """Lay the parts of a table out as matrices; each is an array of its rows."""
        rows = {"train": train_rows, "test": test_rows, "valid": valid_rows}
        fields: dict[str, Any] = {
            f"{part}_mat": ratings.matrix(some)
            for part, some in rows.items()
            if some is not None
        }
        same = "name", "user_ids", "item_ids", "titles", "features", "rating_offset"
        fields |= {name: getattr(ratings, name) for name in same}
        return cls(**fields, split=split or {})

    @property
    def matrices(self) -> list[sp.csr_matrix]:
        """Those parts that there are."""
        found = self.train_mat, self.test_mat, self.valid_mat
        return [matrix for matrix in found if matrix is not None]

    @property
    def rating_range(self) -> tuple[float, float]:
        """The lowest and the highest training rating, in the unit of the file."""
        low, high = range_of(self.train_mat)
        return low - self.rating_offset, high - self.rating_offset

    @cached_property
    def baseline(self) -> Baseline | None:
        """What simple models have; None if nothing is held out."""
        for part, held_out in (("test", self.test_mat), ("validation", self.valid_mat)):
            if held_out is not None:
                return Baseline(part, baselines(self.train_mat, held_out))
        return None


@dataclass(frozen=True)
class Run:
    """A training to do: ratings, settings and a seed.

    Parameters
    ----------
    parts : Parts
        The ratings.
    recipe : Recipe or Blend
        The settings.
    seed : int
        Of the whole run.
    patience : int, optional
        Epochs without a new best on the validation part before the training stops.

    Raises
    ------
    ValueError
        If one of them is not so, by its name.
    """

    parts: Parts
    recipe: Recipe | Blend
    seed: int
    patience: int | None = None

    def __post_init__(self) -> None:
        """Check each field."""
        if not isinstance(self.recipe, Recipe | Blend):
            raise ValueError(f"recipe={self.recipe!r} is not a Recipe or a Blend")
        NON_NEGATIVE_INT.check("seed", self.seed)
        replace(POSITIVE_INT, words={"None": None}).check("patience", self.patience)
        if self.patience and self.parts.valid_mat is None:
            raise ValueError(f"patience={self.patience} needs a validation part")
