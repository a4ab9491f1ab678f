"""Choosing among estimators on a validation part."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import TrainingDiverged
from ..evaluators import accuracy
from ..training import VALID_RATIO, hold_out
from .estimators import Estimator


@dataclass(eq=False)
class GridSearch(Estimator):
    """The best of several estimators on a random tenth of the training ratings.

    Each is trained on the rest; the one with the lowest RMSE, of those in `errors`, is
    then trained again on all training ratings. One that diverged counts as the worst.
    """

    candidates: Mapping[str, Estimator]  # by their settings, in words

    def __post_init__(self) -> None:
        """Stand for the first candidate until one is chosen."""
        self._best = next(iter(self.candidates.values()))
        self.clips = any(candidate.clips for candidate in self.candidates.values())

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        fit_rows, valid_rows = hold_out(train_rows, VALID_RATIO, seed)
        held_out = self.ratings.rating[valid_rows]
        self.errors = {}
        for name, candidate in self.candidates.items():
            try:
                for _ in candidate.fit(fit_rows, seed):
                    yield 0
                error = accuracy(candidate.predict(valid_rows), held_out).rmse
            except TrainingDiverged:
                error = math.inf
            self.errors[name] = error
        self.chosen = min(self.errors, key=self.errors.__getitem__)
        self._best = self.candidates[self.chosen]
        yield from self._best.fit(train_rows, seed)
        self.num_parameters = self._best.num_parameters

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
