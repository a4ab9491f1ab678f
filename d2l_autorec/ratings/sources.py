"""Files of ratings as DuckDB reads them: found, unpacked, and their layout told."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import io
import itertools
import mmap
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from .columns import (
    PAIR,
    clipped,
    find_columns,
    listed,
    names_of,
    place_columns,
    shown,
)
from .table import COLUMNS
from .values import Reading, log

# Tried in this order: a line of "1::2::3" holds no other mark. " " is a run of spaces.
_SEPARATORS = ("::", "\t", ";", "|", ",", " ")
_SPACES = re.compile("[ \t]+")
_GZIP, _ZIP, _ZSTD = b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd"
_HEAD = 1 << 22  # bytes in which the first line has to end
_PACKED_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)
# The SQL of a value, from its text; NULL if it is none. DuckDB reads 1_0 as 10, takes
# "epoch" for a date, and makes a DOUBLE of a quotient.
_VALUES = {
    "rating": (
        "CASE WHEN NOT contains({0}, '_') AND isfinite(try_cast({1} AS FLOAT)) "
        "THEN try_cast({1} AS FLOAT) END"
    ),
    "timestamp": (
        "coalesce(try_cast({0} AS DECIMAL(38, 6)), CASE WHEN {0} LIKE '____-__-__%' "
        "THEN (epoch_us(try_cast({0} AS TIMESTAMPTZ)) / 1000000)::DECIMAL(38, 6) END)"
    ),
}


@dataclass
class Source:
    """A file, and the SQL of its columns."""

    label: str  # what errors call it
    file: Path  # that DuckDB reads
    reader: str  # a table function
    options: str  # of it
    columns: dict[str, str]  # from user_id and the like to the SQL of its text
    separator: str = ""  # of a text
    header: bool = False
    first: int = 0  # the row of the table that its first one is
    rejected: frozenset[int] = frozenset()  # lines that DuckDB does not read

    def rows(self, missing: float | None = None) -> str:
        """Write the SQL of a row a rating: values, which is at fault, and its text."""
        table = f"{self.reader}({quoted(glob.escape(str(self.file)))}{self.options})"
        values, faults, texts = [], "", []
        for name, text in self.columns.items():
            number = text if self.separator == "," else f"replace({text}, ',', '.')"
            own = f"ltrim({text}, ' ')" if self.separator else text
            value = _VALUES.get(name, "nullif({2}, '')").format(text, number, own)
            values.append(f"{value} AS {name}, {text} AS text_{name}")
            faults += f"WHEN {name} IS NULL THEN '{name}' "
            texts.append(f"'{name}': text_{name}")
        if missing is not None and "rating" in self.columns:
            faults += f"WHEN rating = {missing!r}::FLOAT THEN 'missing' "
        return (
            f"(SELECT *, CASE {faults}END AS fault, "
            f"MAP {{{', '.join(texts)}}}[fault] AS text "
            f"FROM (SELECT {', '.join(values)} FROM {table}))"
        )

    def line_of(self, number: int) -> int:
        """Find the line that the row of that number, from 0, is from."""
        if not self.separator:
            return number + 1
        with self.file.open(encoding="utf-8-sig", newline="", errors="replace") as text:
            lines: Any = enumerate(text, 1)
            if _has_quotes(self.separator):
                reader = csv.reader(text, delimiter=self.separator)
                lines = ((reader.line_num, "".join(row)) for row in reader)
            kept = (n for n, x in lines if x.strip() and n not in self.rejected)
            return next(itertools.islice(kept, number + self.header, None), 0)

    def at(self, line: int) -> str:
        """Name a line; of a table, a row from 1."""
        return f"{self.label}:{line}" if self.separator else f"{self.label}: row {line}"


def quoted(text: str) -> str:
    """Write a text as SQL."""
    return "'" + text.replace("'", "''") + "'"


def find_files(path: Any) -> list[Path]:
    """List the files that a path names: one, those of a folder, or of a pattern."""
    if not isinstance(path, str | Path):
        return [file for one in path for file in find_files(one)]
    found = [Path(path)]
    if found[0].is_dir():
        files = sorted(file for file in found[0].iterdir() if file.is_file())
        found = [file for file in files if file.name[0] not in "._"]
    elif not found[0].exists() and glob.has_magic(str(path)):
        found = [Path(file) for file in sorted(glob.glob(str(path)))]
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
    con: Any, file: Path, names: Sequence[str], reading: Reading, plain: Path
) -> Source:
    """Tell the layout of a file; `plain` is where a copy of it may be written."""
    with file.open("rb") as opened:
        mark = opened.read(4)
    if mark == b"PAR1":
        return _of_table(con, file, str(file), "parquet", names, reading)
    text = _plain_text(con, file, mark, reading.encoding, plain)
    with text.open("rb") as opened:
        head = opened.read(_HEAD).removeprefix(codecs.BOM_UTF8)
        while head and not head.strip():  # of blank lines there may be many
            head = opened.read(_HEAD)
    if not head.strip():
        raise DataError(f"{file}: is empty")
    if head.lstrip()[:1] in (b"{", b"["):
        return _of_table(con, text, str(file), "json", names, reading)
    return _of_text(text, str(file), head, names, reading, plain)


def _plain_text(con: Any, file: Path, mark: bytes, encoding: str, plain: Path) -> Path:
    """Give a text as UTF-8 whose lines end alike: itself, or a copy.

    DuckDB 2.0 unpacks and decodes, too, but it ends with an internal error where ends
    of lines are mixed, takes zero bytes for a part of an id, does not read big-endian
    UTF-16, and cannot say the line of a row.
    """
    try:
        is_utf8 = codecs.lookup(encoding).name in ("utf-8", "ascii")
    except LookupError:
        raise DataError(f"unknown encoding {encoding!r}") from None
    if not file.stat().st_size:
        raise DataError(f"{file}: is empty")
    is_packed = mark.startswith((_GZIP, _ZIP, _ZSTD))
    utf16 = codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE
    if is_utf8 and not is_packed and not mark.startswith(utf16):
        with (
            file.open("rb") as opened,
            mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content,
        ):
            if content.find(b"\r") < 0 and content.find(b"\0") < 0:
                return file
    line = 1
    try:
        with _unpacked(con, file, mark, plain) as opened, plain.open("wb") as out:
            encoding = "utf-8-sig" if is_utf8 else encoding
            encoding = "utf-16" if opened.peek(2)[:2] in utf16 else encoding
            out.write(codecs.BOM_UTF8)  # DuckDB drops one mark; a second is of an id
            text = io.TextIOWrapper(opened, encoding)
            while block := text.read(1 << 20):
                if (place := block.find("\0")) >= 0:
                    line += block.count("\n", 0, place)
                    raise DataError(
                        f"{file}:{line}: holds a zero byte: not a text file"
                    )
                line += block.count("\n")
                out.write(block.encode())
    except UnicodeError:
        raise DataError(
            f"{file}:{line}: is not {encoding.removesuffix('-sig')} from about there "
            "on; name its encoding (--encoding latin-1)"
        ) from None
    except _PACKED_ERRORS as error:
        what = "damaged or encrypted archive: " if is_packed else ""
        raise DataError(f"{file}: {what}{error}") from error
    return plain


def _unpacked(con: Any, file: Path, mark: bytes, plain: Path) -> Any:
    """Open a file that may be packed, as bytes."""
    if mark.startswith(_GZIP):
        return gzip.open(file)
    if mark.startswith(_ZIP):
        archive = zipfile.ZipFile(file)
        names = [n for n in archive.namelist() if not n.startswith("__MACOSX/")]
        members = [name for name in names if not name.endswith("/")]
        if len(members) != 1:
            raise zipfile.BadZipFile(f"one file is needed, not {len(members)}")
        return archive.open(members[0])
    if mark.startswith(_ZSTD):  # which Python 3.11 does not have
        place, never = quoted(glob.escape(str(file))), "\x1f"
        options = f"{_text_options(never, 1, False)}, compression='zstd'"
        file = plain.with_suffix(".lines")
        con.execute(
            f"COPY (FROM read_csv({place}{options})) TO {quoted(str(file))} "
            f"(FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '{never}')"
        )
    return file.open("rb")


def _text_options(separator: str, width: int, header: bool) -> str:
    quotes = "'\"'" if _has_quotes(separator) else "''"
    kinds = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(width))
    return (
        f", delim={quoted(separator)}, header={str(header).lower()}, quote={quotes}, "
        f"escape={quotes}, comment='', nullstr='\x1e', columns={{{kinds}}}, "
        "auto_detect=false"
    )


def _has_quotes(separator: str) -> bool:
    return separator in ("\t", ";", "|", ",")


def _of_text(
    file: Path,
    label: str,
    head: bytes,
    names: Sequence[str],
    reading: Reading,
    plain: Path,
) -> Source:
    """Describe a text by its first line."""
    first = next(line for line in head.split(b"\n") if line.strip())
    try:
        separator, fields = _cut(label, first.decode(), names)
    except UnicodeError:
        raise DataError(
            f"{label}:1: is not utf-8; name its encoding (--encoding latin-1)"
        ) from None
    if names == COLUMNS:
        names = names_of(fields, reading.columns, reading.pairs)
    positions, header = place_columns(label, fields, names, reading.columns)
    if header and not any(find_columns(fields, names).values()):
        log.warning("%s:1: %s is taken for a header", label, shown(", ".join(fields)))
    if separator == " ":
        file = _with_single_spaces(file, plain.with_suffix(".spaced"))
    return Source(
        label,
        file,
        "read_csv",
        _text_options(separator, len(fields), header) + ", store_rejects=true",
        {name: f"c{p}" for name, p in zip(names, positions)},
        separator,
        header,
    )


def _with_single_spaces(file: Path, spaced: Path) -> Path:
    """Copy a text of fields between spaces and tabs for DuckDB, line by line."""
    with (
        file.open(encoding="utf-8-sig", newline="\n", errors="surrogateescape") as text,
        spaced.open("w", encoding="utf-8", errors="surrogateescape") as out,
    ):
        out.write("\ufeff")
        out.writelines(_SPACES.sub(" ", line.strip(" \t\n")) + "\n" for line in text)
    return spaced


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

    place = quoted(glob.escape(str(file)))
    try:
        rows = con.execute(f"DESCRIBE SELECT * FROM read_{kind}({place})").fetchall()
    except duckdb.Error as error:
        raise DataError(f"{label}: {reason(error, str(file.parent))}") from None
    fields, types = [row[0] for row in rows], [row[1] for row in rows]
    if names == COLUMNS:
        names = names_of(fields, reading.columns, reading.pairs)
    positions, _ = place_columns(label, fields, names, reading.columns)
    columns, texts = {}, []
    for name, position in zip(names, positions):
        column = '"' + fields[position].replace('"', '""') + '"'
        if re.match(r"STRUCT|MAP|UNION|.*\[", types[position]):
            raise DataError(
                f"{label}: column {shown(fields[position])} is nested "
                f"({clipped(types[position])}), not {listed([name])}"
            )
        is_bytes = types[position] == "BLOB"
        columns[name] = f"decode({column})" if is_bytes else f"{column}::VARCHAR"
        texts.append(f"{quoted(fields[position])}: 'VARCHAR'")
    options = f", columns={{{', '.join(texts)}}}" if kind == "json" else ""
    return Source(label, file, f"read_{kind}", options, columns)


def reason(error: Exception, folder: str) -> str:
    """Say in one line what DuckDB has against a file, whose folder is left out."""
    line = str(error).partition("\n")[0].replace(f"{folder}/", "")
    return clipped(line.partition("Error: ")[2] or line, 200)


def _cut(label: str, first: str, names: Sequence[str]) -> tuple[str, list[str]]:
    """Find the separator in the first line; cut that into its fields."""
    found = [(mark, _fields(first, mark)) for mark in _SEPARATORS]
    if names == COLUMNS and max(len(fields) for _, fields in found) == 2:
        names = PAIR
    needed = [name for name in names if name != "timestamp"]
    if len(needed) == 1:  # one field is a whole line, or ends where a separator is
        cut = [(mark, fields) for mark, fields in found[:-1] if len(fields) > 1]
        found = cut or [(_SEPARATORS[1], _fields(first, _SEPARATORS[1]))]
    found = [(mark, fields) for mark, fields in found if len(fields) >= len(needed)]
    if not found:
        raise DataError(
            f"{label}:1: {shown(first)} does not have the {len(needed)} columns "
            f"{listed(needed)}, separated by tab, '::', semicolon, '|', comma or spaces"
        )
    marks = [mark for mark, _ in found if mark != " "]
    # With three columns, only one mark leaves a number; "::" is meant.
    if len(marks) > 1 and len(needed) < 3 and marks[0] != "::":
        raise DataError(
            f"{label}:1: {shown(first)} can be cut at {marks[0]!r} and {marks[1]!r}; "
            "put a line with the columns' names first"
        )
    return found[0]


def _fields(line: str, separator: str) -> list[str]:
    """Cut a line into its fields; none if a quote is not closed."""
    if separator == " ":
        return _SPACES.split(line.strip(" \t"))
    if not _has_quotes(separator):
        return line.split(separator)
    csv.field_size_limit(_HEAD)
    try:
        rows = csv.reader(
            [line], delimiter=separator, skipinitialspace=True, strict=True
        )
        return next(rows, [])
    except csv.Error:
        return []
