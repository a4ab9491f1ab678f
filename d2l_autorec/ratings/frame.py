"""Ratings from a data frame, checked as those of a file are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..errors import DataError
from .columns import suggested
from .making import make_ratings
from .reading import DUPLICATES, check_size, guess_columns, without_duplicates
from .table import COLUMNS, Ratings


def ratings_from_frame(
    frame: pd.DataFrame,
    *,
    columns: Sequence[str] | None = None,
    name: str = "ratings",
    duplicates: str = "error",
    rating_offset: float = 0.0,
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
    duplicates, rating_offset
        As for `read_ratings`.

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
    if duplicates not in DUPLICATES:
        raise ValueError(f"duplicates is one of {DUPLICATES}, not {duplicates!r}")
    data = _chosen(frame, columns, name)
    for column in data.columns.intersection(["rating", "timestamp"]):
        data[column] = _numbers(data[column], name)
    data["rating"] += rating_offset
    for column in ("user_id", "item_id"):
        if (empty := (data[column] == "").to_numpy(bool)).any():
            raise DataError(f"{name}: row {empty.argmax()}: the {column} is empty")
    if duplicates != "error":
        data = without_duplicates(data, duplicates)
    ratings = make_ratings(name, data, rating_offset=rating_offset)
    check_size(data, name)
    return ratings


def _chosen(
    frame: pd.DataFrame, columns: Sequence[str] | None, name: str
) -> pd.DataFrame:
    """Copy the columns that are to be read, by the names that `Ratings` has."""
    found = ", ".join(map(str, frame.columns))
    if columns is None:
        fields = list(map(str, frame.columns))
        try:
            positions, _ = guess_columns(name, fields, COLUMNS)
        except DataError:
            such = frame.columns[suggested(fields, COLUMNS[:3])].tolist()
            raise DataError(
                f"{name}: cannot tell which columns are user, item and rating among "
                f"{found!r}; name them, such as columns={such}"
            ) from None
        chosen = frame.iloc[:, positions]
    else:
        for column in columns:
            if list(frame.columns).count(column) != 1:
                raise DataError(f"{name}: no one column {column!r} among {found!r}")
        if len(set(columns)) < len(columns) or len(columns) not in (3, 4):
            raise DataError(f"{name}: {columns} are not three or four columns")
        chosen = frame[list(columns)]
    names = COLUMNS[: chosen.shape[1]]
    return chosen.set_axis(names, axis=1).reset_index(drop=True)


def _numbers(column: pd.Series, name: str) -> np.ndarray:
    """Check a column of numbers; what is missing is NaN, which `Ratings` refuses."""
    kind = column.dtype
    if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_bool_dtype(kind):
        raise DataError(f"{name}: {column.name}: {kind} is not a type of numbers")
    values: np.ndarray = column.to_numpy(np.float64, na_value=np.nan)
    if (infinite := np.isinf(values)).any():
        raise DataError(
            f"{name}: row {infinite.argmax()}: the {column.name} is not finite"
        )
    return values
