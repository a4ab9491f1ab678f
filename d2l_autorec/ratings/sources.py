"""Files of ratings as DuckDB reads them: found, unpacked, and their layout told."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import mmap
import re
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import DataError
from .columns import PAIR, clipped, listed, names_of, place_columns, shown
from .table import COLUMNS
from .values import Reading

# Tried in this order: a line of "1::2::3" holds no other mark. None is a run of spaces.
_SEPARATORS = ("::", "\t", ";", "|", ",", None)
_LINES = "\x1f"  # a separator that no line of text holds
_ZSTD = b"\x28\xb5\x2f\xfd"
_HEAD = 1 << 22  # bytes in which the first line has to end
_NESTED = re.compile(r"STRUCT|MAP|UNION|.*\[")
_WHOLE = re.compile("U?(TINY|SMALL|BIG)?INT(EGER)?$")
_PACKED_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)


@dataclass
class Source:
    """Files of one layout, and the SQL of their columns."""

    files: list[Path]  # that DuckDB reads
    labels: list[str]  # what errors call them
    reader: str  # a table function with its options, the files as {}
    columns: dict[str, str]  # from user_id and the like to SQL
    width: int = 0  # fields a line, where DuckDB does not count them
    separator: str | None = None
    header: bool = False
    is_text: bool = False
    dates: bool = False  # whether times are written as dates
    fractions: bool = False  # whether some times are not whole numbers
    whole: set[str] = field(default_factory=set)  # columns of integers in the file

    def rows(self, files: Sequence[Path] | None = None, option: str = "") -> str:
        """Write the SQL of a row a rating: ids, values, and which of them is at fault.

        The option of a text's reader is ``store_rejects`` or ``ignore_errors``.
        """
        names = ", ".join(quoted(glob.escape(str(f))) for f in files or self.files)
        option = f", {option}=true" if self.is_text and option else ""
        table = self.reader.format(f"[{names}]", option)
        raw = ", ".join(f"{sql} AS raw_{name}" for name, sql in self.columns.items())
        if self.width:
            table = (
                rf"(SELECT regexp_split_to_array(trim(c0), '\s+') AS c FROM {table})"
            )
            raw += f", len(c) <> {self.width} AS uneven"
        else:
            raw += ", false AS uneven"
        return (
            f"(SELECT *, {self._fault()} AS fault FROM "
            f"(SELECT *, {self._values()} FROM (SELECT {raw} FROM {table})))"
        )

    def _values(self) -> str:
        found = []
        for name in self.columns:
            raw = f"raw_{name}"
            if name == "timestamp":
                if self.dates:
                    moment = f"epoch_us(try_cast({raw} AS TIMESTAMPTZ))"
                    found.append(f"{moment}::DECIMAL(38, 6) / 1000000 AS timestamp")
                else:
                    kind = "DECIMAL(38, 6)" if self.fractions else "BIGINT"
                    found.append(f"try_cast({raw} AS {kind}) AS timestamp")
            elif name == "rating":
                number = f"try_cast({raw} AS FLOAT)"
                if self.is_text and self.separator != ",":
                    point = f"try_cast(replace({raw}, ',', '.') AS FLOAT)"
                    number = f"coalesce({number}, {point})"
                found.append(f"{number} AS rating")
            elif name in self.whole:
                found.append(f"{raw}::BIGINT AS {name}")
            else:
                text = f"{raw}::VARCHAR"
                if self.is_text:
                    trimmed = f"ltrim({raw}, ' ')"
                    spaced = f"starts_with({raw}, ' ')"
                    text = f"CASE WHEN {spaced} THEN {trimmed} ELSE {raw} END"
                found.append(f"{text} AS {name}")
        return ", ".join(found)

    def _fault(self) -> str:
        cases = ["WHEN uneven THEN 'columns'"]
        for name in self.columns:
            if name == "rating":
                unfit = "rating IS NULL OR NOT isfinite(rating)"
                if self.is_text:
                    unfit += " OR contains(raw_rating, '_')"
            elif name == "timestamp":
                unfit = "timestamp IS NULL"
                if not (self.dates or self.fractions):
                    unfit += " OR contains(raw_timestamp::VARCHAR, '.')"
            else:
                unfit = f"{name} IS NULL"
                unfit += "" if name in self.whole else f" OR {name} = ''"
            cases.append(f"WHEN {unfit} THEN '{name}'")
        return f"CASE {' '.join(cases)} END"

    def line_of(self, number: int, file: Path, rejected: set[int]) -> tuple[int, str]:
        """Find the line that the row of that number, from 0, is from, and its text."""
        if not self.is_text:
            return number + 1, ""
        with file.open(encoding="utf-8", newline="", errors="replace") as text:
            if self.separator is None or len(self.separator) > 1:
                lines: Any = enumerate(text, 1)
            else:
                reader = csv.reader(text, delimiter=self.separator)
                lines = ((reader.line_num, self.separator.join(row)) for row in reader)
            skipped = number + self.header
            for line, content in lines:
                if content.strip() and line not in rejected:
                    if not skipped:
                        return line, content.rstrip("\n")
                    skipped -= 1
        return 0, ""

    def at(self, line: int) -> str:
        """Say where a line is; of a table, a row from 1."""
        return f":{line}" if self.is_text else f": row {line}"


def quoted(text: str) -> str:
    """Write a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def find_files(path: Any) -> list[Path]:
    """List the files that a path names: one, those of a folder, or of a pattern.

    Raises
    ------
    DataError
        If there is none, or one is a pipe or a device.
    """
    if not isinstance(path, str | Path):
        return [file for one in path for file in find_files(one)]
    place = Path(path)
    if place.is_dir():
        found = sorted(
            f for f in place.iterdir() if f.is_file() and f.name[0] not in "._"
        )
    elif not place.exists() and glob.has_magic(str(path)):
        found = sorted(map(Path, glob.glob(str(path))))
    else:
        found = [place]
    if not found:
        raise DataError(f"{path}: no such file")
    for file in found:
        if file.exists() and not file.is_file():
            raise DataError(f"{file}: is a pipe or a device; a file is needed")
        try:
            file.open("rb").close()
        except FileNotFoundError:
            raise DataError(f"{file}: no such file") from None
        except OSError as error:
            raise DataError(f"{file}: {error.strerror}") from error
    return found


def open_source(
    con: Any,
    path: Any,
    names: Sequence[str],
    reading: Reading,
    folder: Path,
) -> Source:
    """Tell the layout of files, in which all of them have to be.

    Parameters
    ----------
    con : duckdb.DuckDBPyConnection
    path : path, or several
        As for `find_files`.
    names, reading
        The columns to read, and how.
    folder : pathlib.Path
        For what has to be unpacked.
    """
    sources = []
    for file in find_files(path):
        with file.open("rb") as opened:
            mark = opened.read(8)
        if mark[:4] == b"PAR1":
            sources.append(_of_table(con, file, str(file), "parquet", names, reading))
            continue
        if mark[:6] == b"ARROW1":
            raise DataError(
                f"{file}: Feather is not read; pandas.read_feather('{file.name}')"
                ".to_parquet('ratings.parquet') converts it"
            )
        text = _plain_text(
            *(con, file, mark, reading.encoding, folder / f"{len(sources)}.txt")
        )
        sources.append(_of_text(con, text, str(file), names, reading))
    first, *others = sources
    for other in others:
        if (other.reader, other.columns) != (first.reader, first.columns):
            raise DataError(f"{other.labels[0]}: is laid out unlike {first.labels[0]}")
        first.files += other.files
        first.labels += other.labels
    return first


def _plain_text(con: Any, file: Path, mark: bytes, encoding: str, plain: Path) -> Path:
    """Give a text as UTF-8 whose lines end in LF: itself, or a copy beside `plain`."""
    try:
        if mark[:4] == _ZSTD:
            lines = _lines_of(file, ", compression='zstd'")
            con.execute(
                f"COPY (SELECT c0 FROM {lines}) TO {quoted(str(plain))} "
                f"(FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '{_LINES}')"
            )
        elif mark[:2] == b"\x1f\x8b":
            with gzip.open(file) as opened, plain.open("wb") as out:
                shutil.copyfileobj(opened, out, 1 << 20)
        elif mark[:4] == b"PK\x03\x04":
            with (
                zipfile.ZipFile(file) as archive,
                archive.open(_only_member(archive)) as member,
                plain.open("wb") as out,
            ):
                shutil.copyfileobj(member, out, 1 << 20)
        else:
            return _transcoded(file, str(file), encoding, plain)
    except _PACKED_ERRORS as error:
        raise DataError(f"{file}: damaged or encrypted archive: {error}") from error
    return _transcoded(plain, str(file), encoding, plain)


def _only_member(archive: zipfile.ZipFile) -> str:
    names = [n for n in archive.namelist() if not n.startswith("__MACOSX/")]
    members = [name for name in names if not name.endswith("/")]
    if len(members) != 1:
        raise zipfile.BadZipFile(f"one file is needed, not {len(members)}")
    return members[0]


def _transcoded(file: Path, label: str, encoding: str, plain: Path) -> Path:
    """Rewrite a text that is not UTF-8 with LF, or whose mark says another encoding."""
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise DataError(f"unknown encoding {encoding!r}") from None
    if not file.stat().st_size:
        raise DataError(f"{label}: is empty")
    with file.open("rb") as opened:
        mark = opened.read(4)
        if mark[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            encoding = "utf-16"
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        with mapped:
            if encoding != "utf-16" and (place := mapped.find(b"\0")) >= 0:
                line = mapped[:place].count(b"\n") + 1
                raise DataError(f"{label}:{line}: holds a zero byte: not a text file")
            returns = mapped.find(b"\r") >= 0
    is_utf8 = codecs.lookup(encoding).name in ("utf-8", "ascii")
    if is_utf8 and not returns and not mark.startswith(codecs.BOM_UTF8):
        return file
    copy = plain.with_suffix(".utf8")
    number = 0
    try:
        encoding = "utf-8-sig" if is_utf8 else encoding
        with file.open(encoding=encoding) as text, copy.open("wb") as out:
            while block := text.read(1 << 20):
                number += block.count("\n")
                out.write(block.encode())
    except UnicodeError:
        raise DataError(
            f"{label}:{number + 1}: is not {encoding.removesuffix('-sig')} from about "
            "there on; name its encoding (--encoding latin-1)"
        ) from None
    return copy


def _lines_of(file: Path, options: str) -> str:
    name = quoted(glob.escape(str(file)))
    return _text_reader(_LINES, 1, False).format(f"[{name}]", options)


def _text_reader(separator: str, width: int, header: bool) -> str:
    quotes = "'\"'" if len(separator) == 1 and separator != _LINES else "''"
    kinds = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(width))
    return (
        f"read_csv({{}}, delim={quoted(separator)}, header={str(header).lower()}, "
        f"quote={quotes}, escape={quotes}, comment='', nullstr='\x1e', "
        f"columns={{{{{kinds}}}}}, auto_detect=false{{}})"
    )


def _of_text(
    con: Any,
    file: Path,
    label: str,
    names: Sequence[str],
    reading: Reading,
) -> Source:
    with file.open("rb") as opened:
        head = opened.read(_HEAD)
        while head and not head.strip():  # of blank lines there may be many
            head = opened.read(_HEAD)
    head = head.lstrip(b"\r\n")
    if not head.strip():
        raise DataError(f"{label}: is empty")
    if head.lstrip()[:1] in (b"{", b"["):
        return _of_table(con, file, label, "json", names, reading)
    try:
        whole_lines = head[: head.rfind(b"\n") + 1] or head
        lines = [x for x in whole_lines.decode().split("\n", 20) if x.strip()]
    except UnicodeError as error:
        line = head.count(b"\n", 0, getattr(error, "start", 0)) + 1
        raise DataError(
            f"{label}:{line}: is not utf-8; name its encoding (--encoding latin-1)"
        ) from None
    separator, fields = _cut(label, lines[0], names)
    below = _fields(lines[1], separator) if len(lines) > 1 else []
    columns = reading.columns
    if names == COLUMNS:
        names = names_of(fields, columns, reading.pairs)
    positions, header = place_columns(label, fields, names, columns, below or [])
    chosen = dict(zip(names, positions))
    sample = (below if header else fields) or fields
    spaces = separator is None
    columns_sql = {n: f"c[{p + 1}]" if spaces else f"c{p}" for n, p in chosen.items()}
    at = chosen.get("timestamp")
    return Source(
        files=[file],
        labels=[label],
        reader=_text_reader(separator or _LINES, 1 if spaces else len(fields), header),
        columns=columns_sql,
        width=len(fields) if spaces else 0,
        separator=separator,
        header=header,
        is_text=True,
        dates=at is not None
        and at < len(sample)
        and bool(re.match(r"\d+-\d", sample[at])),
    )


def _of_table(
    con: Any,
    file: Path,
    label: str,
    kind: str,
    names: Sequence[str],
    reading: Reading,
) -> Source:
    """Describe a Parquet or a JSON file, whose columns have names and types."""
    import duckdb

    reader = f"read_{kind}({{}}{{}})"
    place = quoted(glob.escape(str(file)))
    try:
        rows = con.execute(f"DESCRIBE SELECT * FROM read_{kind}([{place}])").fetchall()
    except duckdb.Error as error:
        raise DataError(f"{label}: {reason(error, str(file.parent))}") from None
    fields, types = [row[0] for row in rows], [row[1] for row in rows]
    columns = reading.columns
    if names == COLUMNS:
        names = names_of(fields, columns, reading.pairs)
    positions, _ = place_columns(label, fields, names, columns, None)
    chosen = dict(zip(names, positions))
    found, whole, dates = {}, set(), False
    for name, position in chosen.items():
        column = '"' + fields[position].replace('"', '""') + '"'
        if _NESTED.match(types[position]):
            raise DataError(
                f"{label}: column {shown(fields[position])} is nested "
                f"({clipped(types[position])}), not {listed([name])}"
            )
        if types[position] == "BLOB":
            column = f"decode({column})"
        elif (
            name.endswith("_id") and kind == "parquet" and _WHOLE.match(types[position])
        ):
            whole.add(name)
        elif name == "timestamp":
            dates = types[position].startswith(("DATE", "TIMESTAMP", "VARCHAR"))
        found[name] = column
    if kind == "json":
        texts = ", ".join(f"{quoted(fields[p])}: 'VARCHAR'" for n, p in chosen.items())
        reader = f"read_json({{}}, columns={{{{{texts}}}}}{{}})"
    return Source([file], [label], reader, found, whole=whole, dates=dates)


def reason(error: Exception, folder: str) -> str:
    """Say in one line what DuckDB has against a file, whose folder is left out."""
    line = str(error).partition("\n")[0].replace(f"{folder}/", "")
    return clipped(line.partition("Error: ")[2] or line, 200)


def _cut(label: str, first: str, names: Sequence[str]) -> tuple[str | None, list[str]]:
    """Find the separator in the first line; cut that into its fields."""
    found = [(s, _fields(first, s) or []) for s in _SEPARATORS]
    if names == COLUMNS and max(len(fields) for _, fields in found) == 2:
        names = PAIR
    needed = [name for name in names if name != "timestamp"]
    if len(needed) == 1:  # one field is a whole line, or ends where a separator is
        found = found[:-1]
        found = [(s, fields) for s, fields in found if len(fields) > 1] or found[1:2]
    found = [(s, fields) for s, fields in found if len(fields) >= len(needed)]
    if not found:
        raise DataError(
            f"{label}:1: {shown(first)} does not have the {len(needed)} columns "
            f"{listed(needed)}, separated by tab, '::', semicolon, '|', comma or spaces"
        )
    marks = [one for one in found if one[0] is not None]
    if len(marks) > 1 and len(needed) < 3:  # with three, only one leaves a number
        raise DataError(
            f"{label}:1: {shown(first)} can be cut at {marks[0][0]!r} and at "
            f"{marks[1][0]!r}; put a line with the columns' names first"
        )
    return found[0]


def _fields(line: str, separator: str | None) -> list[str] | None:
    """Cut a line into its fields; None if a quote is not closed."""
    if separator is None or len(separator) > 1:
        return line.split(separator)
    csv.field_size_limit(_HEAD)
    try:
        rows = csv.reader(
            [line], delimiter=separator, skipinitialspace=True, strict=True
        )
        return next(rows, [])
    except csv.Error:
        return None
