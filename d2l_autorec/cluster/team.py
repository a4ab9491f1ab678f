"""The workers of a training, who share each batch and add up their gradients."""

from __future__ import annotations

import atexit
from typing import Any

import scipy.sparse as sp

from .._mxnet import mx
from ..fast import SparseStep, row_bounds
from ..loop import Losses
from .processes import Deadline, Watch, check_environment, connect, part


class Team:
    """The workers of a training, and this one's place among them.

    Parameters
    ----------
    kvstore : mxnet.kvstore.KVStore
        Connected with the others.

    Attributes
    ----------
    rank : int
        Of this worker, from 0.
    size : int
        Number of workers.

    Notes
    -----
    Gluon's trainer could drive the key-value store, too. But it pulls the first weights
    by the keys under which it then pushes gradients, without waiting in between, and a
    worker that is slow to pull takes the gradients for its weights.
    """

    def __init__(self, kvstore: Any) -> None:
        self._kvstore = kvstore
        self._keys: set[str] = set()
        self.num_steps = 0
        self.rank: int = kvstore.rank
        self.size: int = kvstore.num_workers

    def step(self, *args: Any) -> SparseStep:
        """Make a step, of the arguments of `SparseStep`, that all workers take."""
        return SharedStep(self, *args)

    def add_up(self, key: str, copies: list[Any]) -> None:
        """Replace arrays by their sum over all workers and devices.

        Parameters
        ----------
        key : str
            What they are; every worker asks for the same keys in the same order.
        copies : list of mxnet.np.ndarray
            This worker's, one for each of its devices.
        """
        if key not in self._keys:
            self._keys.add(key)
            self._kvstore.init(key, copies[0])
        self._kvstore.push(key, copies)
        self._kvstore.pull(key, out=copies)


class SharedStep(SparseStep):
    """A step whose rows are shared out over workers, who have the same batches.

    Parameters
    ----------
    team : Team
        The workers.
    *args
        As for `SparseStep`, with a trainer that has no key-value store.
    """

    def __init__(self, team: Team, *args: Any) -> None:
        super().__init__(*args)
        self.team = team
        team.num_steps += 1
        self._name = f"step {team.num_steps}"  # networks may have names in common

    def backward(self, batch: sp.csr_matrix) -> Losses:
        """Compute the losses of this worker's rows, and the gradients of all."""
        losses = super().backward(batch)
        for name, parameter in self.net.collect_params().items():
            self.team.add_up(f"{self._name}, {name}", parameter.list_grad())
        return losses

    def bounds(self, num_rows: int) -> list[tuple[int, int]]:
        """Share the rows out over all workers' devices; return those of this one's."""
        own = len(self.devices)
        shares = row_bounds(num_rows, self.team.size * own)
        return shares[self.team.rank * own :][:own]

    def add_up(self, total: float) -> float:
        """Add up the losses of all workers."""
        sum_of_all = mx.np.array([total])
        self.team.add_up("loss", [sum_of_all])
        return super().add_up(float(sum_of_all))


def join(kind: str) -> Team:
    """Connect this worker with the others; wait until all of them are there.

    Parameters
    ----------
    kind : str
        Of the key-value store: ``'dist_sync'``.

    Returns
    -------
    Team

    Raises
    ------
    ClusterError
        If the environment does not say who takes part, and where.
    """
    check_environment()
    watch = Watch()
    with Deadline(watch, "not all processes were there"):
        connect(watch)
        kvstore = mx.kv.create(kind)
    end = Deadline(watch, "not all workers had finished")
    atexit.register(part, kvstore, watch, end)
    return Team(kvstore)
