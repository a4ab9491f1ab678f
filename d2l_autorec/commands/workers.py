"""Several workers that run one command: what they have to have in common."""

import argparse
import signal
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from .. import cluster
from . import cli

if TYPE_CHECKING:
    from .._mxnet import mx
    from ..cluster import Team
    from ..serving import Checkpoint
    from ..training import Run

# What may differ: the data are compared by their content, and the first worker alone
# writes files.
_OWN = {
    *("data_dir", "ratings", "test_ratings"),
    *("plot", "json", "quiet", "overwrite", "devices"),
}


def enter() -> None:
    """Start MPI; of an interrupt the first worker then says something, and ends all."""
    if cluster.enter().rank:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)


def meet(args: argparse.Namespace, devices: "list[mx.Context]") -> "Team":
    """Meet the other workers of a training, who have to have got the same command."""
    from .. import __version__

    team = cluster.join(devices)
    flags = {n: value for n, value in vars(args).items() if n not in _OWN}
    for folder in ("save", "resume"):
        flags[folder] = bool(flags[folder])
    named = {cli.flags({name}): value for name, value in flags.items()}
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
