"""MXNet, ready to use: imported as `_ready` says, its NumPy semantics switched on.

They have to be on before the first block is made, and in every thread. What threads and
forked processes need besides is here, too.
"""

from __future__ import annotations

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


# That was for this thread. The shapes have a switch for all threads, 2; that of the
# arrays is an attribute that each thread has of its own, whose default this is.
mx.util.set_np_shape(2)
mx.util._NumpyArrayScope._current = _InEveryThread()

_lock = threading.RLock()


class _OneAtATime(contextlib.ContextDecorator):
    """Lets threads do what is decorated, or under ``with``, in turn.

    Two at once do not get on: MXNet's matrix products (OpenBLAS), if its operators are
    computed in the thread that calls them, wait for each other for ever. Each uses all
    cores anyway.
    """

    def __enter__(self) -> None:
        _lock.acquire()

    def __exit__(self, *_: object) -> None:
        _lock.release()


one_at_a_time = _OneAtATime()


def openmp(name: str, default: Any) -> Any:
    """Return a function of the OpenMP that MXNet is linked with, if it is.

    What it tells and sets is about the thread that calls it.
    """
    return getattr(mx.base._LIB, name, default)


def _start_forked() -> None:
    """Go on in a forked process, without the threads of OpenMP, which are not there.

    MXNet's kernels would wait for them.
    """
    openmp("omp_set_num_threads", int)(1)
    _lock.release()


if hasattr(os, "register_at_fork"):
    # Not while another thread computes, whose locks would stay locked in the child.
    os.register_at_fork(
        before=_lock.acquire,
        after_in_parent=_lock.release,
        after_in_child=_start_forked,
    )
