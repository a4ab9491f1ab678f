"""A blend: different networks trained side by side, and the mixture of what they say.

References
----------
L. Breiman, "Stacked Regressions", Machine Learning 24, 1996, for weights that are not
below 0. A. Töscher, M. Jahrer, R. Bell, "The BigChaos Solution to the Netflix Grand
Prize", 2009, for blends of different models of ratings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx
from ..curve import Epoch
from ..evaluators import rmse
from ..loop import check_finite
from .biases import Biases
from .settings import Blend, Recipe
from .training import Parts, Team, Training, range_of


class Mixture:
    """What becomes of several networks' predictions.

    Parameters
    ----------
    recipe : Blend
        The settings.
    train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        Ratings to learn from.

    Attributes
    ----------
    biases : Biases
        What the networks' predictions are compared with.
    weights : numpy.ndarray of float64, shape (num_networks,)
        Of how they differ from it.
    """

    def __init__(self, recipe: Blend, train_mat: sp.csr_matrix) -> None:
        self.biases = Biases(train_mat)
        size = len(recipe.recipes)
        self.weights = np.array(recipe.weights or [1 / size] * size)
        clip = all(one.clip for one in recipe.recipes)
        self._range = range_of(train_mat) if clip else None

    def choose(self, levels: np.ndarray, found: np.ndarray, rating: np.ndarray) -> None:
        """Choose the weights by least squares, none of them below 0.

        Parameters
        ----------
        levels, found
            As for `mixed`.
        rating : numpy.ndarray, shape (num_cells,)
            What the ratings are.
        """
        from scipy.optimize import nnls  # of no use to others

        self.weights, _ = nnls((found - levels).T, rating - levels)

    def mixed(
        self, levels: np.ndarray, found: np.ndarray, clip: bool = True
    ) -> np.ndarray:
        """Mix predictions.

        Parameters
        ----------
        levels : numpy.ndarray, shape (...)
            The predictions of the biases.
        found : numpy.ndarray, shape (num_networks, ...)
            Those of the networks.
        clip : bool
            Whether to hold them to the range of the ratings, if all recipes say so.

        Returns
        -------
        numpy.ndarray of float64, shape (...)
        """
        rest = 1 - self.weights.sum()
        predictions = rest * levels + np.tensordot(self.weights, found, 1)
        if clip and self._range:
            predictions = predictions.clip(*self._range)
        return np.asarray(predictions)


class BlendTraining(Training):
    """A blend at work: an epoch is one of each recipe.

    Parameters
    ----------
    recipe : Blend
        The settings.
    parts, devices, seed, trained, team
        As for `Training`. Where the blend has no weights, the validation part chooses
        them, anew after each epoch.

    Attributes
    ----------
    members : list of Training
        One for each recipe.
    mixture : Mixture
        Of their predictions.
    net : mxnet.gluon.nn.Sequential
        Holds their networks.
    """

    def __init__(
        self,
        recipe: Blend,
        parts: Parts,
        devices: Sequence[mx.Context],
        seed: int | None = None,
        trained: int = 0,
        team: Team | None = None,
    ) -> None:
        parts = parts.checked()
        self.recipe, self.parts, self.devices = recipe, parts, list(devices)
        self.trained, self.team = trained, team
        alone = Parts(parts.train_mat)
        self._take(
            Training(one, alone, devices, seed, trained, team) for one in recipe.recipes
        )
        self.mixture = Mixture(recipe, parts.train_mat)
        self.biases = self.mixture.biases
        self.pretraining = chain.from_iterable(one.pretraining for one in self.members)
        self.steps_per_epoch = min(one.steps_per_epoch for one in self.members)

    def _take(self, members: Iterable[Training]) -> None:
        self.members = list(members)
        net = gluon.nn.Sequential()
        net.add(*(one.net for one in self.members))
        self.net = net
        self.trainers = [one.trainer for one in self.members]

    @property
    def net(self) -> Any:
        """Holds the members' networks; others that are assigned become theirs."""
        return self._net

    @net.setter
    def net(self, net: Any) -> None:
        self._net = net
        for member, one in zip(self.members, net):
            member.net = one

    @cached_property
    def whole(self) -> Training:
        """Itself; with a team, a blend of what is `whole` of its members."""
        if self.team is None:
            return self
        whole = object.__new__(BlendTraining)
        vars(whole).update(vars(self))
        whole.team = None
        whole._take(one.whole for one in self.members)
        return whole

    def gathered(self, with_state: bool = True) -> Training | None:
        """Bring `whole` up to date; see `Training.gathered`."""
        found = [one.gathered(with_state) for one in self.members]
        return None if None in found else self.whole

    def scatter(self) -> None:
        """Go on from what has been put into `whole`; see `Training.scatter`."""
        for one in self.members:
            one.scatter()
        if self.team and self.team.rank:
            del self.whole

    def _trained_epochs(self) -> Iterator[Epoch]:
        test_mat, valid_mat = self.parts.test_mat, self.parts.valid_mat
        for epochs in zip(*(one.epochs() for one in self.members)):
            valid_rmse = None
            if valid_mat is not None:
                found = self._predictions(valid_mat)
                largest = float(np.abs(found[1]).max())
                check_finite("largest prediction", largest, epochs[-1].epoch)
                if self.recipe.weights is None:
                    self.mixture.choose(*found, valid_mat.data)
                valid_rmse = rmse(self.mixture.mixed(*found), valid_mat.data)
            last = epochs[-1]
            yield last._replace(
                train_loss=float(np.mean([epoch.train_loss for epoch in epochs])),
                test_rmse=self.rmse(test_mat),
                valid_rmse=valid_rmse,
                seconds=sum(epoch.seconds for epoch in epochs),
                examples=sum(epoch.examples for epoch in epochs),
            )

    def choose(self, history: Sequence[Epoch]) -> tuple[Epoch, Blend]:
        """Choose the last epoch, and of the recipes those that have a weight then.

        An earlier one would do well with the weights that were chosen on the same
        ratings, where these are few, and not with others.
        """
        weights = self.mixture.weights
        kept = np.flatnonzero(weights) if weights.any() else [0]
        recipes = tuple(self.recipe.recipes[i] for i in kept)
        blend = Blend(recipes, tuple(weights[kept].tolist()))
        return history[-1], blend.changed(num_epochs=history[-1].epoch)

    def predict(self, cells: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Predict the ratings of cells, in their order; see `Training.predict`."""
        return self.mixture.mixed(*self._predictions(cells)), cells.data

    def _predictions(self, cells: sp.csr_matrix) -> tuple[np.ndarray, np.ndarray]:
        """Predict cells by the biases, and by each network."""
        at = cells.tocoo()
        found = [one.predict_pairs(at.col, at.row) for one in self.members]
        return self.mixture.biases.at(at.col, at.row), np.stack(found)


def make_training(recipe: Recipe | Blend, *args: Any) -> Training:
    """Make the kind of training that a recipe needs.

    Parameters
    ----------
    recipe : Recipe or Blend
        The settings.
    *args
        As for `Training`.

    Returns
    -------
    Training
    """
    if isinstance(recipe, Blend):
        return BlendTraining(recipe, *args)
    return Training(recipe, *args)
