"""Products of a sparse matrix of ratings with dense ones, at its stored cells alone.

A batch's ratings are walked by columns: a column's own vector stays in the first cache
then, and those of the batch's rows in the second. There are three products: at each
cell, of a row's and the column's vector; the rows' vectors, added up for a column; and
the column's vector, added to its rows'.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
import scipy.sparse as sp
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from ..errors import DataError
from .compiled import call, compiled, num_threads

# Sums may be taken in any order, as in a matrix product.
_OPTIONS = {"error_model": "numpy", "fastmath": {"reassoc", "contract"}}
product = compiled(**_OPTIONS)
part = numba.njit(**_OPTIONS)  # of a product

# What a column costs in a step besides its cells: an update of its weights takes about
# as long as five of these do.
COLUMN_COST = 5
_LINE = 64  # bytes of the cache


class Cells(NamedTuple):
    """The ratings of a batch of rows, column by column.

    Attributes
    ----------
    starts : numpy.ndarray of int, shape (num_columns + 1,)
        Where each column's ratings begin.
    rows : numpy.ndarray of int, shape (num_ratings,)
        The batch's row of each.
    ratings : numpy.ndarray of float32, shape (num_ratings,)
    bounds : numpy.ndarray of int, shape (num_threads + 1,)
        First column of each thread's share of the work.
    num_rows : int
        Of the batch.
    """

    starts: np.ndarray
    rows: np.ndarray
    ratings: np.ndarray
    bounds: np.ndarray
    num_rows: int

    @property
    def num_shares(self) -> int:
        """How many threads there are."""
        return len(self.bounds) - 1


def by_columns(rows: sp.csr_matrix) -> Cells:
    """Sort a batch's ratings by columns, and share the columns out over threads.

    Parameters
    ----------
    rows : scipy.sparse.csr_matrix, shape (batch_size, num_users)
        Ratings.

    Returns
    -------
    Cells

    Raises
    ------
    DataError
        If it is no such matrix, or its indices do not lie within its shape.
    """
    if getattr(rows, "format", None) != "csr":
        raise DataError(f"a sparse matrix in CSR format is needed, not {type(rows)}")
    if not rows.shape[0]:
        raise DataError("a batch of the training data is empty")
    (num_rows, num_columns), starts = rows.shape, rows.indptr
    ends = np.zeros(num_columns + 2, np.int32)
    ratings = rows.data.astype(np.float32, copy=False)
    # A batch is small, and SciPy's own checks take longer.
    stored = min(rows.indices.size, ratings.size)
    fits = starts.size == num_rows + 1 and 0 <= starts[-1] <= stored
    size = starts[-1] if fits else 0
    found = np.empty(size, np.int32), np.empty(size, np.float32)
    if not fits or not call(_sort, starts, rows.indices, ratings, ends, *found):
        raise DataError(
            f"not a matrix of shape {rows.shape}: indices or indptr lead outside it"
        )
    return _shared_out(ends[:-1], *found, num_rows)


def in_columns(cells: sp.csc_matrix) -> Cells:
    """Share the columns of a matrix out over threads.

    Parameters
    ----------
    cells : scipy.sparse.csc_matrix, shape (batch_size, num_users)
        Made of one that has been `checked`.

    Returns
    -------
    Cells
    """
    ratings = cells.data.astype(np.float32, copy=False)
    return _shared_out(cells.indptr, cells.indices, ratings, cells.shape[0])


def _shared_out(
    starts: np.ndarray, rows: np.ndarray, ratings: np.ndarray, num_rows: int
) -> Cells:
    size = num_threads()
    cost = starts + COLUMN_COST * np.arange(len(starts))
    bounds = cost.searchsorted(np.arange(size + 1) * cost[-1] // size)
    bounds[0], bounds[-1] = 0, len(starts) - 1
    return Cells(starts, rows, ratings, bounds, num_rows)


@compiled()
def _sort(starts, columns, ratings, ends, rows, found):  # type: ignore[no-untyped-def]
    # It returns no array: Numba calls Python for one, where Ctrl-C is a SystemError.
    if starts[0] != 0:
        return False
    for row in range(starts.size - 1):
        if starts[row] > starts[row + 1]:
            return False
    # Of each column: where the one before ends, and then, as it fills, where it does.
    for column in columns[: rows.size]:
        if not 0 <= column < ends.size - 2:
            return False
        ends[column + 2] += 1
    for column in range(ends.size - 2):
        ends[column + 2] += ends[column + 1]
    for row in range(starts.size - 1):
        for k in range(starts[row], starts[row + 1]):
            place = ends[columns[k] + 1]
            ends[columns[k] + 1] += 1
            rows[place], found[place] = row, ratings[k]
    return True


def check_fit(cells: Cells, num_rows: int, num_columns: int) -> None:
    """Check that ratings have the shape of the arrays that are walked with them.

    Raises
    ------
    DataError
        If not, which the loops would not notice.
    """
    shape = cells.num_rows, len(cells.starts) - 1
    if shape != (num_rows, num_columns):
        raise DataError(f"ratings of {shape} for cells of {(num_rows, num_columns)}")


@intrinsic
def _prefetch(_, address):  # type: ignore[no-untyped-def]
    """Ask for the line of memory at an address: to be read, into the second cache."""

    def generate(context, builder, _, args):  # type: ignore[no-untyped-def]
        byte = context.get_value_type(types.voidptr)
        number = ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        ask = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        reads, cache, data = 0, 2, 1
        numbers = map(number, (reads, cache, data))
        builder.call(ask, [builder.inttoptr(args[0], byte), *numbers])
        return context.get_dummy_value()

    return types.void(types.intp), generate


@part
def ask_for(matrix, row):  # type: ignore[no-untyped-def]
    """Have a row of a matrix, if there is one, on its way from memory.

    A row is over before the processor sees where the next one is.
    """
    if row < len(matrix):
        first = np.intp(matrix[row].ctypes.data)
        for line in range(first, first + matrix.shape[1] * matrix.itemsize, _LINE):
            _prefetch(line)


@part
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


@part
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


@part
def add_to_rows(matrix, rows, factors, vector):  # type: ignore[no-untyped-def]
    """Add multiples of a vector to some rows of a matrix."""
    for k in range(len(rows)):
        a, p = matrix[rows[k]], factors[k]
        for i in range(vector.size):
            a[i] += p * vector[i]
