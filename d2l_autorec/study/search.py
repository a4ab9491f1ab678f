"""Choosing among estimators on a validation part."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import TrainingDiverged
from ..evaluators import accuracy
from ..training import VALID_RATIO, hold_out
from .estimators import Estimator


@dataclass(eq=False)
class GridSearch(Estimator):
    """The best of several estimators on a random tenth of the training ratings.

    Each is trained on the rest; the one with the lowest RMSE is then trained again on
    all training ratings. One that diverged counts as the worst.

    Parameters
    ----------
    ratings, devices
        As for `Estimator`.
    candidates : mapping of str to Estimator
        By their settings, in words.

    Attributes
    ----------
    errors : dict of str to float
        The RMSE of each.
    chosen : str
        The settings of the one that predicts.
    """

    candidates: Mapping[str, Estimator]
    errors: dict[str, float] = field(default_factory=dict, init=False)
    chosen: str = field(default="", init=False)

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        fit_rows, valid_rows = hold_out(train_rows, VALID_RATIO, seed)
        held_out = self.ratings.rating[valid_rows]
        self.errors.clear()
        for name, candidate in self.candidates.items():
            try:
                for _ in candidate.fit(fit_rows, seed):
                    yield 0
                error = accuracy(candidate.predict(valid_rows), held_out).rmse
            except TrainingDiverged:
                error = math.inf
            self.errors[name] = error
        self.chosen = min(self.errors, key=self.errors.__getitem__)
        yield from self._best.fit(train_rows, seed)

    def predict(self, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        return self._best.predict(rows)

    @property
    def title(self) -> str:
        """That of the candidates."""
        return self._best.title

    @property
    def settings(self) -> dict[str, Any]:
        """Those of each candidate."""
        found = {name: model.settings for name, model in self.candidates.items()}
        return {"model": type(self).__name__, "candidates": found}

    @property
    def num_parameters(self) -> int:  # noqa: D102
        return self._best.num_parameters

    @property
    def clips(self) -> bool:  # noqa: D102
        return any(candidate.clips for candidate in self.candidates.values())

    @property
    def _best(self) -> Estimator:
        # Before there is a choice, what they have in common is that of the first.
        return self.candidates[self.chosen or next(iter(self.candidates))]
