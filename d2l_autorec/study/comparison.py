"""Comparing models: one split, one measure, one list of seeds for all of them."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..data import split_rows
from ..errors import DataError
from ..evaluators import accuracy
from ..loop import seed_everything
from ..mf import mf_evaluator, mf_pooled_evaluator
from ..ratings import Ratings, load_folds_ml100k
from .estimators import BookMF, Estimator
from .lists import cut_users
from .ranking import ranking
from .tables import against, markdown_table, spread

# The models that others have to be better than.
SIMPLE = ("mean", "biases", "mf", "biased-mf")
FOLDS = ("u1", "u2", "u3", "u4", "u5")  # of ML-100K


class Split(NamedTuple):
    """One split and one seed, which every model meets alike.

    Attributes
    ----------
    name : str
        ``'seed 0'``, or with a fold ``'u1, seed 0'`` or ``'fold 1, seed 0'``.
    seed : int
        Of the models, and of a random split.
    ratings : Ratings
        All of them.
    train_rows, test_rows : numpy.ndarray of int64
        Its rows in the two parts.
    """

    name: str
    seed: int
    ratings: Ratings
    train_rows: np.ndarray
    test_rows: np.ndarray

    def cold_rows(self) -> dict[str, np.ndarray]:
        """Mark the test ratings, (num_ratings,), of users and items without others."""
        train, test = map(self.ratings.indices, (self.train_rows, self.test_rows))
        users, items = (~np.isin(*parts) for parts in zip(test, train))
        return {"users": users, "items": items}

    def cold(self) -> dict[str, Any]:
        """List these users and items, and count their test ratings."""
        rows, table = self.cold_rows(), self.ratings
        users, items = table.indices(self.test_rows)
        return {
            "users": table.user_ids[np.unique(users[rows["users"]])].tolist(),
            "items": table.item_ids[np.unique(items[rows["items"]])].tolist(),
            "ratings": int((rows["users"] | rows["items"]).sum()),
        }


class Score(NamedTuple):
    """How a model did in a run.

    Attributes
    ----------
    measures : dict of str to float
        ``'rmse'`` and ``'mae'``, pooled over the test ratings, in the unit of the
        ratings; and those of `ranking`, if they were asked for.
    curve : list of float
        The RMSE after each epoch, if it was asked for.
    seconds : float
        Spent on training, with the choice of settings, without scoring.
    num_parameters, chosen, weights
        As of `Estimator`.
    cold : mapping of str to list of float
        The lowest and the highest prediction for ``'users'``, and for ``'items'``, that
        have no training rating, where the test part has some; in the unit of the file.
    predictions : numpy.ndarray or None
        Of the test ratings.
    """

    measures: dict[str, float]
    curve: list[float]
    seconds: float
    num_parameters: int
    chosen: str = ""
    weights: Sequence[float] = ()
    cold: Mapping[str, list[float]] = {}
    predictions: np.ndarray | None = None

    def as_dict(self) -> dict[str, Any]:
        """Lay all but the predictions out for JSON, each measure by its name."""
        found = self._replace(predictions=None)._asdict()
        del found["predictions"]
        return {**found.pop("measures"), **found}


def make_splits(
    ratings: Ratings,
    splits: str,
    seeds: Sequence[int],
    data_dir: str | None = None,
    test_ratio: float = 0.1,
) -> Iterator[Split]:
    """Split the ratings, once for all models.

    Parameters
    ----------
    ratings : Ratings
        All of them.
    splits : {'random', 'seq-aware', 'users', 'u1', ..., 'u5', 'u1-u5', 'N-fold'}
        As for `split_rows`; a share of the users, as `cut_users` does; a fold of
        ML-100K, or all five; or N random parts of about equal size, each of which is a
        test part once.
    seeds : sequence of int
        Each makes one run, or one a fold.
    data_dir : str, optional
        Where the folds are, as for `load_dataset`.
    test_ratio : float
        Share of the ratings that is held out at random, or of the users.

    Yields
    ------
    Split

    Raises
    ------
    DataError
        If there are no such folds, or a part would be empty.
    """
    if splits[:2] in FOLDS:
        if ratings.name != "ml-100k":
            raise DataError(f"the folds u1-u5 are ml-100k's; {ratings.name} has none")
        for name, parts in zip(FOLDS, load_folds_ml100k(data_dir)):
            for seed in seeds if splits in ("u1-u5", name) else ():
                yield Split(f"{name}, seed {seed}", seed, ratings, *parts)
        return
    for seed in seeds:
        if splits.endswith("-fold"):
            yield from _folds(ratings, int(splits[: -len("-fold")]), seed)
            continue
        seed_everything(seed)
        if splits == "users":
            parts = cut_users(ratings.user_index, test_ratio, seed)
        else:
            how = splits, test_ratio
            parts = split_rows(ratings.user_index, ratings.timestamp, *how)
        yield Split(f"seed {seed}", seed, ratings, *parts)


def _folds(ratings: Ratings, num_folds: int, seed: int) -> Iterator[Split]:
    size = ratings.num_ratings
    if size < num_folds:
        raise DataError(f"{size} ratings are too few for {num_folds} folds")
    fold = np.random.default_rng(seed).permutation(size) % num_folds
    for n in range(num_folds):
        parts = np.flatnonzero(fold != n), np.flatnonzero(fold == n)
        yield Split(f"fold {n + 1}, seed {seed}", seed, ratings, *parts)


def score(
    model: Estimator,
    run: Split,
    tick: Callable[[int], None] = lambda epoch: None,
    ranked: bool = False,
    with_curve: bool = True,
) -> Score:
    """Train a model on a run's training part, and score it on the test part.

    Parameters
    ----------
    model : Estimator
        It is shown the rows of the training part and of those to predict.
    run : Split
        The two parts.
    tick : callable, optional
        Called with what `Estimator.fit` yields, after each epoch.
    ranked : bool
        Whether to measure rankings, too, where a held-out rating that is at least the
        mean of the training ratings makes an item relevant.
    with_curve : bool
        Whether to score the model after each epoch, too.

    Returns
    -------
    Score

    Raises
    ------
    TrainingDiverged
        If the model does not predict finite numbers.
    """
    rating, rows = run.ratings.rating, run.test_rows
    curve = []
    start, scoring = time.perf_counter(), 0.0
    with np.errstate(all="ignore"):  # what is not finite in the end is refused
        for epoch in model.fit(run.train_rows, run.seed):
            paused = time.perf_counter()
            tick(epoch)
            if epoch and with_curve:
                curve.append(accuracy(model.predict(rows), rating[rows]).rmse)
            scoring += time.perf_counter() - paused
        seconds = time.perf_counter() - start - scoring
        predictions = model.predict(rows)
        measures = accuracy(predictions, rating[rows])._asdict()
    if ranked:
        relevant = rating[rows] >= rating[run.train_rows].mean(dtype=np.float64)
        user_index, _ = run.ratings.indices(rows)
        measures |= ranking(predictions, user_index, relevant, run.seed)
    shifted = predictions - run.ratings.rating_offset
    cold = {noun: shifted[marked] for noun, marked in run.cold_rows().items()}
    ends = {n: [float(p.min()), float(p.max())] for n, p in cold.items() if p.size}
    learned = model.num_parameters, model.chosen, model.weights
    return Score(measures, curve, seconds, *learned, ends, predictions)


def book_protocol(model: BookMF, ratings: Ratings, seed: int) -> dict[str, float]:
    """Score matrix factorization as the book does: another split, another measure.

    The model is trained anew. ``averaged`` is the figure that the book prints;
    ``pooled`` is the RMSE of the same training.
    """
    run = next(make_splits(ratings, "seq-aware", [seed]))
    for _ in model.fit(run.train_rows, run.seed):
        pass
    scored = (model.net, model.batches(run.test_rows), model.devices)
    return {
        "averaged": mf_evaluator(*scored),
        "pooled": mf_pooled_evaluator(*scored),
    }


def results_table(
    scores: Mapping[str, Sequence[Score]],
    titles: Mapping[str, str],
    rival: str | None = None,
) -> str:
    """Lay the scores by model, run by run, out as a Markdown table.

    Each cell is mean ± sample standard deviation over the runs. Models are set beside a
    rival, if there is one, as `against` does.
    """
    measures = [*next(iter(scores.values()))[0].measures]
    header = [name.upper() if name in ("rmse", "mae") else name for name in measures]
    if rival:
        header += [f"RMSE against {titles[rival]}", "won"]
    rows = [("model", *header, "parameters", "seconds")]
    rmse = {name: [s.measures["rmse"] for s in runs] for name, runs in scores.items()}
    for name, runs in scores.items():
        cells = [spread([s.measures[m] for s in runs]) for m in measures]
        if rival:
            cells += ["", ""] if name == rival else against(rmse[name], rmse[rival])
        size = f"{runs[0].num_parameters:,}"
        seconds = f"{statistics.mean(s.seconds for s in runs):.1f}"
        rows.append((titles[name], *cells, size, seconds))
    return markdown_table(rows)


def best_simple(scores: Mapping[str, Sequence[Score]]) -> str | None:
    """Name the simple model with the lowest RMSE over all runs, if there is one."""
    errors = {
        name: statistics.mean(s.measures["rmse"] for s in runs)
        for name, runs in scores.items()
        if name.partition(":")[0] in SIMPLE
    }
    return min(errors, key=errors.__getitem__, default=None)
