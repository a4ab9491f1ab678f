"""Files of ratings as DuckDB reads them: found, unpacked, and their layout told."""

from __future__ import annotations

import codecs
import csv
import glob
import gzip
import io
import mmap
import re
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DataError
from .columns import PAIR, clipped, listed, names_of, place_columns, shown
from .table import COLUMNS
from .values import Reading

# Tried in this order: a line of "1::2::3" holds no other mark. None is a run of spaces.
_SEPARATORS = ("::", "\t", ";", "|", ",", None)
_LINES = "\x1f"  # a separator that no line of text holds
_GZIP, _ZIP, _ZSTD = b"\x1f\x8b", b"PK\x03\x04", b"\x28\xb5\x2f\xfd"
_HEAD = 1 << 22  # bytes in which the first line has to end
_NESTED = re.compile(r"STRUCT|MAP|UNION|.*\[")
_WHOLE = re.compile("U?(TINY|SMALL|BIG)?INT(EGER)?$")
_NUMBER = re.compile(f"FLOAT|DOUBLE|DECIMAL|{_WHOLE.pattern}")
_PACKED_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError)
# A time in a text: a number, or a date. DuckDB takes "epoch" for a date, too, and makes
# a DOUBLE of a quotient.
_TIME = (
    "coalesce(try_cast({0} AS DECIMAL(38, 6)), CASE WHEN {0} LIKE '____-__-__%' THEN "
    "(epoch_us(try_cast({0} AS TIMESTAMPTZ)) / 1000000)::DECIMAL(38, 6) END)"
)


@dataclass
class Source:
    """A file, and the SQL of its columns."""

    label: str  # what errors call it
    file: Path  # that DuckDB reads
    reader: str  # a table function with its options, the file as {}
    columns: dict[str, str]  # from user_id and the like to SQL
    width: int = 0  # fields a line, where DuckDB does not count them
    separator: str | None = None
    header: bool = False
    is_text: bool = False
    numbers: frozenset[str] = frozenset()  # columns of that type, ids of whole numbers
    first: int = 0  # the row of the table that its first one is
    rejected: frozenset[int] = frozenset()  # lines that DuckDB does not read

    def rows(self, missing: float | None = None) -> str:
        """Write the SQL of a row a rating: ids, values, which of them is at fault."""
        table = self.reader.format(quoted(glob.escape(str(self.file))))
        faults = ""
        columns = [f"{self._value(name)} AS {name}" for name in self.columns]
        if self.width:
            table = (
                rf"(SELECT regexp_split_to_array(trim(c0), '\s+') AS c FROM {table})"
            )
            columns.append("len(c) AS width")
            faults = f"WHEN width <> {self.width} THEN 'columns' "
        written = ""
        for name, raw in self.columns.items():
            unfit = f"{name} IS NULL"
            if name == "rating":
                unfit += " OR NOT isfinite(rating)"
            elif name != "timestamp" and name not in self.numbers:
                unfit += f" OR {name} = ''"
            faults += f"WHEN {unfit} THEN '{name}' "
            columns.append(f"{raw}::VARCHAR AS raw_{name}")
            written += f"WHEN '{name}' THEN raw_{name} "
        if missing is not None and "rating" in self.columns:
            faults += f"WHEN rating = {missing!r}::FLOAT THEN 'missing' "
        return (
            f"(SELECT *, CASE {faults}END AS fault, CASE fault {written}END AS value "
            f"FROM (SELECT {', '.join(columns)} FROM {table}))"
        )

    def _value(self, name: str) -> str:
        raw = self.columns[name]
        if name in self.numbers:
            types = {"rating": "FLOAT", "timestamp": "DECIMAL(38, 6)"}
            return f"try_cast({raw} AS {types.get(name, 'BIGINT')})"
        if name == "timestamp":
            return _TIME.format(raw)
        if name == "rating":
            number = raw if self.separator == "," else f"replace({raw}, ',', '.')"
            plain = f"NOT contains({raw}, '_')"  # DuckDB reads 1_0 as 10
            return f"CASE WHEN {plain} THEN try_cast({number} AS FLOAT) END"
        return f"ltrim({raw}, ' ')" if self.is_text else raw

    def line_of(self, number: int) -> tuple[int, str]:
        """Find the line that the row of that number, from 0, is from, and its text."""
        if not self.is_text:
            return number + 1, ""
        with self.file.open(encoding="utf-8-sig", newline="", errors="replace") as text:
            lines: Any = enumerate(text, 1)
            if self.separator is not None and len(self.separator) == 1:
                reader = csv.reader(text, delimiter=self.separator)
                lines = ((reader.line_num, self.separator.join(row)) for row in reader)
            skipped = number + self.header
            for line, content in lines:
                if content.strip() and line not in self.rejected:
                    if not skipped:
                        return line, content.rstrip("\n")
                    skipped -= 1
        return 0, ""

    def at(self, line: int) -> str:
        """Name a line; of a table, a row from 1."""
        return f"{self.label}:{line}" if self.is_text else f"{self.label}: row {line}"


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
        mark = opened.read(8)
    if mark[:4] == b"PAR1":
        return _of_table(con, file, str(file), "parquet", names, reading)
    if mark[:6] == b"ARROW1":
        raise DataError(
            f"{file}: Feather is not read; pandas.read_feather('{file.name}')"
            ".to_parquet('ratings.parquet') converts it"
        )
    text = _plain_text(con, file, mark, reading.encoding, plain)
    return _of_text(con, text, str(file), names, reading)


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
        reader = _text_reader(_LINES, 1, False, ", compression='zstd'")
        lines = reader.format(quoted(glob.escape(str(file))))
        file = plain.with_suffix(".lines")
        con.execute(
            f"COPY (SELECT c0 FROM {lines}) TO {quoted(str(file))} "
            f"(FORMAT csv, HEADER false, QUOTE '', ESCAPE '', DELIMITER '{_LINES}')"
        )
    return file.open("rb")


def _text_reader(separator: str, width: int, header: bool, option: str) -> str:
    quotes = "'\"'" if len(separator) == 1 and separator != _LINES else "''"
    kinds = ", ".join(f"'c{n}': 'VARCHAR'" for n in range(width))
    return (
        f"read_csv({{}}, delim={quoted(separator)}, header={str(header).lower()}, "
        f"quote={quotes}, escape={quotes}, comment='', nullstr='\x1e', "
        f"columns={{{{{kinds}}}}}, auto_detect=false{option})"
    )


def _of_text(
    con: Any,
    file: Path,
    label: str,
    names: Sequence[str],
    reading: Reading,
) -> Source:
    with file.open("rb") as opened:
        head = opened.read(_HEAD).removeprefix(codecs.BOM_UTF8)
        while head and not head.strip():  # of blank lines there may be many
            head = opened.read(_HEAD)
    head = head.lstrip(b"\n")
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
    spaces = separator is None
    field = "c[{}]" if spaces else "c{}"
    width = 1 if spaces else len(fields)
    return Source(
        label,
        file,
        _text_reader(separator or _LINES, width, header, ", store_rejects=true"),
        {name: field.format(p + spaces) for name, p in zip(names, positions)},
        width=len(fields) if spaces else 0,
        separator=separator,
        header=header,
        is_text=True,
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

    place = quoted(glob.escape(str(file)))
    try:
        rows = con.execute(f"DESCRIBE SELECT * FROM read_{kind}({place})").fetchall()
    except duckdb.Error as error:
        raise DataError(f"{label}: {reason(error, str(file.parent))}") from None
    fields, types = [row[0] for row in rows], [row[1] for row in rows]
    columns = reading.columns
    if names == COLUMNS:
        names = names_of(fields, columns, reading.pairs)
    positions, _ = place_columns(label, fields, names, columns, None)
    found, numbers, texts = {}, set(), []
    for name, position in zip(names, positions):
        column = '"' + fields[position].replace('"', '""') + '"'
        if _NESTED.match(types[position]):
            raise DataError(
                f"{label}: column {shown(fields[position])} is nested "
                f"({clipped(types[position])}), not {listed([name])}"
            )
        is_number = _WHOLE if name.endswith("_id") else _NUMBER
        texts.append(f"{quoted(fields[position])}: 'VARCHAR'")
        if kind == "parquet" and is_number.match(types[position]):
            numbers.add(name)
            found[name] = column
        else:
            is_bytes = types[position] == "BLOB"
            found[name] = f"decode({column})" if is_bytes else f"{column}::VARCHAR"
    reader = f"read_{kind}({{}})"
    if kind == "json":
        reader = f"read_json({{}}, columns={{{{{', '.join(texts)}}}}})"
    return Source(label, file, reader, found, numbers=frozenset(numbers))


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
