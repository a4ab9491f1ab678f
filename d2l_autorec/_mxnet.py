"""MXNet, imported as `_ready` does it, with NumPy semantics in every thread.

They have to be on before the first block is made. The rules for threads and forked
processes are here, too.
"""

import contextlib
import os
import threading
from typing import Any

from .errors import MXNetMissing

try:
    import mxnet as mx
except ModuleNotFoundError as error:
    if error.name != "mxnet":
        raise
    raise MXNetMissing(
        "MXNet is not installed, as its metadata forbids NumPy 2; run: "
        "python -m pip install --no-deps mxnet==1.9.1"
    ) from None

__all__ = ["autograd", "gluon", "mx", "np", "npx", "one_at_a_time", "openmp"]

autograd = mx.autograd
gluon = mx.gluon
np = mx.np
npx = mx.npx

npx.set_np()


class _InEveryThread(threading.local):
    value = mx.util._NumpyArrayScope(True)


# `set_np` was for this thread. 2 switches the shapes of all threads; arrays have an
# attribute in each thread, and this is its default.
mx.util.set_np_shape(2)
mx.util._NumpyArrayScope._current = _InEveryThread()

_lock = threading.RLock()


class _OneAtATime(contextlib.ContextDecorator):
    """Lets one thread at a time run what is decorated, or under ``with``.

    MXNet's matrix products (OpenBLAS) deadlock if two threads compute them; each uses
    all cores anyway.
    """

    def __enter__(self) -> None:
        _lock.acquire()

    def __exit__(self, *_: object) -> None:
        _lock.release()


one_at_a_time = _OneAtATime()


def openmp(name: str, default: Any) -> Any:
    """Return a function of MXNet's OpenMP, which acts on the calling thread."""
    return getattr(mx.base._LIB, name, default)


def _start_forked() -> None:
    """Go on in a forked process with one thread: a fork has no other OpenMP threads."""
    openmp("omp_set_num_threads", int)(1)
    _lock.release()


if hasattr(os, "register_at_fork"):
    # While another thread computes, its locks would stay locked in the child.
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_start_forked,
    )
