"""The training loop, and what it stands on: devices and seeds.

References
----------
*Dive into Deep Learning*, "Matrix Factorization", which defines the loop.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as onp
import scipy.sparse as sp

from ._mxnet import autograd, gluon, mx, np, npx
from .compiled import one_at_a_time
from .data import dense, row_bounds
from .distributed import Team
from .errors import DeviceUnavailable, TrainingDiverged
from .model import members
from .plots import watch
from .sampled import backward_at


class Epoch(NamedTuple):
    """What one pass over the training data came to.

    Attributes
    ----------
    epoch : int
        From 1.
    train_loss : float
        Mean loss of a sample while it was trained on.
    test_rmse : float
        After the epoch, in the unit of the ratings.
    valid_rmse : float or None
        The same on the validation part, where there is one.
    seconds : float
        Spent on training; evaluation not counted.
    examples : int
        Values trained on, as the book counts them: samples times their length.
    """

    epoch: int
    train_loss: float
    test_rmse: float
    valid_rmse: float | None
    seconds: float
    examples: int


def try_all_gpus() -> list[mx.Context]:
    """Return every GPU, or the CPU where there is none.

    Returns
    -------
    list of mxnet.Context
        Never empty, as the book says of its own, which is empty without a GPU.
    """
    return [npx.gpu(i) for i in range(npx.num_gpus())] or [npx.cpu()]


def parse_devices(names: str | None) -> list[mx.Context]:
    """Find the devices that a command names.

    Parameters
    ----------
    names : str or None
        ``'cpu'``, ``'gpu'`` for every GPU, or a list like ``'cpu:0,cpu:1'``; None for
        every GPU, or the CPU where there is none.

    Returns
    -------
    list of mxnet.Context

    Raises
    ------
    DeviceUnavailable
        If a GPU is named that is not there.
    """
    if names is None:
        return try_all_gpus()
    found = npx.num_gpus()
    if names == "gpu" and found:
        return try_all_gpus()
    devices = []
    for name in names.split(","):
        kind, _, index = name.partition(":")
        if kind == "gpu" and int(index or 0) >= found:
            raise DeviceUnavailable(
                f"no device {name}: MXNet sees {found} GPU(s) (a CUDA build is needed)"
            )
        devices.append(mx.Context(kind, int(index or 0)))
    return devices


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and MXNet's generators.

    Parameters
    ----------
    seed : int
        From 0 to 2**31 - 1.
    """
    random.seed(seed)
    onp.random.seed(seed)
    mx.random.seed(seed)


def train_epochs(
    net: gluon.Block,
    train_iter: Iterable[Any],
    loss: Callable[[Any, Any], Any],
    trainer: gluon.Trainer,
    num_epochs: int,
    devices: Sequence[mx.Context],
    evaluate: Callable[[], float],
    validate: Callable[[], float] | None = None,
    seed: int | None = None,
    trained: int = 0,
    team: Team | None = None,
    cells_per_row: float | None = None,
) -> Iterator[Epoch]:
    """Train, and hand out control after each epoch.

    Leaving the iteration stops the training: that is how a caller stops early.

    Parameters
    ----------
    net : mxnet.gluon.Block
        Initialized on `devices`.
    train_iter : iterable
        Batches: one array that is its own label, or a list of inputs and a label; or
        sparse rows of ratings, whose cells without a rating are then left out of the
        loss instead of masked, which has the same gradient and takes less time.
    loss : callable
        From predictions and labels to a loss a sample. For sparse batches it is called
        with the observed cells alone, and gives the loss of each; a cell predicted
        right has to count 0, as it does in Gluon's regression losses.
    trainer : mxnet.gluon.Trainer
        Holds the parameters of `net`.
    num_epochs : int
        Passes over `train_iter`.
    devices : sequence of mxnet.Context
        A batch is shared out over them; they need not divide it.
    evaluate, validate : callable
        Give the RMSE on the test part and on the validation part as things stand.
    seed : int, optional
        Makes each epoch start from a seed of its own, so that an epoch's draws do not
        depend on the epochs before it; by default the generators just run on.
    trained : int
        Epochs that an earlier training did, with the same seed: they are passed over,
        but for drawing the order of their samples. `train_iter` is a `DataLoader` then.
    team : Team, optional
        Workers to share the rows of each batch with, over their devices; for sparse
        batches, and a trainer without a key-value store. They have to be given the same
        data, settings and seed.
    cells_per_row : float, optional
        For sparse batches: what the sum over a row's cells is divided by. By default
        that is the length of the row, as in the book, where the unobserved cells count
        as predicted right.

    Yields
    ------
    Epoch

    Raises
    ------
    TrainingDiverged
        If the loss becomes NaN or infinite.
    """
    for epoch in range(1, num_epochs + 1):
        if seed is not None:
            seed_everything(_epoch_seed(seed, epoch))
            if team and epoch > 1:
                # Each worker its own dropout, but not yet in the first epoch, which
                # draws the weights; NumPy draws the order of the rows, one for all.
                mx.random.seed(_epoch_seed(seed, epoch) ^ team.rank)
        if epoch <= trained:
            # The samples that an epoch leaves over come first in the next one.
            for _ in train_iter._batch_sampler:  # type: ignore[attr-defined]
                pass
            continue
        total, samples, examples = 0.0, 0, 0
        start = time.perf_counter()
        pending: tuple[Sequence[Any], float] = [], 1
        for batch in train_iter:
            if sp.issparse(batch):
                size, length = batch.shape
                losses = _backward_observed(net, batch, loss, devices, team)
                mean_over = cells_per_row or length
            else:
                values = batch if isinstance(batch, list) else [batch]
                size, length = len(values[0]), values[0].size // len(values[0])
                losses = _backward(net, values, loss, devices)
                mean_over = 1.0
            if team:
                for name, parameter in net.collect_params().items():
                    team.add_up(name, parameter.list_grad())
            one_at_a_time(trainer.step)(size * mean_over)
            # Reading a loss waits for it; the one before is ready, or soon will be,
            # and this batch is computed while the next one is put together.
            total += _sum(*pending)
            pending = losses, mean_over
            samples, examples = samples + size, examples + size * length
        total += _sum(*pending)
        if team:
            sum_of_all = np.array([total])
            team.add_up("loss", [sum_of_all])
            total = float(sum_of_all)
        mx.nd.waitall()  # for the last step's update
        seconds = time.perf_counter() - start
        if not math.isfinite(total):
            raise TrainingDiverged(
                f"the training loss is {total} in epoch {epoch}; "
                "a lower learning rate (--lr) may help"
            )
        yield Epoch(
            epoch,
            total / samples / len(members(net)),
            evaluate(),
            validate() if validate else None,
            seconds,
            examples,
        )


def stop_early(epochs: Iterable[Epoch], patience: int) -> Iterator[Epoch]:
    """Stop a training when its validation RMSE no longer gets better.

    Parameters
    ----------
    epochs : iterable of Epoch
        With `valid_rmse`.
    patience : int
        Epochs in a row without a new best before it stops.

    Yields
    ------
    Epoch
        The same ones, as long as it goes on.
    """
    best, since = math.inf, 0
    for epoch in epochs:
        yield epoch
        assert epoch.valid_rmse is not None
        if epoch.valid_rmse < best:
            best, since = epoch.valid_rmse, 0
        else:
            since += 1
        if since == patience:
            return


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(onp.random.SeedSequence([seed, epoch]).generate_state(1)[0] >> 1)


@one_at_a_time
def _backward(
    net: gluon.Block,
    values: Sequence[Any],
    loss: Callable[[Any, Any], Any],
    devices: Sequence[mx.Context],
) -> list[Any]:
    """Add up a batch's gradients on each device; return each device's losses."""
    # MXNet computes nothing on empty arrays, and a trainer wants a fresh gradient on
    # every device: one that a small batch leaves without a share takes the first
    # sample, at no weight.
    size = len(values[0])
    idle = max(0, len(devices) - size)
    if idle:
        values = [np.concatenate([v] + [v[:1]] * idle) for v in values]
    shares = zip(
        *(gluon.utils.split_and_load(v, devices, even_split=False) for v in values)
    )
    losses = []
    with autograd.record():
        for number, share in enumerate(shares):
            inputs = share[:-1] if len(share) > 1 else share
            part = loss(net(*inputs), share[-1])
            losses.append(part * 0 if number >= size else part)
    autograd.backward(losses)
    return losses


def _backward_observed(
    net: gluon.Block,
    batch: sp.csr_matrix,
    loss: Callable[[Any, Any], Any],
    devices: Sequence[mx.Context],
    team: Team | None,
) -> list[Any]:
    """Do the same for sparse rows; the losses are those of the observed cells."""
    rank, workers = (team.rank, team.size) if team else (0, 1)
    bounds = row_bounds(batch.shape[0], workers * len(devices))[rank * len(devices) :]
    losses = []
    for device, (start, stop) in zip(devices, bounds):
        share, weigh = batch[start:stop], loss
        if not share.nnz:
            # Again no empty arrays: a made-up rating, at no weight.
            share = sp.csr_matrix(([1.0], ([0], [0])), (1, batch.shape[1]))
            weigh = partial(_nothing, loss)
        inputs, cells = dense(share, device), share.tocsc()
        for member in members(net):
            losses.append(backward_at(member, inputs, cells, weigh))
    return losses


def _nothing(loss: Callable[[Any, Any], Any], predictions: Any, ratings: Any) -> Any:
    return loss(predictions, ratings) * 0


def _sum(losses: Sequence[Any], mean_over: float) -> float:
    return float(sum(part.asnumpy().sum(dtype=float) for part in losses)) / mean_over


def train_recsys_rating(
    net: gluon.Block,
    train_iter: Iterable[Any],
    test_iter: Iterable[Any],
    loss: Callable[[Any, Any], Any],
    trainer: gluon.Trainer,
    num_epochs: int,
    devices: Sequence[mx.Context] | None = None,
    evaluator: Callable[..., float] | None = None,
    **kwargs: Any,
) -> list[Epoch]:
    """Train a rating model, show its progress and print the book's two lines.

    Parameters
    ----------
    net, train_iter, loss, trainer, num_epochs
        As for `train_epochs`.
    test_iter : iterable
        What the evaluator takes: for AutoRec, the batches of the training matrix in
        order; for matrix factorization, batches of held-out ratings.
    devices : sequence of mxnet.Context, optional
        By default every GPU, or the CPU where there is none.
    evaluator : callable
        ``evaluator(net, test_iter, devices)``, or with `inter_mat`
        ``evaluator(net, test_iter, inter_mat, devices)``.
    **kwargs
        `inter_mat`: the held-out matrix that AutoRec's evaluator compares with.

    Returns
    -------
    list of Epoch
        One for each epoch.

    Raises
    ------
    TrainingDiverged
        If the loss becomes NaN or infinite.

    Notes
    -----
    The loss that is printed is the mean over the samples of the last epoch; the book
    prints one that always rounds to 0.000.
    """
    if evaluator is None:
        raise TypeError("train_recsys_rating needs an evaluator")
    if unknown := set(kwargs) - {"inter_mat"}:
        raise TypeError(f"train_recsys_rating takes inter_mat, not {sorted(unknown)}")
    chosen = try_all_gpus() if devices is None else list(devices)
    scored = [test_iter, *kwargs.values()]
    epochs = train_epochs(
        net,
        train_iter,
        loss,
        trainer,
        num_epochs,
        chosen,
        lambda: evaluator(net, *scored, chosen),
    )
    history = list(watch(epochs, num_epochs))
    print(closing_lines(history, chosen))
    return history


def closing_lines(history: Sequence[Epoch], devices: Sequence[mx.Context]) -> str:
    """Sum a training up as the book does.

    Parameters
    ----------
    history : sequence of Epoch
        Of the whole training.
    devices : sequence of mxnet.Context
        That it ran on.

    Returns
    -------
    str
        Two lines: train loss and test RMSE; examples a second and the devices.
    """
    last = history[-1]
    speed = sum(e.examples for e in history) / sum(e.seconds for e in history)
    return (
        f"train loss {last.train_loss:.3f}, test RMSE {last.test_rmse:.3f}\n"
        f"{speed:.1f} examples/sec on {list(devices)}"
    )
