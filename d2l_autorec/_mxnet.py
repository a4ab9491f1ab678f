"""MXNet, ready to use: imported as `_ready` says, its NumPy semantics switched on.

They have to be on before the first block is made.
"""

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

__all__ = ["autograd", "gluon", "mx", "np", "npx"]

autograd = mx.autograd
gluon = mx.gluon
np = mx.np
npx = mx.npx
