"""A training on several workers of this machine, which mpiexec starts."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from .._ready import num_cores
from ..cluster import INSTALL
from ..errors import ClusterError


def launch(num_workers: int, argv: Sequence[str]) -> NoReturn:
    """Become an mpiexec that starts workers, over which the cores are shared out."""
    # That of the environment's own MPI comes first.
    folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    mpiexec = shutil.which("mpiexec", path=folders)
    if not mpiexec:
        raise ClusterError(f"several workers need MPI: {INSTALL}")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // num_workers)))
    # In the background, mpiexec would stop to ask for what a terminal says.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    command = [sys.executable, "-m", "d2l_autorec.train", *argv]
    os.execv(mpiexec, [mpiexec, "-n", str(num_workers), *command])
