"""Restricted Boltzmann machines for collaborative filtering.

References
----------
R. Salakhutdinov, A. Mnih, G. Hinton, "Restricted Boltzmann Machines for Collaborative
Filtering", ICML 2007: levels as softmax units in section 2, conditional machines in
section 4, factors in section 5. T. Truyen, D. Phung, S. Venkatesh, "Ordinal Boltzmann
Machines for Collaborative Filtering", UAI 2009, for weights that respect the order of
levels. D. P. Kingma, J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from scipy.special import expit, softmax

from .estimators import Estimator, half_cosine

MAX_LEVELS = 10  # softmax units a rating; of more levels, neighbors are joined


@dataclass(eq=False)
class RBM(Estimator):
    r"""A restricted Boltzmann machine whose visible units are levels of ratings.

    Parameters
    ----------
    ratings, devices
        As for `Estimator`; it is trained on the CPU.
    kind : {'item', 'user'}
        Whether a visible vector is an item's ratings or a user's.
    num_hidden : int
        Binary hidden units.
    num_factors : int
        Rank of the weights.
    num_epochs : int
        Passes over the visible vectors.
    batch_size : int
        Visible vectors a mini-batch.
    lr : float
        Learning rate, which falls to 0 along half a cosine.
    wd : float
        Weight decay; see `Boltzmann.step`.

    Notes
    -----
    A prediction is the expectation of the level, given the probabilities of the hidden
    units with the training ratings.
    """

    kind: str = "item"
    num_hidden: int = 200
    num_factors: int = 30
    num_epochs: int = 15
    batch_size: int = 64
    lr: float = 0.02
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
        for epoch in range(self.num_epochs):
            lr = half_cosine(self.lr, epoch, self.num_epochs)
            for rows in self._batches(rng.permutation(self.visible.shape[0])):
                self.machine.step(self.visible[rows], lr, self.wd, rng)
            yield epoch + 1

    def predict(self, rows: np.ndarray) -> np.ndarray:  # noqa: D102
        cells = self._cells(rows, np.arange(len(rows)))
        predictions = np.empty(len(rows))
        for batch in self._batches(np.arange(self.visible.shape[0])):
            asked = cells[batch]
            chances = self.machine.chances(self.visible[batch], asked)
            predictions[asked.data] = chances @ self.levels
        return predictions

    @property
    def num_parameters(self) -> int:  # noqa: D102
        return sum(parameter.size for parameter in self.machine.parameters)

    @property
    def num_ticks(self) -> int:  # noqa: D102
        return self.num_epochs

    def _cells(self, rows: np.ndarray, values: np.ndarray) -> sp.csr_matrix:
        """Lay values of rows out, a visible vector a row."""
        users, items = self.ratings.indices(rows)
        shape = (self.ratings.num_items, self.ratings.num_users)
        cells = sp.csr_matrix((values, (items, users)), shape)
        return cells if self.kind == "item" else cells.T.tocsr()

    def _batches(self, rows: np.ndarray) -> list[np.ndarray]:
        return np.split(rows, range(self.batch_size, len(rows), self.batch_size))


class Boltzmann:
    r"""A restricted Boltzmann machine, computed at the observed cells alone.

    Of a row that has the levels :math:`k_j` in its cells,

    .. math:: P(h_f = 1) = \sigma(b_f + \sum_j W_{j k_j f}), \qquad
              P(k_j = k) \propto \exp(c_{jk} + \sum_f W_{jkf} h_f)

    Any weights would overfit. These have a low rank, and neighboring levels have
    similar ones:

    .. math:: W_{jkf} = \sum_t \sum_i p_t(k) A_{jti} B_{if}

    with orthonormal polynomials :math:`p_t` of the degrees 0, 1 and 2. That of degree 0
    tells the hidden units that there is a rating at all, as in a conditional machine.

    Parameters
    ----------
    shares : numpy.ndarray of float, shape (num_columns, num_levels)
        How often a level is given in a column; :math:`c` starts at the logarithms.
    num_hidden, num_factors : int
        Hidden units, and the rank.
    rng : numpy.random.Generator
        Draws the initial :math:`A` and :math:`B`, normal with standard deviations of
        0.03 and 0.1.

    Attributes
    ----------
    parameters : list of numpy.ndarray of float32
        :math:`A`, of shape (num_columns * 3, num_factors); :math:`B`, of shape
        (num_factors, num_hidden); :math:`c`, of shape (num_columns * num_levels,); and
        :math:`b`, of shape (num_hidden,).
    polynomials : numpy.ndarray of float32, shape (num_levels, 3)
        :math:`p`; of two levels, without the degree 2.
    """

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
        self.parameters = [array.astype(np.float32) for array in initial]
        self._adam = [Adam(parameter) for parameter in self.parameters]

    def gradients(
        self, rows: sp.csr_matrix, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """Compute the gradients of contrastive divergence.

        One Gibbs step: the hidden units are drawn; of the levels, and then of the
        hidden units, the probabilities are taken, without the noise of draws. The
        gradient of :math:`W_{jkf}` is the mean over the rows of :math:`[k_j = k]
        P(h_f = 1)` with the data less :math:`P(k_j = k) P(h_f = 1)` after that step.

        Parameters
        ----------
        rows : scipy.sparse.csr_matrix of int, shape (num_rows, num_columns)
            The level in each cell, counted from 0.
        rng : numpy.random.Generator
            Draws the hidden units.

        Returns
        -------
        list of numpy.ndarray of float32
            Of each of the parameters; up is better.
        """
        _, hidden_factors, level_bias, _ = self.parameters
        data, inputs, hidden = self._infer(rows, self.polynomials[rows.data])
        drawn = rng.random(hidden.shape, np.float32) < hidden
        chances = self._chances(drawn.astype(np.float32), rows)
        model, inputs_then, hidden_then = self._infer(rows, chances @ self.polynomials)
        chances[np.arange(rows.nnz), rows.data] -= 1
        found = (
            data.T @ (hidden @ hidden_factors.T)
            - model.T @ (hidden_then @ hidden_factors.T),
            inputs.T @ hidden - inputs_then.T @ hidden_then,
            -np.asarray(spread_out(rows, chances).sum(axis=0)).ravel(),
            (hidden - hidden_then).sum(axis=0),
        )
        return [gradient / np.float32(rows.shape[0]) for gradient in found]

    def step(
        self, rows: sp.csr_matrix, lr: float, wd: float, rng: np.random.Generator
    ) -> None:
        """Take a step up the gradients, by Adam.

        Parameters
        ----------
        rows, rng
            As for `gradients`.
        lr : float
            Learning rate; that of :math:`B`, in which all columns meet, is an eighth of
            it.
        wd : float
            Weight decay of :math:`A` and :math:`B`.
        """
        gradients = self.gradients(rows, rng)
        rates = ((lr, wd), (lr / 8, wd), (lr, 0), (lr, 0))
        updates = zip(self.parameters, gradients, self._adam, rates)
        for parameter, gradient, adam, (lr, wd) in updates:
            parameter += adam.step(gradient - wd * parameter, lr)

    def chances(self, rows: sp.csr_matrix, cells: sp.csr_matrix) -> np.ndarray:
        """Compute the probabilities of the levels of cells, given their rows' ratings.

        Parameters
        ----------
        rows : scipy.sparse.csr_matrix of int, shape (num_rows, num_columns)
            As for `gradients`.
        cells : scipy.sparse.csr_matrix, shape (num_rows, num_columns)
            The cells are those that it stores.

        Returns
        -------
        numpy.ndarray of float32, shape (num_cells, num_levels)
            In the order in which the cells are stored.
        """
        _, _, hidden = self._infer(rows, self.polynomials[rows.data])
        return self._chances(hidden, cells)

    def _infer(
        self, rows: sp.csr_matrix, terms: np.ndarray
    ) -> tuple[sp.csr_matrix, np.ndarray, np.ndarray]:
        """Compute the hidden units' probabilities, and what leads to them."""
        level_factors, hidden_factors, _, bias = self.parameters
        levels = spread_out(rows, terms)
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
    """Compute orthonormal polynomials of levels.

    Parameters
    ----------
    num_levels : int
        Levels count from 0.
    degree : int
        The highest one, if there are more levels.

    Returns
    -------
    numpy.ndarray of float32, shape (num_levels, min(degree + 1, num_levels))
        A column each, that of degree 0 first.
    """
    powers = np.vander(np.arange(num_levels), degree + 1, increasing=True)
    return np.linalg.qr(powers)[0].astype(np.float32)


def spread_out(cells: sp.csr_matrix, values: np.ndarray) -> sp.csr_matrix:
    """Lay several values of each cell out side by side.

    Parameters
    ----------
    cells : scipy.sparse.csr_matrix, shape (num_rows, num_columns)
        The cells are those that it stores.
    values : numpy.ndarray, shape (num_cells, num_values)
        In the order in which the cells are stored.

    Returns
    -------
    scipy.sparse.csr_matrix, shape (num_rows, num_columns * num_values)
    """
    num_values = values.shape[1]
    columns = cells.indices[:, None] * num_values + np.arange(num_values)
    starts, shape = cells.indptr * num_values, np.array(cells.shape) * [1, num_values]
    return sp.csr_matrix((values.ravel(), columns.ravel(), starts), tuple(shape))


class Adam:
    """Adam for one array, with the usual settings.

    Parameters
    ----------
    parameter : numpy.ndarray
        Like it are the gradients.
    """

    def __init__(self, parameter: np.ndarray) -> None:
        self._mean, self._square = np.zeros_like(parameter), np.zeros_like(parameter)
        self._num_steps = 0

    def step(self, gradient: np.ndarray, lr: float) -> np.ndarray:
        """Return the next step up a gradient."""
        self._num_steps += 1
        self._mean += 0.1 * (gradient - self._mean)
        self._square += 0.001 * (gradient**2 - self._square)
        mean = self._mean / (1 - 0.9**self._num_steps)
        square = self._square / (1 - 0.999**self._num_steps)
        return np.asarray(lr * mean / (np.sqrt(square) + 1e-8))


def rating_levels(rating: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the levels of ratings.

    Parameters
    ----------
    rating : numpy.ndarray of float, shape (num_ratings,)
        On any scale.

    Returns
    -------
    levels : numpy.ndarray of float, shape (num_levels,)
        The distinct ratings, ascending; if they are more than `MAX_LEVELS`, means of
        about equally many ratings each.
    codes : numpy.ndarray of int, shape (num_ratings,)
        The level of each rating, from 0.
    """
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
    """Count how often a level is given in each column.

    Parameters
    ----------
    visible : scipy.sparse.csr_matrix of int, shape (num_rows, num_columns)
        Levels, from 0.
    num_levels : int
        How many there are.
    prior : float
        Ratings that each column has besides, of the levels as they are in all columns.

    Returns
    -------
    numpy.ndarray of float, shape (num_columns, num_levels)
        Above 0; they add up to 1.
    """
    num_columns = visible.shape[1]
    place = visible.indices * num_levels + visible.data
    counts: np.ndarray = np.bincount(place, minlength=num_columns * num_levels)
    counts = counts.reshape(num_columns, num_levels)
    counts = counts + prior * counts.sum(axis=0) / counts.sum()
    return np.asarray(counts / counts.sum(axis=1, keepdims=True))
