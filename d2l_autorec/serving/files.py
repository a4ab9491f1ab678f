"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def replacing(file: str | Path) -> Iterator[Path]:
    """Give a temporary path that takes a file's place once it is written.

    Parameters
    ----------
    file : path
        What to write or replace; its folder has to exist.

    Yields
    ------
    pathlib.Path
        Beside `file`, with the same ending. It is removed if the block fails.
    """
    file = Path(file)
    handle, name = tempfile.mkstemp(suffix=file.suffix, dir=file.parent)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        # mkstemp keeps others from reading; an ordinary file is as open as umask says.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)


def save_text(text: str, file: str | Path) -> None:
    """Write a text, in UTF-8, in place of what the file held."""
    with replacing(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def save_figure(figure: Figure, file: str | Path) -> None:
    """Write a picture, of the kind that the file's ending names."""
    with replacing(file) as temporary:
        figure.savefig(temporary, dpi=150)
