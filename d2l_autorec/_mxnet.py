"""MXNet, ready to use: imported as `_ready` says, its NumPy semantics switched on.

They have to be on before the first block is made, and in every thread.
"""

import threading

from .errors import MXNetMissing

try:
    import mxnet as mx
except ModuleNotFoundError as error:
    if error.name != "mxnet":
        raise
    raise MXNetMissing(
        "MXNet is not installed; its metadata keeps pip from bringing it where NumPy 2 "
        "is: python -m pip install --no-deps mxnet==1.9.1"
    ) from None

mx.npx.set_np()


class _InEveryThread(threading.local):
    value = mx.util._NumpyArrayScope(True)


# That was for this thread. The shapes have a switch for all threads, 2; that of the
# arrays is an attribute that each thread has of its own, whose default this is.
mx.util.set_np_shape(2)
mx.util._NumpyArrayScope._current = _InEveryThread()

__all__ = ["autograd", "gluon", "mx", "np", "npx"]

autograd = mx.autograd
gluon = mx.gluon
np = mx.np
npx = mx.npx
