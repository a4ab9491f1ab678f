"""Making the table of ratings from a data frame."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from ..errors import DataError
from .table import COLUMNS, Ratings, check_ids, repeat_a_pair


def make_ratings(
    name: str,
    data: pd.DataFrame,
    titles: Mapping[Any, str] | None = None,
    rating_offset: float = 0.0,
) -> Ratings:
    """Make the table of a data frame whose ratings are positive."""
    _check_columns(name, data)
    found = {}
    for column in ("user_id", "item_id"):
        try:
            codes, raw_ids = pd.factorize(data[column])
            check_ids(f"{name}: column {column}", raw_ids)
            # An array of Python's strings, whatever type pandas has for them.
            ids = np.asarray(raw_ids)
            order = np.argsort(ids)
        except TypeError as error:
            raise DataError(
                f"{name}: column {column} cannot be sorted: {error}"
            ) from None
        place = np.empty(len(order), np.int32)
        place[order] = np.arange(len(order))
        found[column] = place[codes], ids[order]
    (user_index, user_ids), (item_index, item_ids) = found.values()
    if repeat_a_pair(user_index, item_index):
        row, repeat = first_repeat(data)
        raise DataError(f"{name}: row {row}: {repeat}")
    timestamp = None
    if "timestamp" in data:
        timestamp = data["timestamp"].to_numpy(np.int64)
    return Ratings(
        name,
        user_index,
        item_index,
        data["rating"].to_numpy(np.float32),
        timestamp,
        user_ids,
        item_ids,
        titles or {},
        rating_offset,
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
