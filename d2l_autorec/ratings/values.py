"""The values of ratings: repeated pairs, values that are none, the shift above 0."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..errors import DataError
from .table import Ratings

log = logging.getLogger(__name__)

DUPLICATES = ("error", "last", "mean", "sum", "max")
TRANSFORMS = ("log",)
BLOCK = 1 << 22  # ratings that are worked on at a time


@dataclass(frozen=True)
class Reading:
    """How ratings are read.

    Parameters
    ----------
    columns : sequence of str, optional
        User, item, rating and, if wanted, timestamp: each the name of a column or its
        position from 1. Guessed when the header has usual names, or when there is no
        header and three or four columns.
    encoding : str
        Of a text: ``utf-8``, or ``latin-1`` and the like; a byte order mark goes before
        it.
    duplicates : {'error', 'last', 'mean', 'sum', 'max'}
        What to do when a user rated an item more than once.
    missing : float, optional
        A value that stands for no rating, such as 0 or 99; rows with it are left out.
    transform : {'log'}, optional
        What to train on instead of the value: with ``'log'`` the logarithm of 1 plus
        it, for counts and times, of which few are very large.
    skip_bad_lines : bool
        Go on without lines that cannot be read, and say how many they are.
    pairs : bool
        The rating is of no interest: its column may be missing, and a repeated pair
        counts once unless `duplicates` says something else.

    Raises
    ------
    ValueError
        If one of them is not so.
    """

    columns: Sequence[str] | None = None
    encoding: str = "utf-8"
    duplicates: str = "error"
    missing: float | None = None
    transform: str | None = None
    skip_bad_lines: bool = False
    pairs: bool = False

    def __post_init__(self) -> None:
        """Check the words."""
        for name, words in (
            ("duplicates", DUPLICATES),
            ("transform", (None, *TRANSFORMS)),
        ):
            value = getattr(self, name)
            if value not in words:
                raise ValueError(f"{name} is one of {words}, not {value!r}")


@dataclass
class Columns:
    """What was read of ratings, before anything is done to their values."""

    user_index: np.ndarray  # int32, shape (num_ratings,)
    item_index: np.ndarray
    rating: np.ndarray  # float32
    timestamp: np.ndarray | None  # int64
    user_ids: np.ndarray
    item_ids: np.ndarray
    part: np.ndarray | None = None  # int8: the part of a split that a row is of


def ratings_of(
    name: str, columns: Columns, reading: Reading, where: Callable[[int], str]
) -> Ratings:
    """Make the table, with a scale that starts above 0; `where` names a row."""
    for noun, ids in (("user", columns.user_ids), ("item", columns.item_ids)):
        if len(ids) < 2:
            raise DataError(
                f"{name}: holds {len(columns.rating)} ratings and only {len(ids)} "
                f"{noun}; at least two users and two items are needed"
            )
    num_rows = len(columns.rating)
    _settle_duplicates(columns, reading.duplicates, where)
    _note_values(name, columns.rating, reading)
    rating = columns.rating
    low = float(rating.min())
    if reading.transform == "log":
        if low < 0:
            raise DataError(f"{name}: a rating of {low:g} has no log (--transform)")
        rating, low = np.log1p(rating), float(np.log1p(low))
    offset = 1.0 - low if low <= 0 else 0.0
    if offset:
        rating = rating + np.float32(offset)
    return Ratings(
        name,
        columns.user_index,
        columns.item_index,
        rating,
        columns.timestamp,
        columns.user_ids,
        columns.item_ids,
        rating_offset=offset,
        num_repeated=num_rows - len(rating),
    )


def _settle_duplicates(
    columns: Columns, duplicates: str, where: Callable[[int], str]
) -> None:
    """Leave one rating of a pair, at the place of its last, or refuse a second one."""
    # Of many ratings there is no room to sort all pairs at once.
    num_users, num_ratings = len(columns.user_ids), len(columns.rating)
    size = -(-num_users // (num_ratings // BLOCK + 1))
    kept, repeats, is_split = np.ones(num_ratings, bool), [], False
    for start in range(0, num_users, size):
        user = columns.user_index
        rows = np.flatnonzero((user >= start) & (user < start + size))
        pair = user[rows] * np.int64(len(columns.item_ids)) + columns.item_index[rows]
        order = pair.argsort(kind="stable")
        rows, again = rows[order], np.diff(pair[order], prepend=-1) == 0
        if not again.any():
            continue
        repeats.append(rows[again])
        if columns.part is not None:
            is_split |= bool(np.diff(columns.part[rows], prepend=0)[again].any())
        first = np.flatnonzero(~again)  # of each pair
        last = rows[np.append(first[1:], len(rows)) - 1]
        rating = columns.rating[rows].astype(np.float64)
        if duplicates == "max":
            columns.rating[last] = np.maximum.reduceat(rating, first)
        elif duplicates in ("mean", "sum"):
            total = np.add.reduceat(rating, first)
            counts = np.diff(np.append(first, len(rows)))
            columns.rating[last] = total / counts if duplicates == "mean" else total
        kept[rows] = False
        kept[last] = True
    if not repeats:
        return
    if duplicates == "error" or is_split:
        row = min(int(rows.min()) for rows in repeats)
        (user_id,) = columns.user_ids[columns.user_index[[row]]].tolist()
        (item_id,) = columns.item_ids[columns.item_index[[row]]].tolist()
        raise DataError(
            f"{where(row)}: user {user_id!r} rates item {item_id!r} again; "
            f"{sum(map(len, repeats)):,} ratings repeat a pair, so keep one of each "
            "(--duplicates last, mean, sum or max)"
        )
    for name in ("user_index", "item_index", "rating", "timestamp", "part"):
        if (column := getattr(columns, name)) is not None:
            setattr(columns, name, column[kept])


def _note_values(name: str, rating: np.ndarray, reading: Reading) -> None:
    """Say what values may mean that are no ratings."""
    for value, meaning in ((0, "no rating"), (-1, "watched, and not rated")):
        count = np.count_nonzero(rating == value)
        if 3 * count > len(rating):
            log.warning(
                "%s: %.0f%% of the ratings are %d, which may mean %s; --missing %d "
                "leaves them out",
                *(name, 100 * count / len(rating), value, meaning, value),
            )
    sample = rating[:: len(rating) // 1_000_000 + 1]
    if reading.transform is None and 0 < 50 * np.median(sample) < rating.max():
        log.warning(
            "%s: the largest rating, %g, is more than 50 times the median; of counts "
            "or times, --transform log takes the logarithm",
            *(name, rating.max()),
        )
