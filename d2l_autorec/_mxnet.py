"""MXNet, made ready before anything of it is used.

MXNet starts half as many threads as there are cores unless OpenMP is told otherwise
before the import. They also spin while they wait for each other, which makes small
operations many times slower as soon as anything else runs on the machine; PASSIVE lets
them sleep. And the NumPy semantics have to be on before the first block is made.
"""

import os

if hasattr(os, "sched_getaffinity"):
    _cores = len(os.sched_getaffinity(0))
else:
    _cores = os.cpu_count() or 1
os.environ.setdefault("OMP_NUM_THREADS", str(_cores))
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

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
