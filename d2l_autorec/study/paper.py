"""The AutoRec paper's experiments.

The protocol: a random tenth of the ratings is the test part, anew for each split; what
is tuned, the weight decay, is chosen on a tenth of the first split's training part, and
the model is then trained on the whole training part of each split. Predictions are
clipped to the rating scale; a user or an item without a training rating gets a 3. Each
trained model sees its test part once.

References
----------
S. Sedhain, A. K. Menon, S. Sanner, L. Xie, "AutoRec: Autoencoders Meet Collaborative
Filtering", WWW 2015. S. C. Han, T. Lim, S. Long, B. Burgstaller, J. Poon, "GLocal-K:
Global and Local Kernels for Recommender Systems", CIKM 2021.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..training import PRESETS, VALID_RATIO, Blend, Recipe, hold_out
from .records import Records
from .tables import markdown_table, spread

if TYPE_CHECKING:
    from ..ratings import Ratings
    from .estimators import Estimator

HIDDEN_UNITS = (10, 20, 40, 80, 100, 200, 300, 400, 500)
# What --only takes; "hidden" is the curve over the hidden units.
NAMES = (
    *("item", "user", "rprop", "identity-identity", "sigmoid-identity"),
    *("sigmoid-sigmoid", "deep", "one", "i-rbm", "u-rbm", "mf", "llorma"),
    *("best", "hidden"),
)
PROTOCOL = (
    "RMSE is pooled over the test part, a random tenth of the ratings; mean ± standard "
    "deviation over the splits. The weight decay (of the paper's objective: its "
    "lambda) was chosen on a tenth of the first split's training part where there was "
    "more than one to choose from; the model was then trained on each whole training "
    "part and scored once. Predictions are clipped to the rating scale; users and "
    "items without a training rating get a 3, or what --cold says."
)


@dataclass(frozen=True)
class Experiment:
    """A model of the study.

    Parameters
    ----------
    title : str
        What the tables call it.
    table : str
        Where in the paper it is.
    published : float or None
        Its RMSE on ML-1M there, or that of the work which `table` names.
    recipe : Recipe, Blend or None
        AutoRec's settings but for the weight decay; None for another model.
    wds : tuple of float or None
        The weight decays to choose from; None as for `Recipe`.
    num_splits : int, optional
        If fewer splits than the study's will do.
    cold : float or 'mean'
        Predicted where the user or the item has no training rating.
    other : mapping
        Of another model: ``model``, its class in `study`, and all of its settings but
        for the weight decay.
    """

    title: str
    table: str
    published: float | None
    recipe: Recipe | Blend | None
    wds: tuple[float | None, ...]
    num_splits: int | None = None
    cold: float | str = 3.0
    other: Mapping[str, Any] = field(default_factory=dict)

    def settings(self, wd: float | None) -> dict[str, Any]:
        """Spell a training's settings out, for the records."""
        if self.recipe is None:
            return {**self.other, "wd": wd, "cold": self.cold}
        recipe = asdict(self._recipe(wd))
        return json.loads(json.dumps(recipe))  # type: ignore[no-any-return]

    def _recipe(self, wd: float | None) -> Any:
        if isinstance(self.recipe, Blend):  # has what it needs
            return self.recipe
        assert self.recipe
        return self.recipe.changed(wd=wd, cold=self.cold)

    def cost(self) -> float:
        """Estimate how long a training takes, in a unit of its own."""
        if self.recipe is None:
            return 1.0
        cost = 0.0
        for one in self.recipe.recipes:
            hidden = one.num_hidden
            widest = hidden if isinstance(hidden, int) else hidden[0]
            num_epochs = one.num_epochs + one.pretrain_epochs
            cost += num_epochs * (widest + 100) / 30_000
        return cost * (2 if isinstance(self.recipe, Blend) else 1)

    def model(self, ratings: Ratings, wd: float | None) -> Estimator:
        """Make the model.

        Parameters
        ----------
        ratings : Ratings
            Says which users and items there are.
        wd : float or None
            Weight decay.

        Returns
        -------
        Estimator
        """
        from .. import study
        from ..loop import try_all_gpus

        devices = try_all_gpus()
        if self.recipe is None:
            settings = {**self.other, "wd": wd}
            made: Estimator = getattr(study, settings.pop("model"))(
                ratings, devices, **settings
            )
            return made
        blend = isinstance(self.recipe, Blend)
        kind = study.BlendAutoRec if blend else study.BookAutoRec
        return kind(ratings, devices, self._recipe(wd))


def experiments(quick: bool = False, cold: float | str = 3.0) -> dict[str, Experiment]:
    """List the experiments by the names that ``--only`` takes.

    Parameters
    ----------
    quick : bool
        Few epochs, and nothing to choose.
    cold : float or 'mean'
        As for `Experiment`.

    Returns
    -------
    dict of str to Experiment
        ``hidden-N`` are the points of the curve over the hidden units.
    """
    paper, best = PRESETS["paper"], PRESETS["best"]
    assert isinstance(paper, Recipe)
    rprop = replace(
        *(paper,),
        optimizer="rprop",
        lr=0.001,
        schedule="constant",
        batch_size=None,
        num_epochs=150,
    )
    user = replace(paper, kind="user", lr=0.001, num_epochs=80)
    linear = replace(rprop, activation="identity")
    deep = replace(paper, num_hidden=(500, 250, 500), pretrain_epochs=40, num_epochs=40)
    one = best.recipes[0].changed(
        **{"num_hidden": 800, "input_dropout": 0.0, "batch_size": 32},
        **{"leave_one_out": True, "balance": 0.3, "num_epochs": 40},
    )
    rbm = {
        **{"model": "RBM", "num_hidden": 200, "num_factors": 30, "lr": 0.02},
        **{"num_epochs": 15, "batch_size": 64},
    }
    mf = {"model": "BiasedMF", "num_factors": 200, "lr": 0.02, "num_epochs": 40}
    llorma = {
        **{"model": "LLORMA", "num_factors": 20, "lr": 0.05, "num_epochs": 24},
        **{"num_anchors": 50, "width": 2.5},
    }
    found = {
        "item": Experiment("I-AutoRec", "a, b, c", 0.831, paper, (150, 200, 300)),
        "user": Experiment("U-AutoRec", "a", 0.874, user, (100,)),
        "identity-identity": Experiment(
            "f identity, g identity", "b", 0.872, linear, (4000,)
        ),
        "sigmoid-identity": Experiment(
            "f sigmoid, g identity",
            *("b", 0.852, replace(linear, output="sigmoid"), (4000,)),
        ),
        "sigmoid-sigmoid": Experiment(
            "f sigmoid, g sigmoid",
            *("b", 0.836, replace(paper, output="sigmoid", lr=0.001), (250,)),
        ),
        "deep": Experiment("deep (500, 250, 500)", "text", 0.827, deep, (150,)),
        "one": Experiment("I-AutoRec, leave-one-out", "GLocal-K", 0.8227, one, (200,)),
        "rprop": Experiment("I-AutoRec, by Rprop", "a", 0.831, rprop, (250,), 1),
        "i-rbm": Experiment(
            "I-RBM", "a, c", 0.854, None, (0.02,), 2, other={**rbm, "kind": "item"}
        ),
        "u-rbm": Experiment(
            "U-RBM", "a, c", 0.881, None, (0.02,), 2, other={**rbm, "kind": "user"}
        ),
        "mf": Experiment("BiasedMF", "c", 0.845, None, (0.8, 1.0, 1.25), 2, other=mf),
        "llorma": Experiment("LLORMA", "c", 0.833, None, (0.25,), 2, other=llorma),
        "best": Experiment("--preset best", "GLocal-K", 0.8227, best, (None,)),
    }
    for units in HIDDEN_UNITS:
        found[f"hidden-{units}"] = Experiment(
            f"{units} hidden units",
            *("figure", None, replace(paper, num_hidden=units), (paper.wd,), 1),
        )
    found = {name: replace(e, cold=cold) for name, e in found.items()}
    if quick:
        for name, e in found.items():
            recipe = e.recipe and _quick(e.recipe)
            found[name] = replace(e, recipe=recipe, wds=e.wds[:1])
    return found


def _quick(recipe: Recipe | Blend) -> Recipe | Blend:
    if isinstance(recipe, Blend):
        return recipe.changed(num_epochs=5)
    # In so few epochs, it takes smaller batches and longer steps to get anywhere; of
    # all rows at once, an epoch is a single step.
    return replace(
        recipe,
        num_epochs=20 if recipe.batch_size else 100,
        pretrain_epochs=min(recipe.pretrain_epochs, 10),
        lr=0.005,
        batch_size=recipe.batch_size and 64,
    )


def fingerprint(ratings: Ratings) -> str:
    """Tell data sets apart by their ratings.

    Parameters
    ----------
    ratings : Ratings
        All of them, in their order, which the splits depend on.

    Returns
    -------
    str
        Their numbers and a checksum.
    """
    digest = hashlib.sha256()
    for index in ratings.indices():
        digest.update(index.astype("<i8").tobytes())
    digest.update(ratings.rating.astype("<f8").tobytes())
    return (
        f"{ratings.num_users} users, {ratings.num_items} items, "
        f"{ratings.num_ratings} ratings, SHA-256 {digest.hexdigest()[:16]}"
    )


class Study(Records):
    """Trainings that have been done, and doing the others.

    Parameters
    ----------
    ratings : Ratings
        All of them.
    file : pathlib.Path
        As for `Records`, with the ``title`` of each model.
    """

    def __init__(self, ratings: Ratings, file: Path) -> None:
        super().__init__(file, f"python -m d2l_autorec.paper --dataset {ratings.name}")
        self.ratings = ratings

    @cached_property
    def data(self) -> str:
        """The `fingerprint` of the ratings."""
        return fingerprint(self.ratings)

    def run(
        self,
        experiment: Experiment,
        wd: float | None,
        split: int,
        part: str,
        tick: Callable[[float, bool], None],
    ) -> float:
        """Train a model and score it, unless that has been done on these data.

        Parameters
        ----------
        experiment : Experiment
            Makes the model.
        wd : float or None
            Weight decay.
        split : int
            Seed of the split and of the model.
        part : {'validation', 'test'}
            What to score on. For the validation part, the model is trained on what is
            left of the training part.
        tick : callable
            Called after each epoch with how much of the training it was, from 0 to 1,
            and whether that had been done before.

        Returns
        -------
        float
            RMSE.
        """
        settings = experiment.settings(wd)
        asked: dict[str, Any] = {"split": split, "part": part, "settings": settings}
        if done := self.find_current(asked, self.data):
            tick(1.0, True)
            return float(done["rmse"])
        train_rows, held_out = self.parts(split, part)
        model = experiment.model(self.ratings, wd)
        start = time.perf_counter()
        for _ in model.fit(train_rows, split):
            tick(1 / model.num_ticks, False)
        seconds = time.perf_counter() - start
        rmse = protocol_rmse(model, train_rows, held_out, experiment.cold)
        found = {
            "title": experiment.title,
            "rmse": rmse,
            "seconds": round(seconds, 1),
        }
        self.keep(asked, self.data, found)
        return rmse

    def parts(self, split: int, part: str) -> tuple[np.ndarray, np.ndarray]:
        """Cut the ratings for a training.

        Parameters
        ----------
        split, part
            As for `run`.

        Returns
        -------
        train_rows, held_out : numpy.ndarray of int64
            To train on, and to score on.
        """
        from ..data import split_rows
        from ..loop import seed_everything

        seed_everything(split)
        train_rows, test_rows = split_rows(self.ratings.user_index)
        if part == "test":
            return train_rows, test_rows
        return hold_out(train_rows, VALID_RATIO, split)

    def choose(
        self, experiment: Experiment, tick: Callable[[float, bool], None]
    ) -> float | None:
        """Choose an experiment's weight decay on the first split's validation part.

        Parameters
        ----------
        experiment : Experiment
            With the candidates.
        tick : callable
            As for `run`.

        Returns
        -------
        float or None
            Of one candidate itself, of several the one with the lowest RMSE.
        """
        if len(experiment.wds) == 1:
            return experiment.wds[0]
        return min(
            experiment.wds,
            key=lambda wd: self.run(experiment, wd, 0, "validation", tick),
        )


def protocol_rmse(
    model: Estimator,
    train_rows: np.ndarray,
    held_out: np.ndarray,
    cold: float | str,
) -> float:
    """Score a model by the rules that are the same for all.

    Parameters
    ----------
    model : Estimator
        Trained on `train_rows`.
    train_rows, held_out : numpy.ndarray of int64
        Rows of its ratings; predictions are clipped to the range of the former.
    cold : float or 'mean'
        Predicted for users and items that are not in `train_rows`.

    Returns
    -------
    float
        Pooled over `held_out`.
    """
    from ..evaluators import accuracy

    ratings = model.ratings
    rating = ratings.rating[train_rows].astype(np.float64)
    predictions = model.predict(held_out).clip(rating.min(), rating.max())
    for tested, trained in zip(ratings.indices(held_out), ratings.indices(train_rows)):
        unknown = ~np.isin(tested, trained)
        predictions[unknown] = rating.mean() if cold == "mean" else cold
    return accuracy(predictions, ratings.rating[held_out]).rmse


class Row(NamedTuple):
    """What came out of an experiment.

    Attributes
    ----------
    experiment : Experiment
    wd : float or None
        That was chosen.
    rmse : list of float
        On the test part of each split.
    """

    experiment: Experiment
    wd: float | None
    rmse: list[float]


def report(rows: Mapping[str, Row], dataset: str, command: str) -> str:
    """Write the results down as Markdown.

    Parameters
    ----------
    rows : mapping of str to Row
        By the experiments' names.
    dataset : str
        Published figures are shown beside ML-1M's.
    command : str
        That prints them again.

    Returns
    -------
    str
    """
    header = ("model", "table", "published", "RMSE here", "", "splits", "weight decay")
    cells = [header]
    for row in rows.values():
        published = row.experiment.published if dataset == "ml-1m" else None
        cells.append(
            (
                row.experiment.title,
                row.experiment.table,
                f"{published:g}" if published else "",
                spread(row.rmse, ".4f"),
                _verdict(row.rmse, published),
                str(len(row.rmse)),
                "by size" if row.wd is None else f"{row.wd:g}",
            )
        )
    return f"{dataset}:\n\n{markdown_table(cells)}\n\n{PROTOCOL}\n\n{command}\n"


def _verdict(rmse: Sequence[float], published: float | None) -> str:
    if published is None:
        return ""
    return "reached" if statistics.mean(rmse) <= published else "not reached"
