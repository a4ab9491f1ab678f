"""Ratings as trained networks reconstruct them, by indices.

AutoRec predicts a rating by reconstructing the item's row of training ratings and
reading the user's cell. The hidden layer of an item does not depend on the user, and
the cell needs only the user's own row of the decoder's weights, so that the matrix of
all users and all items is never built. With users and items exchanged, the same holds
for a user-based model.
"""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import autograd, gluon
from ..errors import ModelError
from ..fast import SparseNetwork, on_device
from ..model import AutoRec
from ..training import Biases, Blend, Mixture, Recipe, normalizer_of, range_of


class Reconstruction:
    """Predictions of a recipe's trained network, or of all networks of a blend.

    They are not yet clipped, but for the networks of a blend: its weights were chosen
    for networks that are clipped as their recipes say. `train_mat` is (num_items,
    num_users).
    """

    def __init__(
        self, net: gluon.Block, recipe: Recipe | Blend, train_mat: sp.csr_matrix
    ) -> None:
        self._mixture: Mixture | None = None
        nets = [net]
        if isinstance(recipe, Blend):
            self._mixture, nets = Mixture(recipe, train_mat), [*net]
        biases = self._mixture.biases if self._mixture else None
        self._networks = [
            _Network(net, one, train_mat, biases)
            for net, one in zip(nets, recipe.recipes)
        ]
        self._bounds = (self._mixture or self._networks[0]).bounds

    def of_users(self, users: np.ndarray) -> np.ndarray:
        """Predict what users (num_users,) would rate all items: (num_users, ...)."""
        return self._mixed(lambda one: one.at(users[:, None], slice(None)))

    def of_cells(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict single cells (num_cells,), clipped as the recipe says."""
        return self.clip(self._mixed(lambda one: one.at(users, items)))

    def of_new_user(self, rated: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Predict all items (num_items,) for a user who was not in the training.

        The user gave the items `rated` (num_ratings,) the ratings `given`.
        """
        return self._mixed(lambda one: one.of_new_user(rated, given))

    def clip(self, predictions: np.ndarray) -> np.ndarray:
        """Hold predictions to the range of the ratings where the recipe says so."""
        return _clipped(predictions, self._bounds)

    @property
    def item_vectors(self) -> np.ndarray:
        """Return what the networks know of each item: (num_items, num_units)."""
        return np.hstack([network.items[:, :-1] for network in self._networks])

    def _mixed(self, predict: Callable[[Any], np.ndarray]) -> np.ndarray:
        """Predict by the network; of several, mix what they and the biases predict."""
        if not self._mixture:
            return predict(self._networks[0])
        found = [_clipped(predict(one), one.bounds) for one in self._networks]
        levels = predict(self._mixture.biases)
        return self._mixture.mixed(levels, np.stack(found), clip=False)


class _Network:
    """One network. A prediction is the product of a user's and an item's vector.

    Of the two (float32, num_hidden + 1), one is a hidden layer with a 1 behind it, the
    other the decoder's weights with the bias.
    """

    def __init__(
        self,
        net: AutoRec,
        recipe: Recipe,
        train_mat: sp.csr_matrix,
        biases: Biases | None,
    ) -> None:
        self._net, self._recipe, self._train_mat = net, recipe, train_mat
        self._by_user = recipe.kind == "user"
        self._normalizer = (
            biases if recipe.residual and biases else normalizer_of(recipe, train_mat)
        )
        bounded = getattr(net.decoder.act, "rating_range", None)
        is_clipped = bounded or (self._normalizer and recipe.clip)
        self.bounds = range_of(train_mat) if is_clipped else None

    def at(self, users: np.ndarray, items: Any) -> np.ndarray:
        """Predict cells (num_cells,), or for users (num_users, 1) all items."""
        if isinstance(items, slice):
            sums = self.users[users[:, 0]] @ self.items.T
        else:
            sums = np.empty(len(users), np.float32)
            for start in range(0, len(users), 10_000):
                part = slice(start, start + 10_000)
                vectors = self.items[items[part]], self.users[users[part]]
                sums[part] = np.einsum("ij,ij->i", *vectors)
        levels = self._normalizer.at(users, items) if self._normalizer else None
        return self._ratings(sums, levels)

    def of_new_user(self, rated: np.ndarray, given: np.ndarray) -> np.ndarray:
        r"""Predict all items for a new user.

        A user-based model reconstructs the new user's row like any other. In an
        item-based one the decoder has no row of weights for the new user, so one is
        estimated, with all else held fixed. Users' rows (weights and bias), as the
        training found them, have a mean :math:`\mu` and a covariance :math:`\Sigma`.
        With these as a normal prior, the new user's row is the mean of the posterior
        given the ratings *r* of items whose hidden layers (and a 1 for the bias) are
        the rows of *H*:

        .. math:: w = \mu + \Sigma H^T (H \Sigma H^T + s^2 I)^{-1} (r - H \mu),

        where :math:`s^2` is the mean squared error on the training ratings. A model of
        residuals has *r* less a bias of the new user's, estimated as those
        of the training are.
        """
        levels = None
        if self._normalizer:
            levels = self._normalizer.of_new_user(rated, given)
            given = (given - levels[rated]) / self._normalizer.scale
        if self._by_user:
            row = sp.csr_matrix(
                (given.astype(np.float32), rated, [0, len(rated)]),
                (1, self._train_mat.shape[0]),
            )
            sums = self.items @ self._encode(row)[0]
        elif self._recipe.output == "identity":
            sums = self.items @ self._estimate(rated, given)
        else:
            raise ModelError(
                "an item-based model serves new users only with an identity output, "
                f"not {self._recipe.output}: train with --kind user or with "
                "--output identity"
            )
        return self._ratings(sums, levels)

    @property
    def users(self) -> np.ndarray:
        return self._codes if self._by_user else self._weights

    @property
    def items(self) -> np.ndarray:
        return self._weights if self._by_user else self._codes

    @cached_property
    def _codes(self) -> np.ndarray:
        """Compute the last hidden layer of all training rows, with a 1 behind each."""
        learned = self._train_mat
        if self._normalizer:
            learned = self._normalizer.learned(learned)
        return self._encode(self._recipe.rows(learned))

    @cached_property
    def _weights(self) -> np.ndarray:
        """Put the decoder's bias behind its weights: a row for each output."""
        decoder = self._net.decoder
        return np.column_stack(
            [decoder.weight.data().asnumpy(), decoder.bias.data().asnumpy()]
        )

    def _encode(self, rows: sp.csr_matrix) -> np.ndarray:
        hidden = SparseNetwork(self._net).encode(rows)
        return np.column_stack([hidden, np.ones(len(hidden), np.float32)])

    def _ratings(self, outputs: np.ndarray, levels: Any) -> np.ndarray:
        """Turn products of vectors, before the activation, into ratings."""
        if not np.isfinite(outputs).all():
            raise ModelError("the model predicts no finite numbers")
        if self._recipe.output != "identity":
            decoder = self._net.decoder
            device = decoder.weight.list_ctx()[0]
            with autograd.train_mode():  # not clipped
                outputs = decoder.act(on_device(outputs, device)).asnumpy()
        if self._normalizer:
            return self._normalizer.restore(outputs, levels)
        return outputs

    def _estimate(self, rated: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Estimate a new user's row (num_hidden + 1,), as in `of_new_user`."""
        mean, spread = self._prior
        hidden = self._codes[rated]
        found = hidden @ spread.T  # (num_rated, num_users)
        gram = found @ found.T + self._noise * np.eye(len(rated))
        try:
            share = np.linalg.solve(gram, given - hidden @ mean) @ found
        except np.linalg.LinAlgError as error:
            raise ModelError("the model predicts no finite numbers") from error
        return np.asarray(mean + share.astype(np.float32) @ spread)

    @cached_property
    def _prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean of the users' rows, and a root of their covariance: (num_users, ...)."""
        rows = self._weights[np.unique(self._train_mat.indices)]
        mean = rows.mean(axis=0)
        return mean, (rows - mean) / np.sqrt(np.float32(len(rows)))

    @cached_property
    def _noise(self) -> float:
        """Mean squared error on what was learned, or a sample if that is much."""
        cells = self._train_mat.tocoo()
        some = slice(None, None, cells.nnz // 100_000 + 1)
        users, items, ratings = cells.col[some], cells.row[some], cells.data[some]
        scale = self._normalizer.scale if self._normalizer else 1.0
        predicted = _clipped(self.at(users, items), self.bounds)
        return float(np.mean((predicted - ratings) ** 2) / scale**2)


def _clipped(predictions: np.ndarray, bounds: tuple[float, float] | None) -> np.ndarray:
    return predictions.clip(*bounds) if bounds else predictions
