"""Predictions and recommendations from a trained model.

AutoRec predicts a rating by reconstructing the item's row of training ratings and
reading the user's cell. The hidden layer of an item does not depend on the user, and
the cell needs only the user's own row of the decoder's weights, so that the matrix of
all users and all items is never built. With users and items exchanged, the same holds
for a user-based model.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd
import scipy.sparse as sp

from .._mxnet import autograd, one_at_a_time
from ..errors import DataError, ModelError
from ..fast import deepen, members, on_device
from ..loop import try_all_gpus
from ..model import AutoRec
from ..training import Average, Biases, Run, range_of
from .folder import Checkpoint

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Recommendation(NamedTuple):
    """An item for a user.

    Attributes
    ----------
    item_id
        Raw id.
    rating : float
        Predicted, in the unit of the ratings file.
    title : str or None
        Where the data set has one.
    """

    item_id: Any
    rating: float
    title: str | None


def load_model(directory: str | Path) -> Predictor:
    """Load a trained model.

    Parameters
    ----------
    directory : path
        That a training saved to.

    Returns
    -------
    Predictor
        With the parameters of the best epoch on the validation part, or of the last
        one where there is no such part.

    Raises
    ------
    ModelError
        If there is no model, a file of it is damaged or missing, or it has another
        version's format.
    """
    checkpoint = Checkpoint.open(directory)
    return Predictor(checkpoint.network(try_all_gpus()[:1]), checkpoint.run)


def _finitely(function: _Function) -> _Function:
    """Let a prediction be an error where numbers get too large, and no warning."""

    @functools.wraps(function)
    def predict(*args: Any, **kwargs: Any) -> Any:
        with np.errstate(over="ignore", invalid="ignore"):
            try:
                return function(*args, **kwargs)
            except np.linalg.LinAlgError as error:
                raise ModelError("the model predicts no finite numbers") from error

    return predict  # type: ignore[return-value]


class Predictor:
    """Predicts ratings with a trained AutoRec.

    Parameters
    ----------
    net : AutoRec or Average
        Trained, on one device.
    run : Run
        What it was trained on.

    Attributes
    ----------
    run : Run
    """

    def __init__(self, net: AutoRec | Average, run: Run) -> None:
        self.net, self.run = net, run
        self._biases = Biases(run.train_mat) if run.recipe.residual else None

    @_finitely
    def recommend(
        self,
        user_id: Any,
        n: int = 10,
        include_rated: bool = False,
        unknown: str = "error",
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

        Returns
        -------
        list of Recommendation
            Best first, before any clipping. Items without a training rating are left
            out: nothing tells one of them from another.

        Raises
        ------
        DataError
            If the user has no training rating.
        """
        user = self._known([user_id], "user", unknown)[0]
        if user < 0:
            return self._best(self._item_means[None], [], n)
        rated = [] if include_rated else self._rated[:, user].indices
        sums = [items @ users[user] for users, items in zip(self._users, self._items)]
        levels = self._biases.at(user, slice(None)) if self._biases else None
        return self._best(self._ratings(sums, levels), rated, n)

    @_finitely
    def recommend_new(
        self,
        ratings: Mapping[Any, float] | Iterable[tuple[Any, float]],
        n: int = 10,
        include_rated: bool = False,
    ) -> list[Recommendation]:
        r"""Recommend items to someone who was not in the training.

        Parameters
        ----------
        ratings : mapping, or iterable of (item_id, rating)
            Raw item id to the rating that the new user gave it, in the unit of the
            ratings file.
        n, include_rated
            As for `recommend`.

        Returns
        -------
        list of Recommendation
            Best first.

        Raises
        ------
        DataError
            If an item has no training rating, or occurs twice, or a rating is not a
            finite, positive float32 with the offset of the training added.
        ModelError
            If the model is item-based and its output is not the identity.

        Notes
        -----
        A user-based model reconstructs the new user's row like any other. In an
        item-based one the decoder has no row of weights for the new user, so one is
        estimated, with all else held fixed. Users' rows (weights and bias), as the
        training found them, have a mean :math:`\mu` and a covariance :math:`\Sigma`.
        With these as a normal prior, the new user's row is the mean of the posterior
        given the ratings *r* of items whose hidden layers (and a 1 for the bias) are
        the rows of *H*:

        .. math:: w = \mu + \Sigma H^T (H \Sigma H^T + s^2 I)^{-1} (r - H \mu),

        where :math:`s^2` is the mean squared error on the training ratings. An average
        of several networks is one such model, with their hidden layers side by side.
        A model of residuals has *r* less a bias of the new user's, estimated as those
        of the training are.
        """
        pairs = list(ratings.items() if isinstance(ratings, Mapping) else ratings)
        rated, given = self._new_row(pairs)
        levels = None
        if self._biases:
            levels = self._biases.of_new_user(rated, given)
            given = (given - levels[rated]) / self._biases.scale
        if self._by_user:
            row = sp.csr_matrix(
                (given.astype(np.float32), rated, [0, len(rated)]),
                (1, len(self.run.item_ids)),
            )
            sums = [
                weights @ _encode(net, row)[0]
                for net, weights in zip(members(self.net), self._weights)
            ]
        elif self.run.recipe.output == "identity":
            sums = [self._estimate(rated, given)]
        else:
            raise ModelError(
                "an item-based model serves new users only with an identity output, "
                f"not {self.run.recipe.output}: train with --kind user or with "
                "--output identity"
            )
        found = self._ratings(sums, levels)
        return self._best(found, [] if include_rated else rated, n)

    def _new_row(
        self, pairs: Sequence[tuple[Any, float]]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Check a new user's ratings; return their items' indices, and them shifted."""
        item_ids = [item_id for item_id, _ in pairs]
        rated = self._known(item_ids, "item", "error")
        given = np.array([rating for _, rating in pairs], float)
        given += self.run.rating_offset
        with np.errstate(over="ignore"):
            single = given.astype(np.float32)
        for place, (item_id, rating) in enumerate(pairs):
            if not 0 < single[place] < np.inf:
                raise DataError(
                    f"rating {rating} of item {item_id!r} is not a finite, positive "
                    f"float32, with the {self.run.rating_offset:g} of the training "
                    "added"
                )
            if rated[place] in rated[:place]:
                raise DataError(f"item {item_id!r} is rated more than once")
        return rated, given

    def _estimate(self, rated: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Compute the outputs for a new user, as `recommend_new` notes."""
        size = len(self._weights)
        rows = np.hstack(self._weights)[self._user_counts > 0] / size
        mean, rows = rows.mean(axis=0), rows - rows.mean(axis=0)
        hidden = np.hstack([codes[rated] for codes in self._codes])
        spread = hidden @ rows.T / np.sqrt(len(rows))  # (num_rated, num_users)
        gram = spread @ spread.T + self._noise * np.eye(len(rated))
        share = spread.T @ np.linalg.solve(gram, given - hidden @ mean)
        row = (mean + rows.T @ share / np.sqrt(len(rows))).astype(np.float32)
        parts = zip(self._codes, np.split(row, size))
        outputs: np.ndarray = sum(codes @ part for codes, part in parts)
        return outputs

    @_finitely
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
        if not isinstance(pairs, pd.DataFrame):
            pairs = pd.DataFrame(list(pairs), columns=["user_id", "item_id"])
        users = self._known(pairs["user_id"], "user", unknown)
        items = self._known(pairs["item_id"], "item", unknown)
        mean = self.run.train_mat.data.mean()
        predictions = np.where(items < 0, mean, self._item_means[items])
        known = (users >= 0) & (items >= 0)
        predictions[known] = self._cells(users[known], items[known])
        return predictions - self.run.rating_offset

    @property
    def _by_user(self) -> bool:
        return self.run.recipe.kind == "user"

    # In each network, a prediction is the product of a user's and an item's vector
    # (float32, num_hidden + 1), one of them a hidden layer, the other the decoder's.

    @property
    def _users(self) -> list[np.ndarray]:
        return self._codes if self._by_user else self._weights

    @property
    def _items(self) -> list[np.ndarray]:
        return self._weights if self._by_user else self._codes

    @cached_property
    def _codes(self) -> list[np.ndarray]:
        """Last hidden layers, each row with a 1 behind: the items', or the users'."""
        learned = self.run.train_mat
        if self._biases:
            learned = self._biases.residuals(learned)
        rows = self.run.recipe.rows(learned)
        return [_encode(net, rows) for net in members(self.net)]

    @cached_property
    def _weights(self) -> list[np.ndarray]:
        """Decoders' weights, each row with its bias behind: users', or items'."""
        layers = [net.decoder for net in members(self.net)]
        return [
            np.column_stack([d.weight.data().asnumpy(), d.bias.data().asnumpy()])
            for d in layers
        ]

    def _ratings(
        self, sums: Sequence[np.ndarray], levels: np.ndarray | None
    ) -> np.ndarray:
        """Turn products into ratings, not yet clipped: (num_networks, num_cells).

        The levels are the predictions of the biases, if the model has any.
        """
        outputs = self._outputs(sums)
        if self._biases and levels is not None:
            return self._biases.restore(outputs, levels)
        return outputs

    def _outputs(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        """Turn products into the networks' outputs: shape (num_networks, num_cells)."""
        outputs: np.ndarray = np.stack(sums)
        if not np.isfinite(outputs).all():
            raise ModelError("the model predicts no finite numbers")
        if self.run.recipe.output != "identity":
            decoder = members(self.net)[0].decoder
            device = decoder.weight.list_ctx()[0]
            with autograd.train_mode():  # not clipped
                outputs = decoder.act(on_device(outputs, device)).asnumpy()
        return outputs

    def _mean(self, outputs: np.ndarray) -> np.ndarray:
        """Average over the networks, clipped where the recipe says so.

        Each network's ratings are clipped first; of residuals, their mean's.
        """
        act = members(self.net)[0].decoder.act
        if rating_range := getattr(act, "rating_range", None):
            outputs = outputs.clip(*rating_range)
        mean: np.ndarray = outputs.mean(axis=0)
        if self._biases and self.run.recipe.clip:
            mean = mean.clip(*range_of(self.run.train_mat))
        return mean

    @cached_property
    def _user_counts(self) -> np.ndarray:
        return np.bincount(self.run.train_mat.indices, minlength=len(self.run.user_ids))

    @cached_property
    def _item_counts(self) -> np.ndarray:
        counts: np.ndarray = np.diff(self.run.train_mat.indptr)
        return counts

    @cached_property
    def _item_means(self) -> np.ndarray:
        sums = self.run.train_mat.sum(axis=1, dtype=np.float64).A1
        means: np.ndarray = sums / np.maximum(self._item_counts, 1)
        return means

    @cached_property
    def _rated(self) -> sp.csc_matrix:
        """What each user has rated in any part, by columns."""
        run = self.run
        parts = [run.train_mat, run.test_mat, run.valid_mat]
        return sum(part for part in parts if part is not None).tocsc()

    @cached_property
    def _noise(self) -> float:
        """Mean squared error on what was learned, or a sample if that is much."""
        cells = self.run.train_mat.tocoo()
        some = slice(None, None, cells.nnz // 100_000 + 1)
        predicted = self._cells(cells.col[some], cells.row[some])
        scale = self._biases.scale if self._biases else 1.0
        return float(np.mean((predicted - cells.data[some]) ** 2) / scale**2)

    def _cells(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Reconstruct single cells, some thousands at a time."""
        predictions = np.empty(len(users))
        for start in range(0, len(users), 10_000):
            part = slice(start, start + 10_000)
            sums = [
                np.einsum("ij,ij->i", of_items[items[part]], of_users[users[part]])
                for of_users, of_items in zip(self._users, self._items)
            ]
            levels = None
            if self._biases:
                levels = self._biases.at(users[part], items[part])
            predictions[part] = self._mean(self._ratings(sums, levels))
        return predictions

    def _known(self, ids: Sequence[Any], noun: str, unknown: str) -> np.ndarray:
        """Translate raw ids to indices; -1 where there is no training rating."""
        if unknown not in ("error", "item-mean"):
            raise ValueError(f"unknown is 'error' or 'item-mean', not {unknown!r}")
        index, counts = self._index[noun], getattr(self, f"_{noun}_counts")
        found = index.get_indexer(pd.Index(ids))
        trained = (found >= 0) & (counts[found] > 0)
        if unknown == "error" and not trained.all():
            raw_id = list(ids)[int(np.argmin(trained))]
            if found[np.argmin(trained)] < 0:
                raise DataError(
                    f"unknown {noun} {raw_id!r}; the model knows {len(index):,} "
                    f"{noun}s, such as {index[0]!r}"
                )
            raise DataError(f"{noun} {raw_id!r} has no rating in the training part")
        return np.where(trained, found, -1)

    @cached_property
    def _index(self) -> dict[str, pd.Index]:
        indices = {
            "user": pd.Index(self.run.user_ids),
            "item": pd.Index(self.run.item_ids),
        }
        for index in indices.values():
            # This makes pandas build its tables now: at the first look-up, several
            # threads might do so at once, which spoils them.
            index.is_unique  # noqa: B018
        return indices

    def _best(
        self, outputs: np.ndarray, excluded: Sequence[int] | np.ndarray, n: int
    ) -> list[Recommendation]:
        """Pick the highest outputs; of equal ones, items with more ratings first.

        That is before clipping, which makes equal what is not.
        """
        scores = outputs.mean(axis=0)
        allowed = self._item_counts > 0
        allowed[excluded] = False
        items = np.flatnonzero(allowed)
        best = items[np.lexsort((-self._item_counts[items], -scores[items]))[:n]]
        ids = self.run.item_ids[best].tolist()
        ratings = (self._mean(outputs[:, best]) - self.run.rating_offset).tolist()
        return [
            Recommendation(item_id, rating, self.run.titles.get(item_id))
            for item_id, rating in zip(ids, ratings)
        ]


@one_at_a_time
def _encode(net: AutoRec, rows: sp.csr_matrix) -> np.ndarray:
    """Compute the last hidden layer of rows of ratings, and put a 1 behind it."""
    # Most of a row is unobserved: a sparse product is far faster than the layer.
    encoder = net.encoder
    sums = rows @ encoder.weight.data().asnumpy().T
    sums += encoder.bias.data().asnumpy()
    hidden = deepen(net, on_device(sums, encoder.weight.list_ctx()[0]))
    return np.column_stack([hidden.asnumpy(), np.ones(len(sums), np.float32)])
