"""Arrays that MXNet and NumPy share, and MXNet's private corners.

What the package needs of MXNet beyond its documented interface to arrays is kept here.
"""

from __future__ import annotations

import ctypes
import math
import mmap
import sys
from contextlib import suppress
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx


def dense(rows: sp.csr_matrix, device: mx.Context) -> mx.np.ndarray:
    """Make some rows of an interaction matrix dense, on a device.

    Parameters
    ----------
    rows : scipy.sparse.csr_matrix, shape (batch_size, num_users)
        Ratings.
    device : mxnet.Context
        Where to.

    Returns
    -------
    mxnet.np.ndarray of float32, shape (batch_size, num_users)
        0 where there is no rating.
    """
    return on_device(rows.toarray().astype(np.float32, copy=False), device)


def observed_cells(cells: sp.spmatrix, device: mx.Context) -> mx.np.ndarray:
    """List the cells that a sparse matrix stores, in the order in which it does.

    Parameters
    ----------
    cells : scipy.sparse.csr_matrix or csc_matrix, shape (batch_size, num_users)
        Ratings.
    device : mxnet.Context
        Where to.

    Returns
    -------
    mxnet.np.ndarray of int32, shape (2, num_cells)
        Row and column, as ``npx.gather_nd`` takes them.
    """
    found = cells.tocoo()
    return on_device(np.stack([found.row, found.col]).astype(np.int32), device)


def row_bounds(num_rows: int, num_shares: int) -> list[tuple[int, int]]:
    """Share rows out as evenly as can be; with too few rows some shares are empty.

    Parameters
    ----------
    num_rows, num_shares : int
        How many there are.

    Returns
    -------
    list of (int, int)
        First row, and the one after the last, of each share.
    """
    bounds = [num_rows * i // num_shares for i in range(num_shares + 1)]
    return list(zip(bounds, bounds[1:]))


def on_device(array: np.ndarray, device: mx.Context) -> mx.np.ndarray:
    """Hand a NumPy array over to MXNet; it is copied only if the device asks for it.

    Parameters
    ----------
    array : numpy.ndarray
        Becomes read-only, because the two share memory on ``cpu(0)``.
    device : mxnet.Context
        Where to.

    Returns
    -------
    mxnet.np.ndarray
        Of the same shape and dtype.
    """
    return mx.nd.from_numpy(array, array_cls=mx.np.ndarray).as_in_ctx(device)


def aligned(*shape: int) -> np.ndarray:
    """Make an array for loops, each row of which fills lines of the cache.

    Parameters
    ----------
    *shape : int
        What is needed.

    Returns
    -------
    numpy.ndarray of float32
        Zeros; its rows are longer than asked for, up to a multiple of 16.
    """
    shape = *shape[:-1], -(-shape[-1] // 16) * 16
    size = math.prod(shape)
    memory = np.zeros(size + 16, np.float32)
    start = -memory.ctypes.data % 64 // 4
    return memory[start : start + size].reshape(shape)


def view(array: Any) -> np.ndarray:
    """See the memory of an MXNet array on a CPU as a NumPy array, without a copy.

    Parameters
    ----------
    array : mxnet.nd.NDArray
        Waited for until nothing computes or reads it any more.

    Returns
    -------
    numpy.ndarray
        Of the same shape and dtype; it keeps `array` alive.
    """
    if not array.size:  # nothing is anywhere
        return np.empty(array.shape, array.dtype)
    # The two functions of MXNet's library that its own `asnumpy` waits and copies with
    # are these, but for the copy.
    address = ctypes.c_void_p()
    library, check = mx.base._LIB, mx.base.check_call
    check(library.MXNDArrayWaitToWrite(array.handle))
    check(library.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return np.asarray(_Memory(array, address.value))


class _Memory:
    """Where an array's values are, in the terms of NumPy's array interface.

    NumPy's arrays keep what they were made from, and this keeps the array.
    """

    def __init__(self, array: Any, address: int | None) -> None:
        self.array = array
        self.__array_interface__ = {
            "version": 3,
            "typestr": np.dtype(array.dtype).str,
            "data": (address, False),
            "shape": array.shape,
        }


def state_of(trainer: gluon.Trainer, parameter: gluon.Parameter) -> tuple[Any, ...]:
    """Return the arrays that an optimizer keeps of a parameter; at first, zeros.

    Parameters
    ----------
    trainer : mxnet.gluon.Trainer
        Whose optimizer, on one device, keeps some.
    parameter : mxnet.gluon.Parameter
        Initialized.

    Returns
    -------
    tuple of mxnet.nd.NDArray
        Each shaped like the parameter.
    """
    index, updater = trainer._param2idx[parameter.name], trainer._updaters[0]
    if index not in updater.states:
        weight = parameter.list_data()[0].as_nd_ndarray()
        state = updater.optimizer.create_state_multi_precision(index, weight)
        updater.states[index], updater.states_synced[index] = state, True
    state = updater.states[index]
    if state is None:
        return ()
    return tuple(state) if isinstance(state, (tuple, list)) else (state,)


def forget(array: np.ndarray) -> None:
    """Give an array's memory back to the system until somebody writes to it.

    Parameters
    ----------
    array : numpy.ndarray, contiguous
        Nobody needs its values any more: on Linux they are zeros now.
    """
    start = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
    stop = (array.ctypes.data + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if sys.platform == "linux" and start < stop:
        pages = ctypes.c_void_p(start), ctypes.c_size_t(stop - start)
        ctypes.CDLL(None).madvise(*pages, mmap.MADV_DONTNEED)


def put_aside(matrix: sp.csr_matrix) -> None:
    """Keep a matrix's values in a temporary file, and read there what is needed again.

    What they took in memory goes back to the system, as does what else is free; where
    there is no room for a file they stay.

    Parameters
    ----------
    matrix : scipy.sparse.csr_matrix
        Any size; its arrays are replaced by equal ones.
    """
    for name in ("data", "indices"):
        array = getattr(matrix, name)
        with suppress(OSError), TemporaryFile() as file:
            array.tofile(file)
            if array.size:
                mapped = np.memmap(file, array.dtype, "c", shape=array.shape)
                setattr(matrix, name, np.asarray(mapped))
        del array
    if sys.platform == "linux":
        with suppress(AttributeError):  # GNU's library alone has it
            ctypes.CDLL(None).malloc_trim(0)


def view_grad(parameter: gluon.Parameter, device: mx.Context) -> np.ndarray:
    """See the memory of a parameter's gradient, to write a new one there.

    Parameters
    ----------
    parameter : mxnet.gluon.Parameter
        Initialized on the device.
    device : mxnet.Context
        A CPU.

    Returns
    -------
    numpy.ndarray
        Shaped like the parameter.
    """
    # MXNet's backward pass sets this; Gluon's trainer refuses a gradient without it.
    parameter.data(device)._fresh_grad = True
    return view(parameter.grad(device))
