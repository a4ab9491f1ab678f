"""Reading ratings from files of any layout and size, by DuckDB.

The rows are parsed once into a table on disk, where ids are numbered; the arrays of
`Ratings` are filled from it a block at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError
from .columns import clipped, listed
from .sources import Source, find_files, open_source, quoted, reason
from .table import COLUMNS, Ratings
from .values import Columns, Reading, ratings_of, say

if TYPE_CHECKING:
    import pandas as pd

_BLOCK = 1 << 22  # rows that are fetched at a time
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
    """Read ratings that come as two files, to train on and to test on.

    Parameters
    ----------
    path, test_path
        As for `read_ratings`.
    **options
        Fields of `Reading`, for both.

    Returns
    -------
    ratings : Ratings
        Those of both, named after the first; users and items are those of either. Ids
        are integers if they are in both.
    train_rows, test_rows : numpy.ndarray of int64
        Rows of it.

    Raises
    ------
    DataError
        For the first thing wrong, or if both rate a pair.
    """
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
    """Read some columns of a file, such as pairs to predict.

    Parameters
    ----------
    path
        As for `read_ratings`.
    names : sequence of str
        Which of ``user_id``, ``item_id``, ``rating`` and ``title`` to read. Without a
        header, the file has just these columns. Where none of them is a number, a
        header is what has usual names.
    columns : sequence of str, optional
        For each of `names` the name of a column or its position from 1.
    encoding : str
        As for `Reading`.

    Returns
    -------
    pandas.DataFrame
        The columns `names`, rows in the file's order.

    Raises
    ------
    DataError
        For the first thing wrong, with file, line and value.
    """
    import pandas as pd

    reading = Reading(columns=columns, encoding=encoding)
    with _staged([path], reading, names) as staged:
        return pd.DataFrame(staged.table(names))


def _name(path: Any) -> str:
    first = path if isinstance(path, str | Path) else next(iter(path))
    return Path(first).name


@contextmanager
def _staged(
    paths: Sequence[Any], reading: Reading, names: Sequence[str] = COLUMNS
) -> Iterator[_Staged]:
    """Parse files into a table in a temporary database, which goes with the block."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="d2l_autorec-") as temporary:
        folder = Path(temporary)
        # A small table is faster in memory, a large one is compressed on the disk.
        size = sum(f.stat().st_size for path in paths for f in find_files(path))
        con = duckdb.connect(
            str(folder / "ratings.db") if size > _SMALL else ":memory:"
        )
        try:
            for setting, value in (
                ("TimeZone", "'UTC'"),
                ("memory_limit", "'1GB'"),
                ("temp_directory", quoted(temporary)),
                ("autoinstall_known_extensions", "false"),
                ("autoload_known_extensions", "false"),
            ):
                con.execute(f"SET {setting} = {value}")
            staged = _Staged(con)
            for number, path in enumerate(paths):
                part = folder / str(number)
                part.mkdir()
                try:
                    source = open_source(con, path, names, reading, part)
                    staged.add(source, reading)
                except duckdb.Error as error:
                    raise DataError(f"{path}: {reason(error, temporary)}") from None
            yield staged
        finally:
            con.close()


@dataclass
class _Staged:
    """A table of parsed rows, in the order of the files."""

    con: Any
    sources: list[Source] = field(default_factory=list)
    rejected: dict[Path, set[int]] = field(default_factory=dict)  # lines of a file
    names: Sequence[str] = ()

    @property
    def parts(self) -> int:
        """The number of tables, part0 and so on."""
        return len(self.sources)

    def settled(self, reading: Reading) -> Reading:
        """Let a repeated pair count once where there are no ratings."""
        if reading.duplicates == "error" and (
            reading.pairs or "rating" not in self.names
        ):
            return replace(reading, duplicates="last")
        return reading

    def add(self, source: Source, reading: Reading) -> None:
        """Parse the rows of files, and refuse or skip those that are wrong."""
        names = [name for name in COLUMNS if name in source.columns]
        names += [name for name in source.columns if name not in names]
        raw = ", ".join(f"raw_{name}" for name in names)
        part = f"part{self.parts}"
        kept = ", ".join(names)
        if "rating" not in names:  # pairs, of which each counts once
            kept += ", 1::FLOAT AS rating"
        table = f"CREATE OR REPLACE TABLE {part} AS SELECT {kept}, fault FROM "
        self.con.execute(table + source.rows(option="store_rejects"))
        fraction = f"SELECT 1 FROM {part} WHERE fault = 'timestamp' LIMIT 1"
        if not (source.dates or source.fractions) and self._one(fraction):
            source.fractions = True
            self._forget_rejects()
            self.con.execute(table + source.rows(option="store_rejects"))
        rejects = []
        if source.is_text:
            rejects = self.con.execute(
                "SELECT file_path, line, first(csv_line), first(error_type), "
                "first(error_message) FROM reject_errors JOIN reject_scans "
                "USING (scan_id, file_id) GROUP BY file_path, line "
                "HAVING trim(first(csv_line), ' \t\r\n') <> '' ORDER BY line"
            ).fetchall()
            self._forget_rejects()
        (bad,) = self._one(f"SELECT count(fault) FROM {part}")
        for name, line, *_ in rejects:
            self.rejected.setdefault(Path(name), set()).add(line)
        if bad or rejects:
            said = self._first_fault(source, part, rejects, raw)
            if not reading.skip_bad_lines:
                raise DataError(said)
            say(f"{bad + len(rejects):,} lines were skipped, the first of them: {said}")
            self.con.execute(f"DELETE FROM {part} WHERE fault IS NOT NULL")
        if reading.missing is not None:
            self.con.execute(
                f"DELETE FROM {part} WHERE rating = {reading.missing!r}::FLOAT"
            )
        if not self._one(f"SELECT count(*) FROM {part}")[0]:
            raise DataError(f"{source.labels[0]}: holds no ratings")
        self.names = [n for n in names if not self.parts or n in self.names]
        self.sources.append(source)

    def _forget_rejects(self) -> None:
        for table in ("reject_errors", "reject_scans"):
            self.con.execute(f"DROP TABLE IF EXISTS {table}")

    def where(self, row: int) -> str:
        """Name the file and the line of a row that was kept."""
        number = 0
        while row >= (size := self._one(f"SELECT count(*) FROM part{number}")[0]):
            row, number = row - size, number + 1
        source = self.sources[number]
        (row,) = self._one(
            f"SELECT rowid FROM part{number} ORDER BY rowid LIMIT 1 OFFSET {row}"
        )
        files = dict(zip(source.files, source.labels))
        while len(files) > 1:
            rows = source.rows([next(iter(files))], "ignore_errors")
            (size,) = self._one(f"SELECT count(*) FROM {rows}")
            if row < size:
                break
            row -= size
            del files[next(iter(files))]
        file, label = next(iter(files.items()))
        line, _ = source.line_of(row, file, self.rejected.get(file, set()))
        return f"{label}{source.at(line)}"

    def _one(self, sql: str) -> Any:
        return self.con.execute(sql).fetchone()

    def _first_fault(
        self, source: Source, part: str, rejects: list[Any], raw: str
    ) -> str:
        """Say what is wrong with the first row that is, file by file."""
        for file, label in zip(source.files, source.labels):
            ours = [r for r in rejects if Path(r[0]) == file]
            row = self._one(
                f"SELECT * FROM (SELECT row_number() OVER () - 1, fault, {raw} FROM "
                f"{source.rows([file], 'ignore_errors')}) "
                "WHERE fault IS NOT NULL LIMIT 1"
            )
            line, text = 0, ""
            if row:
                rejected = self.rejected.get(file, set())
                line, text = source.line_of(row[0], file, rejected)
            if ours and not (row and line < ours[0][1]):
                _, line, text, kind, message = ours[0]
                return f"{label}:{line}: {_rejected(kind, message, text)}"
            if row:
                fault = row[1]
                value = dict(zip(raw.split(", "), row[2:])).get(f"raw_{fault}")
                said = _faulty(fault, value, text, source.width)
                return f"{label}{source.at(line)}: {said}"
        return source.labels[0]

    def table(self, names: Sequence[str]) -> dict[str, np.ndarray]:
        """Return columns as they are, ids as integers where that changes none."""
        kinds = {n: self._kind("part0", n) for n in names if n.endswith("_id")}
        values = (f"{n}::{kinds[n]} AS {n}" if n in kinds else n for n in names)
        return dict(
            self.con.execute(f"SELECT {', '.join(values)} FROM part0").fetchnumpy()
        )

    def _kind(self, table: str, name: str) -> str:
        """Tell whether all ids are written as integers are, or what else they are."""
        same = (
            f"try_cast({name} AS BIGINT)::VARCHAR IS NOT DISTINCT FROM {name}::VARCHAR"
        )
        (whole,) = self._one(f"SELECT bool_and({same}) FROM {table}")
        return "BIGINT" if whole else "VARCHAR"

    def _number(self, name: str) -> np.ndarray:
        """Make an enumeration of a column's ids in their order, and return them."""
        every = " UNION ".join(
            f"SELECT DISTINCT {name}::VARCHAR AS id FROM part{n}"
            for n in range(self.parts)
        )
        self.con.execute(f"CREATE TABLE {name}s AS {every}")
        kind = self._kind(f"{name}s", "id")
        ordered = f"FROM {name}s ORDER BY id::{kind}"
        self.con.execute(f"CREATE TYPE {name}_place AS ENUM (SELECT id {ordered})")
        found = self.con.execute(f"SELECT id::{kind} AS id {ordered}").fetchnumpy()
        return np.asarray(found["id"])

    def columns(self, reading: Reading) -> Columns:
        """Fill arrays with the ratings, users and items as numbers.

        Of a shard (k, n) there are only the users whose ids' hash is k modulo n.
        """
        ids = [self._number(name) for name in ("user_id", "item_id")]
        ours = "true"
        if reading.shard:
            ours = f"hash(user_id) % {reading.shard[1]} = {reading.shard[0]}"
        size = self._over_parts(sum, f"count(*) FILTER ({ours})")
        columns = Columns(
            np.empty(size, np.int32),
            np.empty(size, np.int32),
            np.empty(size, np.float32),
            np.empty(size, np.int64) if "timestamp" in self.names else None,
            ids[0],
            ids[1],
            self._over_parts(min, "min(rating)"),
        )
        start, part_ends = 0, []
        for number in range(self.parts):
            for block in self._blocks(number, ours):
                stop = start + len(block["rating"])
                for name, values in block.items():
                    getattr(columns, name)[start:stop] = values
                start = stop
            part_ends.append(start)
        if self.parts > 1:
            sizes = np.diff(part_ends, prepend=0)
            columns.part = np.repeat(np.arange(self.parts, dtype=np.int8), sizes)
        return columns

    def _over_parts(self, combine: Callable[[Iterable[Any]], Any], value: str) -> Any:
        """Compute an aggregate of all parts."""
        found = (self._one(f"SELECT {value} FROM part{n}") for n in range(self.parts))
        return combine(value for (value,) in found)

    def _blocks(self, number: int, ours: str) -> Iterator[dict[str, np.ndarray]]:
        """Fetch the rows of a part as numbers, in order."""
        time = ""
        if "timestamp" in self.names:
            whole = self._over_parts(all, "bool_and(timestamp % 1 = 0)")
            unit = 1 if whole else 1_000_000
            time = f", (timestamp * {unit})::BIGINT AS timestamp"
        index = (
            f"enum_code({name}_id::VARCHAR::{name}_id_place) AS {name}_index"
            for name in ("user", "item")
        )
        values = ", ".join(index)
        last = self._one(f"SELECT max(rowid) FROM part{number}")[0]
        for first in range(0, last + 1, _BLOCK):
            yield self.con.execute(
                f"SELECT {values}, rating{time} FROM part{number} WHERE {ours} AND "
                f"rowid BETWEEN {first} AND {first + _BLOCK - 1}"
            ).fetchnumpy()


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
