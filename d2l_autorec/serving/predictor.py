"""Predictions and recommendations from a trained model, by raw ids."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon
from ..errors import DataError
from ..training import Run
from .lists import best_items
from .reconstruction import Reconstruction

_log = logging.getLogger(__name__)
# A number that gets too large is an error of the model, and no warning beside it.
_QUIETLY: Any = {"over": "ignore", "invalid": "ignore"}


class Recommendation(NamedTuple):
    """An item, and how a user is predicted to rate it, in the unit of the file."""

    item_id: Any
    rating: float
    title: str | None


class Similar(NamedTuple):
    """An item that is like another one, with a similarity from -1 to 1."""

    item_id: Any
    similarity: float
    title: str | None


class Predictor:
    """Predicts ratings with a trained AutoRec.

    Parameters
    ----------
    net : AutoRec or mxnet.gluon.nn.Sequential
        Trained, on one device; of a blend, all of its networks.
    run : Run
        What it was trained on.

    Attributes
    ----------
    run : Run
    """

    # What a list is made of: an item, the value that it is there for, a title.
    recommendation: ClassVar[Any] = Recommendation

    def __init__(self, net: gluon.Block, run: Run) -> None:
        self.net, self.run = net, run
        self._model = Reconstruction(net, run.recipe, run.parts.train_mat)

    @np.errstate(**_QUIETLY)
    def recommend(
        self,
        user_id: Any,
        n: int = 10,
        include_rated: bool = False,
        unknown: str = "error",
        min_ratings: int = 1,
    ) -> list[Recommendation]:
        """Recommend the items that a user is predicted to rate highest.

        Parameters
        ----------
        user_id
            Raw id.
        n : int
            How many, at most.
        include_rated : bool
            Whether items may come up that the user has rated, in whichever part.
        unknown : {'error', 'item-mean'}
            As for `predict`.
        min_ratings : int
            Training ratings that an item needs to come up. It needs one in any case:
            nothing tells items without any from each other.

        Returns
        -------
        list of Recommendation
            Best first, before any clipping.

        Raises
        ------
        DataError
            If the user has no training rating.
        """
        how = n, include_rated, unknown, min_ratings
        (best,) = self.best_items([user_id], *how)
        return self._listed(self.recommendation, *best)

    def best_items(
        self,
        user_ids: Sequence[Any],
        n: int,
        include_rated: bool,
        unknown: str,
        min_ratings: int,
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        """Return each user's best items' indices, at most n, and their values."""
        offset = self.run.parts.rating_offset
        scores = self.scores(user_ids, unknown)
        best = []
        for row, user in zip(scores, map(self._index["user"].get, user_ids)):
            rated: Any = ()
            if user is not None and not include_rated:
                rated = self._rated[:, user].indices
            items = best_items(row, self._counts["item"], n, min_ratings, rated)
            values = self._model.clip(row[items].astype(float) + offset) - offset
            best.append((items, values))
        return best

    @np.errstate(**_QUIETLY)
    def scores(self, user_ids: Sequence[Any], unknown: str = "error") -> np.ndarray:
        """Predict what users would rate all items, before any clipping.

        Parameters
        ----------
        user_ids : sequence
            Raw ids.
        unknown : {'error', 'item-mean'}
            As for `predict`.

        Returns
        -------
        numpy.ndarray of float, shape (num_users, num_items)
            In the unit of the ratings file; of all items of `run`, in its order.

        Raises
        ------
        DataError
            For the first user without a training rating.
        """
        users = self._known(user_ids, "user", unknown)
        found = self._model.of_users(users)
        found[users < 0] = self._item_means
        return found - np.float32(self.run.parts.rating_offset)

    @np.errstate(**_QUIETLY)
    def similar(self, item_id: Any, n: int = 10, min_ratings: int = 1) -> list[Similar]:
        """List the items that the model takes for the most like one of them.

        Parameters
        ----------
        item_id
            Raw id.
        n, min_ratings
            As for `recommend`.

        Returns
        -------
        list of Similar
            Most similar first, without the item itself.

        Raises
        ------
        DataError
            If the item has no training rating.

        Notes
        -----
        Similarity is the cosine of the angle between the items' hidden layers, each
        less the mean one (all of them point the same way, as a sigmoid's values are
        positive). A user-based model has no hidden layer of an item; its decoder's
        weights of the item take their place. Several networks' lie side by side.
        """
        item = self._known([item_id], "item", "error")[0]
        trained = self._counts["item"] > 0
        vectors = self._model.item_vectors
        vectors = vectors - vectors[trained].mean(axis=0)
        lengths = np.linalg.norm(vectors, axis=1)
        # An item that is the mean of all is like none of them.
        tiny = np.finfo(np.float32).tiny
        cosines = vectors @ vectors[item] / np.maximum(lengths * lengths[item], tiny)
        best = best_items(cosines, self._counts["item"], n, min_ratings, [item])
        return self._listed(Similar, best, cosines[best].clip(-1, 1))

    @np.errstate(**_QUIETLY)
    def recommend_new(
        self,
        ratings: Mapping[Any, float] | Iterable[tuple[Any, float]],
        n: int = 10,
        include_rated: bool = False,
        min_ratings: int = 1,
    ) -> list[Recommendation]:
        """Recommend items to someone who was not in the training.

        Parameters
        ----------
        ratings : mapping, or iterable of (item_id, rating)
            Raw item id to the rating that the new user gave it, in the unit of the
            ratings file; of a model of lists an iterable of raw item ids. Items without
            a training rating are skipped, and a warning names them.
        n, include_rated, min_ratings
            As for `recommend`.

        Returns
        -------
        list of Recommendation
            Best first.

        Raises
        ------
        DataError
            If there are items, and none of them has a training rating; if one occurs
            twice, or a rating is outside the scale of the training ratings.
        ModelError
            If the model is item-based and its output is not the identity.

        Notes
        -----
        How the ratings are used is in ``serving/reconstruction.py``, ``of_new_user``.
        """
        rated, given = self._new_row(ratings)
        found = self._model.of_new_user(rated, given)
        left_out = rated[:0] if include_rated else rated
        best = best_items(found, self._counts["item"], n, min_ratings, left_out)
        ratings = self._model.clip(found[best]) - self.run.parts.rating_offset
        return self._listed(self.recommendation, best, ratings)

    def _new_row(self, ratings: Any) -> tuple[np.ndarray, np.ndarray]:
        """Check a new user's ratings; return their items' indices, and them shifted."""
        pairs = list(ratings.items() if isinstance(ratings, Mapping) else ratings)
        low, high = self.run.parts.rating_range
        slack = 1e-6 * max(abs(low), abs(high))  # float32 rounds the training's
        ids = [item_id for item_id, _ in pairs]
        for item_id, rating in pairs:
            if not low - slack <= rating <= high + slack:
                raise DataError(
                    f"rating {rating} of item {item_id!r} is outside the scale of the "
                    f"training ratings, {low:g} to {high:g}"
                )
        if repeated := [one for one, times in Counter(ids).items() if times > 1]:
            raise DataError(f"item {repeated[0]!r} is rated more than once")
        rated = self._new_items(ids)
        given = np.array([rating for _, rating in pairs], float)
        return rated[rated >= 0], given[rated >= 0] + self.run.parts.rating_offset

    def _new_items(self, ids: Sequence[Any]) -> np.ndarray:
        """Return the indices of a new user's items; of those to be skipped, -1."""
        found = self._known(ids, "item", "item-mean")
        if unknown := [one for one, at in zip(ids, found) if at < 0]:
            named = ", ".join(map(repr, unknown[:5]))
            more = f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
            said = f"not among the items of the training: {named}{more}"
            said += max(self._of_type(one, "item") for one in unknown)
            if len(unknown) == len(ids):
                raise DataError(said)
            _log.warning("skipped, as %s", said)
        return found

    def _of_type(self, raw_id: Any, noun: str) -> str:
        """Say if an unknown id would be known as one of the model's type."""
        kind = type(next(iter(self._index[noun])))
        with suppress(ValueError, TypeError, OverflowError):
            same = kind(raw_id)
            is_same = str(same) == str(raw_id) and same in self._index[noun]
            if is_same and type(raw_id) is not kind:
                return f"; the model's {noun}s are of type {kind.__name__}: {same!r}"
        return ""

    @np.errstate(**_QUIETLY)
    def predict(self, pairs: Any, unknown: str = "error") -> np.ndarray:
        """Predict single ratings.

        Parameters
        ----------
        pairs : pandas.DataFrame or iterable of (user_id, item_id)
            Raw ids; of a frame, the columns ``user_id`` and ``item_id``.
        unknown : {'error', 'item-mean'}
            What to do about a user or an item without a training rating: refuse, or
            give the mean of the item's training ratings (for an unknown item, of all).

        Returns
        -------
        numpy.ndarray of float64, shape (num_pairs,)
            In the unit of the ratings file; clipped only if the recipe says so.

        Raises
        ------
        DataError
            For the first unknown id.
        """
        if hasattr(pairs, "columns"):
            pairs = zip(pairs["user_id"], pairs["item_id"])
        user_ids, item_ids = zip(*found) if (found := list(pairs)) else ((), ())
        users = self._known(user_ids, "user", unknown)
        items = self._known(item_ids, "item", unknown)
        return self._ratings(users, items)

    def _ratings(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict cells (num_cells,) by indices; -1 is an unknown user or item."""
        mean = self.run.parts.train_mat.data.mean()
        predictions: np.ndarray = np.where(items < 0, mean, self._item_means[items])
        known = (users >= 0) & (items >= 0)
        predictions[known] = self._model.of_cells(users[known], items[known])
        return predictions - self.run.parts.rating_offset

    @cached_property
    def _counts(self) -> dict[str, np.ndarray]:
        """Count the training ratings of each user and of each item."""
        train_mat = self.run.parts.train_mat
        users = np.bincount(train_mat.indices, minlength=train_mat.shape[1])
        return {"user": users, "item": np.diff(train_mat.indptr)}

    @cached_property
    def _item_means(self) -> np.ndarray:
        sums = self.run.parts.train_mat.sum(axis=1, dtype=np.float64).A1
        means: np.ndarray = sums / np.maximum(self._counts["item"], 1)
        return means

    @cached_property
    def _rated(self) -> sp.csc_matrix:
        """Add up the parts: a column is what a user has rated in any of them."""
        parts = self.run.parts.matrices
        rated: sp.csc_matrix = sum(parts[1:], parts[0]).tocsc()
        return rated

    def _known(self, ids: Sequence[Any], noun: str, unknown: str) -> np.ndarray:
        """Translate raw ids to indices; -1 where there is no training rating."""
        if unknown not in ("error", "item-mean"):
            raise ValueError(f"unknown is 'error' or 'item-mean', not {unknown!r}")
        index, counts = self._index[noun], self._counts[noun]
        found = np.fromiter((index.get(raw_id, -1) for raw_id in ids), int, len(ids))
        trained = (found >= 0) & (counts[found] > 0)
        if unknown == "error" and not trained.all():
            raw_id = ids[int(np.argmin(trained))]
            if raw_id in index:
                raise DataError(f"{noun} {raw_id!r} has no rating in the training part")
            known = f"{len(index):,} {noun}s, such as {next(iter(index))!r}"
            said = self._of_type(raw_id, noun) or f"; the model knows {known}"
            raise DataError(f"unknown {noun} {raw_id!r}{said}")
        return np.where(trained, found, -1)

    @cached_property
    def _index(self) -> dict[str, dict[Any, int]]:
        """Map raw ids to their indices."""
        parts = self.run.parts
        return {
            noun: {raw_id: index for index, raw_id in enumerate(ids.tolist())}
            for noun, ids in (("user", parts.user_ids), ("item", parts.item_ids))
        }

    def _listed(self, kind: Any, items: Any, values: Any) -> list[Any]:
        """Name items by their raw ids and titles, each with its value between them."""
        ids = self.run.parts.item_ids[items].tolist()
        return [
            kind(item_id, value, self.run.parts.titles.get(item_id))
            for item_id, value in zip(ids, values.tolist())
        ]
