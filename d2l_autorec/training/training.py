"""A training: one network, or several side by side whose predictions are mixed.

References
----------
L. Breiman, "Stacked Regressions", Machine Learning 24, 1996, for weights that are not
below 0. A. Töscher, M. Jahrer, R. Bell, "The BigChaos Solution to the Netflix Grand
Prize", 2009, for mixtures of different models of ratings.
"""

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx
from ..curve import Epoch, best_epoch
from ..evaluators import rmse
from ..loop import check_finite
from .biases import Biases, baselines, range_of
from .member import Member
from .run import Parts, Run
from .settings import LARGEST_WEIGHT, Blend, Recipe
from .validation import EarlyStopping

# Patience begins after so many steps in any case.
STEPS_BEFORE_PATIENCE = 500


class Mixture:
    """Sum of how networks' predictions differ from the biases', by weights.

    Levels, the biases' predictions, are (...), and those found by the networks
    (num_networks, ...).
    """

    def __init__(self, recipe: Blend, train_mat: sp.csr_matrix) -> None:
        self.biases = Biases(train_mat)
        size = len(recipe.recipes)
        self.weights = np.array(recipe.weights or [1 / size] * size)
        self.is_chosen = not recipe.weights  # on the validation part
        clip = all(one.clip for one in recipe.recipes)
        self.bounds = range_of(train_mat) if clip else None

    def choose(self, levels: np.ndarray, found: np.ndarray, rating: np.ndarray) -> None:
        """Choose the weights by least squares, none of them below 0."""
        from scipy.optimize import nnls  # of no use to others

        weights, _ = nnls((found - levels).T, rating - levels)
        self.weights = weights.clip(0, LARGEST_WEIGHT)

    def mixed(
        self, levels: np.ndarray, found: np.ndarray, clip: bool = True
    ) -> np.ndarray:
        """Mix predictions; clip them, if all recipes say so."""
        rest = 1 - self.weights.sum()
        predictions = rest * levels + np.tensordot(self.weights, found, 1)
        if clip and self.bounds:
            predictions = predictions.clip(*self.bounds)
        return np.asarray(predictions)


class Training:
    """A recipe at work; of a blend, an epoch is one of each network.

    Parameters
    ----------
    recipe : Recipe or Blend
        The settings. Where a blend has no weights, the validation part chooses them,
        anew after each epoch.
    parts : Parts
        The ratings.
    devices : sequence of mxnet.Context
        To train on.
    seed : int
        Of the initial weights, the order of the rows and the dropout masks. MXNet's
        generator is seeded with it.
    trained : int
        Epochs that lie behind it.
    team : cluster.Team, optional
        Workers to train with.

    Attributes
    ----------
    members : list of Member
        One for each network.
    net : mxnet.gluon.Block
        The network; of a blend, what holds all of them.
    mixture : Mixture or None
        Of a blend's predictions.
    pretraining : iterator of Epoch
        What comes before, with one hidden layer.
    """

    def __init__(
        self,
        recipe: Recipe | Blend,
        parts: Parts,
        devices: Sequence[mx.Context],
        seed: int,
        trained: int = 0,
        team: Any = None,
    ) -> None:
        mx.random.seed(seed)
        self.recipe, self.parts, self.devices = recipe, parts, list(devices)
        self.trained = trained
        args = parts.train_mat, self.devices
        self.members = [
            Member(one, *args, (seed, number), trained, team)
            for number, one in enumerate(recipe.recipes)
        ]
        self.net, self.mixture = self.members[0].net, None
        if isinstance(recipe, Blend):
            self.net = gluon.nn.Sequential()
            self.net.add(*(member.net for member in self.members))
            self.mixture = Mixture(recipe, parts.train_mat)
        self.pretraining = chain.from_iterable(m.pretraining for m in self.members)

    @classmethod
    def of(
        cls, run: Run, devices: Sequence[mx.Context], trained: int = 0, team: Any = None
    ) -> "Training":
        """Make the training of a run; the arguments are those of the class."""
        return cls(run.recipe, run.parts, devices, run.seed, trained, team)

    def __getstate__(self) -> Any:
        """Refuse to be pickled."""
        raise TypeError(
            "a training cannot be pickled; keep what it learns by a Checkpoint, or its "
            "network by net.save_parameters(file)"
        )

    def epochs(self) -> Iterator[Epoch]:
        """Train, what is left of the pretraining first.

        An epoch's RMSE on the test and on the validation part is None without it.
        """
        for _ in self.pretraining:
            pass
        for number in range(self.trained + 1, self.recipe.num_epochs + 1):
            start = time.perf_counter()
            losses = []
            for member in self.members:
                for batch in member.batches:
                    member.step.learn(batch)
                losses.append(member.step.finish())
            seconds = time.perf_counter() - start
            scores: dict[str, Any] = {
                "training loss": float(np.mean([loss for loss, _ in losses])),
                "validation RMSE": self._score_validation(),
                "test RMSE": self.rmse(self.parts.test_mat),
            }
            for name, score in scores.items():
                check_finite(name, score, number)
            train_loss, valid_rmse, test_rmse = scores.values()
            examples = sum(
                count * member.num_columns // member.rows.shape[1]  # of all workers
                for member, (_, count) in zip(self.members, losses)
            )
            yield Epoch(number, train_loss, test_rmse, valid_rmse, seconds, examples)

    def patience(self, patience: int) -> EarlyStopping:
        """Make what ends the training after so many epochs without a new best.

        They count once it is better than biases, or after `STEPS_BEFORE_PATIENCE`.
        """
        assert self.parts.valid_mat is not None
        biases = baselines(self.parts.train_mat, self.parts.valid_mat)["biases"].rmse
        steps_per_epoch = min(member.steps_per_epoch for member in self.members)
        latest = math.ceil(STEPS_BEFORE_PATIENCE / steps_per_epoch)
        return EarlyStopping(patience, biases, latest)

    def choose(self, history: Sequence[Epoch]) -> tuple[Epoch, Recipe | Blend]:
        """Choose, on the validation part, what to train again on all ratings.

        That is the best epoch and a recipe that ends with it. Of a blend without
        weights it is the last epoch, as an earlier one would do well with the weights
        that were chosen on the same ratings, where these are few, and not with others;
        the recipe is then a blend of those that have a weight.
        """
        recipe, mixture = self.recipe, self.mixture
        if not (mixture and mixture.is_chosen):
            best = best_epoch(history)
            return best, recipe.changed(num_epochs=best.epoch)
        weights = mixture.weights
        kept = np.flatnonzero(weights) if weights.any() else np.array([0])
        recipes = tuple(recipe.recipes[i] for i in kept)
        blend = Blend(recipes, tuple(weights[kept].tolist()))
        return history[-1], blend.changed(num_epochs=history[-1].epoch)

    def rmse(self, held_out: sp.csr_matrix | None) -> float | None:
        """Score held-out ratings, if there are any."""
        if held_out is None:
            return None
        return rmse(self.predict(held_out), held_out.data)

    def predict(self, cells: sp.csr_matrix) -> np.ndarray:
        """Predict the ratings of cells, by the recipe's rule for cold ones.

        The matrix, (num_items, num_users), stores a value in each cell that is asked
        for. The ratings, (num_cells,), are in the order in which it stores them.
        """
        if self.mixture:
            return self.mixture.mixed(*self._predictions(cells))
        return self.members[0].predict(cells)

    def predict_pairs(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict the ratings of pairs of indices, in order; none occurs twice."""
        # A cell holds the place of its pair, from 1 as a matrix of 0 would be empty.
        places = np.arange(1, len(users) + 1)
        cells = sp.csr_matrix((places, (items, users)), self.parts.train_mat.shape)
        return self.predict(cells)[np.argsort(cells.data)]

    def parameters(self) -> dict[str, np.ndarray]:
        """Return a copy of the networks' parameters by Gluon's names, in its shapes.

        Of a blend, each name has its network's number before it. Of several workers,
        who all have to call this, the first one gets what all of them have, and the
        others nothing.
        """
        return self._named(member.parameters() for member in self.members)

    def state(self) -> dict[str, np.ndarray]:
        """Return the optimizers' state by name, as `parameters` does."""
        return self._named(member.state() for member in self.members)

    def load(
        self,
        parameters: Mapping[str, np.ndarray],
        state: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Go on from parameters and a state, as the two methods return them.

        A state of other networks or optimizers is a ValueError.
        """
        for prefix, member in zip(self.recipe.by_prefix, self.members):
            own = None if state is None else _beginning_with(prefix, state)
            member.load(_beginning_with(prefix, parameters), own)

    def _named(self, each: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {
            prefix + name: array
            for prefix, arrays in zip(self.recipe.by_prefix, each)
            for name, array in arrays.items()
        }

    def _predictions(self, cells: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Predict cells by the biases, and by each network, in their order."""
        assert self.mixture
        at = cells.tocoo()
        found = np.stack([member.predict(cells) for member in self.members])
        return self.mixture.biases.at(at.col, at.row), found

    def _score_validation(self) -> float | None:
        """Score the validation part, once it has chosen the weights if it is to."""
        valid_mat = self.parts.valid_mat
        if valid_mat is None:
            return None
        if self.mixture and self.mixture.is_chosen:
            levels, found = self._predictions(valid_mat)
            if not np.isfinite(found).all():
                return math.inf
            self.mixture.choose(levels, found, valid_mat.data)
        return self.rmse(valid_mat)


def _beginning_with(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }
