"""MXNet, made ready before anything of it is used.

Its NumPy semantics have to be on before the first block is made, and in every thread.
Its engine is chosen by an environment variable as it is imported: the one that computes
an operator where it is called, in the thread of the caller. The other hands each
operator to a thread of its own, which takes longer than a small operator does; on a GPU
and in a distributed training it is needed all the same. A process of a distributed
training has to be prepared before the import, which a server never leaves.
"""

import os
import sys
import threading

if "DMLC_ROLE" in os.environ:
    from .distributed import prepare

    prepare()
elif not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("MXNET_ENGINE_TYPE", "NaiveEngine")

import mxnet as mx  # noqa: E402

# As it starts, an engine that is not the usual one says so on standard error.
sys.stderr.flush()
_stderr, _nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
os.dup2(_nowhere, 2)
mx.nd.waitall()
os.dup2(_stderr, 2)
os.close(_stderr)
os.close(_nowhere)

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
