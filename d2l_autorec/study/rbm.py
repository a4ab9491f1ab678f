"""Restricted Boltzmann machines for collaborative filtering.

References
----------
R. Salakhutdinov, A. Mnih, G. Hinton, "Restricted Boltzmann Machines for Collaborative
Filtering", ICML 2007: levels as softmax units in section 2, conditional machines in
section 4, factors in section 5. T. Truyen, D. Phung, S. Venkatesh, "Ordinal Boltzmann
Machines for Collaborative Filtering", UAI 2009, for weights that respect the order of
levels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.special import expit, softmax

from .._mxnet import mx
from ..fast import view
from .estimators import Estimator

MAX_LEVELS = 10  # softmax units a rating; of more levels, neighbors are joined


@dataclass(eq=False)
class RBM(Estimator):
    r"""A restricted Boltzmann machine whose visible units are levels of ratings.

    A visible vector is an item's ratings, or with the `kind` ``'user'`` a user's. A
    prediction is the expectation of the level, given the probabilities of the hidden
    units with the training ratings. It is trained on the CPU.

    Notes
    -----
    Of a row that has the levels :math:`k_j` in its cells,

    .. math:: P(h_f = 1) = \sigma(b_f + \sum_j W_{j k_j f}), \qquad
              P(k_j = k) \propto \exp(c_{jk} + \sum_f W_{jkf} h_f)

    Any weights would overfit. These have a low rank, and neighboring levels have
    similar ones:

    .. math:: W_{jkf} = \sum_t \sum_i p_t(k) A_{jti} B_{if}

    with orthonormal polynomials :math:`p_t` of the degrees 0, 1 and 2. That of degree 0
    tells the hidden units that there is a rating at all, as in a conditional machine.
    :math:`c` starts at the logarithms of the levels' shares.

    A step goes up the gradients of contrastive divergence by Adam, with an eighth of
    the learning rate for :math:`B`, in which all columns meet; the weight decay is that
    of :math:`A` and :math:`B`. In its one Gibbs step the hidden units are drawn; of the
    levels, and then of the hidden units, the probabilities are taken.
    """

    kind: str = "item"
    num_hidden: int = 200
    num_factors: int = 30  # rank of the weights
    num_epochs: int = 15
    batch_size: int = 64  # visible vectors
    lr: float = 0.02  # falls to 0 along half a cosine
    wd: float = 0.02

    @property
    def title(self) -> str:
        """I-RBM or U-RBM."""
        return f"{self.kind[0].upper()}-RBM"

    def fit(self, train_rows: np.ndarray, seed: int) -> Iterator[int]:  # noqa: D102
        rng = np.random.default_rng(seed)
        rating = self.ratings.rating[train_rows].astype(np.float64)
        self.levels, codes = rating_levels(rating)
        self.visible = self._cells(train_rows, codes)
        shares = level_shares(self.visible, len(self.levels))
        self.machine = Boltzmann(shares, self.num_hidden, self.num_factors, rng)
        self.num_parameters = sum(array.size for array in self.machine.parameters)
        schedule = mx.lr_scheduler.CosineScheduler(self.num_epochs, self.lr)
        for epoch in range(self.num_epochs):
            for rows in self._batches(rng.permutation(self.visible.shape[0])):
                self.machine.step(self.visible[rows], schedule(epoch), self.wd, rng)
            yield epoch + 1

    def predict(self, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        cells = self._cells(rows, np.arange(len(rows)))
        predictions = np.empty(len(rows))
        for batch in self._batches(np.arange(self.visible.shape[0])):
            asked = cells[batch]
            chances = self.machine.chances(self.visible[batch], asked)
            predictions[asked.data] = chances @ self.levels
        return predictions

    def _cells(self, rows: np.ndarray, values: np.ndarray) -> sp.csr_matrix:
        """Lay values of rows out as cells, a visible vector each."""
        users, items = self.ratings.indices(rows)
        shape = (self.ratings.num_items, self.ratings.num_users)
        cells = sp.csr_matrix((values, (items, users)), shape)
        return cells if self.kind == "item" else cells.T.tocsr()

    def _batches(self, rows: np.ndarray) -> list[np.ndarray]:
        return np.split(rows, range(self.batch_size, len(rows), self.batch_size))


class Boltzmann:
    """The machine of `RBM`, computed at the observed cells alone."""

    def __init__(
        self,
        shares: np.ndarray,
        num_hidden: int,
        num_factors: int,
        rng: np.random.Generator,
    ) -> None:
        num_columns, num_levels = shares.shape
        self.polynomials = polynomials(num_levels)
        num_terms = self.polynomials.shape[1]
        initial = (
            rng.normal(0, 0.03, (num_columns * num_terms, num_factors)),
            rng.normal(0, 0.1, (num_factors, num_hidden)),
            np.log(shares).ravel(),
            np.zeros(num_hidden),
        )
        self._arrays = [mx.np.array(array, np.float32) for array in initial]
        optimizer = mx.optimizer.Adam()
        optimizer.set_lr_mult({1: 1 / 8})
        optimizer.set_wd_mult({2: 0, 3: 0})
        self._adam = mx.optimizer.get_updater(optimizer)

    @property
    def parameters(self) -> list[np.ndarray]:
        """A, (num_columns * num_terms, num_factors), B, c and b, flat, in float32."""
        return [view(array) for array in self._arrays]

    def gradients(
        self, rows: sp.csr_matrix, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Compute the gradients of contrastive divergence, of each parameter."""
        _, hidden_factors, _, _ = self.parameters
        data, inputs, hidden = self._infer(rows, self.polynomials[rows.data])
        drawn = rng.random(hidden.shape, np.float32) < hidden
        chances = self._chances(drawn.astype(np.float32), rows)
        model, inputs_then, hidden_then = self._infer(rows, chances @ self.polynomials)
        chances[np.arange(rows.nnz), rows.data] -= 1
        found = (
            data.T @ (hidden @ hidden_factors.T)
            - model.T @ (hidden_then @ hidden_factors.T),
            inputs.T @ hidden - inputs_then.T @ hidden_then,
            -np.asarray(side_by_side(rows, chances).sum(axis=0)).ravel(),
            (hidden - hidden_then).sum(axis=0),
        )
        return [gradient / np.float32(rows.shape[0]) for gradient in found]

    def step(
        self, rows: sp.csr_matrix, lr: float, wd: float, rng: np.random.Generator
    ) -> None:
        """Take a step up the gradients, by MXNet's Adam."""
        self._adam.optimizer.set_learning_rate(lr)
        self._adam.optimizer.wd = wd
        for number, gradient in enumerate(self.gradients(rows, rng)):
            self._adam(number, mx.np.array(-gradient), self._arrays[number])

    def chances(self, rows: sp.csr_matrix, cells: sp.csr_matrix) -> np.ndarray:
        """Compute the chances of cells' levels, (num_cells, num_levels)."""
        _, _, hidden = self._infer(rows, self.polynomials[rows.data])
        return self._chances(hidden, cells)

    def _infer(
        self, rows: sp.csr_matrix, terms: np.ndarray
    ) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
        """Compute the hidden units' probabilities, and what leads to them."""
        level_factors, hidden_factors, _, bias = self.parameters
        levels = side_by_side(rows, terms)
        inputs = levels @ level_factors
        return levels, inputs, expit(bias + inputs @ hidden_factors)

    def _chances(self, hidden: np.ndarray, cells: sp.csr_matrix) -> np.ndarray:
        """Compute the probabilities of the levels of cells, given the hidden units."""
        level_factors, hidden_factors, bias, _ = self.parameters
        num_levels, num_terms = self.polynomials.shape
        terms = hidden @ hidden_factors.T @ level_factors.T
        row = np.repeat(np.arange(len(hidden)), np.diff(cells.indptr))
        terms = terms.reshape(len(hidden), -1, num_terms)[row, cells.indices]
        scores = bias.reshape(-1, num_levels)[cells.indices]
        return np.asarray(softmax(scores + terms @ self.polynomials.T, axis=1))


def polynomials(num_levels: int, degree: int = 2) -> np.ndarray:
    """Compute orthonormal polynomials, (num_levels, at most `degree` + 1)."""
    powers = np.vander(np.arange(num_levels), degree + 1, increasing=True)
    return np.linalg.qr(powers)[0].astype(np.float32)


def side_by_side(cells: sp.csr_matrix, values: np.ndarray) -> sp.csr_matrix:
    """Lay the values of each stored cell, (num_cells, num_values), out in its row."""
    num_values = values.shape[1]
    columns = cells.indices[:, None] * num_values + np.arange(num_values)
    starts, shape = cells.indptr * num_values, np.array(cells.shape) * [1, num_values]
    return sp.csr_matrix((values.ravel(), columns.ravel(), starts), tuple(shape))


def rating_levels(rating: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find at most `MAX_LEVELS` levels, ascending, and each rating's, from 0."""
    levels, codes = np.unique(rating, return_inverse=True)
    if len(levels) > MAX_LEVELS:
        bounds = np.unique(np.quantile(rating, np.linspace(0, 1, MAX_LEVELS + 1)))
        codes = np.searchsorted(bounds[1:-1], rating)
        _, codes = np.unique(codes, return_inverse=True)
        levels = np.bincount(codes, rating) / np.bincount(codes)
    return levels, codes


def level_shares(
    visible: sp.csr_matrix, num_levels: int, prior: float = 5.0
) -> np.ndarray:
    """Compute the levels' shares, (num_columns, num_levels), with some of all."""
    num_columns = visible.shape[1]
    place = visible.indices * num_levels + visible.data
    counts: np.ndarray = np.bincount(place, minlength=num_columns * num_levels)
    counts = counts.reshape(num_columns, num_levels)
    counts = counts + prior * counts.sum(axis=0) / counts.sum()
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))
