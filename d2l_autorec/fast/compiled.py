"""Loops that Numba compiles when they are first called."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import Any

import numba

from .._mxnet import one_at_a_time, openmp

_process = os.getpid()


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
            except OSError:  # it is compiled, and there is no room to keep it
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
    return int(min(found, openmp("omp_get_max_threads", lambda: found)()))


@functools.cache
def _start_numba() -> None:
    """Start Numba's threads; where they are OpenMP's, that sets MXNet's number too."""
    given = openmp("omp_get_max_threads", int)()
    numba.get_num_threads()
    openmp("omp_set_num_threads", int)(given)


def _is_forked() -> bool:
    return os.getpid() != _process
