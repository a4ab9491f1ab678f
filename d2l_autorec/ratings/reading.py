"""Reading ratings from a file, whatever it is separated by and packed in."""

from __future__ import annotations

import csv
import gzip
import io
import logging
import lzma
import math
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd

from ..errors import DataError
from .columns import likely, suggested, typed, usual
from .making import first_repeat, make_ratings
from .table import COLUMNS, Ratings, repeat_a_pair

_log = logging.getLogger(__name__)

DUPLICATES = ("error", "last", "mean")
NO_PYARROW = "Parquet needs pyarrow: python -m pip install pyarrow"

_NUMBERS = ("rating", "timestamp")
# Tried in this order: a line of "1::2::3" holds no other mark.
_SEPARATORS = ("::", "\t", ";", "|", ",")
# pandas reads only one-character separators fast; this one stands in for "::".
_UNIT_SEPARATOR = "\x1f"
# Of an archive's content, which may be a thousand times the archive.
_MAX_UNPACKED = 2 << 30
_BLOCK = 1 << 24
# What unpacking can raise: a damaged zip has its own way for each of its fields.
_ARCHIVE_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, LookupError, OSError, RuntimeError, ValueError),
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
        is (``1`` but not ``01``), else strings just as they are in the file; spaces
        before a field do not count.

    Raises
    ------
    DataError
        For the first thing wrong, with file, line and value.
    """
    path = Path(path)
    data = parse_ratings(
        _read_bytes(path), str(path), columns, encoding, duplicates, rating_offset
    )
    return make_ratings(path.name, data, rating_offset=rating_offset)


def read_parts(
    path: str | Path, test_path: str | Path, **layout: Any
) -> tuple[Ratings, np.ndarray, np.ndarray]:
    """Read ratings that come as two files, to train on and to test on.

    Parameters
    ----------
    path, test_path : path
        Two files as for `read_ratings`.
    **layout
        The other parameters of `read_ratings`, for both files.

    Returns
    -------
    ratings : Ratings
        Those of both files, named after the first; users and items are those of
        either. Ids are integers if they are in both files.
    train_rows, test_rows : numpy.ndarray of int64
        Rows of it.

    Raises
    ------
    DataError
        For the first thing wrong, or if both files rate a pair.
    """
    parts = [_parse(_read_bytes(Path(p)), str(p), **layout) for p in (path, test_path)]
    for name in ("user_id", "item_id"):
        if len({part[name].dtype.kind for part in parts}) > 1:
            for part in parts:
                part[name] = part[name].astype(str).astype(object)
    both = [name for name in COLUMNS if all(name in part for part in parts)]
    data = pd.concat([part[both] for part in parts], ignore_index=True)
    if repeat_a_pair(*(pd.factorize(data[name])[0] for name in both[:2])):
        raise DataError(f"{path} and {test_path}: {first_repeat(data)[1]}")
    check_size(data, str(path))
    ratings = make_ratings(
        Path(path).name, data, rating_offset=layout.get("rating_offset", 0.0)
    )
    train_rows, test_rows = np.split(np.arange(len(data)), [len(parts[0])])
    return ratings, train_rows, test_rows


def read_table(
    path: str | Path,
    names: Sequence[str],
    rating_offset: float = 0.0,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Read some columns of a ratings file, such as pairs to predict.

    Parameters
    ----------
    path : path
        A file as for `read_ratings`.
    names : sequence of str
        Which of ``user_id``, ``item_id``, ``rating`` and ``title`` to read. Without a
        header, the file has just these columns. Where none of them is a number, a
        header is what has usual names.
    rating_offset : float
        Added to every rating.
    columns : sequence of str, optional
        For each of `names` the name of a column or its position from 1.
    encoding : str
        As for `read_ratings`.

    Returns
    -------
    pandas.DataFrame
        The columns `names`, rows in the file's order.

    Raises
    ------
    DataError
        For the first thing wrong, with file, line and value.
    """
    path = Path(path)
    text = _Text.of(_read_bytes(path), str(path), encoding, names, columns)
    return _with_plain_ids(text.table(rating_offset))


def parse_ratings(
    raw: bytes,
    label: str,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    duplicates: str = "error",
    rating_offset: float = 0.0,
) -> pd.DataFrame:
    """Parse and check the text of a ratings file.

    Parameters
    ----------
    raw : bytes
        The text.
    label : str
        What errors call the file.
    columns, encoding, duplicates, rating_offset
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
    data = _parse(raw, label, columns, encoding, duplicates, rating_offset)
    check_size(data, label)
    return data


def _parse(
    raw: bytes,
    label: str,
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
    duplicates: str = "error",
    rating_offset: float = 0.0,
) -> pd.DataFrame:
    """Parse the text of a ratings file, which may be as small as one rating."""
    if duplicates not in DUPLICATES:
        raise ValueError(f"duplicates is one of {DUPLICATES}, not {duplicates!r}")
    text = _Text.of(raw, label, encoding, COLUMNS, columns)
    data = text.table(rating_offset)
    if repeat_a_pair(data["user_id"].cat.codes, data["item_id"].cat.codes):
        if duplicates == "error":
            row, repeat = first_repeat(data)
            raise DataError(
                f"{label}:{text.line_of(row)}: {repeat}, so keep one of each "
                "(--duplicates last or mean)"
            )
        data = without_duplicates(data, duplicates)
    return _with_plain_ids(data)


def check_size(data: pd.DataFrame, label: str) -> None:
    """Check that ratings are of two users and two items, or more.

    Raises
    ------
    DataError
        If they are not.
    """
    for noun in ("user", "item"):
        if data[f"{noun}_id"].nunique() < 2:
            raise DataError(
                f"{label}: holds {len(data)} ratings and only one {noun}; "
                "at least two users and two items are needed"
            )


@dataclass(frozen=True)
class _Text:
    """The text of a ratings file, and where its fields are."""

    raw: bytes  # UTF-8, lines end in LF
    label: str
    separator: str  # one character
    width: int  # fields a line
    header: bool
    names: Sequence[str]  # of the columns to read
    positions: Sequence[int]  # where they are

    @classmethod
    def of(
        cls,
        raw: bytes,
        label: str,
        encoding: str,
        names: Sequence[str],
        columns: Sequence[str] | None,
    ) -> _Text:
        """Find the layout in the first line that is not blank."""
        raw = _as_utf8(raw, label, encoding)
        line = next((line for line in io.BytesIO(raw) if line.strip()), None)
        if line is None:
            raise DataError(f"{label}: is empty")
        separator, fields = _cut(label, line.decode().rstrip("\n"), names)
        if columns is None:
            positions, header = guess_columns(label, fields, names)
        else:
            columns = [str(column) for column in columns]
            least = len([name for name in names if name != "timestamp"])
            if not least <= len(columns) <= len(names):
                raise DataError(
                    f"{label}: {columns} are not columns of {_listed(names[:least])}"
                )
            positions = [_position(label, column, fields) for column in columns]
            if len(set(positions)) < len(positions):
                raise DataError(f"{label}: two of the columns {columns} are the same")
            named = [column for column in columns if not _is_position(column)]
            header = _is_header(fields, positions, names)
            if named and not _has_numbers(names):
                header = True  # as they were found in it
            if named and not header:
                raise DataError(
                    f"{label}: has no header to find column {named[0]!r} in"
                )
        if len(separator) > 1:
            raw = _with_unit_separators(raw, label, separator)
            separator = _UNIT_SEPARATOR
        names = names[: len(positions)]
        text = cls(raw, label, separator, len(fields), header, names, positions)
        if columns and header and not named and _has_numbers(names):
            text._check_header(fields)
        return text

    def table(self, rating_offset: float) -> pd.DataFrame:
        """Read the columns: ids as categories of strings, numbers as floats.

        The check of the whole is fast. Only when it fails, or cannot be sure, the
        lines are walked, to name the first that is wrong.
        """
        names = [name for _, name in sorted(zip(self.positions, self.names))]
        numbers = [name for name in names if name in _NUMBERS]
        ids = [name for name in names if name not in numbers]
        try:
            data = pd.read_csv(
                io.BytesIO(self.raw),
                sep=self.separator,
                header=0 if self.header else None,
                names=names,
                usecols=sorted(self.positions),
                # As categories, pandas 3 would guess what 01 and 1.0 stand for.
                dtype={name: object if name in ids else "float64" for name in names},
                na_filter=False,
                skipinitialspace=True,
                index_col=False,
                low_memory=False,
            )
        except (ValueError, OverflowError) as error:
            self._raise_first_fault(rating_offset)
            reason = str(error).partition("\n")[0]
            raise DataError(f"{self.label}: {reason}") from error
        if data.empty:
            raise DataError(f"{self.label}: holds a header and no ratings")
        for name in ids:
            data[name] = _as_categories(data[name].to_numpy(), self.separator)
        if "rating" in data:
            data["rating"] += rating_offset
        # pandas fills up short lines, drops a line's surplus fields, and takes a column
        # of True for 1.
        num_lines = len(data) + self.header
        if not (self._is_even(num_lines) and self._first_row_is_numeric()):
            self._raise_first_fault(rating_offset)
        if not (
            all(np.isfinite(data[name]).all() for name in numbers)
            and ("rating" not in data or (data["rating"] > 0).all())
            and all(_ids_are_whole(data[name]) for name in ids)
        ):
            self._raise_first_fault(rating_offset)
            raise DataError(f"{self.label}: a field is empty or not a number")
        return data if names == list(self.names) else data[list(self.names)]

    def line_of(self, row: int) -> int:
        """Find the line that a row of the table is from."""
        return next(islice(self._numbered_lines(), row, None))[0]

    def _raise_first_fault(self, rating_offset: float) -> None:
        for number, line in self._numbered_lines():
            where = f"{self.label}:{number}"
            fields = _fields(line, self.separator)
            if fields is None:
                raise DataError(f"{where}: a quote is not closed: {_shown(line)}")
            if len(fields) != self.width:
                raise DataError(
                    f"{where}: {len(fields)} columns where {self.width} are expected: "
                    f"{_shown(line)}"
                )
            values = dict(zip(self.names, (fields[p] for p in self.positions)))
            for name, value in values.items():
                if name not in _NUMBERS and not value:
                    noun = name.replace("_id", "")
                    raise DataError(f"{where}: the {noun} is empty")
            rating = _number(values.get("rating", "1"))
            if rating is None or not math.isfinite(rating):
                raise DataError(
                    f"{where}: rating {_shown(values['rating'])} is not a finite number"
                )
            if "rating" in values and rating + rating_offset <= 0:
                added = f" with {rating_offset:g} added" if rating_offset else ""
                shift = "user_id" in values  # else the model's offset is
                raise DataError(
                    f"{where}: rating {_shown(values['rating'])} is not positive{added}"
                    "; 0 marks an unobserved cell"
                    + (", so shift the scale (--rating-offset)" if shift else "")
                )
            time = _number(values.get("timestamp", "0"))
            if time is None or not math.isfinite(time):
                raise DataError(
                    f"{where}: timestamp {_shown(values['timestamp'])} is not a "
                    "number; leave that column out of --columns if it is not needed"
                )

    def _is_even(self, num_lines: int) -> bool:
        """Tell whether surely each line has all fields, and no other line is there."""
        separator = self.separator.encode()
        quoted = b'"' in self.raw
        # A quote that neither begins nor ends a field.
        odd = rb'(?!\A)(?<![%b\n])"(?![%b\n]|\Z)' % (2 * (re.escape(separator),))
        if quoted and re.search(odd, self.raw):
            return False
        found = 0
        for block in _blocks_of_lines(self.raw):
            codes = np.frombuffer(block, np.uint8)
            is_end = codes == ord("\n")
            is_cut = (codes == ord(separator)) | is_end
            if quoted:
                inside = np.cumsum(codes == ord('"'), dtype=np.uint8) % 2
                if inside[is_cut].any():
                    return False
            separators = np.diff(np.flatnonzero(is_end[is_cut]), prepend=-1) - 1
            found += int(np.count_nonzero(separators == self.width - 1))
            if not np.isin(separators, (0, self.width - 1)).all():
                return False
        return found == num_lines

    def _check_header(self, fields: Sequence[str]) -> None:
        """Refuse what may be a rating: one with words for ids and a bad number."""
        found = usual(fields, self.names)
        is_usual = all(p in found[name] for p, name in zip(self.positions, self.names))
        _, below = next(self._numbered_lines(), (0, ""))
        values = dict(enumerate(_fields(below, self.separator) or []))
        ids = [p for p, name in zip(self.positions, self.names) if "_id" in name]
        if not is_usual and all(_number(values.get(p, "")) is None for p in ids):
            raise DataError(
                f"{self.label}:1: {_shown(', '.join(fields))} may be a header or a "
                "rating; name the columns as it does (--columns), or remove it"
            )

    def _first_row_is_numeric(self) -> bool:
        _, line = next(self._numbered_lines())
        fields = _fields(line, self.separator) or []
        numbers = [p for p, n in zip(self.positions, self.names) if n in _NUMBERS]
        return len(fields) == self.width and all(
            _number(fields[p]) is not None for p in numbers
        )

    def _numbered_lines(self) -> Iterator[tuple[int, str]]:
        lines = (
            (number, line.decode().rstrip("\n"))
            for number, line in enumerate(io.BytesIO(self.raw), 1)
            if line.strip()
        )
        yield from islice(lines, int(self.header), None)


def _as_utf8(raw: bytes, label: str, encoding: str) -> bytes:
    """Give a text as UTF-8 without a byte order mark, its lines ending in LF."""
    try:
        text = raw.decode(encoding)
        if "\0" in text:
            line = text.count("\n", 0, text.index("\0")) + 1
            raise DataError(f"{label}:{line}: holds a zero byte: not a text file")
        utf8 = text.lstrip("\ufeff").encode()
    except LookupError:
        raise DataError(f"unknown encoding {encoding!r}") from None
    except UnicodeError as error:
        line = raw.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise DataError(
            f"{label}:{line}: is not {encoding}; name its encoding (--encoding latin-1)"
        ) from None
    if b"\r" in utf8:
        utf8 = utf8.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    return utf8


def _cut(label: str, first: str, names: Sequence[str]) -> tuple[str, list[str]]:
    """Find the separator in the first line; cut that into its fields."""
    needed = [name for name in names if name != "timestamp"]
    found = [(s, _fields(first, s) or []) for s in _SEPARATORS]
    if len(needed) == 1:  # one field is a whole line, or ends where a separator is
        found = [(s, fields) for s, fields in found if len(fields) > 1] or found[1:2]
    found = [(s, fields) for s, fields in found if len(fields) >= len(needed)]
    if not found:
        raise DataError(
            f"{label}:1: {_shown(first)} does not have the {len(needed)} columns "
            f"{_listed(needed)}, apart by tab, '::', semicolon, '|' or comma"
        )
    if len(found) > 1 and len(needed) < 3:  # with three, only one leaves a number
        raise DataError(
            f"{label}:1: {_shown(first)} can be cut at {found[0][0]!r} and at "
            f"{found[1][0]!r}; put a line with the columns' names first"
        )
    return found[0]


def _with_unit_separators(raw: bytes, label: str, separator: str) -> bytes:
    stand_in = _UNIT_SEPARATOR.encode()
    if stand_in in raw:
        line = raw.count(b"\n", 0, raw.index(stand_in)) + 1
        raise DataError(f"{label}:{line}: holds a control character (1F)")
    return raw.replace(separator.encode(), stand_in)


def guess_columns(
    label: str, fields: Sequence[str], names: Sequence[str]
) -> tuple[list[int], bool]:
    """Guess where the columns are, and whether the first line is a header."""
    needed = [name for name in names if name != "timestamp"]
    flag = "--title-columns" if "title" in names else "--columns"
    hint = f"name them, such as {flag} {typed(fields, suggested(fields, needed))}"
    if not _has_numbers(names):
        hint += ", or by position where there is no header"
    found = usual(fields, names)
    is_header = any(found[name] for name in needed) and found.get("rating") != []
    if is_header and not all(found[name] for name in needed):
        found = likely(fields, found)
        if all(found[name] for name in needed):
            chosen = ", ".join(fields[found[name][0]] for name in needed)
            _log.warning(
                "%s: columns %s are taken for %s",
                label,
                _shown(chosen),
                _listed(needed),
            )
    if all(found[name] for name in needed):
        for name, among in found.items():
            if len(among) > 1:
                shown = " and ".join(repr(fields[i]) for i in among)
                raise DataError(
                    f"{label}:1: the columns {_clipped(shown)} may both be the "
                    f"{name.replace('_id', '')}; {hint}"
                )
        return [found[name][0] for name in names if found[name]], True
    if len(needed) <= len(fields) <= len(names):
        positions = list(range(len(fields)))
        half_a_header = not _has_numbers(names) and any(found.values())
        if not half_a_header and not _is_header(fields, positions, names):
            return positions, False
    raise DataError(
        f"{label}:1: cannot tell which columns are {_listed(needed)} among "
        f"{_shown(', '.join(fields))}; {hint}"
    )


def _has_numbers(names: Sequence[str]) -> bool:
    return not set(names).isdisjoint(_NUMBERS)


def _is_header(
    fields: Sequence[str], positions: Sequence[int], names: Sequence[str]
) -> bool:
    """Tell a header from ratings: it has words where the rating is and no numbers.

    Where there is no rating, a header is what has usual names.
    """
    if not _has_numbers(names):
        found = usual(fields, names)
        return all(p in found[name] for p, name in zip(positions, names))
    return all(fields[p] and _number(fields[p]) is None for p in positions)


def _position(label: str, column: str, fields: Sequence[str]) -> int:
    if _is_position(column) and 1 <= int(column) <= len(fields):
        return int(column) - 1
    among = f"among {_shown(', '.join(fields))}"
    if fields.count(column) > 1:
        raise DataError(f"{label}: several columns {_shown(column)} {among}")
    if column in fields:
        return fields.index(column)
    raise DataError(f"{label}: no column {_shown(column)} {among}")


def _is_position(column: str) -> bool:
    # Python reads no number of thousands of digits.
    return bool(re.fullmatch("[0-9]{1,9}", column))


def _fields(line: str, separator: str) -> list[str] | None:
    """Cut a line into its fields; None if a quote is not closed."""
    if len(separator) > 1:
        return _fields(line.replace(separator, _UNIT_SEPARATOR), _UNIT_SEPARATOR)
    try:
        rows = csv.reader(
            [line], delimiter=separator, skipinitialspace=True, strict=True
        )
        return [_restored(field, separator) for field in next(rows, [])]
    except csv.Error:
        return None


def _restored(field: str, separator: str) -> str:
    """Give a field as it is in the file, where it was cut at stand-ins for ``::``."""
    if separator == _UNIT_SEPARATOR:
        return field.replace(_UNIT_SEPARATOR, "::")
    return field


def _blocks_of_lines(raw: bytes) -> Iterator[bytes]:
    start = 0
    while start < len(raw):
        end = raw.find(b"\n", start + _BLOCK) + 1
        if not end:
            yield raw[start:] if raw.endswith(b"\n") else raw[start:] + b"\n"
            return
        yield raw[start:end]
        start = end


def _number(text: str) -> float | None:
    try:
        number = None if "_" in text else float(text)
    except ValueError:
        return None
    # pandas does not take digits and spaces that ASCII has not.
    return number if re.fullmatch(r"[\s!-~]*", text, re.ASCII) else math.nan


def _shown(text: str) -> str:
    return repr(_clipped(text.replace(_UNIT_SEPARATOR, "::")))


def _clipped(text: str) -> str:
    return text if len(text) <= 60 else text[:57] + "..."


def _listed(names: Sequence[str]) -> str:
    *words, last = [name.replace("_id", "") for name in names]
    return f"{', '.join(words)} and {last}" if words else last


def _as_categories(ids: np.ndarray, separator: str) -> pd.Categorical:
    """Turn strings into categories, numbered in the order in which they come."""
    codes, categories = pd.factorize(ids)
    if separator == _UNIT_SEPARATOR:
        categories = [_restored(field, separator) for field in categories]
    return pd.Categorical.from_codes(codes, pd.Index(categories, dtype=object))


def _ids_are_whole(ids: pd.Series) -> bool:
    """Check that no id is missing, empty, or swallowed the end of its line."""
    return bool(ids.notna().all()) and not any(
        not text or "\n" in text for text in ids.cat.categories
    )


def _with_plain_ids(data: pd.DataFrame) -> pd.DataFrame:
    """Give ids as integers where that changes none, and whole timestamps too."""
    for name in ("user_id", "item_id"):
        if name in data:
            data[name] = _plain_ids(data[name])
    if "timestamp" in data:
        time = data["timestamp"]
        # A float holds every whole number up to there.
        if (np.rint(time) == time).all() and time.abs().max() < 2**53:
            data["timestamp"] = time.astype(np.int64)
    return data


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


def without_duplicates(data: pd.DataFrame, keep: str) -> pd.DataFrame:
    """Leave one rating of a pair: its last, which may get their mean."""
    pair = ["user_id", "item_id"]
    last = data.drop_duplicates(pair, keep="last").copy()
    if keep == "mean":
        means = data.groupby(pair, observed=True)["rating"].transform("mean")
        last["rating"] = means[last.index]
    return last.reset_index(drop=True)


def read_file(path: Path) -> bytes:
    """Read a file; but not a pipe or a device, which may never end.

    Raises
    ------
    DataError
        If it cannot be read.
    """
    _check_is_file(path)
    try:
        with path.open("rb") as file:  # what the system makes up may have no end
            return file.read(os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from error


def _check_is_file(path: Path) -> None:
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise DataError(f"{path}: is a pipe or a device; a file is needed")


def _read_bytes(path: Path) -> bytes:
    if path.suffix == ".parquet":
        _check_is_file(path)
        return _parquet_as_csv(path)
    raw = read_file(path)
    try:
        if raw.startswith(b"\x1f\x8b"):
            with gzip.open(io.BytesIO(raw)) as unpacked:
                return _read_up_to_limit(unpacked, path)
        if raw.startswith(b"PK\x03\x04"):
            archive = zipfile.ZipFile(io.BytesIO(raw))
            with archive, archive.open(_only_member(archive)) as unpacked:
                return _read_up_to_limit(unpacked, path)
    except DataError:
        raise
    except _ARCHIVE_ERRORS as error:
        raise DataError(f"{path}: damaged or encrypted archive: {error}") from error
    return raw


def _read_up_to_limit(unpacked: IO[bytes] | gzip.GzipFile, path: Path) -> bytes:
    blocks, size = [], 0
    while block := unpacked.read(_BLOCK):
        blocks.append(block)
        size += len(block)
        if size > _MAX_UNPACKED:
            raise DataError(
                f"{path}: unpacks to more than {_MAX_UNPACKED / 2**30:g} GiB; if you "
                "trust it, unpack it first"
            )
    return b"".join(blocks)


def _only_member(archive: zipfile.ZipFile) -> str:
    members = [
        name
        for name in archive.namelist()
        if not (name.endswith("/") or name.startswith("__MACOSX/"))
    ]
    if len(members) != 1:
        raise zipfile.BadZipFile(f"one file is needed, not {len(members)}")
    return members[0]


def _parquet_as_csv(path: Path) -> bytes:
    try:
        table = pd.read_parquet(path)
    except ImportError:
        raise DataError(f"{path}: {NO_PYARROW}") from None
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}") from error
    # A space before a field does not count, except in quotes.
    text = table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC)
    return bytes(text.encode())
