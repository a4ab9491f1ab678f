"""MXNet, made ready before anything of it is used.

Its NumPy semantics have to be on before the first block is made, and a process of a
distributed training has to be prepared before the import, which a server never leaves.
"""

import os

if "DMLC_ROLE" in os.environ:
    from .distributed import prepare

    prepare()

import mxnet as mx  # noqa: E402

mx.npx.set_np()

__all__ = ["autograd", "gluon", "mx", "np", "npx"]

autograd = mx.autograd
gluon = mx.gluon
np = mx.np
npx = mx.npx
