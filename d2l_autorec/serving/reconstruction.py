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

from .._mxnet import autograd, gluon, one_at_a_time
from ..errors import ModelError
from ..fast import deepen, members, on_device, row_factors
from ..model import AutoRec
from ..training import Average, Biases, Blend, Mixture, Recipe, levels_of, range_of


class Reconstruction:
    """What a recipe's network, or an average of several, makes of ratings.

    Parameters
    ----------
    net : AutoRec or Average
        Trained, on one device.
    recipe : Recipe
        Of its training.
    train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        What it learned from.
    biases : Biases, optional
        Of `train_mat`, if they are known already.

    Notes
    -----
    In each network, a prediction is the product of a user's and an item's vector
    (float32, num_hidden + 1), one of them a hidden layer, the other the decoder's.
    """

    def __init__(
        self,
        net: AutoRec | Average,
        recipe: Recipe,
        train_mat: sp.csr_matrix,
        biases: Biases | None = None,
    ) -> None:
        self._nets, self._recipe, self._train_mat = members(net), recipe, train_mat
        self._by_user = recipe.kind == "user"
        self._levels = levels_of(recipe, train_mat, biases)
        self._range = range_of(train_mat)

    def of_users(self, users: np.ndarray) -> np.ndarray:
        """Predict what users would rate all items.

        Parameters
        ----------
        users : numpy.ndarray of int, shape (num_users,)
            Indices.

        Returns
        -------
        numpy.ndarray, shape (num_networks, num_users, num_items)
            Of each network, not yet clipped.
        """
        sums = [
            vectors[users] @ items.T for vectors, items in zip(self._users, self._items)
        ]
        return self._ratings(sums, users[:, None], slice(None))

    def of_cells(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Predict single cells.

        Parameters
        ----------
        users, items : numpy.ndarray of int, shape (num_cells,)
            Indices.

        Returns
        -------
        numpy.ndarray, shape (num_networks, num_cells)
            Of each network, not yet clipped.
        """
        sums = [
            np.einsum("ij,ij->i", of_items[items], of_users[users])
            for of_users, of_items in zip(self._users, self._items)
        ]
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
        numpy.ndarray, shape (num_networks, num_items)
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

        where :math:`s^2` is the mean squared error on the training ratings. An average
        of several networks is one such model, with their hidden layers side by side.
        A model of residuals has *r* less a bias of the new user's, estimated as those
        of the training are.
        """
        levels = None
        if self._levels:
            levels = self._levels.of_new_user(rated, given)
            given = (given - levels[rated]) / self._levels.scale
        if self._by_user:
            row = sp.csr_matrix(
                (given.astype(np.float32), rated, [0, len(rated)]),
                (1, self._train_mat.shape[0]),
            )
            sums = [
                weights @ _encode(net, row)[0]
                for net, weights in zip(self._nets, self._weights)
            ]
        elif self._recipe.output == "identity":
            sums = [self._estimate(rated, given)]
        else:
            raise ModelError(
                "an item-based model serves new users only with an identity output, "
                f"not {self._recipe.output}: train with --kind user or with "
                "--output identity"
            )
        outputs = self._outputs(sums)
        return self._levels.restore(outputs, levels) if self._levels else outputs

    def score(self, found: np.ndarray) -> np.ndarray:
        """Average over the networks, to rank by: clipping makes equal what is not."""
        scores: np.ndarray = found.mean(axis=0)
        return scores

    def rating(self, found: np.ndarray) -> np.ndarray:
        """Average over the networks, clipped where the recipe says so."""
        if getattr(self._nets[0].decoder.act, "rating_range", None):
            found = found.clip(*self._range)
        mean = self.score(found)
        # What has levels is clipped as ratings, not network by network.
        if self._levels and self._recipe.clip:
            mean = mean.clip(*self._range)
        return mean

    @property
    def item_vectors(self) -> np.ndarray:
        """What the networks know of each item, side by side: (num_items, size)."""
        return np.hstack([vectors[:, :-1] for vectors in self._items])

    @property
    def _users(self) -> list[np.ndarray]:
        return self._codes if self._by_user else self._weights

    @property
    def _items(self) -> list[np.ndarray]:
        return self._weights if self._by_user else self._codes

    @cached_property
    def _codes(self) -> list[np.ndarray]:
        """Last hidden layers, each row with a 1 behind: the items', or the users'."""
        learned = self._train_mat
        if self._levels:
            learned = self._levels.learned(learned)
        rows = self._recipe.rows(learned)
        return [_encode(net, rows) for net in self._nets]

    @cached_property
    def _weights(self) -> list[np.ndarray]:
        """Decoders' weights, each row with its bias behind: users', or items'."""
        layers = [net.decoder for net in self._nets]
        return [
            np.column_stack([d.weight.data().asnumpy(), d.bias.data().asnumpy()])
            for d in layers
        ]

    def _ratings(
        self, sums: Sequence[np.ndarray], users: Any, items: Any
    ) -> np.ndarray:
        """Turn products of vectors into ratings, not yet clipped."""
        outputs = self._outputs(sums)
        if self._levels:
            return self._levels.restore(outputs, self._levels.at(users, items))
        return outputs

    def _outputs(self, sums: Sequence[np.ndarray]) -> np.ndarray:
        """Turn products of vectors into the networks' outputs."""
        outputs: np.ndarray = np.stack(sums)
        if not np.isfinite(outputs).all():
            raise ModelError("the model predicts no finite numbers")
        if self._recipe.output != "identity":
            decoder = self._nets[0].decoder
            device = decoder.weight.list_ctx()[0]
            with autograd.train_mode():  # not clipped
                outputs = decoder.act(on_device(outputs, device)).asnumpy()
        return outputs

    def _estimate(self, rated: np.ndarray, given: np.ndarray) -> np.ndarray:
        """Compute the outputs for a new user, as `of_new_user` notes."""
        mean, rows = self._prior
        hidden = np.hstack([codes[rated] for codes in self._codes])
        spread = hidden @ rows.T  # (num_rated, num_users)
        gram = spread @ spread.T + self._noise * np.eye(len(rated))
        share = np.linalg.solve(gram, given - hidden @ mean) @ spread
        row = (mean + share.astype(np.float32) @ rows).astype(np.float32)
        parts = zip(self._codes, np.split(row, len(self._weights)))
        outputs: np.ndarray = sum(codes @ part for codes, part in parts)
        return outputs

    @cached_property
    def _prior(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean of the users' rows, and a root of their covariance: (num_users, ...)."""
        trained = np.unique(self._train_mat.indices)
        rows = np.hstack(self._weights)[trained] / len(self._weights)
        mean = rows.mean(axis=0)
        return mean, (rows - mean) / np.sqrt(np.float32(len(rows)))

    @cached_property
    def _noise(self) -> float:
        """Mean squared error on what was learned, or a sample if that is much."""
        cells = self._train_mat.tocoo()
        some = slice(None, None, cells.nnz // 100_000 + 1)
        predicted = rate_cells(self, cells.col[some], cells.row[some])
        scale = self._levels.scale if self._levels else 1.0
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


@one_at_a_time
def _encode(net: AutoRec, rows: sp.csr_matrix) -> np.ndarray:
    """Compute the last hidden layer of rows of ratings, and put a 1 behind it."""
    # Most of a row is unobserved: a sparse product is far faster than the layer.
    encoder = net.encoder
    sums = rows @ encoder.weight.data().asnumpy().T
    sums *= row_factors(net, np.diff(rows.indptr))[:, np.newaxis]
    sums += encoder.bias.data().asnumpy()
    hidden = deepen(net, on_device(sums, encoder.weight.list_ctx()[0]))
    return np.column_stack([hidden.asnumpy(), np.ones(len(sums), np.float32)])
