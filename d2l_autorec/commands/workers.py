"""Several workers that run one command: how they start, and what they must share."""

import argparse
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from .. import cluster
from .._ready import num_cores
from ..errors import ClusterError
from .checks import written

if TYPE_CHECKING:
    from .._mxnet import mx
    from ..cluster import Team
    from ..serving import Checkpoint
    from ..training import Run

# What may differ: the data are compared by their content, and the first worker alone
# writes files.
_OWN = {
    *("data_dir", "ratings", "test_ratings", "given"),
    *("plot", "json", "quiet", "overwrite", "devices"),
}


def launch(num_workers: int, argv: Sequence[str]) -> NoReturn:
    """Replace this process by mpiexec, which divides the cores among the workers."""
    # That of the environment's own MPI comes first.
    folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    mpiexec = shutil.which("mpiexec", path=folders)
    if not mpiexec:
        raise ClusterError(f"several workers need MPI: {cluster.INSTALL}")
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, num_cores() // num_workers)))
    # In the background, mpiexec would stop to ask for what a terminal says.
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    command = [sys.executable, "-m", "d2l_autorec.train", *argv]
    os.execv(mpiexec, [mpiexec, "-n", str(num_workers), *command])


def enter() -> None:
    """Start MPI; leave interrupts to the first worker, which reports and ends all."""
    if cluster.enter().rank:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def meet(args: argparse.Namespace, devices: "list[mx.Context]") -> "Team":
    """Join the other workers, which must have the same command."""
    from .. import __version__

    team = cluster.join(devices)
    if args.workers not in (None, team.size):
        if team.rank:
            team.barrier()  # the first one, which ends all instead
        raise ClusterError(
            f"--workers {args.workers}, but mpiexec has started {team.size}"
        )
    flags = {n: value for n, value in vars(args).items() if n not in _OWN}
    for folder in ("save", "resume"):
        flags[folder] = bool(flags[folder])
    named = {written(name): value for name, value in flags.items()}
    team.compare({"version": __version__, **named})
    if not args.ratings:
        args.dataset = args.dataset or "ml-100k"  # none is made up
    return team


def compare_data(team: "Team", run: "Run", checkpoint: "Checkpoint | None") -> None:
    """Compare what the workers have read; end all of them if it differs."""
    cluster.check_recipe(run.recipe)  # which a folder may have brought
    team.compare(
        {
            "the users": run.parts.user_ids.tolist(),
            "the items": run.parts.item_ids.tolist(),
            "the training ratings": _digest(run.parts.train_mat),
            "the test ratings": _digest(run.parts.test_mat),
            "the validation ratings": _digest(run.parts.valid_mat),
            "the settings": (run.recipe, run.seed, run.patience),
            "the epochs so far": checkpoint and checkpoint.history,
        }
    )


def _digest(matrix: Any) -> str:
    if matrix is None:
        return "none"
    digest = sha256(repr(matrix.shape).encode())
    for array in (matrix.data, matrix.indices, matrix.indptr):
        digest.update(array)
    return digest.hexdigest()
