"""Ratings: a checked table of who rated what, and the file that it is read from."""

from __future__ import annotations

import csv
import gzip
import io
import math
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .errors import DataError

COLUMNS = ("user_id", "item_id", "rating", "timestamp")
DUPLICATES = ("error", "last", "mean")

# Names that ratings files give the four columns, lower case, letters only.
_HEADER_NAMES = {
    "user_id": {"user", "userid", "uid", "u", "customer", "customerid", "reviewerid"},
    "item_id": {
        *("item", "itemid", "iid", "i", "movie", "movieid", "film", "filmid"),
        *("book", "bookid", "product", "productid", "track", "trackid", "asin", "isbn"),
    },
    "rating": {"rating", "ratings", "score", "stars", "value", "r", "bookrating"},
    "timestamp": {"timestamp", "time", "ts", "unixtime", "unixreviewtime", "ratedat"},
}
# Tried in this order: a line of "1::2::3" holds no other mark.
_SEPARATORS = ("::", "\t", ";", "|", ",")
# pandas reads only one-character separators fast; no ratings file holds this one.
_UNIT_SEPARATOR = "\x1f"


@dataclass(frozen=True)
class Ratings:
    """Ratings with the ids that their users and items go by.

    Parameters
    ----------
    name : str
        What to call the data in reports: ``'ml-100k'``, or a file's name.
    data : pandas.DataFrame
        One row a rating: ``user_id`` and ``item_id`` (raw ids), ``rating`` (finite and
        positive, because 0 marks an unobserved cell) and, where known, ``timestamp``.
        No pair of user and item occurs twice.
    titles : mapping, optional
        Raw item id to title, for the items that have one.
    rating_offset : float
        Was added to every rating, to make it positive.

    Attributes
    ----------
    user_ids, item_ids : numpy.ndarray
        Sorted raw ids; a position in them is a ``user_index`` or an ``item_index``.
    """

    name: str
    data: pd.DataFrame
    titles: Mapping[Any, str] = field(default_factory=dict, repr=False)
    rating_offset: float = 0.0
    user_ids: np.ndarray = field(init=False, repr=False)
    item_ids: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        for ids, column in (("user_ids", "user_id"), ("item_ids", "item_id")):
            object.__setattr__(self, ids, np.sort(self.data[column].unique()))

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
        """
        user_index, item_index = self.indices(table)
        return sp.csr_matrix(
            (table["rating"].to_numpy(np.float32), (item_index, user_index)),
            shape=(self.num_items, self.num_users),
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


def read_ratings(
    path: str | Path,
    *,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    duplicates: str = "error",
    rating_offset: float = 0.0,
) -> Ratings:
    """Read a ratings file.

    Parameters
    ----------
    path : path
        Text with one rating a line, fields apart by tab, ``::``, comma, semicolon or
        ``|``, with or without a header; plain, gzip, or a zip of one file; or Parquet
        (``.parquet``), when pyarrow is installed.
    columns : sequence of str, optional
        User, item, rating and, if wanted, timestamp: each the name of a column or its
        position from 1. Guessed when the header has usual names, or when there is no
        header and three or four columns.
    encoding : str
        ``utf-8`` (a byte order mark is fine), or ``latin-1`` and the like.
    duplicates : {'error', 'last', 'mean'}
        What to do when a user rated an item twice.
    rating_offset : float
        Added to every rating, for scales that reach 0 or below.

    Returns
    -------
    Ratings
        Named after the file. Ids are integers when every one is written as an integer
        is (``1`` but not ``01``), else strings just as they are in the file.

    Raises
    ------
    DataError
        For the first thing wrong, with file, line and value.
    """
    path = Path(path)
    raw = (_parquet_as_csv if path.suffix == ".parquet" else _read_bytes)(path)
    data = parse_ratings(raw, str(path), columns, encoding, rating_offset)
    data = _without_duplicates(data, str(path), duplicates)
    return Ratings(path.name, data, rating_offset=rating_offset)


def parse_ratings(
    raw: bytes,
    label: str,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    rating_offset: float = 0.0,
) -> pd.DataFrame:
    """Parse and check the text of a ratings file.

    Parameters
    ----------
    raw : bytes
        The text.
    label : str
        What errors call the file.
    columns, encoding, rating_offset
        As for `read_ratings`.

    Returns
    -------
    pandas.DataFrame
        Columns as in `Ratings`, rows in the file's order.

    Raises
    ------
    DataError
        For the first thing wrong, with file, line and value.
    """
    layout = _Layout.of(raw, label, columns, encoding)
    body, separator = raw, layout.separator
    if len(separator) > 1:
        body = body.replace(separator.encode(), _UNIT_SEPARATOR.encode())
        separator = _UNIT_SEPARATOR
    names = [name for _, name in sorted(zip(layout.positions, COLUMNS))]
    kinds = {"user_id": "category", "item_id": "category"}
    try:
        data = pd.read_csv(
            io.BytesIO(body),
            sep=separator,
            header=0 if layout.header else None,
            names=names,
            usecols=sorted(layout.positions),
            dtype={name: kinds.get(name, "float64") for name in names},
            keep_default_na=False,
            encoding=layout.encoding,
            index_col=False,
        )
    except (ValueError, OverflowError, pd.errors.ParserError) as error:
        layout.raise_first_fault(raw, rating_offset)
        raise DataError(f"{label}: {error}") from error
    data = data[list(COLUMNS[: len(names)])]
    data["rating"] += rating_offset
    numbers = data.drop(columns=["user_id", "item_id"]).to_numpy()
    if not (
        np.isfinite(numbers).all()
        and (data["rating"] > 0).all()
        and all(_ids_are_complete(data[name]) for name in COLUMNS[:2])
    ):
        layout.raise_first_fault(raw, rating_offset)
        raise DataError(f"{label}: a field is empty or not a number")
    for name in COLUMNS[:2]:
        data[name] = _plain_ids(data[name])
    if "timestamp" in data and (data["timestamp"] % 1 == 0).all():
        data["timestamp"] = data["timestamp"].astype(np.int64)
    for name, noun in zip(COLUMNS[:2], ("user", "item")):
        if data[name].nunique() < 2:
            raise DataError(
                f"{label}: holds {len(data)} ratings and only one {noun}; "
                "at least two users and two items are needed"
            )
    return data


@dataclass(frozen=True)
class _Layout:
    """How a ratings file is written: where its fields are."""

    label: str
    encoding: str
    separator: str
    header: bool
    positions: tuple[int, ...]  # of user, item, rating and perhaps timestamp

    @classmethod
    def of(
        cls, raw: bytes, label: str, columns: Sequence[str] | None, encoding: str
    ) -> _Layout:
        """Find the layout in the first line that is not blank."""
        if encoding.lower().replace("_", "-") in ("utf-8", "utf8"):
            encoding = "utf-8-sig"
        line = next((line for line in io.BytesIO(raw) if line.strip()), None)
        if line is None:
            raise DataError(f"{label}: is empty")
        try:
            first = line.decode(encoding).rstrip("\r\n")
        except LookupError:
            raise DataError(f"unknown encoding {encoding!r}") from None
        except UnicodeDecodeError:
            raise DataError(_not_this_encoding(label, 1, encoding)) from None
        separator = next((mark for mark in _SEPARATORS if mark in first), None)
        if separator is None:
            raise DataError(
                f"{label}:1: no tab, '::', comma, semicolon or '|' between fields "
                f"in {_shown(first)}"
            )
        fields = _fields(first, separator)
        header_names = ["".join(filter(str.isalpha, f.lower())) for f in fields]
        if columns is None:
            positions, header = cls._guess(label, fields, header_names)
        else:
            positions = tuple(cls._position(label, c, fields) for c in columns)
            header = _number(fields[positions[2]]) is None
            named = [c for c in columns if not c.isdigit()]
            if named and not header:
                raise DataError(
                    f"{label}: has no header to find column {named[0]!r} in"
                )
        return cls(label, encoding, separator, header, positions)

    @staticmethod
    def _guess(
        label: str, fields: list[str], header_names: list[str]
    ) -> tuple[tuple[int, ...], bool]:
        found = [
            next((i for i, n in enumerate(header_names) if n in usual), None)
            for usual in _HEADER_NAMES.values()
        ]
        if None not in found[:3]:
            return tuple(i for i in found if i is not None), True
        if len(fields) in (3, 4) and _number(fields[2]) is not None:
            return tuple(range(len(fields))), False
        if len(fields) < 3:
            raise DataError(
                f"{label}:1: {len(fields)} columns where user, item and rating are "
                f"needed: {_shown(', '.join(fields))}"
            )
        raise DataError(
            f"{label}:1: cannot tell which columns are user, item and rating among "
            f"{_shown(', '.join(fields))}; name them (--columns user,item,rating)"
        )

    @staticmethod
    def _position(label: str, column: str, fields: list[str]) -> int:
        if column in fields:
            return fields.index(column)
        if column.isdigit() and 1 <= int(column) <= len(fields):
            return int(column) - 1
        raise DataError(
            f"{label}: no column {column!r} among {_shown(', '.join(fields))}"
        )

    def raise_first_fault(self, raw: bytes, rating_offset: float) -> None:
        """Read the slow way, line by line, to name the first line that is wrong."""
        width = None
        for number, fields in self._numbered_rows(raw):
            where = f"{self.label}:{number}"
            width = width or len(fields)
            if len(fields) <= max(self.positions) or len(fields) > width:
                raise DataError(
                    f"{where}: {len(fields)} columns where {width} are expected: "
                    f"{_shown(self.separator.join(fields))}"
                )
            values = dict(zip(COLUMNS, (fields[p] for p in self.positions)))
            for name in COLUMNS[:2]:
                if not values[name]:
                    raise DataError(f"{where}: the {name[:4]} is empty")
            rating = _number(values["rating"])
            if rating is None or not math.isfinite(rating):
                raise DataError(
                    f"{where}: rating {_shown(values['rating'])} is not a finite number"
                )
            if rating + rating_offset <= 0:
                raise DataError(
                    f"{where}: rating {_shown(values['rating'])} is not positive; 0 "
                    "marks an unobserved cell, so shift the scale (--rating-offset)"
                )
            time = _number(values.get("timestamp", "0"))
            if time is None or not math.isfinite(time):
                raise DataError(
                    f"{where}: timestamp {_shown(values['timestamp'])} is not a "
                    "number; leave that column out of --columns if it is not needed"
                )

    def _numbered_rows(self, raw: bytes) -> Iterator[tuple[int, list[str]]]:
        header = self.header
        for number, line in enumerate(io.BytesIO(raw), 1):
            try:
                text = line.decode(self.encoding).rstrip("\r\n")
            except UnicodeDecodeError:
                raise DataError(
                    _not_this_encoding(self.label, number, self.encoding)
                ) from None
            if not text.strip():
                continue
            if header:
                header = False
                continue
            if text.count('"') % 2:
                raise DataError(f"{self.label}:{number}: a quote is not closed")
            yield number, _fields(text, self.separator)


def _fields(line: str, separator: str) -> list[str]:
    if len(separator) > 1:
        line, separator = line.replace(separator, _UNIT_SEPARATOR), _UNIT_SEPARATOR
    return next(csv.reader([line], delimiter=separator), [])


def _number(text: str) -> float | None:
    try:
        return None if "_" in text else float(text)
    except ValueError:
        return None


def _shown(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")


def _not_this_encoding(label: str, line: int, encoding: str) -> str:
    encoding = encoding.replace("-sig", "")
    return f"{label}:{line}: is not {encoding}; name its encoding (--encoding latin-1)"


def _ids_are_complete(ids: pd.Series) -> bool:
    return bool(ids.notna().all()) and "" not in ids.cat.categories


def _plain_ids(ids: pd.Series) -> np.ndarray:
    """Give a column of strings as integers where that changes no id."""
    categories: np.ndarray = ids.cat.categories.to_numpy(object)
    try:
        integers = categories.astype(np.int64)
        if (integers.astype(str) == categories.astype(str)).all():
            categories = integers
    except (ValueError, OverflowError):
        pass
    return np.asarray(categories[ids.cat.codes.to_numpy()])


def _without_duplicates(data: pd.DataFrame, label: str, policy: str) -> pd.DataFrame:
    pair = ["user_id", "item_id"]
    repeated = data.duplicated(pair)
    if policy not in DUPLICATES:
        raise ValueError(f"duplicates is one of {DUPLICATES}, not {policy!r}")
    if not repeated.any():
        return data
    if policy == "error":
        first = data[repeated].iloc[0]
        raise DataError(
            f"{label}: {repeated.sum():,} ratings repeat a pair, the first of them "
            f"user {first.user_id!r}, item {first.item_id!r}; keep one of each "
            "(--duplicates last or mean)"
        )
    kept = data.drop_duplicates(pair, keep="last").copy()
    if policy == "mean":
        means = data.groupby(pair)["rating"].mean()
        kept["rating"] = means.loc[pd.MultiIndex.from_frame(kept[pair])].to_numpy()
    return kept.reset_index(drop=True)


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        if raw.startswith(b"\x1f\x8b"):
            return gzip.decompress(raw)
        if not raw.startswith(b"PK\x03\x04"):
            return raw
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = [m for m in archive.namelist() if not m.endswith("/")]
            if len(members) != 1:
                raise DataError(
                    f"{path}: a zip of one ratings file is needed; "
                    f"this one holds {len(members)} files"
                )
            return archive.read(members[0])
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError) as error:
        raise DataError(f"{path}: damaged archive: {error}") from error
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _parquet_as_csv(path: Path) -> bytes:
    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise DataError(
            f"{path}: Parquet needs pyarrow (pip install pyarrow)"
        ) from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    return bytes(table.to_csv(index=False).encode())
