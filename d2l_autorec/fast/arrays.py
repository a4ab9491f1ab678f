"""Memory that MXNet and NumPy share."""

import ctypes
import mmap
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._mxnet import mx


def on_device(array: np.ndarray, device: mx.Context) -> mx.np.ndarray:
    """Hand an array over to MXNet; on ``cpu(0)`` both share it, and it is read-only."""
    return mx.nd.from_numpy(array, array_cls=mx.np.ndarray).as_in_ctx(device)


def view(array: Any) -> np.ndarray:
    """See the memory of an MXNet array on a CPU as a NumPy array, without a copy."""
    if not array.size:  # nothing is anywhere
        return np.empty(array.shape, array.dtype)
    # The two functions of MXNet's library that its own `asnumpy` waits and copies with
    # are these, but for the copy.
    address = ctypes.c_void_p()
    library, check = mx.base._LIB, mx.base.check_call
    check(library.MXNDArrayWaitToWrite(array.handle))
    check(library.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return np.asarray(_Memory(array, address.value))


def fill(arrays: Mapping[str, Any], saved: Mapping[str, Any], owner: str) -> None:
    """Copy saved arrays into those of an owner; other names or shapes, a ValueError."""
    if unknown := arrays.keys() ^ saved.keys():
        raise ValueError(f"{min(unknown)} is missing, or not of {owner}")
    for name, array in arrays.items():
        if array.shape != saved[name].shape:
            raise ValueError(f"{name} does not have the shape {array.shape}")
        array[...] = saved[name]


def release(array: np.ndarray) -> None:
    """Give the memory of an array that is in a file back to the system."""
    if isinstance(array, np.memmap):
        array._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]


class _Memory:
    """An array's memory by NumPy's array interface; it keeps the MXNet array alive."""

    def __init__(self, array: Any, address: int | None) -> None:
        self.array = array
        self.__array_interface__ = {
            "version": 3,
            "typestr": np.dtype(array.dtype).str,
            "data": (address, False),
            "shape": array.shape,
        }
