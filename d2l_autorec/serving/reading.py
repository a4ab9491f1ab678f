"""The files of a model folder, read as if they came from a stranger.

A checksum keeps out accidents, but whoever forges a file can sign it. So nothing that a
file says is believed before it is checked: neither Python's pickles nor MXNet's and
NumPy's own readers see it, and what is made of it is not much larger than it is.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from .._ready import memory
from ..errors import ModelError

# Of a model's description, whose longest part is the history. What Python makes of JSON
# may take 30 times as much.
LARGEST_MANIFEST = 2**24
_NPY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '(<f4|<f8|<i4|<i8|\|b1)', 'fortran_order': False, "
    rb"'shape': \((\d{0,18}|(?:\d{1,18}, ?)+\d{0,18})\), \} *\n",
    re.DOTALL,
)


@contextmanager
def blaming(file: Path) -> Iterator[None]:
    """Say of what goes wrong meanwhile, in one line, which file it is about.

    Raises
    ------
    ModelError
        In place of what a reader says.
    """
    try:
        yield
    except ModelError:
        raise
    except MemoryError:
        raise ModelError(f"{file}: needs more memory than there is") from None
    except (
        *(ValueError, TypeError, LookupError, ArithmeticError, RecursionError),
        *(EOFError, NotImplementedError, RuntimeError, struct.error),
        zipfile.BadZipFile,
    ) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"{file}: does not fit: {reason[:300]}") from error


def read_file(file: Path, largest: int | None = None) -> bytes:
    """Read a file whole.

    Parameters
    ----------
    file : pathlib.Path
        No pipe or device, which might have no end.
    largest : int, optional
        Bytes that it may have; by default as many as the machine's memory.

    Returns
    -------
    bytes

    Raises
    ------
    FileNotFoundError, NotADirectoryError
        If there is none.
    ModelError
        If it is no file, or larger, or cannot be read.
    """
    try:
        with open(file, "rb", opener=_open_at_once) as opened:
            found = os.fstat(opened.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise ModelError(f"{file}: is no regular file")
            largest = memory() if largest is None else largest
            if found.st_size > largest:
                raise ModelError(
                    f"{file}: has {found.st_size:,} bytes, and may have {largest:,} "
                    "here"
                )
            return opened.read(found.st_size)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}") from error


def _open_at_once(file: str, flags: int) -> int:
    """Open a pipe, too, without waiting for somebody to write to it."""
    return os.open(file, flags | os.O_NONBLOCK)


def read_signed(file: Path, digest: str) -> bytes:
    """Read a file that the manifest has the checksum of.

    Parameters
    ----------
    file : pathlib.Path
        Its path.
    digest : str
        The SHA-256 of its content, in hexadecimal digits.

    Returns
    -------
    bytes

    Raises
    ------
    ModelError
        If it is missing, or another one.
    """
    try:
        content = read_file(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(f"{file}: is missing") from error
    if hashlib.sha256(content).hexdigest() != digest:
        raise ModelError(f"{file}: is damaged: its SHA-256 is not in the manifest")
    return content


def parse_json(content: bytes) -> Any:
    """Read JSON, in UTF-8 and without NaN and infinite numbers.

    Raises
    ------
    ValueError, RecursionError
        If it is none.
    """
    return json.loads(content.decode("utf-8"), parse_constant=_refuse)


def _refuse(text: str) -> Any:
    raise ValueError(f"{text} is not a number")


def parse_npz(content: bytes) -> dict[str, np.ndarray]:
    """Read a ``.npz`` file as `numpy.savez` writes it, not compressed.

    Parameters
    ----------
    content : bytes
        The file's.

    Returns
    -------
    dict of str to numpy.ndarray
        Of float32, float64, int32, int64 or bool, all of them finite; not to be
        written to.

    Raises
    ------
    Exception
        Whatever `zipfile` has to say, or a ValueError.
    """
    arrays: dict[str, np.ndarray] = {}
    with zipfile.ZipFile(io.BytesIO(content)) as members:
        # Members may lie on top of each other, or be packed to a thousandth.
        if sum(one.file_size for one in members.infolist()) > len(content):
            raise ValueError("it unpacks to more than it is")
        for one in members.infolist():
            name, dot, ending = one.filename.rpartition(".")
            if (dot + ending, one.compress_type) != (".npy", zipfile.ZIP_STORED):
                raise ValueError(f"{one.filename!r} is no array that is not compressed")
            if name in arrays:
                raise ValueError(f"{name} is there twice")
            arrays[name] = _parse_npy(name, members.read(one))
    return arrays


def _parse_npy(name: str, content: bytes) -> np.ndarray:
    header = _NPY.match(content)
    if not header or len(header[0]) != 10 + int.from_bytes(content[8:10], "little"):
        raise ValueError(f"{name}: is no array of numbers")
    dtype = np.dtype(header[1].decode())
    shape = tuple(int(size) for size in header[2].split(b",") if size.strip())
    if len(header[0]) + math.prod(shape) * dtype.itemsize != len(content):
        raise ValueError(f"{name}: has not as many bytes as a shape of {shape} needs")
    array = np.frombuffer(content, dtype, offset=len(header[0])).reshape(shape)
    return _finite(name, array)


def parse_parameters(content: bytes) -> dict[str, np.ndarray]:
    """Read named arrays as MXNet's ``save`` writes them, dense and in float32.

    MXNet's own reader ends the process over some of what is none.

    Parameters
    ----------
    content : bytes
        The file's.

    Returns
    -------
    dict of str to numpy.ndarray of float32
        All of them finite; not to be written to.

    Raises
    ------
    ValueError, struct.error
        If it is no such file.
    """
    place = 0

    def take(layout: str) -> tuple[Any, ...]:
        nonlocal place
        values = struct.unpack_from("<" + layout, content, place)
        place += struct.calcsize("<" + layout)
        return values

    magic, _, count = take("3Q")
    if magic != 0x112:
        raise ValueError("it is no file of MXNet's")
    arrays = []
    for number in range(count):
        magic, storage, num_axes = take("Iii")
        if (magic, storage) != (0xF993FACA, 0) or not 0 < num_axes <= 2:
            raise ValueError(f"array {number} is no dense vector or matrix")
        shape = take(f"{num_axes}q")
        if take("iii") != (1, 0, 0):
            raise ValueError(f"array {number} is not in float32, on a CPU")
        size = math.prod(shape)
        if min(shape) <= 0 or place + 4 * size > len(content):
            raise ValueError(f"array {number} has a shape of {shape}, and fewer bytes")
        arrays.append(np.frombuffer(content, "<f4", size, place).reshape(shape))
        place += 4 * size
    if take("Q") != (count,):
        raise ValueError("it has not as many names as arrays")
    named = {}
    for array in arrays:
        (length,) = take("Q")
        name = content[place : place + length].decode("ascii")
        named[name] = _finite(name, array)
        place += length
    if place != len(content) or len(named) < count:
        raise ValueError("its names do not fit")
    return named


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: a number is not finite")
    return array
