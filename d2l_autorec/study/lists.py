"""The models of lists by name, with their settings, and how each is trained.

The notation is that of `contenders`: ``ease`` is a model as it is, ``ease:l2=300`` one
with a setting of its own; of ``ease:l2=250/500`` a tenth of the training pairs chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from .. import topn
from ..errors import DataError
from ..serving import pairs_to_fit
from ..training import NON_NEGATIVE_INT, SETTINGS, Parts, Setting
from .contenders import in_words, read_settings

Tick = Callable[[str, int, int], Any]
_WORDS = {"objective": ("logistic", "squared")}
_HIDDEN = 0.2  # of the pairs of a user who is held out


class ListModel(NamedTuple):
    """A model of lists with its settings.

    Attributes
    ----------
    name : str
        As it was given.
    candidates : list of TopN
        The models to choose from: one, or one for each combination of values; none for
        the mixture, which brings its own.
    """

    name: str
    candidates: Sequence[topn.TopN]

    @classmethod
    def parse(cls, text: str) -> ListModel:
        """Read a model in this module's notation.

        Raises
        ------
        ValueError
            If there is no such model, or it has no such setting.
        """
        name, *parts = text.split(":")
        if name not in topn.MODELS:
            raise ValueError(f"{name!r} is not one of {', '.join(topn.MODELS)}")
        given = dict(part.partition("=")[::2] for part in parts)
        model: type[topn.TopN] = getattr(topn, topn.MODELS[name])
        mixed = model is topn.Mixture
        accepted = {} if mixed else _accepted(model)
        candidates = []
        for values in product(*(value.split("/") for value in given.values())):
            settings = dict(zip(given, values))
            candidates.append(model(**read_settings(name, settings, accepted)))
        named = f"{name}, {in_words(given)}" if given else name
        return cls(named, [] if mixed else candidates)

    def fit(
        self,
        parts: Parts,
        seed: int,
        choosing: bool = False,
        tick: Tick = lambda doing, epoch, num_epochs: None,
    ) -> topn.TopN:
        """Choose if there is something to choose; train on all pairs.

        Parameters
        ----------
        parts : Parts
            With features of the items for CVAE.
        seed : int
        choosing : bool
            Whether a tenth of the pairs is to choose the epochs of a single model, too.
        tick : callable
            Is told what is being done, and how many epochs of how many have passed.

        Returns
        -------
        TopN
            Fitted.
        """
        train_mat, candidates = pairs_to_fit(parts), self.candidates
        readers = [one for one in candidates if isinstance(one, topn.CVAE)]
        if readers and parts.features:
            texts = [parts.features.get(item, "") for item in parts.item_ids.tolist()]
            words = topn.bag_of_words(texts)
            candidates = [replace(one, words=words) for one in readers]
        model = replace(candidates[0]) if candidates else None
        if model is None or choosing or len(candidates) > 1:
            options = [candidates] if candidates else topn.CANDIDATES
            several = [one for among in options for one in among]
            counted = _Counted("choosing on a tenth of the pairs", several, tick)
            mixture = topn.choose(train_mat, seed, options, counted.count)
            model = mixture.members[0] if candidates else mixture
        members = model.members if isinstance(model, topn.Mixture) else [model]
        counted = _Counted("training on all pairs", members, tick)
        return model.fit(train_mat, seed, counted.count)


class _Counted:
    """Counts the epochs of several networks, one after the other."""

    def __init__(self, doing: str, models: Sequence[topn.TopN], tick: Tick) -> None:
        self._doing, self._tick, self._passed = doing, tick, 0
        self._num_epochs = sum(getattr(one, "num_epochs", 0) for one in models)
        tick(doing, 0, self._num_epochs)

    def count(self, epoch: int) -> None:
        """Count an epoch, whatever its number."""
        self._passed += 1
        self._tick(self._doing, self._passed, self._num_epochs)


def cut_users(
    user_index: np.ndarray, test_ratio: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out whole users: rows to train on and be given, and rows to find.

    Of the share `test_ratio` of the users, a fifth of the pairs is to be found. A
    `DataError` if that is none.
    """
    rng = np.random.default_rng(seed)
    users = np.unique(user_index)
    number = max(1, round(test_ratio * len(users)))
    held_out = np.isin(user_index, rng.permutation(users)[:number])
    hidden = held_out & (rng.random(len(user_index)) < _HIDDEN)
    if not hidden.any():
        raise DataError(f"{len(users):,} users are too few to hold some of them out")
    return np.flatnonzero(~hidden), np.flatnonzero(hidden)


def _accepted(model: type[topn.TopN]) -> dict[str, Setting]:
    """Describe a model's settings: one value of the kind of its default each."""
    found = {}
    for name, default in model().settings.items():
        if isinstance(default, str):
            found[name] = Setting(words=dict(zip(_WORDS[name], _WORDS[name])))
        else:
            usual = NON_NEGATIVE_INT if isinstance(default, int) else SETTINGS["wd"]
            found[name] = replace(SETTINGS.get(name, usual), words={}, several=False)
    return found
