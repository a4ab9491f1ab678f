"""Reading ratings from files of any layout and size, by DuckDB.

The rows are parsed once into a table on disk, where ids are numbered; the arrays of
`Ratings` are filled from it a block at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .columns import clipped, listed
from .sources import Source, find_files, open_source, quoted, reason
from .table import COLUMNS, Ratings
from .values import Columns, Reading, log, ratings_of

if TYPE_CHECKING:
    import pandas as pd

BLOCK = 1 << 22  # rows that are fetched at a time
_SMALL = 100_000_000  # bytes


def read_ratings(path: Any, **options: Any) -> Ratings:
    """Read ratings from files.

    Parameters
    ----------
    path : path, or sequence of paths
        A file, a folder, a pattern such as ``'log-*.parquet'``, or several of them, all
        laid out alike. Text with one rating a line, its fields separated by tab,
        ``::``, comma, semicolon, ``|`` or spaces, with or without a header; JSON, one
        object a line or an array of them; or Parquet. A text may be packed by gzip,
        zstd, or zip.
    **options
        Fields of `Reading`.

    Returns
    -------
    Ratings
        Named after the file. Ids are integers when every one is written as an integer
        is (``1`` but not ``01``), else strings just as they are in the file; spaces
        before a field of a text do not count.

    Raises
    ------
    DataError
        For the first thing wrong, with file, line and value.
    """
    reading = Reading(**options)
    with _staged([path], reading) as staged:
        reading = staged.settled(reading)
        return ratings_of(_name(path), staged.columns(reading), reading, staged.where)


def read_parts(
    path: Any, test_path: Any, **options: Any
) -> tuple[Ratings, np.ndarray, np.ndarray]:
    """Read ratings of two files as one table, with the rows to train and to test on."""
    reading = Reading(**options)
    with _staged([path, test_path], reading) as staged:
        reading = staged.settled(reading)
        columns = staged.columns(reading)
        ratings = ratings_of(_name(path), columns, reading, staged.where)
    train_rows, test_rows = (np.flatnonzero(columns.part == n) for n in (0, 1))
    return ratings, train_rows, test_rows


def read_table(
    path: Any,
    names: Sequence[str],
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> pd.DataFrame:
    """Read columns of a file, such as user_id and item_id, in the order of its rows."""
    import pandas as pd

    reading = Reading(columns=columns, encoding=encoding)
    with _staged([path], reading, names) as staged:
        return pd.DataFrame(staged.table())


def _name(path: Any) -> str:
    first = path if isinstance(path, str | Path) else next(iter(path))
    return Path(first).name


@contextmanager
def _staged(
    paths: Sequence[Any], reading: Reading, names: Sequence[str] = COLUMNS
) -> Iterator[_Staged]:
    """Parse files into a table in a temporary database, which goes with the block."""
    import duckdb

    parts = [find_files(path) for path in paths]
    files = [file for part in parts for file in part]
    with tempfile.TemporaryDirectory(prefix="d2l_autorec-") as temporary:
        # A small table is faster in memory, a large one is compressed on the disk.
        is_small = sum(file.stat().st_size for file in files) < _SMALL
        database = ":memory:" if is_small else f"{temporary}/ratings.db"
        settings = {
            "TimeZone": "UTC",
            "memory_limit": "1GB",
            "temp_directory": temporary,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        }
        with duckdb.connect(database) as con:
            for setting, value in settings.items():
                con.execute(f"SET {setting} = {quoted(value)}")
            file = files[0]
            try:
                sources: list[Source] = []
                for part in parts:
                    for file in part:
                        plain = Path(temporary) / f"{len(sources)}.txt"
                        sources.append(open_source(con, file, names, reading, plain))
                    _check_alike(sources[-len(part) :])
                staged = _Staged(con, names, sources, len(parts[0]))
                for source in sources:
                    file = Path(source.label)
                    staged.add(source, reading)
            except duckdb.Error as error:
                raise DataError(f"{file}: {reason(error, temporary)}") from None
            yield staged


def _check_alike(sources: Sequence[Source]) -> None:
    first = sources[0]
    for other in sources[1:]:
        if (other.reader, other.columns) != (first.reader, first.columns):
            raise DataError(f"{other.label}: is laid out unlike {first.label}")


@dataclass
class _Staged:
    """A table of parsed rows, in the order of the files; with a fault, if not kept."""

    con: Any
    names: Sequence[str]
    sources: Sequence[Source]
    num_train: int  # sources of the first part
    types: dict[str, str] = field(default_factory=dict)
    kept: str = "fault IS NULL"

    def __post_init__(self) -> None:
        """Create the table."""
        self.types = {name: "VARCHAR" for name in self.names}
        self.types |= {"rating": "FLOAT", "timestamp": "DECIMAL(38, 6)"}
        for name in self.names:
            if "_id" in name and all(name in source.numbers for source in self.sources):
                self.types[name] = "BIGINT"
        columns = ", ".join(f"{name} {self.types[name]}" for name in self.names)
        self.con.execute(f"CREATE TABLE staged ({columns}, fault VARCHAR)")

    def settled(self, reading: Reading) -> Reading:
        """Let a repeated pair count once where there are no ratings."""
        rated = all("rating" in source.columns for source in self.sources)
        if reading.duplicates == "error" and (reading.pairs or not rated):
            return replace(reading, duplicates="last")
        return reading

    def add(self, source: Source, reading: Reading) -> None:
        """Parse the rows of a file, and refuse or skip those that are wrong."""
        columns = [name for name in self.names if name in source.columns]
        if "rating" in self.names and "rating" not in columns:
            columns.append("1 AS rating")  # of a pair
        (source.first,) = self._one("SELECT count(*) FROM staged")
        self.con.execute(
            f"INSERT INTO staged BY NAME SELECT {', '.join(columns)}, fault "
            f"FROM {source.rows(reading.missing)}"
        )
        rejects = []
        if source.is_text:
            rejects = self.con.execute(
                "SELECT line, first(csv_line), first(error_type), first(error_message) "
                "FROM reject_errors GROUP BY line "
                "HAVING trim(first(csv_line), ' \t\r\n') <> '' ORDER BY line"
            ).fetchall()
            source.rejected = frozenset(line for line, *_ in rejects)
            self.con.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
        ours = f"FROM staged WHERE rowid >= {source.first} AND"
        (bad,) = self._one(f"SELECT count(*) {ours} fault <> 'missing'")
        if bad or rejects:
            said = self._first_fault(source, rejects)
            if not reading.skip_bad_lines:
                raise DataError(said)
            count = bad + len(rejects)
            log.warning(
                "%s lines were skipped, the first of them: %s", f"{count:,}", said
            )
        if not self._one(f"SELECT count(*) {ours} {self.kept}")[0]:
            raise DataError(f"{source.label}: holds no ratings")

    def _first_fault(self, source: Source, rejects: Sequence[Any]) -> str:
        """Say what is wrong with the first row that is."""
        row = self._one(
            "SELECT * FROM (SELECT row_number() OVER () - 1, fault, value FROM "
            f"{source.rows()}) WHERE fault IS NOT NULL LIMIT 1"
        )
        line, text = source.line_of(row[0]) if row else (0, "")
        if rejects and not (row and line < rejects[0][0]):
            line, text, kind, message = rejects[0]
            return f"{source.at(line)}: {_rejected(kind, message, text)}"
        _, fault, value = row
        return f"{source.at(line)}: {_faulty(fault, value, text, source.width)}"

    def where(self, row: int) -> str:
        """Name the file and the line of a row that was kept."""
        (rowid,) = self._one(
            f"SELECT rowid FROM staged WHERE {self.kept} ORDER BY rowid "
            f"LIMIT 1 OFFSET {row}"
        )
        source = [source for source in self.sources if source.first <= rowid][-1]
        line, _ = source.line_of(rowid - source.first)
        return source.at(line)

    def _one(self, sql: str) -> Any:
        return self.con.execute(sql).fetchone()

    def table(self) -> dict[str, np.ndarray]:
        """Return columns as they are, ids as integers where that changes none."""
        columns = ", ".join(
            f"{name}::{self._kind('staged', name)} AS {name}" if "_id" in name else name
            for name in self.names
        )
        query = f"SELECT {columns} FROM staged WHERE {self.kept}"
        return dict(self.con.execute(query).fetchnumpy())

    def _kind(self, table: str, name: str) -> str:
        """Tell whether all ids are written as integers are, or are texts."""
        if self.types[name] == "BIGINT":
            return "BIGINT"
        same = f"try_cast({name} AS BIGINT)::VARCHAR IS NOT DISTINCT FROM {name}"
        (whole,) = self._one(f"SELECT bool_and({same}) FROM {table}")
        return "BIGINT" if whole else "VARCHAR"

    def _number(self, name: str) -> np.ndarray:
        """Make an enumeration of a column's ids in their order, and return them."""
        every = f"SELECT DISTINCT {name} FROM staged WHERE {self.kept}"
        self.con.execute(f"CREATE TABLE {name}s AS {every}")
        kind = self._kind(f"{name}s", name)
        ordered = f"FROM {name}s ORDER BY {name}::{kind}"
        places = f"ENUM (SELECT {name}::VARCHAR {ordered})"
        self.con.execute(f"CREATE TYPE {name}_place AS {places}")
        found = self.con.execute(f"SELECT {name}::{kind} AS id {ordered}").fetchnumpy()
        return np.asarray(found["id"])

    def columns(self, reading: Reading) -> Columns:
        """Fill arrays with the ratings, users and items as numbers.

        Of a shard (k, n) there are only the users whose ids' hash is k modulo n.
        """
        ids = {f"{name}s": self._number(name) for name in ("user_id", "item_id")}
        low, timed, whole = self._one(
            "SELECT min(rating), count(timestamp) = count(*), "
            f"bool_and(timestamp % 1 = 0) FROM staged WHERE {self.kept}"
        )
        if reading.shard:
            self.kept += f" AND hash(user_id) % {reading.shard[1]} = {reading.shard[0]}"
        size, last = self._one(
            f"SELECT count(*), max(rowid) FROM staged WHERE {self.kept}"
        )
        arrays: dict[str, Any] = {
            "user_index": np.empty(size, np.int32),
            "item_index": np.empty(size, np.int32),
            "rating": np.empty(size, np.float32),
        }
        values = [
            *(f"enum_code({n}_id::VARCHAR::{n}_id_place)" for n in ("user", "item")),
            "rating",
        ]
        if timed:
            arrays["timestamp"] = np.empty(size, np.int64)
            # Where there are fractions, microseconds.
            values.append(f"(timestamp * {1 if whole else 1_000_000})::BIGINT")
        query = ", ".join(f"{v} AS {name}" for v, name in zip(values, arrays))
        start = 0
        for first in range(0, (last or 0) + 1, BLOCK):
            block = self.con.execute(
                f"SELECT {query} FROM staged WHERE {self.kept} AND "
                f"rowid BETWEEN {first} AND {first + BLOCK - 1}"
            ).fetchnumpy()
            stop = start + len(block["rating"])
            for name, array in arrays.items():
                array[start:stop] = block[name]
            start = stop
        part = None
        if self.num_train < len(self.sources):
            border = self.sources[self.num_train].first
            (num_train,) = self._one(
                f"SELECT count(*) FROM staged WHERE {self.kept} AND rowid < {border}"
            )
            part = (np.arange(size) >= num_train).astype(np.int8)
        arrays.setdefault("timestamp", None)
        return Columns(**arrays, **ids, low=low, part=part)


def _rejected(kind: str, message: str, text: str) -> str:
    """Say why DuckDB did not take a line."""
    if kind in ("MISSING COLUMNS", "TOO MANY COLUMNS"):
        expected, found = (
            int("".join(filter(str.isdigit, x))) for x in message.split("Found")
        )
        return f"{found} columns where {expected} are expected: {clipped(text)!r}"
    if kind == "UNQUOTED VALUE":
        return f"a quote is not closed: {clipped(text.rstrip())!r}"
    if kind == "INVALID ENCODING":
        return "is not utf-8; name its encoding (--encoding latin-1)"
    if kind == "LINE SIZE OVER MAXIMUM":
        return "is longer than 2 million bytes"
    return clipped(message)


def _faulty(fault: str, value: Any, text: str, width: int) -> str:
    """Say what is wrong with a value."""
    if fault == "columns":
        return (
            f"{len(text.split())} columns where {width} are expected: {clipped(text)!r}"
        )
    noun = listed([fault])
    if fault == "rating" and value not in (None, ""):
        return f"rating {clipped(str(value))!r} is not a finite number in float32"
    if fault == "timestamp" and value not in (None, ""):
        return (
            f"timestamp {clipped(str(value))!r} is not a number or a date; leave that "
            "column out of --columns if it is not needed"
        )
    return f"the {noun} is empty"
