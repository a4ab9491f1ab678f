"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
