"""Ratings: a checked table of who rated what."""

from __future__ import annotations

import math
import re
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from ..errors import DataError

COLUMNS = ("user_id", "item_id", "rating", "timestamp")
_SURROGATE = re.compile("[\ud800-\udfff]")  # half a character, which has no UTF-8


@dataclass(frozen=True)
class Ratings:
    """Ratings with the ids that their users and items go by.

    Parameters
    ----------
    name : str
        What to call the data in reports: ``'ml-100k'``, or a file's name.
    data : pandas.DataFrame
        One row a rating: ``user_id`` and ``item_id`` (raw ids: texts, whole numbers in
        64 bits, or finite numbers), ``rating`` (finite and positive, because 0 marks an
        unobserved cell) and, where known, ``timestamp``. Nothing is missing, and no
        pair of user and item occurs twice.
    titles : mapping, optional
        Raw item id to title, for the items that have one.
    rating_offset : float
        Was added to every rating, to make it positive.

    Attributes
    ----------
    user_ids, item_ids : numpy.ndarray
        Sorted raw ids; a position in them is a ``user_index`` or an ``item_index``.

    Raises
    ------
    DataError
        For data that are not so, with the first row in which they are not.
    """

    name: str
    data: pd.DataFrame
    titles: Mapping[Any, str] = field(default_factory=dict, repr=False)
    rating_offset: float = 0.0
    user_ids: np.ndarray = field(init=False, repr=False)
    item_ids: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        _check_columns(self.name, self.data)
        index = []
        for column in ("user_id", "item_id"):
            try:
                codes, found = pd.factorize(self.data[column])
                check_ids(f"{self.name}: column {column}", found)
                # An array of Python's strings, whatever type pandas has for them.
                ids = np.sort(np.asarray(found))
            except TypeError as error:
                raise DataError(
                    f"{self.name}: column {column} cannot be sorted: {error}"
                ) from None
            object.__setattr__(self, f"{column}s", ids)
            index.append(codes)
        if repeat_a_pair(*index):
            row, repeat = first_repeat(self.data)
            raise DataError(f"{self.name}: row {row}: {repeat}")

    @property
    def num_users(self) -> int:
        """Number of users with at least one rating."""
        return len(self.user_ids)

    @property
    def num_items(self) -> int:
        """Number of items with at least one rating."""
        return len(self.item_ids)

    def indices(self, table: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
        """Translate a table's raw ids to 0-based indices.

        Parameters
        ----------
        table : pandas.DataFrame
            Rows of `data`, or others with ``user_id`` and ``item_id``.

        Returns
        -------
        user_index, item_index : numpy.ndarray of int64, shape (len(table),)
            -1 for an id that is not in these ratings.
        """
        return (
            pd.Index(self.user_ids).get_indexer(table["user_id"]),
            pd.Index(self.item_ids).get_indexer(table["item_id"]),
        )

    def matrix(self, table: pd.DataFrame) -> sp.csr_matrix:
        """Lay ratings out as the interaction matrix, sparse.

        Parameters
        ----------
        table : pandas.DataFrame
            Rows of `data`, such as one part of a split.

        Returns
        -------
        scipy.sparse.csr_matrix of float32, shape (num_items, num_users)
            The rating in each observed cell; a cell that is not stored is unobserved.

        Raises
        ------
        DataError
            For an id that is not in these ratings, or a pair that occurs twice.
        """
        user_index, item_index = self.indices(table)
        for column, index in (("user_id", user_index), ("item_id", item_index)):
            if (index < 0).any():
                row, raw_id = _first(table[column], index < 0)
                raise DataError(
                    f"{self.name}: row {row}: {column} {raw_id!r} is not in the ratings"
                )
        matrix = sp.csr_matrix(
            (table["rating"].to_numpy(np.float32), (item_index, user_index)),
            shape=(self.num_items, self.num_users),
        )
        if matrix.nnz < len(table):  # the ratings of a pair are added up
            row, repeat = first_repeat(table)
            raise DataError(f"{self.name}: row {row}: {repeat}")
        return matrix

    def check_varied(self, train_data: pd.DataFrame) -> None:
        """Refuse rows to train on whose ratings are all equal.

        Raises
        ------
        DataError
            That names the rating.
        """
        rating = train_data["rating"].to_numpy(np.float32)
        if rating.size and rating.min() == rating.max():
            raise DataError(
                f"{self.name}: all ratings are {rating[0] - self.rating_offset:g}, so "
                "there is nothing to predict; purchases or views, which are implicit "
                "feedback, cannot be learned from"
            )

    def summary(self) -> str:
        """Describe size, sparsity and rating scale in one line."""
        rating = self.data["rating"]
        cells = self.num_users * self.num_items
        return (
            f"{self.name}: {self.num_users:,} users x {self.num_items:,} items, "
            f"{len(rating):,} ratings from {rating.min():g} to {rating.max():g} "
            f"(mean {rating.mean():.2f}), {1 - len(rating) / cells:.2%} of the cells "
            "unobserved"
        )


def _check_columns(name: str, data: pd.DataFrame) -> None:
    """Check that each column is there, and of each row that it is a rating."""
    absent = [column for column in COLUMNS[:3] if column not in data]
    if absent:
        found = ", ".join(map(str, data.columns))
        raise DataError(f"{name}: no column {absent[0]!r} among {found!r}")
    if data.empty:
        raise DataError(f"{name}: holds no ratings")
    for column in data.columns.intersection(COLUMNS):
        missing = data[column].isna()
        if missing.any():
            row, _ = _first(data[column], missing)
            raise DataError(f"{name}: row {row}: the {column} is missing")
    if not pd.api.types.is_numeric_dtype(data["rating"]):
        raise DataError(f"{name}: ratings are numbers, not {data['rating'].dtype}")
    with np.errstate(over="ignore"):
        rating = data["rating"].to_numpy(np.float32)
    # Below these, float32 loses digits, and MXNet does not read a number.
    unfit = ~(np.isfinite(rating) & (rating >= np.finfo(np.float32).tiny))
    if unfit.any():
        row, value = _first(data["rating"], unfit)
        raise DataError(
            f"{name}: row {row}: rating {value} is not a finite, positive float32; 0 "
            "marks an unobserved cell"
        )


def is_text(value: Any) -> bool:
    """Tell whether a value is a text that can be written as UTF-8."""
    return isinstance(value, str) and not _SURROGATE.search(value)


def check_ids(name: str, ids: Any) -> None:
    """Check raw ids: different texts, whole numbers in 64 bits, or finite numbers.

    Raises
    ------
    DataError
        For the first that is none, or is another kind than the ones before.
    """
    # Of objects, as dates in an array would become whole numbers.
    found = pd.Index(ids, dtype=object).tolist() if np.ndim(ids) == 1 else [ids]
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


def repeat_a_pair(user_index: Any, item_index: Any) -> bool:
    """Tell whether a pair occurs twice."""
    # One number a pair is sorted faster than pairs are looked up.
    pair = np.asarray(user_index, np.int64) * len(user_index) + np.asarray(item_index)
    pair.sort()
    return bool((pair[1:] == pair[:-1]).any())


def first_repeat(data: pd.DataFrame) -> tuple[Any, str]:
    """Find the first rating whose pair has one already: its row, and what to say."""
    repeated = data.duplicated(["user_id", "item_id"])
    row, user_id = _first(data["user_id"], repeated)
    _, item_id = _first(data["item_id"], repeated)
    return row, (
        f"user {user_id!r} rates item {item_id!r} again; {repeated.sum():,} ratings "
        "repeat a pair"
    )


def _first(column: pd.Series, where: Any) -> tuple[Any, Any]:
    """Find the label and the value of the first of some rows."""
    found = column[np.asarray(where)].head(1)
    return found.index[0], found.tolist()[0]
