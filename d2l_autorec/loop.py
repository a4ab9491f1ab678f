"""The book's training loop, with its devices and seeds.

References
----------
*Dive into Deep Learning*, "Matrix Factorization", which defines the loop.
"""

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as onp
import scipy.sparse as sp

from ._mxnet import autograd, gluon, mx, np, npx, one_at_a_time
from .curve import Epoch, Progress, best_epoch, examples_per_second
from .data import as_float32, checked
from .errors import DataError, TrainingDiverged
from .model import AutoRec

_log = logging.getLogger(__name__)


def try_all_gpus() -> list[mx.Context]:
    """Return every GPU, or the CPU if there is none.

    Returns
    -------
    list of mxnet.Context
        Never empty, unlike the book's list on a machine without a GPU.
    """
    return [npx.gpu(i) for i in range(npx.num_gpus())] or [npx.cpu()]


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


class Losses(NamedTuple):
    """The losses of a batch."""

    parts: list[Any]  # one array of losses a device
    samples: int
    length: int  # values a sample
    mean_over: float = 1.0  # the sum of a sample's losses is divided by it


class Step:
    """A training step: forward, backward, update."""

    # `mean_over` divides the sum of a row's losses if batches are sparse. By default it
    # is the row's length: as in the book, an unobserved cell counts as an error of 0.
    def __init__(
        self,
        net: gluon.Block,
        loss: Callable[[Any, Any], Any],
        trainer: gluon.Trainer,
        devices: Sequence[mx.Context],
        mean_over: float | None = None,
    ) -> None:
        self.net, self.loss, self.mean_over = net, loss, mean_over
        self.trainer, self.devices = trainer, list(devices)
        self._begin()

    @one_at_a_time
    def __call__(self, batch: Any) -> None:
        """Train on one array that is its own label, on [inputs, label], or on CSR rows.

        Numbers of any type become float32; only indices stay as they are.
        """
        parts, samples, length, mean_over = self.backward(batch)
        self.trainer.step(samples * mean_over)
        total = float(sum(part.asnumpy().sum(dtype=float) for part in parts))
        self._total += total / mean_over
        self._samples += samples
        self._examples += samples * length

    learn = __call__  # for rows of a matrix that was checked as a whole

    def seed(self, seed: Sequence[int]) -> None:
        """Seed the dropout of the next batch."""
        mx.random.seed(int(onp.random.SeedSequence(seed).generate_state(1)[0] >> 1))

    def backward(self, batch: Any) -> Losses:
        """Compute the losses of a batch, and the gradients on each device."""
        if sp.issparse(batch):
            return self._backward_observed(checked(batch))
        *inputs, label = batch if isinstance(batch, (list, tuple)) else (batch,)
        # Whole numbers beside a label are indices, which float32 may round.
        values = [v if _are_whole(v) else as_float32(v) for v in inputs]
        values.append(as_float32(label))
        samples = values[0].shape[0]
        if not samples:
            raise DataError("a batch of the training data is empty")
        length = values[0].size // samples
        # MXNet computes nothing on empty arrays, and a trainer needs a new gradient on
        # every device: an idle device takes the first sample, with weight 0.
        if (idle := len(self.devices) - samples) > 0:
            values = [np.concatenate([v] + [v[:1]] * idle) for v in values]
        loaded = (
            gluon.utils.split_and_load(v, self.devices, even_split=False)
            for v in values
        )
        parts = []
        with autograd.record():
            for number, share in enumerate(zip(*loaded)):
                features = share[:-1] if len(share) > 1 else share
                part = self.loss(self.net(*features), share[-1])
                parts.append(part * 0 if number >= samples else part)
        autograd.backward(parts)
        return Losses(parts, samples, length)

    def _backward_observed(self, rows: sp.csr_matrix) -> Losses:
        """Do the same at the stored cells of a sparse matrix: the mask is explicit."""
        is_book = getattr(type(self.net), "forward", None) is AutoRec.forward
        # The book's forward would mask by the sign of the inputs.
        reconstruct = self.net.reconstruct if is_book else self.net
        samples, length = rows.shape
        parts, bounds = [], onp.linspace(0, samples, len(self.devices) + 1).astype(int)
        with autograd.record():
            for device, start, stop in zip(self.devices, bounds, bounds[1:]):
                share, weight = rows[start:stop].tocoo(), 1
                if not share.nnz:  # an idle device, as above
                    share, weight = sp.coo_matrix(([1.0], ([0], [0])), (1, length)), 0
                cells = np.array([share.row, share.col], onp.int32, device)
                ratings = np.array(share.data, onp.float32, device)
                inputs = np.array(share.toarray(), onp.float32, device)
                outputs = npx.gather_nd(reconstruct(inputs), cells)
                parts.append(self.loss(outputs, ratings) * weight)
        autograd.backward(parts)
        return Losses(parts, samples, length, self.mean_over or length)

    def finish(self) -> tuple[float, int]:
        """End an epoch; return the mean loss of a sample and the values trained on."""
        mx.nd.waitall()  # for the last update
        mean = self._total / self._samples if self._samples else math.nan
        examples = self._examples
        self._begin()
        return mean, examples

    def _begin(self) -> None:
        self._total, self._samples, self._examples = 0.0, 0, 0


def _are_whole(values: Any) -> bool:
    return onp.issubdtype(getattr(values, "dtype", float), onp.integer)


def train_epochs(
    train_iter: Iterable[Any],
    step: Step,
    num_epochs: int,
    evaluate: Callable[[], float | None],
    trained: int = 0,
) -> Iterator[Epoch]:
    """Yield each epoch after it is trained; a caller stops early by leaving the loop.

    `num_epochs` counts the `trained` ones of an earlier training; `evaluate` returns
    the test RMSE, or None without a test part.
    """
    for epoch in range(trained + 1, num_epochs + 1):
        start, number = time.perf_counter(), 0
        try:
            for number, batch in enumerate(train_iter, 1):  # noqa: B007
                step(batch)
        finally:  # an interrupted epoch keeps what it has learned
            train_loss, examples = step.finish()
        seconds = time.perf_counter() - start
        if not number:
            raise DataError(
                f"train_iter has no batch in epoch {epoch}; it has to begin anew in "
                "each epoch, which a generator does not"
            )
        check_finite("training loss", train_loss, epoch)
        test_rmse = evaluate()
        check_finite("test RMSE", test_rmse, epoch)
        done = Epoch(epoch, train_loss, test_rmse, None, seconds, examples)
        _log.debug(
            "epoch %d of %d: %s, %.2f s", epoch, num_epochs, done.summary(), seconds
        )
        yield done


def check_finite(name: str, value: float | None, epoch: int) -> None:
    """Raise `TrainingDiverged` if a measured value is NaN or infinite."""
    if value is not None and not math.isfinite(value):
        raise TrainingDiverged(
            f"the {name} is {value} in epoch {epoch}; a lower learning rate (lr) may "
            "help"
        )


def train_recsys_rating(
    net: gluon.Block,
    train_iter: Iterable[Any],
    test_iter: Iterable[Any],
    loss: Callable[[Any, Any], Any],
    trainer: gluon.Trainer,
    num_epochs: int,
    devices: Sequence[mx.Context] | None = None,
    evaluator: Callable[..., float | None] | None = None,
    **kwargs: Any,
) -> list[Epoch]:
    """Train a rating model, show its progress and print the book's two lines.

    Parameters
    ----------
    net, loss, trainer
        A Gluon network, its loss and its trainer.
    train_iter : iterable
        Training batches, anew for each epoch; numbers of any type.
    test_iter : iterable
        The evaluator's batches: the training matrix in order for AutoRec, held-out
        ratings for matrix factorization.
    num_epochs : int
        Passes over `train_iter`.
    devices : sequence of mxnet.Context, optional
        By default every GPU, or the CPU if there is none.
    evaluator : callable
        ``evaluator(net, test_iter, devices)``; with `inter_mat`,
        ``evaluator(net, test_iter, inter_mat, devices)``.
    **kwargs
        `inter_mat`: the held-out matrix for AutoRec's evaluator.

    Returns
    -------
    list of Epoch
        The loss is the mean over an epoch's samples; the book's rounds to 0.000.

    Raises
    ------
    TrainingDiverged
        If the loss or the RMSE becomes NaN or infinite.
    ValueError
        If there is no epoch or no batch, or (`DataError`) a batch is not valid.
    """
    if evaluator is None:
        raise TypeError("train_recsys_rating needs an evaluator")
    if unknown := set(kwargs) - {"inter_mat"}:
        raise TypeError(f"train_recsys_rating takes inter_mat, not {sorted(unknown)}")
    if num_epochs < 1:
        raise ValueError(f"num_epochs={num_epochs} leaves no epoch to train")
    devices = try_all_gpus() if devices is None else list(devices)
    step = Step(net, loss, trainer, devices)
    score = partial(evaluator, net, test_iter, *kwargs.values(), devices)
    history = []
    with Progress(num_epochs) as progress:
        for epoch in train_epochs(train_iter, step, num_epochs, score):
            history.append(epoch)
            progress.show(epoch)
    print(closing_lines(history, devices))
    return history


def closing_lines(history: Sequence[Epoch], devices: Sequence[mx.Context]) -> str:
    """Return the book's two lines: result of the last or best epoch; speed, devices."""
    speed = f"{examples_per_second(history):.1f} examples/sec on {list(devices)}"
    return f"{best_epoch(history).summary()}\n{speed}"
