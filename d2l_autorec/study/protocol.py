"""Training and scoring by the paper's protocol."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..loop import try_all_gpus
from ..ratings import Ratings
from ..training import VALID_RATIO, hold_out
from .comparison import make_splits
from .estimators import Estimator
from .paper import Experiment
from .records import Records, fingerprint

Tick = Callable[[int], None]


@dataclass(eq=False)
class PaperProtocol(Estimator):
    """A model whose predictions are clipped, and replaced for cold users and items."""

    model: Estimator
    cold: float | str = 3.0  # or 'mean', that of the training ratings

    clips = True

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        self.train_rows = train_rows
        return self.model.fit(train_rows, seed)

    def predict(self, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        rating = self.ratings.rating[self.train_rows].astype(np.float64)
        cold = rating.mean() if self.cold == "mean" else self.cold
        predictions = self.model.predict(rows).clip(rating.min(), rating.max())
        known = map(self.ratings.indices, (rows, self.train_rows))
        for index, trained in zip(*known):
            predictions[~np.isin(index, trained)] = cold
        return predictions

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the model, and the prediction for cold users and items."""
        return {**self.model.settings, "cold": self.cold}


class Study(Records):
    """The records of the paper's experiments on a data set, and doing the others."""

    def __init__(self, ratings: Ratings, file: Path) -> None:
        super().__init__(file, f"python -m d2l_autorec.paper --dataset {ratings.name}")
        self.ratings, self.data = ratings, fingerprint(ratings)

    def runs(
        self,
        experiment: Experiment,
        num_splits: int,
        tick: Tick = lambda epoch: None,
    ) -> Iterator[tuple[float | None, dict[str, Any]]]:
        """Do an experiment; yield the weight decay and the record of each training.

        Of several weight decays, those that choose one on a validation part come first.
        """
        errors = {}
        for wd in experiment.wds if len(experiment.wds) > 1 else ():
            record = self.run(experiment, wd, 0, "validation", tick)
            errors[wd] = record["rmse"]
            yield wd, record
        wd = min(errors, key=errors.__getitem__, default=experiment.wds[0])
        for seed in experiment.seeds(num_splits):
            yield wd, self.run(experiment, wd, seed, "test", tick)

    def run(
        self,
        experiment: Experiment,
        wd: float | None,
        seed: int,
        part: str,
        tick: Tick = lambda epoch: None,
    ) -> dict[str, Any]:
        """Score a model on a split's test part, or on one of its training part."""
        split = next(make_splits(self.ratings, "random", [seed]))
        if part == "validation":
            parts = hold_out(split.train_rows, VALID_RATIO, seed)
            split = split._replace(train_rows=parts[0], test_rows=parts[1])
        model = experiment.make(self.ratings, try_all_gpus(), wd)
        about = {"title": experiment.title, "dataset": self.ratings.name, "part": part}
        return self.score(model, split, {**about, "data": self.data}, tick)
