"""The Netflix Prize's ratings, for those who have them: they are not published now.

References
----------
J. Bennett, S. Lanning, "The Netflix Prize", KDD Cup and Workshop 2007.
"""

from __future__ import annotations

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
    before, *films = re.split(rb"(?m)^(\d+):\r?\n", file.read_bytes())
    if before or not films:
        raise DataError(f"{file}:1: is not a film's number and a colon")
    for film, lines in zip(films[::2], films[1::2]):
        if rows := lines.replace(b"\r", b"").rstrip(b"\n"):
            mark = b"," + film + b"\n"
            out.write(rows.replace(b"\n", mark) + mark)


def _titles(file: Path) -> dict[int, str]:
    """Read the films' titles, which follow number and year and may hold commas."""
    if not file.exists():
        return {}
    lines = file.read_text("latin-1").splitlines()
    fields = (line.split(",", 2) for line in lines if line)
    return {int(number): title for number, _, title in fields}
