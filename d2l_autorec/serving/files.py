"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@contextmanager
def replacing(file: str | Path) -> Iterator[Path]:
    """Give a temporary path whose content goes to a file once it is written.

    Parameters
    ----------
    file : path
        What to write; its folder has to exist. A regular file is replaced, and keeps
        its mode; a link is followed; a pipe or a device is written to.

    Yields
    ------
    pathlib.Path
        With the ending of `file`. It is removed if the block fails.

    Raises
    ------
    OSError
        If it cannot be written, or the disk is full: with the name of `file`.
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
