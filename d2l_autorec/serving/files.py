"""Files that are replaced whole or not at all."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


@contextmanager
def replacing(file: str | Path) -> Iterator[Path]:
    """Give a temporary path whose content goes to a file once it is written.

    A regular file is replaced, and keeps its mode; a link is followed; a pipe or a
    device is written to. If the block fails, nothing of the file changes; an `OSError`
    names it.
    """
    target = Path(os.path.realpath(file))
    mode = _mode(Path(file))
    # As /dev/stdout, a regular file may be one that is being written to.
    replaced = stat.S_ISREG(mode) and not _descriptor(file)
    temporary = None
    try:
        handle, name = tempfile.mkstemp(
            suffix=target.suffix, dir=target.parent if replaced else None
        )
        os.close(handle)
        temporary = Path(name)
        yield temporary
        if replaced:
            temporary.chmod(stat.S_IMODE(mode))
            os.replace(temporary, target)
        else:
            with temporary.open("rb") as written, _opened(file) as out:
                shutil.copyfileobj(written, out)
    except OSError as error:
        # A write that finds no room does not say where.
        raise OSError(error.errno, error.strerror or str(error), str(file)) from error
    finally:
        if temporary:
            temporary.unlink(missing_ok=True)


def save_text(text: str, file: str | Path) -> None:
    """Write a text, in UTF-8, in place of what the file held."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_tables(tables: Iterable[pd.DataFrame], file: str | Path) -> None:
    """Write tables of the same columns one below the other, as each of them comes.

    The file's ending decides: Parquet for ``.parquet``, packed CSV for ``.gz``, or CSV.
    """
    with replacing(file) as temporary:
        if temporary.suffix == ".parquet":
            _write_parquet(tables, temporary)
            return
        opened = gzip.open if temporary.suffix == ".gz" else open
        with opened(temporary, "wb") as out:
            write_csv(tables, out)


def write_csv(tables: Iterable[pd.DataFrame], out: IO[bytes] | gzip.GzipFile) -> None:
    """Write tables one below the other, in UTF-8 and under one header."""
    for number, table in enumerate(tables):
        out.write(table.to_csv(index=False, header=not number).encode())


def _write_parquet(tables: Iterable[pd.DataFrame], file: Path) -> None:
    import duckdb

    with duckdb.connect() as con:
        for number, table in enumerate(tables):
            # A column of the first table may be empty, and of texts in the second.
            texts = {n: "string" for n in table if table[n].dtype.kind == "O"}
            con.register("part", table.astype(texts))
            how = "INSERT INTO whole" if number else "CREATE TABLE whole AS"
            con.execute(f"{how} FROM part")
        con.table("whole").write_parquet(str(file))


def save_figure(figure: Figure, file: str | Path) -> None:
    """Write a picture, of the kind that the file's ending names."""
    with replacing(file) as temporary, warnings.catch_warnings():
        # A title in letters that the font lacks.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        figure.savefig(temporary, dpi=150)


def _mode(file: Path) -> int:
    """Return a file's type and permissions, or those that a new one will have."""
    try:
        return file.stat().st_mode
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        return stat.S_IFREG | 0o666 & ~umask


def _descriptor(file: str | Path) -> int | None:
    """Return the standard stream that a file is, if it is one."""
    for stream in (1, 2):
        with suppress(OSError):
            if os.path.samestat(os.stat(file), os.fstat(stream)):
                return stream
    return None


def _opened(file: str | Path) -> BinaryIO:
    """Open what is not to be replaced, or a standard stream where it is now."""
    if stream := _descriptor(file):
        print(end="", flush=True)
        return os.fdopen(os.dup(stream), "wb")
    return open(file, "wb")
