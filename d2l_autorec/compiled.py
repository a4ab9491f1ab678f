"""Loops that Numba compiles, over memory that MXNet holds.

What the package needs of MXNet, OpenMP and Numba beyond their documented interfaces is
kept here.
"""

from __future__ import annotations

import ctypes
import functools
import os
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numba
import numpy as onp

from ._mxnet import gluon, mx

_Function = TypeVar("_Function", bound=Callable[..., Any])

_lock = threading.RLock()
_process = os.getpid()

# MXNet's library finds the functions of the libraries that it is linked with, so these
# are its OpenMP's, where it has one. They are about the thread that calls them.
_get_openmp_threads = getattr(mx.base._LIB, "omp_get_max_threads", None)
_set_openmp_threads = getattr(mx.base._LIB, "omp_set_num_threads", None)


def _start_forked() -> None:
    """Go on in a forked process, without the threads of OpenMP, which are not there.

    MXNet's kernels would wait for them.
    """
    if _set_openmp_threads:
        _set_openmp_threads(1)
    _lock.release()


if hasattr(os, "register_at_fork"):
    # Not while another thread computes, whose locks would stay locked in the child.
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_start_forked,
    )


def one_at_a_time(function: _Function) -> _Function:
    """Let threads call a function, and all others with this decorator, in turn.

    Two at once do not get on: Numba's threads may end the process, and MXNet's matrix
    products (OpenBLAS), if its operators are computed in the thread that calls them,
    wait for each other for ever. Each uses all cores anyway.
    """

    @functools.wraps(function)
    def alone(*args: Any, **kwargs: Any) -> Any:
        with _lock:
            return function(*args, **kwargs)

    return alone  # type: ignore[return-value]


def parallel(**options: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile a loop over `numba.prange` when it is first called.

    The machine code is kept for other processes, where there is a folder to write to.
    In a forked process the loop is compiled without threads: Numba's are often those of
    OpenMP as well, which would end it.

    Parameters
    ----------
    **options
        As for `numba.njit`.

    Returns
    -------
    callable
        A decorator.
    """

    def decorate(loop: Callable[..., Any]) -> Callable[..., Any]:
        try:
            threaded = numba.njit(parallel=True, cache=True, **options)(loop)
        except RuntimeError:  # no folder
            threaded = numba.njit(parallel=True, **options)(loop)
        # In a cache it would be taken for the other one.
        serial = numba.njit(**options)(loop)

        @functools.wraps(loop)
        @one_at_a_time
        def run(*args: Any) -> None:
            if _is_forked():
                serial(*args)
                return
            wanted, before = num_threads(), numba.get_num_threads()
            numba.set_num_threads(wanted)
            try:
                threaded(*args)
            finally:
                numba.set_num_threads(before)

        return run

    return decorate


def num_threads() -> int:
    """Return how many threads a loop gets: MXNet's number, but one a core at most."""
    if _is_forked():
        return 1
    _start_numba()
    found: int = numba.get_num_threads()
    return min(found, _get_openmp_threads()) if _get_openmp_threads else found


@functools.cache
def _start_numba() -> None:
    """Start Numba's threads; where they are OpenMP's, that sets MXNet's number too."""
    given = _get_openmp_threads and _get_openmp_threads()
    numba.get_num_threads()
    if _set_openmp_threads:
        _set_openmp_threads(given)


def _is_forked() -> bool:
    return os.getpid() != _process


def view(array: Any) -> onp.ndarray:
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
    # The two functions of MXNet's library that its own `asnumpy` waits and copies with
    # are these, but for the copy.
    address = ctypes.c_void_p()
    library, check = mx.base._LIB, mx.base.check_call
    check(library.MXNDArrayWaitToWrite(array.handle))
    check(library.MXNDArrayGetData(array.handle, ctypes.byref(address)))
    return onp.asarray(_Memory(array, address.value))


class _Memory:
    """Where an array's values are, in the terms of NumPy's array interface.

    NumPy's arrays keep what they were made from, and this keeps the array.
    """

    def __init__(self, array: Any, address: int | None) -> None:
        self.array = array
        self.__array_interface__ = {
            "version": 3,
            "typestr": onp.dtype(array.dtype).str,
            "data": (address, False),
            "shape": array.shape,
        }


def view_grad(parameter: gluon.Parameter, device: mx.Context) -> onp.ndarray:
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
