"""The training loop, and what it stands on: devices and seeds.

References
----------
*Dive into Deep Learning*, "Matrix Factorization", which defines the loop.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as onp
import scipy.sparse as sp

from ._mxnet import autograd, gluon, mx, np, npx, one_at_a_time
from .curve import Epoch, best_epoch, examples_per_second, watch
from .data import as_float32, checked
from .errors import DataError, TrainingDiverged
from .model import AutoRec

_log = logging.getLogger(__name__)


def try_all_gpus() -> list[mx.Context]:
    """Return every GPU, or the CPU where there is none.

    Returns
    -------
    list of mxnet.Context
        Never empty, as the book says of its own, which is empty without a GPU.
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
    """The losses of a batch.

    Attributes
    ----------
    parts : list of mxnet.np.ndarray
        Each device's.
    samples : int
        How many samples the batch has.
    length : int
        Values a sample.
    mean_over : float
        What the sum of a sample's losses is divided by.
    """

    parts: list[Any]
    samples: int
    length: int
    mean_over: float = 1.0


class Step:
    """A step of training: forward, backward, update.

    Parameters
    ----------
    net : mxnet.gluon.Block
        Initialized on `devices`.
    loss : callable
        From predictions and labels to a loss a sample.
    trainer : mxnet.gluon.Trainer
        Holds the parameters of `net`.
    devices : sequence of mxnet.Context
        A batch is shared out over them; they need not divide it.
    mean_over : float, optional
        What the sum of a row's losses is divided by, where batches are sparse. By
        default that is the length of the row, as in the book, where the unobserved
        cells count as predicted right.
    """

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
        """Train on a batch.

        Parameters
        ----------
        batch : array, list of array or scipy.sparse.csr_matrix
            One array that is its own label; inputs and a label; or rows of ratings. Of
            any type of numbers; only indices are not made float32.
        """
        losses = self.backward(batch)
        self.trainer.step(losses.samples * losses.mean_over)
        # Reading a loss waits for it; the one before is ready, or soon will be, and
        # this batch is computed while the next one is put together.
        self._read()
        self._pending = losses

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
        # MXNet computes nothing on empty arrays, and a trainer wants a fresh gradient
        # on every device: one that a small batch leaves without a share takes the first
        # sample, at no weight.
        if (idle := len(self.devices) - samples) > 0:
            values = [np.concatenate([v] + [v[:1]] * idle) for v in values]
        shares = zip(
            *(
                gluon.utils.split_and_load(v, self.devices, even_split=False)
                for v in values
            )
        )
        parts = []
        with autograd.record():
            for number, share in enumerate(shares):
                features = share[:-1] if len(share) > 1 else share
                part = self.loss(self.net(*features), share[-1])
                parts.append(part * 0 if number >= samples else part)
        autograd.backward(parts)
        return Losses(parts, samples, length)

    def _backward_observed(self, rows: sp.csr_matrix) -> Losses:
        """Do so at the cells that a sparse matrix stores: the mask is explicit."""
        own = (
            isinstance(self.net, AutoRec) and type(self.net).forward is AutoRec.forward
        )
        # The book's forward would mask by the sign of the inputs.
        reconstruct = self.net.reconstruct if own else self.net
        samples, length = rows.shape
        parts, bounds = [], onp.linspace(0, samples, len(self.devices) + 1).astype(int)
        with autograd.record():
            for device, start, stop in zip(self.devices, bounds, bounds[1:]):
                share, weight = rows[start:stop].tocoo(), 1
                if not share.nnz:  # as in `backward`: a made-up rating at no weight
                    share, weight = sp.coo_matrix(([1.0], ([0], [0])), (1, length)), 0
                cells = np.array([share.row, share.col], onp.int32, device)
                ratings = np.array(share.data, onp.float32, device)
                inputs = np.array(share.toarray(), onp.float32, device)
                outputs = npx.gather_nd(reconstruct(inputs), cells)
                parts.append(self.loss(outputs, ratings) * weight)
        autograd.backward(parts)
        return Losses(parts, samples, length, self.mean_over or length)

    def finish(self) -> tuple[float, int]:
        """End an epoch, when its last step is done.

        Returns
        -------
        train_loss : float
            Mean loss of a sample.
        examples : int
            Values trained on.
        """
        self._read()
        mx.nd.waitall()  # for the last update
        mean = self._total / self._samples if self._samples else math.nan
        examples = self._examples
        self._begin()
        return mean, examples

    def _begin(self) -> None:
        self._pending = Losses([], 0, 0)
        self._total, self._samples, self._examples = 0.0, 0, 0

    def _read(self) -> None:
        parts, samples, length, mean_over = self._pending
        found = float(sum(part.asnumpy().sum(dtype=float) for part in parts))
        self._total += found / mean_over
        self._samples += samples
        self._examples += samples * length


def _are_whole(values: Any) -> bool:
    return onp.issubdtype(getattr(values, "dtype", float), onp.integer)


def train_epochs(
    train_iter: Iterable[Any],
    step: Step,
    num_epochs: int,
    evaluate: Callable[[], float | None],
    trained: int = 0,
) -> Iterator[Epoch]:
    """Train, and hand out control after each epoch.

    Leaving the iteration stops the training: that is how a caller stops early.

    Parameters
    ----------
    train_iter : iterable
        Batches, anew for each epoch.
    step : Step
        Trains on a batch.
    num_epochs : int
        Passes over `train_iter`, those that lie behind included.
    evaluate : callable
        Gives the RMSE on the test part as things stand; None without such a part.
    trained : int
        Epochs that an earlier training did.

    Yields
    ------
    Epoch

    Raises
    ------
    TrainingDiverged
        If the loss or the RMSE becomes NaN or infinite.
    DataError
        If an epoch has no batch, or an empty one.
    """
    for epoch in range(trained + 1, num_epochs + 1):
        start, number = time.perf_counter(), 0
        try:
            for number, batch in enumerate(train_iter, 1):  # noqa: B007
                step(batch)
        finally:  # what an interrupted epoch has learned is not lost, either
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


def check_finite(what: str, value: float | None, epoch: int) -> None:
    """Check what an epoch came to, if there is something to check.

    Raises
    ------
    TrainingDiverged
        If it is NaN or infinite.
    """
    if value is not None and not math.isfinite(value):
        raise TrainingDiverged(
            f"the {what} is {value} in epoch {epoch}; a lower learning rate (lr) may "
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
        As for `Step`.
    train_iter, num_epochs
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
        `inter_mat`: the held-out matrix that AutoRec's evaluator compares with. Beyond
        the book, `step`: another `Step`; ``hook``: what the epochs pass through, which
        may save them or stop, ``hook(epochs, num_epochs)``, by default `watch`; and
        `trained`, as for `train_epochs`.

    Returns
    -------
    list of Epoch
        As the hook gave them.

    Raises
    ------
    TrainingDiverged
        If the loss or the RMSE becomes NaN or infinite.
    DataError
        If an epoch has no batch, or an empty one, or a sparse one is not `checked`.
    ValueError
        If there is no epoch to train.

    Notes
    -----
    The loss that is printed is the mean over the samples of an epoch; the book prints
    one that always rounds to 0.000.
    """
    if evaluator is None:
        raise TypeError("train_recsys_rating needs an evaluator")
    if unknown := set(kwargs) - {"inter_mat", "step", "hook", "trained"}:
        raise TypeError(f"train_recsys_rating takes inter_mat, not {sorted(unknown)}")
    devices = try_all_gpus() if devices is None else list(devices)
    step = kwargs.get("step") or Step(net, loss, trainer, devices)
    scored = [test_iter, kwargs["inter_mat"]] if "inter_mat" in kwargs else [test_iter]
    epochs = train_epochs(
        train_iter,
        step,
        num_epochs,
        lambda: evaluator(net, *scored, devices),
        kwargs.get("trained", 0),
    )
    history = list(kwargs.get("hook", watch)(epochs, num_epochs))
    if not history:
        raise ValueError(f"num_epochs={num_epochs} leaves no epoch to train")
    print(closing_lines(history, devices))
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
        Two lines: train loss and test RMSE, of the last epoch or of the best one on a
        validation part; examples a second and the devices.
    """
    speed = f"{examples_per_second(history):.1f} examples/sec on {list(devices)}"
    return f"{best_epoch(history).summary()}\n{speed}"
