"""A training: what a recipe sets up on a matrix of ratings."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property, partial
from typing import Any, NamedTuple, Protocol

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx
from .._ready import memory
from ..curve import Epoch, best_epoch
from ..data import check_ratings, checked, row_batches
from ..errors import DataError, DeviceUnavailable
from ..evaluators import evaluator, rmse
from ..fast import (
    FASTER,
    FusedStep,
    LeaveOneOutStep,
    SparseStep,
    dense,
    members,
    predict_cells,
    put_aside,
)
from ..loop import check_finite, train_epochs
from ..model import AutoRec
from . import rprop  # noqa: F401  registers it
from .batches import SeededBatches
from .biases import Biases, Levels, Standard, yardstick
from .family import BOUNDED, Average, DeepAutoRec
from .losses import MaskedRMSELoss
from .pretraining import pretrain
from .settings import Blend, Recipe
from .validation import stop_early

# Patience begins after so many steps in any case.
STEPS_BEFORE_PATIENCE = 500


class Portion(Protocol):
    """The columns of one of several workers that train together.

    What is not about its own columns alone, all of them have to do, in the same order.

    Attributes
    ----------
    rows : scipy.sparse.csr_matrix
        This worker's columns of what they learn from.
    """

    rows: sp.csr_matrix

    def initialize(self, net: Any, start: Any, devices: Any) -> None:
        """Initialize a network of these columns as one of all columns would be."""

    def step(self, kind: type[SparseStep], *args: Any) -> SparseStep:
        """Make a step of a kind, of these arguments, that all of them take."""

    def encode(self, net: AutoRec, device: mx.Context) -> Callable[..., Any]:
        """Get ready to compute last hidden layers of rows of these columns."""

    def predict_cells(self, net: Any, cells: Any, device: mx.Context) -> np.ndarray:
        """Predict cells of all columns."""

    def gather(self, net: Any, trainer: Any, whole: Any, with_state: bool) -> None:
        """Put all portions together, in a network and a trainer of all columns."""

    def scatter(self, whole: Any, net: Any, trainer: Any) -> None:
        """Take these columns of a network and a trainer of all."""


class Team(Protocol):
    """Workers, on this and other machines, that train together.

    Attributes
    ----------
    rank : int
        Of this worker, from 0.
    """

    rank: int

    def share_out(self, rows: sp.csr_matrix, num_steps: float) -> Portion:
        """Share the columns of what is learned from out over the workers."""


class Parts(NamedTuple):
    """The parts that ratings are cut into, as matrices of one shape.

    Attributes
    ----------
    train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        Ratings to learn from.
    test_mat, valid_mat : scipy.sparse.csr_matrix or None
        Ratings held out to score, and to choose something on.
    """

    train_mat: sp.csr_matrix
    test_mat: sp.csr_matrix | None = None
    valid_mat: sp.csr_matrix | None = None

    def checked(self, shape: tuple[int, int] | None = None) -> Parts:
        """Check each part by `check_ratings`, all of one shape."""
        train_mat = check_ratings("train_mat", self.train_mat, shape)
        held_out = (
            None if part is None else check_ratings(name, part, train_mat.shape)
            for name, part in zip(self._fields[1:], self[1:])
        )
        return Parts(train_mat, *held_out)


def range_of(train_mat: sp.csr_matrix) -> tuple[float, float]:
    """Return the lowest and the highest rating."""
    return float(train_mat.data.min()), float(train_mat.data.max())


def levels_of(
    recipe: Recipe, train_mat: sp.csr_matrix, biases: Biases | None = None
) -> Levels | None:
    """Compute what a recipe's network leaves out of what it learns, if it does.

    Those who have the biases of these ratings already pass them.
    """
    if recipe.residual:
        return biases or Biases(train_mat)
    return Standard(train_mat) if recipe.standardize else None


_BOOK = Recipe().activation, Recipe().output, Recipe().input_dropout, None, 0, 1


def typical_length(rows: sp.csr_matrix) -> float:
    """Return the geometric mean of how many ratings the rows have that have any."""
    counts = np.diff(rows.indptr)
    return float(np.exp(np.log(counts[counts > 0]).mean()))


def network(
    recipe: Recipe | Blend, train_mat: sp.csr_matrix, length: int | None = None
) -> Any:
    """Make a recipe's network, not yet initialized.

    Parameters
    ----------
    recipe : Recipe or Blend
        With the default structure it is the book's `AutoRec`.
    train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        Ratings to learn from, whose range is that of bounded predictions; those of a
        network with `Levels` are clipped only as ratings.
    length : int, optional
        Of a row, where the network is for some of the columns.

    Returns
    -------
    AutoRec, Average or mxnet.gluon.nn.Sequential
        The last one holds the networks of a blend, and does not join what they say.

    Raises
    ------
    DataError
        If its parameters would not fit into the memory of this machine.
    """
    shape = checked(train_mat).shape
    if length and isinstance(recipe, Recipe):
        shape = (length, shape[1]) if recipe.kind == "user" else (shape[0], length)
    _check_size(recipe, shape)
    if isinstance(recipe, Blend):
        nets = gluon.nn.Sequential()
        nets.add(*(network(one, train_mat) for one in recipe.recipes))
        return nets
    length = shape[0 if recipe.kind == "user" else 1]
    rating_range = None
    if (recipe.clip or recipe.output in BOUNDED) and not (
        recipe.residual or recipe.standardize
    ):
        rating_range = range_of(train_mat)
    typical = typical_length(recipe.rows(train_mat)) if recipe.balance else 1.0
    beyond = (
        *(recipe.activation, recipe.output, recipe.input_dropout),
        *(rating_range, recipe.balance, typical),
    )

    def one() -> AutoRec:
        if isinstance(recipe.num_hidden, int) and beyond == _BOOK:
            return AutoRec(recipe.num_hidden, length, recipe.dropout)
        return DeepAutoRec(recipe.num_hidden, length, recipe.dropout, *beyond)

    # An optimizer's state is kept in the order of the parameters' names, which Gluon
    # counts up: here they always start from 0.
    with mx.name.NameManager():
        nets = [one() for _ in range(recipe.members)]
    return nets[0] if len(nets) == 1 else Average(nets)


def parameter_shapes(
    recipe: Recipe | Blend, shape: tuple[int, int]
) -> Iterator[tuple[str, tuple[int, ...]]]:
    """List the parameters of `network`, without making it.

    Parameters
    ----------
    recipe : Recipe or Blend
        The settings.
    shape : (int, int)
        Numbers of items and of users.

    Yields
    ------
    name : str
        As Gluon saves it.
    shape : tuple of int
    """
    for number, one in enumerate(recipe.recipes):
        layers = one.num_hidden
        length = shape[0 if one.kind == "user" else 1]
        sizes = [length, *([layers] if isinstance(layers, int) else layers), length]
        names = ["encoder", *(f"deeper.{i}" for i in range(len(sizes) - 3)), "decoder"]
        of = f"{number}." if isinstance(recipe, Blend) else ""
        for member in range(one.members):
            whose = f"{of}{member}." if one.members > 1 else of
            for name, before, after in zip(names, sizes, sizes[1:]):
                yield f"{whose}{name}.weight", (after, before)
                yield f"{whose}{name}.bias", (after,)


def _check_size(recipe: Recipe | Blend, shape: tuple[int, int]) -> None:
    """Check, before anything is allocated, that it would fit into the memory."""
    num_values, batches = 0, {}
    for one in recipe.recipes:
        single = parameter_shapes(replace(one, members=1), shape)
        num_values += one.members * sum(math.prod(size) for _, size in single)
        rows, length = shape[:: -1 if one.kind == "user" else 1]
        size = min(one.batch_size or rows, rows)
        batches[f"a batch of {size:,} rows"] = size * length
    for what, size in {"the parameters": num_values, **batches}.items():
        if 4 * size > memory():
            raise DataError(
                f"{what} would take {4 * size / 2**30:,.0f} GiB; this machine has "
                f"{memory() / 2**30:,.0f}"
            )


class Training:
    """A recipe at work.

    Parameters
    ----------
    recipe : Recipe
        The settings.
    parts : Parts
        The ratings.
    devices : sequence of mxnet.Context
        To train on.
    seed : int, optional
        Of each epoch, as for `SeededBatches`.
    trained : int
        Epochs that lie behind it.
    team : Team, optional
        Workers to train with. The arrays of everyone's ratings are then `put_aside`.

    Attributes
    ----------
    net : AutoRec or Average
        Initialized on the devices.
    levels : Levels or None
        What the network leaves out of what it learns, if it does.
    rows : scipy.sparse.csr_matrix
        What it learns from, laid out as its inputs.
    portion : Portion or None
        With a team, what is this worker's: `net`, `rows`, `trainer` and `batches` are
        of its columns alone.
    loss : callable
        For `step`.
    trainer : mxnet.gluon.Trainer
        With the optimizer's state.
    trainers : list of mxnet.gluon.Trainer
        It; those of a blend are several.
    step : SparseStep
        Trains on a batch.
    batches : SeededBatches
        Of the rows of the training matrix.
    steps_per_epoch : float
        In the mean.
    pretraining : iterator of Epoch
        What comes before, with one hidden layer.
    """

    def __init__(
        self,
        recipe: Recipe,
        parts: Parts,
        devices: Sequence[mx.Context],
        seed: int | None = None,
        trained: int = 0,
        team: Team | None = None,
    ) -> None:
        parts = parts.checked()
        self.recipe: Any = recipe
        self.parts, self.devices = parts, list(devices)
        self.seed, self.trained, self.team = seed, trained, team
        train_mat = parts.train_mat
        self.levels = levels_of(recipe, train_mat)
        if self.levels:
            train_mat = self.levels.learned(train_mat)
        rows = recipe.rows(train_mat)
        batch_size = min(recipe.batch_size or rows.shape[0], rows.shape[0])
        self.steps_per_epoch = rows.shape[0] / batch_size
        self.portion = team.share_out(rows, self.steps_per_epoch) if team else None
        self.rows = own = self.portion.rows if self.portion else rows
        self.net = network(recipe, parts.train_mat, own.shape[1])
        # With levels, cold cells are theirs to predict even where `cold` is None.
        has_rule = recipe.cold is not None or self.levels is not None
        self._cold = _without_ratings(rows) if has_rule else None
        self._cold_rating = recipe.cold
        if recipe.cold == "mean":
            self._cold_rating = float(parts.train_mat.data.mean())
        self._range = range_of(parts.train_mat) if recipe.clip else None
        # One layer as in the book; through several, weights that small pass nothing on.
        shallow = isinstance(recipe.num_hidden, int)
        start = mx.init.Normal(0.01) if shallow else mx.init.Xavier()
        if recipe.from_mean:  # of what all workers learn
            for one in members(self.net):
                one.decoder.bias.init = mx.init.Constant(float(rows.data.mean()))
        if self.portion:
            self.portion.initialize(self.net, start, self.devices)
        else:
            self.net.initialize(start, self.devices)
        self.pretraining: Iterator[Epoch] = iter(())
        if recipe.pretrain_epochs and not trained:
            self.pretraining = self._pretrain()
        self.trainer = self._trainer(rows, batch_size)
        self.trainers = [self.trainer]
        rmse_loss = recipe.loss == "rmse"
        self.loss = MaskedRMSELoss() if rmse_loss else gluon.loss.L2Loss()
        kind: Any = self._step_kind()
        if self.portion:
            kind = partial(self.portion.step, kind)
        self.step: SparseStep = kind(
            self.net,
            self.loss,
            self.trainer,
            self.devices,
            None if recipe.loss == "book" else rows.nnz / rows.shape[0],
        )
        loader = row_batches(own, batch_size, shuffle=True, sparse=True)
        self.batches = SeededBatches(loader, seed, trained, self.step.seed)
        if self.portion:
            # The weights, which the first step makes, have the room of all this then.
            if recipe.cold == "biases":
                _ = self.biases
            del train_mat, rows
            put_aside(parts.train_mat)

    def __getstate__(self) -> Any:
        """Refuse to be pickled."""
        raise TypeError(
            "a training cannot be pickled; keep what it learns by a Checkpoint, or its "
            "network by net.save_parameters(file)"
        )

    def epochs(self) -> Iterator[Epoch]:
        """Train, what is left of the pretraining first.

        Yields
        ------
        Epoch
            Without a test part its test RMSE is None.
        """
        for _ in self.pretraining:
            pass
        yield from self.validated(self._trained_epochs())

    def _trained_epochs(self) -> Iterator[Epoch]:
        return train_epochs(
            self.batches,
            self.step,
            self.recipe.num_epochs,
            lambda: self.rmse(self.parts.test_mat),
            self.trained,
        )

    def validated(self, epochs: Iterable[Epoch]) -> Iterator[Epoch]:
        """Score epochs as they pass by on the validation part, where there is one.

        Parameters
        ----------
        epochs : iterable of Epoch
            Of this training.

        Yields
        ------
        Epoch
        """
        for epoch in epochs:
            if self.parts.valid_mat is not None:
                if epoch.valid_rmse is None:
                    valid_rmse = self.rmse(self.parts.valid_mat)
                    epoch = epoch._replace(valid_rmse=valid_rmse)
                check_finite("validation RMSE", epoch.valid_rmse, epoch.epoch)
            yield epoch

    def stopped_early(self, epochs: Iterable[Epoch], patience: int) -> Iterator[Epoch]:
        """Stop when the validation RMSE no longer gets better.

        Parameters
        ----------
        epochs : iterable of Epoch
            Of this training, from the first one on, with their `valid_rmse`.
        patience : int
            Epochs without a new best, counted once the network is better than biases,
            or after `STEPS_BEFORE_PATIENCE`.

        Yields
        ------
        Epoch
        """
        train_mat, _, valid_mat = self.parts
        assert valid_mat is not None
        biases = yardstick(train_mat, valid_mat)["biases"].rmse
        latest = math.ceil(STEPS_BEFORE_PATIENCE / self.steps_per_epoch)
        return stop_early(epochs, patience, biases, latest)

    def choose(self, history: Sequence[Epoch]) -> tuple[Epoch, Any]:
        """Choose, on the validation part, what to train again on all ratings.

        Parameters
        ----------
        history : sequence of Epoch
            Of this training.

        Returns
        -------
        epoch : Epoch
            The best one.
        recipe : Recipe
            That ends with it; or a Blend.
        """
        best = best_epoch(history)
        return best, self.recipe.changed(num_epochs=best.epoch)

    def evaluator(self) -> tuple[Callable[..., float | None], Iterable[Any]]:
        """Say how `train_recsys_rating` is to score.

        Returns
        -------
        evaluator, test_iter
            The book's, and batches of the training matrix, as far as they will do: not
            where rows are users, or cold ones get a prediction of their own.
        """
        book = type(self.net) is AutoRec and self.recipe.scores_by_the_book
        if book and self.parts.test_mat is not None and not self.portion:
            return evaluator, row_batches(self.parts.train_mat, 1024)
        return lambda net, rows, held_out, devices: self.rmse(held_out), ()

    def rmse(self, held_out: sp.csr_matrix | None) -> float | None:
        """Score held-out ratings, if there are any."""
        return None if held_out is None else rmse(*self.predict(held_out))

    def predict(self, cells: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Predict the ratings of cells, by the recipe's rule for cold ones.

        Parameters
        ----------
        cells : scipy.sparse.csr_matrix, shape (num_items, num_users)
            Stores a value in each cell that is asked for.

        Returns
        -------
        predictions, values : numpy.ndarray, shape (num_cells,)
            The predictions, and what `cells` stores there, in the same order.
        """
        recipe = self.recipe
        cells = recipe.rows(cells)
        if self.portion:
            found = self.portion.predict_cells(self.net, cells, self.devices[0])
        else:
            found = predict_cells(self.net, self.rows, cells, self.devices)
        if self._cold is None:
            return found, cells.data
        cold_rows, cold_columns = self._cold
        cold = np.repeat(cold_rows, np.diff(cells.indptr)) | cold_columns[cells.indices]
        at = cells.tocoo()
        users, items = (at.row, at.col) if recipe.kind == "user" else (at.col, at.row)
        if self.levels:
            if recipe.residual:
                found[cold] = 0
            found = self.levels.restore(found, self.levels.at(users, items))
            if self._range:
                found = found.clip(*self._range)
        if recipe.cold == "biases":
            found[cold] = self.biases.at(users[cold], items[cold])
        elif self._cold_rating is not None:
            found[cold] = self._cold_rating
        return found, cells.data

    @cached_property
    def biases(self) -> Biases:
        """What biases alone predict, for cold users and items."""
        levels = self.levels
        return levels if isinstance(levels, Biases) else Biases(self.parts.train_mat)

    def predict_pairs(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict the ratings of pairs, as `predict` does.

        Parameters
        ----------
        users, items : numpy.ndarray of int, shape (num_pairs,)
            Indices; no pair occurs twice.

        Returns
        -------
        numpy.ndarray of float, shape (num_pairs,)
            In their order.
        """
        # A cell holds the place of its pair, from 1 as a matrix of 0 would be empty.
        places = np.arange(1, len(users) + 1)
        cells = sp.csr_matrix((places, (items, users)), self.parts.train_mat.shape)
        found, places = self.predict(cells)
        predictions = np.empty(len(users), found.dtype)
        predictions[places - 1] = found
        return predictions

    @cached_property
    def whole(self) -> Training:
        """Itself; with a team, an idle training of all columns, which has room."""
        if self.portion is None:
            return self
        whole = Training(self.recipe, self.parts, self.devices, self.seed, self.trained)
        whole.net.collect_params().setattr("grad_req", "null")
        whole.net.initialize(mx.init.Zero(), self.devices, force_reinit=True)
        whole.net(dense(whole.rows[:1], self.devices[0])).wait_to_read()
        return whole

    def gathered(self, with_state: bool = True) -> Training | None:
        """Bring `whole` up to date, for which all workers of a team meet.

        Parameters
        ----------
        with_state : bool
            That of the optimizer, too.

        Returns
        -------
        Training or None
            `whole`; of a team's workers, the first one alone has it.
        """
        if self.portion is None or self.team is None:
            return self
        target = self.whole if self.team.rank == 0 else None
        pair = target and (target.net, target.trainer)
        self.portion.gather(self.net, self.trainer, pair, with_state)
        return target

    def gathering(self, epochs: Iterable[Epoch]) -> Iterator[Epoch]:
        """Meet the first worker after each epoch, which saves what is `gathered`.

        Parameters
        ----------
        epochs : iterable of Epoch
            Of this training.

        Yields
        ------
        Epoch
        """
        for epoch in epochs:
            self.gathered()
            yield epoch

    def scatter(self) -> None:
        """Go on from what has been put into `whole`."""
        if self.portion is not None:
            row = dense(self.portion.rows[:1], self.devices[0])
            self.net(row).wait_to_read()  # so that there is something to write to
            whole = self.whole.net, self.whole.trainer
            self.portion.scatter(whole, self.net, self.trainer)
            if self.team and self.team.rank:
                del self.whole

    def _trainer(self, rows: sp.csr_matrix, batch_size: int) -> gluon.Trainer:
        recipe = self.recipe
        settings: dict[str, Any] = {"learning_rate": recipe.lr, "wd": recipe.wd}
        if recipe.schedule == "cosine":
            # An incomplete batch waits for the next epoch.
            num_steps = recipe.num_epochs * rows.shape[0] // batch_size
            schedule = mx.lr_scheduler.CosineScheduler(num_steps, recipe.lr)
            settings["lr_scheduler"] = schedule
        if recipe.loss == "paper":
            # Twice the number of ratings is what the objective is divided by.
            settings["wd"] = recipe.penalty(self.parts.train_mat) / (2 * rows.nnz)
            for parameter in self.net.collect_params(".*bias").values():
                parameter.wd_mult = 0.0
        return gluon.Trainer(
            self.net.collect_params(),
            FASTER.get(recipe.optimizer.lower(), recipe.optimizer),
            settings,
            # A team adds up what there is to add up itself.
            kvstore=None if self.team else "device",
        )

    def _step_kind(self) -> type[SparseStep]:
        fits = FusedStep.fits(self.net, self.trainer, self.devices)
        if not self.recipe.leave_one_out:
            return FusedStep if fits else SparseStep
        if not fits:
            names = ", ".join(map(str, self.devices))
            raise DeviceUnavailable(f"leave_one_out needs one CPU, not {names}")
        return LeaveOneOutStep

    def _pretrain(self) -> Iterator[Epoch]:
        recipe = self.recipe
        assert not isinstance(recipe.num_hidden, int)
        shallow = Training(
            replace(
                recipe,
                num_hidden=recipe.num_hidden[0],
                num_epochs=recipe.pretrain_epochs,
                pretrain_epochs=0,
            ),
            Parts(self.parts.train_mat),
            self.devices,
            self.seed,
            team=self.team,
        )
        yield from shallow.epochs()
        for deep, trained in zip(members(self.net), members(shallow.net)):
            portion, device = self.portion, self.devices[0]
            pretrain(
                *(deep, trained, self.rows),
                *(self.devices, self.seed),
                portion.encode(trained, device) if portion else None,
            )


def _without_ratings(rows: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mark the rows, and the columns, that have no rating."""
    ratings_of = np.bincount(rows.indices, minlength=rows.shape[1])
    return np.diff(rows.indptr) == 0, ratings_of == 0
