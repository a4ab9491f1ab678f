"""Loops that Numba compiles when they are first called, and threads to run them in."""

import functools
import logging
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
from numba.core import event

from .._mxnet import openmp
from .._ready import num_cores

_log = logging.getLogger(__name__)
# Sums may be taken in any order, as in a matrix product.
_OPTIONS = {"error_model": "numpy", "fastmath": {"reassoc", "contract"}}
inlined = numba.njit(**_OPTIONS)  # a part of a compiled loop


def compiled(loop: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a loop when it is first called; the machine code is kept in a cache."""
    found: Callable[..., Any]
    try:
        found = numba.njit(nogil=True, cache=True, **_OPTIONS)(loop)
    except RuntimeError:  # no folder for a cache
        found = numba.njit(nogil=True, **_OPTIONS)(loop)
    return found


def in_shares(loop: Callable[..., Any], num_shares: int, *args: Any) -> list[Any]:
    """Run a `compiled` ``loop(share, *args)`` for all shares at once; list results."""
    # Numba's own threads are often OpenMP's, which do not survive a fork, and its way
    # of calling them takes five times as long to compile.
    others = [
        _threads().submit(call, loop, share, *args) for share in range(1, num_shares)
    ]
    try:
        first = call(loop, 0, *args)
    finally:
        for other in others:
            other.exception()  # waits
    return [first, *(other.result() for other in others)]


def call(loop: Callable[..., Any], *args: Any) -> Any:
    """Call a `compiled` loop."""
    try:
        return loop(*args)
    except OSError:  # it is compiled, and there is no room to keep it
        return loop(*args)


def num_threads() -> int:
    """Return how many threads a loop gets: MXNet's number, but one a core at most."""
    return int(min(num_cores(), openmp("omp_get_max_threads", num_cores)()))


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(num_cores(), "d2l_autorec")


class _Notice(event.Listener):
    """Says, once, that there is something to compile: that takes some seconds."""

    said = False

    def on_start(self, event: Any) -> None:
        """Say so when the first loop is not there yet."""
        if not self.said:
            _log.info("compiling for this machine, as only the first run does ...")
        self.said = True

    def on_end(self, event: Any) -> None:
        """Say nothing more."""


event.register("numba:compile", _Notice())

if hasattr(os, "register_at_fork"):
    # Those of the parent are not there.
    os.register_at_fork(after_in_child=_threads.cache_clear)
