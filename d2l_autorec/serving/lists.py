"""Lists of items with the highest scores, for one user after the other."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

    from .predictor import Predictor

# Scores that are computed at once: 2 MiB of each network's, which a cache may hold.
_CELLS = 2**19


def best_items(
    scores: np.ndarray,
    counts: np.ndarray,
    n: int,
    min_ratings: int = 1,
    excluded: Sequence[int] | np.ndarray = (),
) -> np.ndarray:
    """Return the indices of the n items with the highest scores, best first.

    Of equal ones, those with more training ratings, `counts`, come first. An item needs
    `min_ratings` of them, and at least one: nothing tells items without any apart.
    Scores are not clipped, which makes some equal.
    """
    n = min(n, len(scores))
    scores = np.where(counts >= max(min_ratings, 1), scores, -np.inf)
    scores[np.asarray(excluded, int)] = -np.inf
    least = np.partition(scores, -n)[-n]
    found = np.flatnonzero((scores >= least) & (scores > -np.inf))
    best: np.ndarray = found[np.lexsort((-counts[found], -scores[found]))[:n]]
    return best


def recommend_all(
    model: "Predictor",
    user_ids: Sequence[Any] | None = None,
    n: int = 10,
    include_rated: bool = False,
    unknown: str = "error",
    min_ratings: int = 1,
) -> "Iterator[pd.DataFrame]":
    """Recommend items to many users, some of them at a time.

    Parameters
    ----------
    model : Predictor
        What `load_model` returns.
    user_ids : sequence, optional
        Raw ids; by default all users with a training rating, and with
        ``unknown='item-mean'`` those without one, too.
    n, include_rated, unknown, min_ratings
        As for `Predictor.recommend`.

    Yields
    ------
    pandas.DataFrame
        For some users, in the order of `user_ids`, a row an item, best first:
        ``user_id``, ``place`` from 1, ``item_id``, ``rating`` as predicted (of a model
        of lists ``score``), and ``title`` where the data have any.

    Raises
    ------
    DataError
        For the first user without a training rating, unless item means are asked for.
    """
    run = model.run
    if user_ids is None:
        trained = np.unique(run.parts.train_mat.indices)
        user_ids = (
            run.parts.user_ids if unknown != "error" else run.parts.user_ids[trained]
        ).tolist()
    all_ids = list(user_ids)
    size = max(1, _CELLS // len(run.parts.item_ids))
    for start in range(0, len(all_ids), size):
        ids = all_ids[start : start + size]
        best = model.best_items(ids, n, include_rated, unknown, min_ratings)
        yield _table(model, ids, best)


def _table(
    model: "Predictor", user_ids: list[Any], best: Sequence[tuple[Any, Any]]
) -> "pd.DataFrame":
    import pandas as pd  # of no use to a training

    lengths = [len(items) for items, _ in best]
    indices, values = map(np.concatenate, zip(*best))
    items = model.run.parts.item_ids[indices]
    table = pd.DataFrame(
        {
            "user_id": pd.Index(user_ids).repeat(lengths),
            "place": np.concatenate([np.arange(1, size + 1) for size in lengths]),
            "item_id": items,
            model.recommendation._fields[1]: values,
        }
    )
    if titles := model.run.parts.titles:
        table["title"] = pd.Series(map(titles.get, items.tolist()), dtype=object)
    return table
