"""Reading ratings from files of any layout and size, by DuckDB.

The rows are parsed once into a table on disk, where ids are numbered; the arrays of
`Ratings` are filled from it a block at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DataError
from .columns import clipped, listed
from .sources import Source, find_files, open_source, quoted, reason
from .table import COLUMNS, Ratings
from .values import BLOCK, Columns, Reading, log, ratings_of

_SMALL = 100_000_000  # bytes
_KEPT = "fault IS NULL"
_TYPES = {"rating": "FLOAT", "timestamp": "DECIMAL(38, 6)"}  # others are texts
_FAULTS = {
    "rating": "not a finite number in float32",
    "timestamp": (
        "not a number or a date; leave that column out of --columns if it is not needed"
    ),
}


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
    return _read([path], Reading(**options))[0]


def read_parts(
    path: Any, test_path: Any, **options: Any
) -> tuple[Ratings, np.ndarray, np.ndarray]:
    """Read ratings of two files as one table, with the rows to train and to test on."""
    ratings, part = _read([path, test_path], Reading(**options))
    train_rows, test_rows = (np.flatnonzero(part == n) for n in (0, 1))
    return ratings, train_rows, test_rows


def _read(paths: Sequence[Any], reading: Reading) -> tuple[Ratings, Any]:
    """Read ratings, named after the first file, and the part that each is of."""
    with _staged(paths, reading, COLUMNS) as staged:
        rated = all("rating" in source.columns for source in staged.sources)
        if reading.duplicates == "error" and (reading.pairs or not rated):
            reading = replace(reading, duplicates="last")
        columns = staged.columns()
        staged.con.close()  # for its memory
        first = paths[0] if isinstance(paths[0], str | Path) else next(iter(paths[0]))
        ratings = ratings_of(Path(first).name, columns, reading, staged.where)
    return ratings, columns.part


def read_table(
    path: Any,
    names: Sequence[str],
    columns: Sequence[str] | None = None,
    encoding: str = "utf-8",
) -> dict[str, np.ndarray]:
    """Read columns of a file, such as user_id and item_id, in the order of its rows."""
    reading = Reading(columns=columns, encoding=encoding)
    with _staged([path], reading, names) as staged:
        fields = ", ".join(
            f"{name}::{staged.kind('staged', name)} AS {name}"
            if "_id" in name
            else name
            for name in names
        )
        query = f"SELECT {fields} FROM staged WHERE {_KEPT}"
        return dict(staged.con.execute(query).fetchnumpy())


@contextmanager
def _staged(
    paths: Sequence[Any], reading: Reading, names: Sequence[str]
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
        if (other.options, other.columns) != (first.options, first.columns):
            raise DataError(f"{other.label}: is laid out unlike {first.label}")


@dataclass
class _Staged:
    """A table of parsed rows, in the order of the files; with a fault, if not kept."""

    con: Any
    names: Sequence[str]
    sources: Sequence[Source]
    num_train: int  # sources of the first part
    left_out: Any = None  # rows that are not kept

    def __post_init__(self) -> None:
        """Create the table."""
        columns = ", ".join(f"{n} {_TYPES.get(n, 'VARCHAR')}" for n in self.names)
        self.con.execute(f"CREATE TABLE staged ({columns}, fault VARCHAR)")

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
        if source.separator:
            rejects = self.con.execute(
                "SELECT line, first(csv_line), first(error_type), first(error_message) "
                "FROM reject_errors GROUP BY line "
                "HAVING trim(first(csv_line), ' \t\r\n') <> '' ORDER BY line"
            ).fetchall()
            source.rejected = frozenset(line for line, *_ in rejects)
            self.con.execute("DROP TABLE reject_errors; DROP TABLE reject_scans")
        bad, kept = self._one(
            f"SELECT count(*) FILTER (fault <> 'missing'), count(*) FILTER ({_KEPT}) "
            f"FROM staged WHERE rowid >= {source.first}"
        )
        if bad or rejects:
            said = self._first_fault(source, rejects)
            if not reading.skip_bad_lines:
                raise DataError(said)
            log.warning(
                "%s lines were skipped, the first of them: %s",
                *(f"{bad + len(rejects):,}", said),
            )
        if not kept:
            raise DataError(f"{source.label}: holds no ratings")

    def _first_fault(self, source: Source, rejects: Sequence[Any]) -> str:
        """Say what is wrong with the first row that is."""
        row = self._one(
            "SELECT * FROM (SELECT row_number() OVER () - 1, fault, text FROM "
            f"{source.rows()}) WHERE fault IS NOT NULL LIMIT 1"
        )
        line = source.line_of(row[0]) if row else 0
        if rejects and not (row and line < rejects[0][0]):
            line, text, kind, message = rejects[0]
            if kind == "INVALID ENCODING":
                said = "is not utf-8; name its encoding (--encoding latin-1)"
            else:
                said = f"{clipped(message)}: {clipped(text.strip())!r}"
            return f"{source.at(line)}: {said}"
        _, fault, text = row
        said = f"the {listed([fault])} is empty"
        if text and text.strip():
            said = f"{fault} {clipped(text)!r} is {_FAULTS[fault]}"
        return f"{source.at(line)}: {said}"

    def where(self, row: int) -> str:
        """Name the file and the line of a row that was kept."""
        left_out = self.left_out
        row += int((left_out - np.arange(len(left_out))).searchsorted(row, "right"))
        source = [source for source in self.sources if source.first <= row][-1]
        return source.at(source.line_of(row - source.first))

    def _one(self, sql: str) -> Any:
        return self.con.execute(sql).fetchone()

    def kind(self, table: str, name: str) -> str:
        """Tell whether all ids are written as integers are, or are texts."""
        same = f"try_cast({name} AS BIGINT)::VARCHAR IS NOT DISTINCT FROM {name}"
        (whole,) = self._one(f"SELECT bool_and({same}) FROM {table}")
        return "BIGINT" if whole else "VARCHAR"

    def _number(self, name: str) -> np.ndarray:
        """Make an enumeration of a column's ids in their order, and return them."""
        every = f"SELECT DISTINCT {name} FROM staged WHERE {_KEPT}"
        self.con.execute(f"CREATE TABLE {name}s AS {every}")
        kind = self.kind(f"{name}s", name)
        ordered = f"FROM {name}s ORDER BY {name}::{kind}"
        self.con.execute(f"CREATE TYPE {name}_place AS ENUM (SELECT {name} {ordered})")
        found = self.con.execute(f"SELECT {name}::{kind} AS id {ordered}").fetchnumpy()
        return np.asarray(found["id"])

    def columns(self) -> Columns:
        """Fill arrays with the ratings, users and items as numbers, block by block."""
        ids = {f"{name}s": self._number(name) for name in ("user_id", "item_id")}
        timed, whole = self._one(
            "SELECT count(timestamp) = count(*), bool_and(timestamp % 1 = 0) "
            f"FROM staged WHERE {_KEPT}"
        )
        (num_rows,) = self._one("SELECT count(*) FROM staged")
        query = f"SELECT rowid FROM staged WHERE NOT ({_KEPT}) ORDER BY rowid"
        self.left_out = self.con.execute(query).fetchnumpy()["rowid"]
        size = num_rows - len(self.left_out)
        fields: dict[str, tuple[str, Any]] = {
            "user_index": ("enum_code(user_id::user_id_place)", np.int32),
            "item_index": ("enum_code(item_id::item_id_place)", np.int32),
            "rating": ("rating", np.float32),
        }
        if timed:  # in microseconds where there are fractions
            unit = 1 if whole else 1_000_000
            fields["timestamp"] = (f"(timestamp * {unit})::BIGINT", np.int64)
        arrays: dict[str, Any] = {n: np.empty(size, t) for n, (_, t) in fields.items()}
        query = ", ".join(f"{sql} AS {name}" for name, (sql, _) in fields.items())
        start = 0
        for first in range(0, num_rows, BLOCK):
            block = self.con.execute(
                f"SELECT {query} FROM staged WHERE {_KEPT} AND "
                f"rowid BETWEEN {first} AND {first + BLOCK - 1}"
            ).fetchnumpy()
            stop = start + len(block["rating"])
            for name, array in arrays.items():
                array[start:stop] = block[name]
            start = stop
        arrays.setdefault("timestamp", None)
        part = np.zeros(size, np.int8)
        for source in self.sources[self.num_train : self.num_train + 1]:
            part[source.first - self.left_out.searchsorted(source.first) :] = 1
        return Columns(**arrays, **ids, part=part)
