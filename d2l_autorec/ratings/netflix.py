"""The Netflix Prize's ratings, for those who have them: they are not published now.

References
----------
J. Bennett, S. Lanning, "The Netflix Prize", KDD Cup and Workshop 2007.
"""

from __future__ import annotations

import mmap
import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import IO

from ..errors import DataError, DatasetUnavailable
from .reading import read_ratings
from .table import Ratings

NETFLIX = "netflix"
_LAYOUTS = ("combined_data_*.txt", "mv_*.txt", "training_set/mv_*.txt")


def load_netflix(root: Path | None) -> Ratings:
    """Read the folder ``netflix`` of a data folder: ratings and perhaps titles."""
    folder = root / NETFLIX if root else None
    found = [sorted(folder.glob(layout)) for layout in _LAYOUTS] if folder else []
    files = next(filter(None, found), None)
    if folder is None or files is None:
        raise DatasetUnavailable(
            "netflix is not published any more: put combined_data_*.txt, or mv_*.txt, "
            "into the folder netflix of a data folder (--data-dir, $D2L_AUTOREC_DATA)"
        )
    with tempfile.TemporaryDirectory(prefix="d2l_autorec-") as temporary:
        table = Path(temporary) / "netflix.csv"
        with table.open("wb") as out:
            for file in files:
                _write_rows(file, out)
        ratings = read_ratings(table, columns=["1", "4", "2", "3"])
    return replace(ratings, name=NETFLIX, titles=_titles(folder / "movie_titles.csv"))


def _write_rows(file: Path, out: IO[bytes]) -> None:
    """Write a file's rows of user, rating and date with the film behind each."""
    with file.open("rb") as opened:
        try:
            raw = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        except ValueError:
            raise DataError(f"{file}: is empty") from None
        with raw:
            films = [*re.finditer(rb"^(\d+):\r?\n", raw, re.MULTILINE)]
            if not films or films[0].start():
                raise DataError(f"{file}:1: is not a film's number and a colon")
            ends = [film.start() for film in films[1:]] + [len(raw)]
            for film, end in zip(films, ends):
                rows = raw[film.end() : end].replace(b"\r", b"").rstrip(b"\n")
                if rows:
                    mark = b"," + film[1] + b"\n"
                    out.write(rows.replace(b"\n", mark) + mark)


def _titles(file: Path) -> dict[int, str]:
    """Read the films' titles, which follow number and year and may hold commas."""
    if not file.exists():
        return {}
    lines = file.read_text("latin-1").splitlines()
    fields = (line.split(",", 2) for line in lines if line)
    return {int(number): title for number, _, title in fields}
