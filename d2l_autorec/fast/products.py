"""Products of sparse ratings with dense matrices, at the stored cells alone.

A batch's ratings are walked column by column: the column's own vector then stays in the
first cache, and those of the batch's rows in the second.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp

from ..errors import DataError
from .compiled import compiled, in_shares, inlined, num_threads

# What a column costs besides its ratings: an update of its weights takes about as long
# as five of these do.
COLUMN_COST = 5


class Cells(NamedTuple):
    """The ratings of a batch of rows, column by column."""

    starts: np.ndarray  # (num_columns + 1,): where each column's ratings begin
    rows: np.ndarray  # (num_ratings,): the batch's row of each
    ratings: np.ndarray  # float32
    bounds: np.ndarray  # (num_threads + 1,): first column of each thread's share
    num_rows: int

    @property
    def num_columns(self) -> int:
        """Length of a row."""
        return len(self.starts) - 1

    @property
    def num_shares(self) -> int:
        """How many threads there are."""
        return len(self.bounds) - 1


def by_columns(rows: sp.csr_matrix) -> Cells:
    """Sort a batch's ratings by columns; the indices have been `checked`."""
    if not rows.shape[0]:
        raise DataError("a batch of the training data is empty")
    cells = rows.tocsc()
    ratings = cells.data.astype(np.float32, copy=False)
    size = num_threads()
    cost = cells.indptr + COLUMN_COST * np.arange(len(cells.indptr))
    bounds = cost.searchsorted(np.arange(size + 1) * cost[-1] // size)
    bounds[0], bounds[-1] = 0, cells.shape[1]
    return Cells(cells.indptr, cells.indices, ratings, bounds, cells.shape[0])


def multiply(cells: Cells, weight: np.ndarray) -> np.ndarray:
    """Multiply ratings with a matrix (num_columns, size): float32, (num_rows, size)."""
    check_fit(cells, cells.num_rows, len(weight))
    sums = np.zeros((cells.num_shares, cells.num_rows, weight.shape[1]), np.float32)
    in_shares(_multiply, cells.num_shares, cells, weight, sums)
    return add_shares(sums)


def outputs_at(
    cells: Cells, hidden: np.ndarray, weight: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    """Compute a dense layer's outputs at a batch's cells: float32, (num_ratings,)."""
    check_fit(cells, len(hidden), len(weight))
    outputs = np.empty(cells.ratings.size, np.float32)
    in_shares(_outputs_at, cells.num_shares, cells, hidden, weight, bias, outputs)
    return outputs


def add_shares(sums: np.ndarray) -> np.ndarray:
    """Add up what the threads found, (num_shares, num_rows, size), in place."""
    for share in sums[1:]:
        sums[0] += share
    return np.asarray(sums[0])


def check_fit(cells: Cells, num_rows: int, num_columns: int) -> None:
    """Check that ratings fit the arrays they are walked with: the loops do not look."""
    shape = cells.num_rows, cells.num_columns
    if shape != (num_rows, num_columns):
        raise DataError(f"ratings of {shape} for cells of {(num_rows, num_columns)}")


@compiled
def _multiply(share, cells, weight, sums):  # type: ignore[no-untyped-def]
    for column in range(cells.bounds[share], cells.bounds[share + 1]):
        its = slice(cells.starts[column], cells.starts[column + 1])
        add_to_rows(sums[share], cells.rows[its], cells.ratings[its], weight[column])


@compiled
def _outputs_at(share, cells, hidden, weight, bias, outputs):  # type: ignore[no-untyped-def]
    for column in range(cells.bounds[share], cells.bounds[share + 1]):
        its = slice(cells.starts[column], cells.starts[column + 1])
        dot_rows(hidden, cells.rows[its], weight[column], outputs[its])
        outputs[its] += bias[column]


@inlined
def dot_rows(matrix, rows, vector, out):  # type: ignore[no-untyped-def]
    """Write the products of some rows of a matrix with a vector."""
    size, k = len(rows), 0
    while k + 4 <= size:  # four at a time, so that the vector is read once for them
        a, b = matrix[rows[k]], matrix[rows[k + 1]]
        c, d = matrix[rows[k + 2]], matrix[rows[k + 3]]
        p = q = r = s = np.float32(0)
        for i in range(vector.size):
            p += a[i] * vector[i]
            q += b[i] * vector[i]
            r += c[i] * vector[i]
            s += d[i] * vector[i]
        out[k], out[k + 1], out[k + 2], out[k + 3] = p, q, r, s
        k += 4
    while k < size:
        a, p = matrix[rows[k]], np.float32(0)
        for i in range(vector.size):
            p += a[i] * vector[i]
        out[k] = p
        k += 1


@inlined
def add_rows(matrix, rows, factors, out):  # type: ignore[no-untyped-def]
    """Add multiples of some rows of a matrix to a vector."""
    size, k = len(rows), 0
    while k + 4 <= size:
        a, b = matrix[rows[k]], matrix[rows[k + 1]]
        c, d = matrix[rows[k + 2]], matrix[rows[k + 3]]
        p, q, r, s = factors[k], factors[k + 1], factors[k + 2], factors[k + 3]
        for i in range(out.size):
            out[i] += p * a[i] + q * b[i] + r * c[i] + s * d[i]
        k += 4
    while k < size:
        a, p = matrix[rows[k]], factors[k]
        for i in range(out.size):
            out[i] += p * a[i]
        k += 1


@inlined
def add_to_rows(matrix, rows, factors, vector):  # type: ignore[no-untyped-def]
    """Add multiples of a vector to some rows of a matrix."""
    for k in range(len(rows)):
        a, p = matrix[rows[k]], factors[k]
        for i in range(vector.size):
            a[i] += p * vector[i]
