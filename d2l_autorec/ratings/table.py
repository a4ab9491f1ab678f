"""Ratings: a checked table of who rated what."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp

from ..errors import DataError

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = ("user_id", "item_id", "rating", "timestamp")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which has no UTF-8


@dataclass(frozen=True, eq=False)
class Ratings:
    """Ratings with the ids of their users and items.

    Parameters
    ----------
    name : str
        What to call the data in reports: ``'ml-100k'``, or a file's name.
    user_index, item_index : numpy.ndarray of int32, shape (num_ratings,)
        Positions in `user_ids` and `item_ids`. No pair occurs twice.
    rating : numpy.ndarray of float32, shape (num_ratings,)
        As trained on: finite and positive, because 0 marks an unobserved cell.
    timestamp : numpy.ndarray of int64, shape (num_ratings,), or None
        When the rating was given, in the unit of the file.
    user_ids, item_ids : numpy.ndarray
        Raw ids, sorted: texts, whole numbers in 64 bits, or finite numbers.
    titles : mapping, optional
        Raw item id to title, for the items that have one.
    features : mapping, optional
        Raw item id to words that describe the item, such as genres.
    rating_offset : float
        Was added to every rating to make it positive; else 0.
    num_repeated : int
        Rows of the file that repeated a pair, and are settled.

    Raises
    ------
    DataError
        If ids or ratings are not so, with the first row in which they are not.
    """

    name: str
    user_index: np.ndarray
    item_index: np.ndarray
    rating: np.ndarray
    timestamp: np.ndarray | None
    user_ids: np.ndarray
    item_ids: np.ndarray
    titles: Mapping[Any, str] = field(default_factory=dict, repr=False)
    features: Mapping[Any, str] = field(default_factory=dict, repr=False)
    rating_offset: float = 0.0
    num_repeated: int = 0

    def __post_init__(self) -> None:
        """Check the table, which a caller may have made."""
        if not len(self.rating):
            raise DataError(f"{self.name}: holds no ratings")
        for column in ("user_id", "item_id"):
            check_ids(f"{self.name}: column {column}", getattr(self, f"{column}s"))
        # Below these, float32 loses digits, and MXNet does not read a number.
        tiny = np.finfo(np.float32).tiny
        unfit = ~(np.isfinite(self.rating) & (self.rating >= tiny))
        if unfit.any():
            row = int(unfit.argmax())
            raise DataError(
                f"{self.name}: row {row}: rating {self.rating[row]} is not a finite, "
                "positive float32; 0 marks an unobserved cell"
            )

    @property
    def num_users(self) -> int:
        """Number of users with at least one rating."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Number of items with at least one rating."""
        return len(self.item_ids)

    @property
    def num_ratings(self) -> int:
        """Number of ratings."""
        return len(self.rating)

    def indices(self, rows: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Return the 0-based indices of users and items.

        Parameters
        ----------
        rows : array of int64, optional
            Positions of ratings, such as one part of a split; by default all.

        Returns
        -------
        user_index, item_index : numpy.ndarray of int32, shape (len(rows),)
        """
        rows = slice(None) if rows is None else rows
        return self.user_index[rows], self.item_index[rows]

    def frame(self, rows: Any = None) -> pd.DataFrame:
        """Make a data frame of ratings.

        Parameters
        ----------
        rows : array of int64, optional
            As for `indices`.

        Returns
        -------
        pandas.DataFrame
            ``user_id``, ``item_id``, ``rating`` in the unit of the file and, where
            known, ``timestamp``; its index is `rows`.
        """
        import pandas as pd

        user_index, item_index = self.indices(rows)
        rows = slice(None) if rows is None else rows
        columns = {
            "user_id": self.user_ids[user_index],
            "item_id": self.item_ids[item_index],
            "rating": self.rating[rows].astype(np.float64) - self.rating_offset,
        }
        if self.timestamp is not None:
            columns["timestamp"] = self.timestamp[rows]
        return pd.DataFrame(columns, index=pd.RangeIndex(self.num_ratings)[rows])

    @cached_property
    def data(self) -> pd.DataFrame:
        """All ratings as a data frame, see `frame`."""
        return self.frame()

    def matrix(self, rows: Any = None) -> sp.csr_matrix:
        """Lay ratings out as the interaction matrix, sparse.

        Parameters
        ----------
        rows : array of int64, optional
            As for `indices`, none of them twice.

        Returns
        -------
        scipy.sparse.csr_matrix of float32, shape (num_items, num_users)
            The rating in each observed cell; a cell that is not stored is unobserved.

        Raises
        ------
        DataError
            If a pair of user and item occurs twice.
        """
        user_index, item_index = self.indices(rows)
        rating = self.rating if rows is None else self.rating[rows]
        shape = (self.num_items, self.num_users)
        matrix = sp.csr_matrix((rating, (item_index, user_index)), shape)
        if matrix.nnz < len(rating):  # the ratings of a pair are added up
            raise DataError(f"{self.name}: a user rates an item twice")
        return matrix

    def check_varied(self, rows: Any = None) -> None:
        """Refuse rows to train on whose ratings are all equal."""
        rating = self.rating if rows is None else self.rating[rows]
        if rating.size and rating.min() == rating.max():
            raise DataError(
                f"{self.name}: all ratings are {rating[0] - self.rating_offset:g}, so "
                "there is nothing to predict; what users choose next can be learned "
                "from purchases or views: --feedback implicit"
            )

    def summary(self) -> str:
        """Describe size, sparsity and rating scale in one line."""
        low, high = float(self.rating.min()), float(self.rating.max())
        offset = self.rating_offset
        mean = float(self.rating.mean(dtype=np.float64)) - offset
        trained = f", trained on {low:g} to {high:g}" if offset else ""
        cells = self.num_users * self.num_items
        return (
            f"{self.name}: {self.num_users:,} users x {self.num_items:,} items, "
            f"{self.num_ratings:,} ratings from {low - offset:g} to {high - offset:g} "
            f"(mean {mean:.2f}){trained}, {1 - self.num_ratings / cells:.2%} of the "
            "cells unobserved"
        )


def is_text(value: Any) -> bool:
    """Tell whether a value is a text that can be written as UTF-8."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def check_ids(name: str, ids: Any) -> None:
    """Check raw ids: different texts, whole numbers in 64 bits, or finite numbers."""
    found = [ids] if np.ndim(ids) != 1 else list(ids)
    if isinstance(ids, np.ndarray) and ids.dtype.kind not in "mM":  # not dates
        found = ids.tolist()
    kind: Any = type(found[0]) if found else str
    for raw_id in found:
        if type(raw_id) is not kind or not (
            (kind is int and -(2**63) <= raw_id < 2**63)
            or (kind is float and math.isfinite(raw_id))
            or is_text(raw_id)
        ):
            raise DataError(
                f"{name}: {reprlib.repr(raw_id)} of type {type(raw_id).__name__} is no "
                "id here: all are texts, or all whole numbers in 64 bits (astype(str) "
                "makes texts)"
            )
    if len(set(found)) < len(found):
        raise DataError(f"{name}: an id occurs twice")
