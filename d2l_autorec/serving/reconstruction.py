"""Ratings as trained networks reconstruct them, by indices.

AutoRec predicts a rating by reconstructing the item's row of training ratings and
reading the user's cell. The hidden layer of an item does not depend on the user, and
the cell needs only the user's own row of the decoder's weights, so that the matrix of
all users and all items is never built. With users and items exchanged, the same holds
for a user-based model.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
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
    """What a recipe's network makes of ratings.

    Parameters
    ----------
    net : AutoRec
        Trained, on one device.
    recipe : Recipe
        Of its training.
    train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        What it learned from.
    biases : Biases, optional
        Of `train_mat`, if they are known already.

    Notes
    -----
    A prediction is the product of a user's and an item's vector
    (float32, num_hidden + 1), one of them a hidden layer, the other the decoder's.
    """

    def __init__(
        self,
        net: AutoRec,
        recipe: Recipe,
        train_mat: sp.csr_matrix,
        biases: Biases | None = None,
    ) -> None:
        self._net, self._recipe, self._train_mat = net, recipe, train_mat
        self._by_user = recipe.kind == "user"
        self._normalizer = (
            biases if recipe.residual and biases else normalizer_of(recipe, train_mat)
        )
        self._range = range_of(train_mat)

    def of_users(self, users: np.ndarray) -> np.ndarray:
        """Predict what users would rate all items.

        Parameters
        ----------
        users : numpy.ndarray of int, shape (num_users,)
            Indices.

        Returns
        -------
        numpy.ndarray, shape (num_users, num_items)
            Not yet clipped.
        """
        sums = self._users[users] @ self._items.T
        return self._ratings(sums, users[:, None], slice(None))

    def of_cells(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict single cells.

        Parameters
        ----------
        users, items : numpy.ndarray of int, shape (num_cells,)
            Indices.

        Returns
        -------
        numpy.ndarray, shape (num_cells,)
            Not yet clipped.
        """
        sums = np.einsum("ij,ij->i", self._items[items], self._users[users])
        return self._ratings(sums, users, items)

    def of_new_user(self, rated: np.ndarray, given: np.ndarray) -> np.ndarray:
        r"""Predict what someone who was not in the training would rate all items.

        Parameters
        ----------
        rated : numpy.ndarray of int, shape (num_ratings,)
            Items' indices.
        given : numpy.ndarray, shape (num_ratings,)
            Their ratings.

        Returns
        -------
        numpy.ndarray, shape (num_items,)
            Not yet clipped.

        Raises
        ------
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
            sums = self._weights @ _encode(self._net, row)[0]
        elif self._recipe.output == "identity":
            sums = self._estimate(rated, given)
        else:
            raise ModelError(
                "an item-based model serves new users only with an identity output, "
                f"not {self._recipe.output}: train with --kind user or with "
                "--output identity"
            )
        outputs = self._outputs(sums)
        return (
            self._normalizer.restore(outputs, levels) if self._normalizer else outputs
        )

    def rating(self, found: np.ndarray) -> np.ndarray:
        """Clip predictions where the recipe says so."""
        bounded = getattr(self._net.decoder.act, "rating_range", None)
        if bounded or (self._normalizer and self._recipe.clip):
            found = found.clip(*self._range)
        return found

    def score(self, found: np.ndarray) -> np.ndarray:
        """Return what to rank by."""
        return found

    @property
    def item_vectors(self) -> np.ndarray:
        """What the network knows of each item: (num_items, num_units)."""
        return self._items[:, :-1]

    @property
    def _users(self) -> np.ndarray:
        return self._codes if self._by_user else self._weights

    @property
    def _items(self) -> np.ndarray:
        return self._weights if self._by_user else self._codes

    @cached_property
    def _codes(self) -> np.ndarray:
        """Last hidden layers, each row with a 1 behind: the items', or the users'."""
        learned = self._train_mat
        if self._normalizer:
            learned = self._normalizer.learned(learned)
        return _encode(self._net, self._recipe.rows(learned))

    @cached_property
    def _weights(self) -> np.ndarray:
        """The decoder's weights, each row with its bias behind: users', or items'."""
        decoder = self._net.decoder
        return np.column_stack(
            [decoder.weight.data().asnumpy(), decoder.bias.data().asnumpy()]
        )

    def _ratings(self, sums: np.ndarray, users: Any, items: Any) -> np.ndarray:
        """Turn products of vectors into ratings, not yet clipped."""
        outputs = self._outputs(sums)
        if self._normalizer:
            return self._normalizer.restore(outputs, self._normalizer.at(users, items))
        return outputs

    def _outputs(self, outputs: np.ndarray) -> np.ndarray:
        """Turn products of vectors into the network's outputs."""
        if not np.isfinite(outputs).all():
            raise ModelError("the model predicts no finite numbers")
        if self._recipe.output != "identity":
            decoder = self._net.decoder
            device = decoder.weight.list_ctx()[0]
            with autograd.train_mode():  # not clipped
                outputs = decoder.act(on_device(outputs, device)).asnumpy()
        return outputs

    def _estimate(self, rated: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Compute the outputs for a new user, as `of_new_user` notes."""
        mean, rows = self._prior
        hidden = self._codes[rated]
        spread = hidden @ rows.T  # (num_rated, num_users)
        gram = spread @ spread.T + self._noise * np.eye(len(rated))
        share = np.linalg.solve(gram, given - hidden @ mean) @ spread
        return np.asarray(self._codes @ (mean + share.astype(np.float32) @ rows))

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
        predicted = rate_cells(self, cells.col[some], cells.row[some])
        scale = self._normalizer.scale if self._normalizer else 1.0
        return float(np.mean((predicted - cells.data[some]) ** 2) / scale**2)


class BlendReconstruction:
    """What the networks of a blend make of ratings.

    Parameters
    ----------
    nets : sequence of AutoRec
        Of its recipes.
    blend : Blend
        With the weights.
    train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        What it learned from.

    Notes
    -----
    The methods are those of `Reconstruction`. The predictions of the biases come before
    those of the networks, each of which is clipped where its recipe says so: it is for
    these that the weights were chosen.
    """

    def __init__(
        self, nets: Sequence[AutoRec], blend: Blend, train_mat: sp.csr_matrix
    ) -> None:
        self._mixture = Mixture(blend, train_mat)
        self._models = [
            Reconstruction(net, recipe, train_mat, self._mixture.biases)
            for net, recipe in zip(nets, blend.recipes)
        ]

    def of_users(self, users: np.ndarray) -> np.ndarray:  # noqa: D102
        levels = self._mixture.biases.at(users[:, None], slice(None))
        return self._beside(levels, (m.of_users(users) for m in self._models))

    def of_cells(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:  # noqa: D102
        levels = self._mixture.biases.at(users, items)
        return self._beside(levels, (m.of_cells(users, items) for m in self._models))

    def of_new_user(self, rated: np.ndarray, given: np.ndarray) -> np.ndarray:  # noqa: D102
        levels = self._mixture.biases.of_new_user(rated, given)
        return self._beside(levels, (m.of_new_user(rated, given) for m in self._models))

    def score(self, found: np.ndarray) -> np.ndarray:  # noqa: D102
        return self._mixture.mixed(found[0], found[1:], clip=False)

    def rating(self, found: np.ndarray) -> np.ndarray:  # noqa: D102
        return self._mixture.mixed(found[0], found[1:])

    @property
    def item_vectors(self) -> np.ndarray:  # noqa: D102
        return np.hstack([model.item_vectors for model in self._models])

    def _beside(self, levels: np.ndarray, found: Iterable[np.ndarray]) -> np.ndarray:
        rated = (model.rating(one) for model, one in zip(self._models, found))
        return np.stack([levels, *rated])


def reconstruction(
    net: gluon.Block, recipe: Recipe | Blend, train_mat: sp.csr_matrix
) -> Reconstruction | BlendReconstruction:
    """Make the kind that a recipe needs.

    Parameters
    ----------
    net : mxnet.gluon.Block
        As `network` makes it, trained.
    recipe, train_mat
        As for `Reconstruction`.

    Returns
    -------
    Reconstruction or BlendReconstruction
    """
    if isinstance(recipe, Blend):
        return BlendReconstruction([*net], recipe, train_mat)
    return Reconstruction(net, recipe, train_mat)


def rate_cells(
    model: Reconstruction | BlendReconstruction, users: np.ndarray, items: np.ndarray
) -> np.ndarray:
    """Predict single cells, clipped as the recipe says, some thousands at a time.

    Parameters
    ----------
    model : Reconstruction or BlendReconstruction
        What predicts.
    users, items : numpy.ndarray of int, shape (num_cells,)
        Indices.

    Returns
    -------
    numpy.ndarray of float64, shape (num_cells,)
    """
    predictions = np.empty(len(users))
    for start in range(0, len(users), 10_000):
        part = slice(start, start + 10_000)
        predictions[part] = model.rating(model.of_cells(users[part], items[part]))
    return predictions


def _encode(net: AutoRec, rows: sp.csr_matrix) -> np.ndarray:
    """Compute the last hidden layer of rows of ratings, and put a 1 behind it."""
    hidden = SparseNetwork(net).encode(rows)
    return np.column_stack([hidden, np.ones(len(hidden), np.float32)])
