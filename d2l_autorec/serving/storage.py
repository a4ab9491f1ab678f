"""A file of arrays in the format safetensors, read with distrust.

A checksum finds accidents, but a forger can compute it anew. Nothing that a file says
is used before it is checked, and no more memory is taken than the file's size explains.
"""

import hashlib
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import safe_open

from .._ready import memory
from ..errors import ModelError
from ..fast import release

# What 64 networks of 16 layers and 50,000 epochs need.
LARGEST_HEADER = 2**22
_PIECE = 2**22  # bytes that are read or written at once
_TYPES = {"F32": "<f4", "I32": "<i4", "I64": "<i8", "U8": "|u1"}
_NAMES = {dtype: name for name, dtype in _TYPES.items()}
# The last array of a file: the SHA-256 of all that is before it.
_DIGEST = "sha256", np.dtype(np.uint8), (32,)

Arrays = dict[str, np.ndarray]


@contextmanager
def blaming(file: Path) -> Iterator[None]:
    """Turn what goes wrong into a `ModelError` of one line, which names the file."""
    try:
        yield
    except ModelError:
        raise
    except (FileNotFoundError, NotADirectoryError) as error:
        where = file.parent
        raise ModelError(
            f"{where}: holds no model (train with --save {where})"
        ) from error
    except OSError as error:
        raise ModelError(f"{file}: cannot be read: {error.strerror}") from error
    except Exception as error:  # a forger may cause any
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ModelError(f"{file}: does not fit: {reason}") from error


def read_arrays(file: Path) -> tuple[dict[str, str], Arrays]:
    """Read a file's metadata, and map its arrays; in memory is what is in use.

    Their numbers are finite, and of a known type.
    """
    with open(file, "rb", opener=_open_at_once) as raw:
        found = os.fstat(raw.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise ModelError(f"{file}: is not a regular file")
        if found.st_size > memory():
            raise ValueError(f"{found.st_size:,} bytes are more than the memory has")
        length = int.from_bytes(raw.read(8), "little")
        if length > LARGEST_HEADER:
            raise ValueError(f"its header has {length:,} bytes")
        content = np.memmap(raw, np.uint8, "r")
        digest = _digest(pieces(content[:-32]))
        if content[-32:].tobytes() != digest:
            raise ModelError(f"{file}: is damaged: its SHA-256 is another")
        # The same file, which another one may have replaced by now. The library checks
        # that the arrays follow on one another and fill it.
        with safe_open(f"/dev/fd/{raw.fileno()}", "numpy") as header:
            metadata = dict(header.metadata() or {})
            entries = []
            for name in header.offset_keys():
                array = header.get_slice(name)
                dtype, shape = array.get_dtype(), tuple(array.get_shape())
                if dtype not in _TYPES or 0 in shape:
                    raise ValueError(f"{name} is of {dtype} and of shape {shape}")
                entries.append((name, np.dtype(_TYPES[dtype]), shape))
    arrays = _mapped(content, entries)
    for name, array in arrays.items():
        if not all(np.isfinite(piece).all() for piece in pieces(array)):
            raise ValueError(f"{name}: a number is not finite")
    return metadata, arrays


def write_arrays(
    file: Path, metadata: Mapping[str, str], arrays: Mapping[str, np.ndarray]
) -> Arrays:
    """Write arrays to a new file, and wait until they are on the disk; map them."""
    entries = [(name, array.dtype, array.shape) for name, array in arrays.items()]
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, dtype, shape in [*entries, _DIGEST]:
        start, end = end, end + dtype.itemsize * math.prod(shape)
        kind = _NAMES[dtype.str]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": (start, end)}
    text = msgspec.json.encode(header)
    text += b" " * (-len(text) % 8)
    if len(text) > LARGEST_HEADER:
        raise ModelError(f"{file}: its header would have {len(text):,} bytes: too many")
    numbers = chain.from_iterable(map(pieces, arrays.values()))
    with open(file, "xb") as out:

        def written() -> Iterator[np.ndarray]:
            for piece in chain([len(text).to_bytes(8, "little") + text], numbers):
                plain = np.ascontiguousarray(piece)
                out.write(plain.data)
                yield plain

        out.write(_digest(written()))
        out.flush()
        os.fsync(out.fileno())
    return _mapped(np.memmap(file, np.uint8, "r"), entries)


def pieces(array: np.ndarray) -> Iterator[np.ndarray]:
    """Yield some MiB of an array at a time; one on disk takes no more memory."""
    rows = np.atleast_1d(array)
    size = max(1, _PIECE // (math.prod(rows.shape[1:]) * rows.itemsize))
    for start in range(0, len(rows), size):
        yield rows[start : start + size]
        release(array)


def _mapped(
    content: np.ndarray, entries: Iterable[tuple[str, np.dtype, tuple[int, ...]]]
) -> Arrays:
    """Cut a file's content, after its header, into arrays."""
    arrays, start = {}, 8 + int.from_bytes(content[:8].tobytes(), "little")
    for name, dtype, shape in entries:
        end = start + dtype.itemsize * math.prod(shape)
        arrays[name] = content[start:end].view(dtype).reshape(shape)
        start = end
    arrays.pop(_DIGEST[0], None)
    return arrays


def _digest(contents: Iterable[Any]) -> bytes:
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.digest()


def _open_at_once(file: str, flags: int) -> int:
    """Open a pipe, too, without waiting for a writer."""
    return os.open(file, flags | os.O_NONBLOCK)
