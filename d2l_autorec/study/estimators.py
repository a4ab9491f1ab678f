"""The models that are compared: fit to some rows of ratings, predict others.

References
----------
*Dive into Deep Learning*, "Matrix Factorization" and "AutoRec: Rating Prediction with
Autoencoders".
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import chain
from typing import Any, ClassVar

import numpy as np

from .._mxnet import gluon, mx
from ..data import rating_batches
from ..loop import Step, seed_everything, train_epochs
from ..mf import MF
from ..ratings import Ratings
from ..training import (
    PRESETS,
    VALID_RATIO,
    Blend,
    Parts,
    Recipe,
    Run,
    Training,
    hold_out,
)
from ..training import Biases as FittedBiases


@dataclass(eq=False)
class Estimator(ABC):
    """A model that learns from some ratings and predicts others.

    A class of your own needs `fit` and `predict`; ``--models package.module:Class``
    compares it.

    Parameters
    ----------
    ratings : Ratings
        Says which users and items there are.
    devices : sequence of mxnet.Context
        To train on.

    Attributes
    ----------
    num_parameters : int
        How many numbers `fit` learned; 0 unless it says so.
    clips : bool
        Whether predictions are clipped to the range of the training ratings.
    chosen : str
        The settings that a validation part has chosen in `fit`, if it did.

    Notes
    -----
    The settings of a model are the other fields of its class, a dataclass, with their
    defaults.
    """

    ratings: Ratings
    devices: Sequence[mx.Context]

    num_parameters = 0
    clips = False
    chosen = ""

    @abstractmethod
    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:
        """Learn, and hand out control after each epoch.

        Parameters
        ----------
        train_rows : numpy.ndarray of int64
            Rows of `ratings`.
        seed : int
            Of all that is drawn.

        Yields
        ------
        int
            The number of epochs that `predict` now stands at; 0 while settings are
            being chosen or a network is pretrained, when it cannot be called. A model
            without epochs yields nothing.
        """

    @abstractmethod
    def predict(self, rows: np.ndarray) -> np.ndarray:
        """Predict ratings.

        Parameters
        ----------
        rows : numpy.ndarray of int64
            Rows of `ratings`, of which the users and the items may be looked at.

        Returns
        -------
        numpy.ndarray of float, shape (len(rows),)
            In the unit of the ratings.
        """

    @property
    def title(self) -> str:
        """The name in tables and pictures; by default the class's."""
        return type(self).__name__

    @property
    def weights(self) -> list[float]:
        """Of a blend's networks, in the order of its recipes, once they are chosen."""
        return []

    @property
    def settings(self) -> dict[str, Any]:
        """The name of the class and its settings; a recipe is a dict of its own."""
        found: dict[str, Any] = {"model": type(self).__name__}
        for one in fields(self)[2:]:
            value = getattr(self, one.name)
            recipe = isinstance(value, (Recipe, Blend))
            found[one.name] = asdict(value) if recipe else value
        return found


class GlobalMean(Estimator):
    """The mean of the training ratings, for every pair."""

    title = "global mean"
    num_parameters = 1

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        self.mean = float(self.ratings.rating[train_rows].mean(dtype=np.float64))
        return iter(())

    def predict(self, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        return np.full(len(rows), self.mean)


class Biases(Estimator):
    """The mean and a bias of each user and item: see `training.Biases`."""

    title = "biases"

    @property
    def settings(self) -> dict[str, Any]:
        """Those of `training.Biases`."""
        names = ("item_reg", "user_reg", "num_sweeps")
        found = {name: getattr(FittedBiases, name) for name in names}
        return {**super().settings, **found}

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        self.found = FittedBiases(self.ratings.matrix(train_rows))
        self.num_parameters = 1 + self.ratings.num_users + self.ratings.num_items
        return iter(())

    def predict(self, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        return self.found.at(*self.ratings.indices(rows))


@dataclass(eq=False)
class BookMF(Estimator):
    """The book's matrix factorization, by Adam; by default in the book's settings."""

    num_factors: int = 30  # length of the embeddings
    lr: float = 0.002
    wd: float = 1e-5
    num_epochs: int = 20
    batch_size: int = 512  # ratings

    title = "MF (book)"

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        seed_everything(seed)
        self.net = MF(self.num_factors, self.ratings.num_users, self.ratings.num_items)
        self.net.initialize(mx.init.Normal(0.01), ctx=self.devices)
        loss = gluon.loss.L2Loss()
        for block in (self.net, loss):
            block.hybridize(static_alloc=True)
        self.num_parameters = _num_parameters(self.net)
        settings = {"learning_rate": self.lr, "wd": self.wd}
        trainer = gluon.Trainer(self.net.collect_params(), "adam", settings)
        step = Step(self.net, loss, trainer, self.devices)
        batches = self.batches(train_rows, shuffle=True)
        for epoch in train_epochs(batches, step, self.num_epochs, lambda: None):
            yield epoch.epoch

    def batches(self, rows: np.ndarray, shuffle: bool = False) -> Any:
        """Batch rows of ratings as the book does; see `rating_batches`."""
        columns = *self.ratings.indices(rows), self.ratings.rating[rows]
        return rating_batches(*columns, self.batch_size, shuffle)

    def predict(self, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        columns = self.ratings.indices(rows)
        index = (mx.np.array(i, np.float32, self.devices[0]) for i in columns)
        return np.asarray(self.net(*index).asnumpy())


@dataclass(eq=False)
class BookAutoRec(Estimator):
    """AutoRec, by default the book's in its settings."""

    recipe: Any = PRESETS["book"]  # a Recipe or a Blend
    name: str = "book"  # of the recipe, in the title

    def __post_init__(self) -> None:
        """Take from the recipe whether predictions are clipped."""
        self.clips = all(recipe.clip for recipe in self.recipe.recipes)

    @property
    def title(self) -> str:  # noqa: D102
        return f"AutoRec ({self.name})"

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        return self._train(
            Run(Parts(self.ratings.matrix(train_rows)), self.recipe, seed)
        )

    def _train(self, run: Run) -> Iterator[int]:
        """Train what is to be trained; yield as `fit`."""
        seed_everything(run.seed)
        self.training = Training(run, self.devices)
        for _ in self.training.pretraining:
            yield 0
        for epoch in self.training.epochs():
            yield epoch.epoch
        self.num_parameters = _num_parameters(self.training.net)

    def predict(self, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        return self.training.predict_pairs(*self.ratings.indices(rows))


class ChosenAutoRec(BookAutoRec):
    """AutoRec with settings that a validation part chooses before the training."""

    patience: ClassVar[int | None] = None

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        rows = hold_out(train_rows, VALID_RATIO, seed)
        fit_mat, valid_mat = map(self.ratings.matrix, rows)
        seed_everything(seed)
        parts = Parts(fit_mat, valid_mat=valid_mat)
        training = Training(Run(parts, self.recipe, seed, self.patience), self.devices)
        for _ in chain(training.pretraining, training.epochs()):
            yield 0
        self.mixture = training.mixture
        _, run = training.choose()
        yield from self._train(run)

    @property
    def weights(self) -> list[float]:  # noqa: D102
        return self.mixture.weights.tolist() if self.mixture else []


@dataclass(eq=False)
class EarlyStoppedAutoRec(ChosenAutoRec):
    """AutoRec, for as many epochs as are best; by default the book's, at most 100."""

    recipe: Any = PRESETS["book"].changed(num_epochs=100)

    title = "AutoRec, stopped early"
    patience = 10


@dataclass(eq=False)
class BlendAutoRec(ChosenAutoRec):
    """A blend of networks, by default that of the preset; its weights are chosen."""

    recipe: Any = PRESETS["best"]
    name: str = "best"


def _num_parameters(net: gluon.Block) -> int:
    parameters = net._collect_params_with_prefix().values()
    return sum(p.data(p.list_ctx()[0]).size for p in parameters)
