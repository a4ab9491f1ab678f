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
from dataclasses import replace
from functools import cached_property
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
from .run import Run
from .settings import LARGEST_WEIGHT, Blend

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
    """A run at work; of a blend, an epoch is one of each network.

    Parameters
    ----------
    run : Run
        What to train. Where a blend has no weights, the validation part chooses them,
        anew after each epoch. MXNet's generator is seeded with the run's seed.
    devices : sequence of mxnet.Context
        To train on.
    history : sequence of Epoch
        Those that lie behind it.
    team : cluster.Team, optional
        Workers to train with.

    Attributes
    ----------
    history : list of Epoch
        Those that have passed.
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
        run: Run,
        devices: Sequence[mx.Context],
        history: Sequence[Epoch] = (),
        team: Any = None,
    ) -> None:
        mx.random.seed(run.seed)
        self.run, self.devices, self.history = run, list(devices), [*history]
        train_mat = run.parts.train_mat
        self.members = [
            Member(one, train_mat, devices, (run.seed, number), len(history), team)
            for number, one in enumerate(run.recipe.recipes)
        ]
        self.net, self.mixture = self.members[0].net, None
        if isinstance(run.recipe, Blend):
            self.net = gluon.nn.Sequential()
            self.net.add(*(member.net for member in self.members))
            self.mixture = Mixture(run.recipe, train_mat)
        self.pretraining = chain.from_iterable(m.pretraining for m in self.members)

    def epochs(self) -> Iterator[Epoch]:
        """Train to the last epoch, or until the run's patience has come to its end.

        What is left of the pretraining comes first. An epoch's RMSE on the test and on
        the validation part is None without it.
        """
        for _ in self.pretraining:
            pass
        while len(self.history) < self.run.recipe.num_epochs and not self._is_over():
            number, start = len(self.history) + 1, time.perf_counter()
            losses = []
            for member in self.members:
                for batch in member.batches:
                    member.step.learn(batch)
                losses.append(member.step.finish())
            seconds = time.perf_counter() - start
            scores: dict[str, Any] = {
                "training loss": float(np.mean([loss for loss, _ in losses])),
                "validation RMSE": self._score_validation(),
                "test RMSE": self.rmse(self.run.parts.test_mat),
            }
            for name, score in scores.items():
                check_finite(name, score, number)
            train_loss, valid_rmse, test_rmse = scores.values()
            examples = sum(
                count * member.num_columns // member.rows.shape[1]  # of all workers
                for member, (_, count) in zip(self.members, losses)
            )
            done = Epoch(number, train_loss, test_rmse, valid_rmse, seconds, examples)
            self.history.append(done)
            yield done

    def _is_over(self) -> bool:
        """Tell whether the latest epochs, the run's patience of them, were no better.

        They count from the first epoch that is better than biases, or in any case after
        `STEPS_BEFORE_PATIENCE`: a network swings while it is finding the mean.
        """
        if not (self.run.patience and self.history):
            return False
        steps_per_epoch = min(member.steps_per_epoch for member in self.members)
        latest: int = math.ceil(STEPS_BEFORE_PATIENCE / steps_per_epoch)
        for epoch in self.history[:latest]:
            assert epoch.valid_rmse is not None
            if epoch.valid_rmse < self._rmse_of_biases:
                latest = epoch.epoch
                break
        best = best_epoch(self.history).epoch
        return len(self.history) - max(best, latest - 1) >= self.run.patience

    @cached_property
    def _rmse_of_biases(self) -> float:
        """Score biases on the validation part."""
        train_mat, valid_mat = self.run.parts.train_mat, self.run.parts.valid_mat
        return baselines(train_mat, valid_mat)["biases"].rmse

    def choose(self) -> tuple[Epoch, Run]:
        """Choose, on the validation part, what to train on all ratings.

        That is the best epoch and a run that ends with it, to whose split the epoch and
        its validation RMSE are added. Of a blend without weights it is the last epoch,
        as an earlier one would do well with the weights that were chosen on the same
        ratings, where these are few, and not with others; its recipe is then a blend of
        those that have a weight.
        """
        recipe, parts, epoch = self.run.recipe, self.run.parts, best_epoch(self.history)
        if self.mixture and self.mixture.is_chosen:
            weights, epoch = self.mixture.weights, self.history[-1]
            kept = np.flatnonzero(weights) if weights.any() else np.array([0])
            recipes = tuple(recipe.recipes[i] for i in kept)
            recipe = Blend(recipes, tuple(weights[kept].tolist()))
        chosen = {"chosen_epoch": epoch.epoch, "chosen_valid_rmse": epoch.valid_rmse}
        train_mat, split = parts.train_mat + parts.valid_mat, {**parts.split, **chosen}
        parts = replace(parts, train_mat=train_mat, valid_mat=None, split=split)
        recipe = recipe.changed(num_epochs=epoch.epoch)
        return epoch, replace(self.run, parts=parts, recipe=recipe, patience=None)

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
        shape = self.run.parts.train_mat.shape
        cells = sp.csr_matrix((places, (items, users)), shape)
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
        for prefix, member in zip(self.run.recipe.by_prefix, self.members):
            own = None if state is None else _beginning_with(prefix, state)
            member.load(_beginning_with(prefix, parameters), own)

    def _named(self, each: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {
            prefix + name: array
            for prefix, arrays in zip(self.run.recipe.by_prefix, each)
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
        valid_mat = self.run.parts.valid_mat
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
