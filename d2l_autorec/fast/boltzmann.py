"""A restricted Boltzmann machine whose visible units are levels of ratings."""

from __future__ import annotations

import numba
import numpy as np
import scipy.sparse as sp

from .compiled import call, compiled

# Sums may be taken in any order, as in a matrix product.
_MATH = {"reassoc", "contract"}


class Boltzmann:
    r"""A restricted Boltzmann machine, computed at the observed cells alone.

    Of a row that has the levels :math:`k_j` in its cells,

    .. math:: P(h_f = 1) = \sigma(b_f + \sum_j W_{j k_j f}), \qquad
              P(k_j = k) \propto \exp(c_{jk} + \sum_f W_{jkf} h_f)

    Parameters
    ----------
    shares : numpy.ndarray of float, shape (num_columns, num_levels)
        How often a level is given in a column; :math:`c` starts at the logarithms.
    num_hidden : int
        Hidden units.
    rng : numpy.random.Generator
        Draws the initial :math:`W`, normal with a standard deviation of 0.01.

    Attributes
    ----------
    weights : numpy.ndarray of float32, shape (num_columns, num_levels, num_hidden)
    visible_bias : numpy.ndarray of float32, shape (num_columns, num_levels)
    hidden_bias : numpy.ndarray of float32, shape (num_hidden,)
    """

    def __init__(
        self, shares: np.ndarray, num_hidden: int, rng: np.random.Generator
    ) -> None:
        weights = rng.normal(0, 0.01, (*shares.shape, num_hidden))
        self.weights = weights.astype(np.float32)
        self.visible_bias = np.log(shares).astype(np.float32)
        self.hidden_bias = np.zeros(num_hidden, np.float32)
        self._velocities = [np.zeros_like(p) for p in self.parameters]

    @property
    def parameters(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The three arrays."""
        return self.weights, self.visible_bias, self.hidden_bias

    def step(
        self,
        rows: sp.csr_matrix,
        num_steps: int,
        lr: float,
        momentum: float,
        wd: float,
        rng: np.random.Generator,
    ) -> None:
        r"""Take a step up the gradient of contrastive divergence.

        Hidden units are drawn, then levels, then the probabilities of the hidden units,
        `num_steps` times. The gradient of :math:`W_{jkf}` is the mean over the rows of
        :math:`[k_j = k] P(h_f = 1)` with the data less the same with what was drawn.

        Parameters
        ----------
        rows : scipy.sparse.csr_matrix of int, shape (batch_size, num_columns)
            The level in each cell, counted from 0.
        num_steps : int
            Gibbs steps.
        lr, momentum, wd : float
            Length of the step, share of the last one that is repeated, and weight decay
            of :math:`W`.
        rng : numpy.random.Generator
            Draws what is drawn.
        """
        num_rows, num_hidden = rows.shape[0], len(self.hidden_bias)
        shape = (num_rows, num_hidden)
        data, model = np.empty(shape, np.float32), np.empty(shape, np.float32)
        drawn = rows.data.copy()
        call(
            _gibbs,
            *((rows.indptr, rows.indices, rows.data), self.parameters),
            rng.random((num_steps, *shape), np.float32),
            rng.random((num_steps, rows.nnz), np.float32),
            *(data, model, drawn),
        )
        cells = (np.arange(rows.nnz), rows.indices, rows.indptr)
        columns = sp.csr_matrix(cells, rows.shape).tocsc()
        places = columns.data
        settings = map(np.float32, (lr / num_rows, momentum, 1 - lr * wd))
        call(
            _update,
            *(columns.indptr, columns.indices, rows.data[places], drawn[places]),
            *(data, model, self.parameters[:2], tuple(self._velocities[:2])),
            *settings,
        )
        velocity = self._velocities[2]
        velocity *= momentum
        velocity += lr * (data - model).mean(axis=0)
        self.hidden_bias += velocity

    def expect(
        self, rows: sp.csr_matrix, levels: np.ndarray, cells: sp.csr_matrix
    ) -> np.ndarray:
        """Compute the expected level of cells, given the ratings of their rows.

        Parameters
        ----------
        rows : scipy.sparse.csr_matrix of int, shape (num_rows, num_columns)
            As for `step`.
        levels : numpy.ndarray of float, shape (num_levels,)
            The ratings.
        cells : scipy.sparse.csr_matrix, shape (num_rows, num_columns)
            The cells are those that it stores.

        Returns
        -------
        numpy.ndarray of float32, shape (num_cells,)
            In the order in which the cells are stored.
        """
        expected = np.empty(cells.nnz, np.float32)
        call(
            _expect,
            *((rows.indptr, rows.indices, rows.data), self.parameters),
            *(levels.astype(np.float32), cells.indptr, cells.indices, expected),
        )
        return expected


@numba.njit(fastmath=_MATH)
def _infer(  # type: ignore[no-untyped-def]
    first, last, columns, levels, weights, hidden_bias, hidden
):
    """Compute the probabilities of the hidden units, given a row's levels."""
    for f in range(hidden.size):
        hidden[f] = hidden_bias[f]
    for cell in range(first, last):
        column, level = columns[cell], levels[cell]
        for f in range(hidden.size):
            hidden[f] += weights[column, level, f]
    for f in range(hidden.size):
        hidden[f] = np.float32(1) / (np.float32(1) + np.exp(-hidden[f]))


@numba.njit(fastmath=_MATH)
def _chances(  # type: ignore[no-untyped-def]
    column, hidden, weights, visible_bias, chances
):
    """Compute the probabilities of a cell's levels, given the hidden units."""
    for k in range(chances.size):
        total = np.float32(0)
        for f in range(hidden.size):
            total += weights[column, k, f] * hidden[f]
        chances[k] = total + visible_bias[column, k]
    highest = chances[0]
    for k in range(1, chances.size):
        highest = max(highest, chances[k])
    total = np.float32(0)
    for k in range(chances.size):
        chances[k] = np.exp(chances[k] - highest)
        total += chances[k]
    for k in range(chances.size):
        chances[k] /= total


@compiled(fastmath=_MATH)
def _gibbs(  # type: ignore[no-untyped-def]
    cells, parameters, unit_draws, level_draws, data, model, drawn
):
    starts, columns, levels = cells
    weights, visible_bias, hidden_bias = parameters
    for row in range(len(starts) - 1):
        first, last = starts[row], starts[row + 1]
        _infer(first, last, columns, levels, weights, hidden_bias, data[row])
        for f in range(hidden_bias.size):
            model[row, f] = data[row, f]
        units = np.empty_like(hidden_bias)
        chances = np.empty(visible_bias.shape[1], np.float32)
        for step in range(len(unit_draws)):
            for f in range(units.size):
                units[f] = unit_draws[step, row, f] < model[row, f]
            for cell in range(first, last):
                _chances(columns[cell], units, weights, visible_bias, chances)
                left = level_draws[step, cell]
                level = 0
                while level < chances.size - 1 and left >= chances[level]:
                    left -= chances[level]
                    level += 1
                drawn[cell] = level
            _infer(first, last, columns, drawn, weights, hidden_bias, model[row])


@compiled(fastmath=_MATH)
def _update(  # type: ignore[no-untyped-def]
    starts,
    rows,
    levels,
    drawn,
    data,
    model,
    parameters,
    velocities,
    lr,
    momentum,
    decay,
):
    weights, visible_bias = parameters
    velocity, bias_velocity = velocities
    for column in range(len(weights)):
        for k in range(weights.shape[1]):
            bias_velocity[column, k] *= momentum
            for f in range(weights.shape[2]):
                velocity[column, k, f] *= momentum
        for cell in range(starts[column], starts[column + 1]):
            row, given, found = rows[cell], levels[cell], drawn[cell]
            bias_velocity[column, given] += lr
            bias_velocity[column, found] -= lr
            for f in range(weights.shape[2]):
                velocity[column, given, f] += lr * data[row, f]
                velocity[column, found, f] -= lr * model[row, f]
        for k in range(weights.shape[1]):
            visible_bias[column, k] += bias_velocity[column, k]
            for f in range(weights.shape[2]):
                kept = decay * weights[column, k, f]
                weights[column, k, f] = kept + velocity[column, k, f]


@compiled(fastmath=_MATH)
def _expect(  # type: ignore[no-untyped-def]
    cells, parameters, ratings, cell_starts, cell_columns, expected
):
    starts, columns, levels = cells
    weights, visible_bias, hidden_bias = parameters
    for row in range(len(starts) - 1):
        hidden = np.empty_like(hidden_bias)
        chances = np.empty_like(ratings)
        first, last = starts[row], starts[row + 1]
        if cell_starts[row] < cell_starts[row + 1]:
            _infer(first, last, columns, levels, weights, hidden_bias, hidden)
        for cell in range(cell_starts[row], cell_starts[row + 1]):
            _chances(cell_columns[cell], hidden, weights, visible_bias, chances)
            expected[cell] = np.float32(0)
            for k in range(chances.size):
                expected[cell] += chances[k] * ratings[k]
