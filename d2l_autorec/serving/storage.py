"""A folder's files: JSON, and arrays in the format safetensors; read with distrust.

A checksum finds accidents, but a forger can compute it anew. Nothing that a file says
is used before it is checked, and no more memory is taken than the file's size explains.
"""

import hashlib
import math
import os
import re
import reprlib
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import safe_open

from .._ready import memory
from ..errors import ModelError
from ..fast import release

# What 64 networks of 16 layers need is below 1 MiB.
LARGEST_HEADER = 2**21
_SHORT = 2**16  # bytes of JSON that are read again to name a value
_PIECE = 2**22  # bytes that are read or written at once
_TYPES = {"F32": "<f4", "I32": "<i4", "I64": "<i8"}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}


@contextmanager
def blaming(file: Path) -> Iterator[None]:
    """Turn what goes wrong into a `ModelError` of one line, which names the file."""
    try:
        yield
    except ModelError:
        raise
    except OSError as error:
        missing = isinstance(error, FileNotFoundError | NotADirectoryError)
        what = "is missing" if missing else f"cannot be read: {error.strerror}"
        raise ModelError(f"{file}: {what}") from error
    except Exception as error:  # a forger may cause any
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{file}: does not fit: {reason}") from error


@contextmanager
def opened(file: Path, largest: int | None = None) -> Iterator[Any]:
    """Open a regular file of at most so many bytes, by default the memory's size."""
    largest = memory() if largest is None else largest
    with open(file, "rb", opener=_open_at_once) as raw:
        found = os.fstat(raw.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{file}: is no regular file")
        if found.st_size > largest:
            raise ModelError(
                f"{file}: has {found.st_size:,} bytes, and may have {largest:,} here"
            )
        yield raw


def _open_at_once(file: str, flags: int) -> int:
    """Open a pipe, too, without waiting for a writer."""
    return os.open(file, flags | os.O_NONBLOCK)


def read_json(file: Path, digest: str, kind: Any) -> Any:
    """Read JSON with a checksum, as an object of a kind."""
    with opened(file) as raw:
        _check_digest(file, raw, digest)
        return decode(raw.read(), kind)


def decode(content: bytes, kind: Any) -> Any:
    """Read an object of a kind; an error names the value, of a file that is short."""
    try:
        return msgspec.json.decode(content, type=kind)
    except msgspec.ValidationError as error:
        if len(content) > _SHORT:
            raise
        value = msgspec.json.decode(content)
        with suppress(ValueError):  # within [...], which may be any of a dict's values
            for name, index in re.findall(r"\.(\w+)|\[(.+?)\]", str(error)):
                value = value[name or int(index)]
        raise ValueError(f"{error}: {reprlib.repr(value)}") from error


def read_arrays(
    file: Path, digest: str, largest: int | None = None
) -> dict[str, np.ndarray]:
    """Map the arrays of a file with a checksum; in memory is what of them is in use.

    Their numbers are finite, and of a known type.
    """
    with opened(file, largest) as raw:
        length = int.from_bytes(raw.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError(f"its header has {length:,} bytes")
        _check_digest(file, raw, digest)
    arrays: dict[str, np.ndarray] = {}
    place = 8 + length
    # The library checks that the arrays follow on one another and fill the file.
    with safe_open(file, "numpy") as found:
        for name in found.offset_keys():
            array = found.get_slice(name)
            dtype, shape = array.get_dtype(), tuple(array.get_shape())
            if dtype not in _TYPES or 0 in shape:
                raise ValueError(f"{name} is of {dtype} and of shape {shape}")
            arrays[name] = np.memmap(file, _TYPES[dtype], "r", place, shape)
            place += arrays[name].nbytes
    for name, array in arrays.items():
        if not all(np.isfinite(piece).all() for piece in pieces(array)):
            raise ValueError(f"{name}: a number is not finite")
    return arrays


def write_arrays(file: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of float32, int32 or int64 to a file, piece by piece."""
    header, end = {}, 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {
            "dtype": _NAMES[array.dtype.str],
            "shape": array.shape,
            "data_offsets": (start, end),
        }
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for array in arrays.values():
            for piece in pieces(array):
                out.write(np.ascontiguousarray(piece).data)


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield some MiB of an array at a time; one on disk takes no more memory."""
    rows = np.atleast_1d(array)
    size = max(1, _PIECE // (math.prod(rows.shape[1:]) * rows.itemsize))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
        release(array)


def _check_digest(file: Path, raw: Any, digest: str) -> None:
    raw.seek(0)
    if hashlib.file_digest(raw, "sha256").hexdigest() != digest:
        raise ModelError(f"{file}: is damaged: its SHA-256 is not in the manifest")
    raw.seek(0)
