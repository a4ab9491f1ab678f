"""Ratings from a data frame, checked as those of a file are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .columns import place_columns
from .table import COLUMNS, Ratings, check_ids
from .values import Columns, Reading, ratings_of

if TYPE_CHECKING:
    import pandas as pd


def ratings_from_frame(
    frame: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    name: str = "ratings",
    **options: Any,
) -> Ratings:
    """Take ratings from a data frame.

    Parameters
    ----------
    frame : pandas.DataFrame
        One rating a row; it is left as it is.
    columns : sequence of str, optional
        The columns of user, item, rating and, if wanted, timestamp. Guessed where they
        have usual names, or where there are three or four of them without any names.
    name : str
        What reports and errors call the data.
    **options
        The fields ``duplicates``, ``missing`` and ``transform`` of `Reading`.

    Returns
    -------
    Ratings
        The ids are what they are in the frame: ``1`` and ``'1'`` are two of them.

    Raises
    ------
    DataError
        For the first thing wrong, with column, row (counted from 0) and value: what
        `read_ratings` refuses in a file.
    """
    reading = Reading(**options)
    data = _chosen(frame, columns, name)
    if data.empty:
        raise DataError(f"{name}: holds no ratings")
    values = {n: _numbers(data[n], name) for n in data if n in ("rating", "timestamp")}
    kept = np.flatnonzero(values["rating"] != reading.missing)
    data, values = data.iloc[kept], {n: v[kept] for n, v in values.items()}
    users, user_ids = _codes(data["user_id"], name)
    items, item_ids = _codes(data["item_id"], name)
    time = values.get("timestamp")
    if time is not None:  # in microseconds where there are fractions
        is_whole = (time == np.rint(time)).all()
        time = np.rint(time * (1 if is_whole else 1_000_000)).astype(np.int64)
    rating = values["rating"].astype(np.float32)
    found = Columns(users, items, rating, time, user_ids, item_ids)
    return ratings_of(name, found, reading, lambda row: f"{name}: row {kept[row]}")


def _codes(column: pd.Series, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of a column's ids in their order, and the ids."""
    import pandas as pd

    label = f"{name}: column {column.name}"
    try:
        # An array of Python's strings, whatever type pandas has for them.
        codes, ids = pd.factorize(np.asarray(column), sort=True)
        check_ids(label, ids)
    except TypeError as error:
        raise DataError(f"{label} cannot be sorted: {error}") from None
    unfit = np.asarray(column.isna() | (column == ""), bool)
    if unfit.any():
        row = column.index[unfit.argmax()]
        raise DataError(f"{name}: row {row}: the {column.name} is empty")
    return codes.astype(np.int32), ids


def _chosen(
    frame: pd.DataFrame, columns: Sequence[Any] | None, name: str
) -> pd.DataFrame:
    """Copy the columns that are to be read, by the names that `Ratings` has."""
    labels = list(frame.columns)
    if columns:
        columns = [labels.index(c) + 1 if labels.count(c) == 1 else c for c in columns]
    positions, _ = place_columns(name, list(map(str, labels)), COLUMNS, columns)
    chosen = frame.iloc[:, positions]
    return chosen.set_axis(COLUMNS[: len(positions)], axis=1).reset_index(drop=True)


def _numbers(column: pd.Series, name: str) -> np.ndarray:
    """Check a column of numbers, and return it as float64."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    kind = column.dtype
    if not is_numeric_dtype(kind) or is_bool_dtype(kind):
        raise DataError(f"{name}: {column.name}: {kind} is not a type of numbers")
    values: np.ndarray = column.to_numpy(np.float64, na_value=np.nan)
    limit = np.finfo(np.float32).max if column.name == "rating" else 2.0**63
    unfit = ~(np.abs(values) <= limit)
    if unfit.any():
        row = unfit.argmax()
        raise DataError(
            f"{name}: row {row}: {column.name} {values[row]:g} is not a finite number "
            "in float32"
        )
    return values
