"""Several workers that run one command: what they have to have in common."""

from __future__ import annotations

import argparse
import os
import signal
import threading
from collections.abc import Callable
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from .. import cluster
from . import cli

if TYPE_CHECKING:
    from .._mxnet import mx
    from ..cluster import Team
    from ..serving import Checkpoint
    from ..training import Run

INTERRUPTED = 130  # the exit code of a process that has said nothing of it
_PATIENCE = 5  # seconds
# What may differ: the data are compared by their content, and the first worker alone
# writes files.
_OWN = {
    *("data_dir", "ratings", "test_ratings"),
    *("plot", "json", "quiet", "overwrite", "devices"),
}


def enter() -> None:
    """Let the others notice how this process ends, before it does anything that takes.

    Raises
    ------
    ClusterError
        If the environment does not say who takes part, and where.
    """
    cluster.check_environment()
    if os.environ["DMLC_ROLE"] == "worker":
        _heed_interrupts()
        cluster.enter()


def meet(args: argparse.Namespace, devices: list[mx.Context]) -> Team:
    """Meet the other workers of a training, who have to have got the same command.

    Parameters
    ----------
    args : argparse.Namespace
        Of the command. A data set that is not named is not made up any more.
    devices : list of mxnet.Context
        Of this worker.

    Returns
    -------
    Team

    Raises
    ------
    ClusterError
        For other devices than a CPU.
    """
    from .. import __version__

    team = cluster.join(args.kvstore, devices)
    _on_interrupt[0] = _follow if team.rank else team.interrupt
    flags = {n: value for n, value in vars(args).items() if n not in _OWN}
    for folder in ("save", "resume"):
        flags[folder] = bool(flags[folder])
    named = {cli.flags({name}): value for name, value in flags.items()}
    team.compare({"version": __version__, **named})
    if not args.ratings:
        args.dataset = args.dataset or "ml-100k"
    return team


def compare_data(team: Team, run: Run, checkpoint: Checkpoint | None) -> None:
    """Compare what the workers have read; end all of them if it differs.

    Parameters
    ----------
    team : Team
        The workers.
    run : Run
        What this one has read.
    checkpoint : Checkpoint, optional
        The folder that it goes on from.

    Raises
    ------
    ClusterError
        If the recipe is none for several workers.
    """
    cluster.check_recipe(run.recipe)  # which a folder may have brought
    team.compare(
        {
            "the users": run.user_ids.tolist(),
            "the items": run.item_ids.tolist(),
            "the training ratings": _digest(run.train_mat),
            "the test ratings": _digest(run.test_mat),
            "the validation ratings": _digest(run.valid_mat),
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


def _vanish() -> None:
    os._exit(INTERRUPTED)


def _follow() -> None:
    """Leave it to the first worker to say something and to end all, but not long."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    os.close(nowhere)
    threading.Timer(_PATIENCE, _vanish).start()


# What an interrupt does: at first there is nothing to save, and nobody to tell.
_on_interrupt: list[Callable[[], None]] = [_vanish]


def _heed_interrupts() -> None:
    """Act on Ctrl-C, but not by an exception, which could leave the others in a sum.

    A thread does so: the main one, where Python's handlers run, waits for MXNet.
    """
    end, noted = os.pipe()
    os.set_blocking(noted, False)
    signal.set_wakeup_fd(noted, warn_on_full_buffer=False)
    signal.signal(signal.SIGINT, lambda *_: None)

    def wait() -> None:
        while os.read(end, 1):
            _on_interrupt[0]()

    threading.Thread(target=wait, daemon=True).start()
