"""Parts of pairs: cut at random, or by whole users."""

import numpy as np
import scipy.sparse as sp

from ..data import checked
from ..errors import DataError
from .model import ones


def split_pairs(
    inter_mat: sp.csr_matrix, ratio: float, seed: int
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Hold out a random part of the pairs: weak generalisation.

    Parameters
    ----------
    inter_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
    ratio : float
        Share of the part, between 0 and 1.
    seed : int

    Returns
    -------
    train_mat, held_out_mat : scipy.sparse.csr_matrix
        Of the same shape, of ones.

    Raises
    ------
    DataError
        If a part is empty.
    """
    cells = ones(checked(inter_mat)).tocoo()
    draws = np.random.default_rng(seed).random(cells.nnz) < ratio
    if draws.all() or not draws.any():
        raise DataError(f"{cells.nnz:,} pairs are too few for a part of {ratio:g}")
    train_mat, held_out_mat = (
        sp.csr_matrix((cells.data[its], (cells.row[its], cells.col[its])), cells.shape)
        for its in (~draws, draws)
    )
    return train_mat, held_out_mat


def split_users(
    inter_mat: sp.csr_matrix, ratio: float, seed: int
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Hold out whole users: strong generalisation.

    Parameters
    ----------
    inter_mat, ratio, seed
        As for `split_pairs`; the share is one of users.

    Returns
    -------
    train_mat, test_mat : scipy.sparse.csr_matrix
        The columns of the users that remain, and of those held out; `split_pairs` cuts
        the latter into what a model is given and what it is to find.

    Raises
    ------
    DataError
        If a part is empty.
    """
    columns = ones(checked(inter_mat)).tocsc()
    num_users = columns.shape[1]
    order, number = (
        np.random.default_rng(seed).permutation(num_users),
        round(ratio * num_users),
    )
    if not 0 < number < num_users:
        raise DataError(f"{num_users:,} users are too few for a part of {ratio:g}")
    held_out, others = np.sort(order[:number]), np.sort(order[number:])
    return columns[:, others].tocsr(), columns[:, held_out].tocsr()
