"""Ratings from a data frame, checked as those of a file are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .columns import guess_columns, suggested
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
    if reading.missing is not None:
        kept = values["rating"] != reading.missing
        data, values = data[kept], {n: v[kept] for n, v in values.items()}
    (users, user_ids), (items, item_ids) = (
        _number_ids(data[column], name) for column in ("user_id", "item_id")
    )
    rating, time = values["rating"], values.get("timestamp")
    if time is not None and not (time == np.rint(time)).all():
        time = np.rint(time * 1_000_000)
    found = Columns(
        users,
        items,
        rating.astype(np.float32),
        None if time is None else time.astype(np.int64),
        user_ids,
        item_ids,
        float(rating.min()),
    )
    return ratings_of(name, found, reading, lambda row: f"{name}: row {row}")


def _number_ids(column: pd.Series, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of a column's ids in their order, and the ids."""
    import pandas as pd

    label = f"{name}: column {column.name}"
    for fault, rows in (("missing", column.isna()), ("empty", column == "")):
        if (found := np.asarray(rows, bool)).any():
            raise DataError(
                f"{name}: row {found.argmax()}: the {column.name} is {fault}"
            )
    try:
        codes, raw_ids = pd.factorize(column)
        check_ids(label, raw_ids)
        # An array of Python's strings, whatever type pandas has for them.
        ids = np.asarray(raw_ids)
        order = np.argsort(ids)
    except TypeError as error:
        raise DataError(f"{label} cannot be sorted: {error}") from None
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    return place[codes], ids[order]


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
    """Check a column of numbers, and return it as float64."""
    from pandas.api.types import is_bool_dtype, is_numeric_dtype

    kind = column.dtype
    if not is_numeric_dtype(kind) or is_bool_dtype(kind):
        raise DataError(f"{name}: {column.name}: {kind} is not a type of numbers")
    values: np.ndarray = column.to_numpy(np.float64, na_value=np.nan)
    limit = np.finfo(np.float32).max if column.name == "rating" else 2.0**63
    for fault, rows in (
        ("missing", np.isnan(values)),
        ("not finite in float32", ~(np.abs(values) <= limit)),
    ):
        if rows.any():
            row = rows.argmax()
            raise DataError(f"{name}: row {row}: the {column.name} is {fault}")
    return values
