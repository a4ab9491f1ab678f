"""The book's four data functions, and mini-batches cut as slices of arrays.

References
----------
*Dive into Deep Learning*, "The MovieLens Dataset".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as onp
import scipy.sparse as sp

from ._mxnet import gluon, np
from .errors import DataError

if TYPE_CHECKING:
    import pandas as pd


def read_data_ml100k() -> tuple[pd.DataFrame, int, int]:
    """Read MovieLens 100K, and download it if it is not on this machine.

    Returns
    -------
    data : pandas.DataFrame
        100,000 rows of ``user_id``, ``item_id``, ``rating``, ``timestamp``; ids from 1.
    num_users, num_items : int
        943 and 1682.

    Raises
    ------
    DatasetUnavailable
        If it can be neither found nor downloaded.
    """
    from .ratings import load_dataset  # the one thing from behind the chapter

    ratings = load_dataset("ml-100k")
    data = ratings.data.astype({"rating": onp.int64})
    return data, ratings.num_users, ratings.num_items


def split_data_ml100k(
    data: pd.DataFrame,
    num_users: int,
    num_items: int,
    split_mode: str = "random",
    test_ratio: float = 0.1,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Split ratings into a training and a test part.

    Parameters
    ----------
    data : pandas.DataFrame
        Ratings with the columns of `read_data_ml100k`; ids of any type.
    num_users, num_items : int
        Unused; the book's signature has them.
    split_mode : {'random', 'seq-aware'}
        ``random``: a rating goes to training if a uniform draw of MXNet's generator is
        below ``1 - test_ratio``. ``seq-aware``: each user's newest rating is the test
        part (the first of several with one timestamp); the training part is sorted by
        user, then by time.
    test_ratio : float
        Share of the test part in ``random`` mode, between 0 and 1.

    Returns
    -------
    train_data, test_data : pandas.DataFrame
        Columns as in `data`.

    Raises
    ------
    ValueError, DataError
        As for `split_rows`.

    Notes
    -----
    The rows are the book's, which names no columns in ``seq-aware`` mode.
    """
    timestamp = data.get("timestamp")
    if split_mode == "seq-aware" and timestamp is not None and timestamp.isna().any():
        raise DataError(
            "the seq-aware split needs a timestamp of each rating; "
            f"{timestamp.isna().sum():,} of {len(data):,} have none"
        )
    _, user_index = onp.unique(data["user_id"], return_inverse=True)
    time = None if timestamp is None else timestamp.to_numpy()
    parts = split_rows(user_index, time, split_mode, test_ratio)
    train_data, test_data = (data.iloc[rows] for rows in parts)
    if split_mode == "seq-aware":
        train_data = train_data.reset_index(drop=True)
        test_data = test_data.reset_index(drop=True)
    return train_data, test_data


def split_rows(
    user_index: onp.ndarray,
    timestamp: onp.ndarray | None = None,
    split_mode: str = "random",
    test_ratio: float = 0.1,
) -> tuple[onp.ndarray, onp.ndarray]:
    """Split ratings as `split_data_ml100k` does, by their rows.

    Parameters
    ----------
    user_index : numpy.ndarray of int, shape (num_ratings,)
        The user of each rating.
    timestamp : numpy.ndarray, shape (num_ratings,), optional
        When it was given; ``seq-aware`` needs it.
    split_mode, test_ratio
        As for `split_data_ml100k`.

    Returns
    -------
    train_rows, test_rows : numpy.ndarray of int64
        Positions of the ratings of each part, in its order.

    Raises
    ------
    ValueError
        For another split mode, or a test ratio outside (0, 1).
    DataError
        If a part is empty, or ``seq-aware`` finds no timestamps.
    """
    if split_mode == "random":
        if not 0 < test_ratio < 1:
            raise ValueError(f"test_ratio lies between 0 and 1, not {test_ratio}")
        mask = np.random.uniform(0, 1, (len(user_index),)) < 1 - test_ratio
        mask = mask.asnumpy().astype(bool)
        train_rows, test_rows = onp.flatnonzero(mask), onp.flatnonzero(~mask)
    elif split_mode == "seq-aware":
        train_rows, test_rows = _newest_rows(user_index, timestamp)
    else:
        raise ValueError(f"split_mode is 'random' or 'seq-aware', not {split_mode!r}")
    for part, part_rows in (("training", train_rows), ("test", test_rows)):
        if not part_rows.size:
            raise DataError(f"the {split_mode} split leaves the {part} part empty")
    return train_rows, test_rows


def _newest_rows(
    user_index: onp.ndarray, timestamp: onp.ndarray | None
) -> tuple[onp.ndarray, onp.ndarray]:
    """Take each user's newest rating as the test part, the first of several."""
    if timestamp is None:
        raise DataError("the seq-aware split needs timestamps; these ratings have none")
    by_time = onp.lexsort((timestamp, user_index))
    rows = onp.arange(len(user_index))
    oldest_first = onp.lexsort((-rows, timestamp, user_index))
    users = user_index[oldest_first]
    test_rows = oldest_first[onp.append(users[1:] != users[:-1], True)]
    first_seen = onp.unique(user_index, return_index=True)[1]
    test_rows = test_rows[onp.argsort(first_seen)]  # users in the order of the file
    train_rows = by_time[~onp.isin(by_time, test_rows)]
    return train_rows, test_rows


def load_data_ml100k(
    data: pd.DataFrame, num_users: int, num_items: int, feedback: str = "explicit"
) -> tuple[list[int], list[int], list[float], Any]:
    """Turn ratings into index lists and an interaction matrix.

    Parameters
    ----------
    data : pandas.DataFrame
        Its first three columns are user id, item id (both from 1) and rating.
    num_users, num_items : int
        Shape of the matrix.
    feedback : {'explicit', 'implicit'}
        Whether scores are the ratings, or 1 for every rating.

    Returns
    -------
    users, items : list of int
        0-based indices, in the order of the rows.
    scores : list
        The ratings, or 1 for each row when implicit.
    inter : mxnet.np.ndarray of float32, shape (num_items, num_users), or dict
        The ratings, 0 if unobserved; when implicit, user index to item indices.

    Raises
    ------
    DataError
        For an id outside 1..num_users or 1..num_items.
    """
    if feedback not in ("explicit", "implicit"):
        raise ValueError(f"feedback is 'explicit' or 'implicit', not {feedback!r}")
    user_index = data.iloc[:, 0].to_numpy(onp.int64) - 1
    item_index = data.iloc[:, 1].to_numpy(onp.int64) - 1
    for noun, index, size in (
        ("user", user_index, num_users),
        ("item", item_index, num_items),
    ):
        outside = index[(index < 0) | (index >= size)]
        if outside.size:
            raise DataError(f"{noun} id {outside[0] + 1} is not between 1 and {size}")
    users, items = user_index.tolist(), item_index.tolist()
    if feedback == "implicit":
        inter: dict[int, list[int]] = {}
        for user, item in zip(users, items):
            inter.setdefault(user, []).append(item)
        return users, items, [1] * len(users), inter
    rating = data.iloc[:, 2].to_numpy()
    dense = onp.zeros((num_items, num_users), onp.float32)
    dense[item_index, user_index] = rating
    return users, items, rating.tolist(), np.array(dense)


def split_and_load_ml100k(
    split_mode: str = "seq-aware",
    feedback: str = "explicit",
    test_ratio: float = 0.1,
    batch_size: int = 256,
) -> tuple[int, int, gluon.data.DataLoader, gluon.data.DataLoader]:
    """Read, split and batch MovieLens 100K.

    Parameters
    ----------
    split_mode, test_ratio
        As for `split_data_ml100k`.
    feedback
        As for `load_data_ml100k`.
    batch_size : int
        Ratings a mini-batch.

    Returns
    -------
    num_users, num_items : int
        943 and 1682.
    train_iter, test_iter : mxnet.gluon.data.DataLoader
        Batches of user index, item index and rating, each a float32 array of shape
        (batch_size,). `train_iter` shuffles; ratings that do not fill a batch wait for
        the next epoch.
    """
    data, num_users, num_items = read_data_ml100k()
    loaders = []
    for part, shuffle in zip(
        split_data_ml100k(data, num_users, num_items, split_mode, test_ratio),
        (True, False),
    ):
        users, items, scores, _ = load_data_ml100k(part, num_users, num_items, feedback)
        loaders.append(rating_batches(users, items, scores, batch_size, shuffle))
    return num_users, num_items, loaders[0], loaders[1]


def rating_batches(
    users: Any, items: Any, scores: Any, batch_size: int, shuffle: bool = False
) -> gluon.data.DataLoader:
    """Batch single ratings, for matrix factorization.

    Parameters
    ----------
    users, items, scores : sequence, length num_ratings
        User indices and item indices from 0, and ratings.
    batch_size : int
        Ratings a mini-batch, at most all of them.
    shuffle : bool
        Draw a new order each epoch; an incomplete batch waits for the next epoch.

    Returns
    -------
    mxnet.gluon.data.DataLoader
        Batches of three float32 arrays of shape (batch_size,).

    Raises
    ------
    ValueError
        For a batch size below 1, or (`DataError`) no rating, a negative index, or one
        from 2**24 on, which float32 may round.
    """
    columns = onp.array([users, items, scores], onp.float32)  # (3, num_ratings)
    for index in (columns[:2].min(initial=0), columns[:2].max(initial=0)):
        if not 0 <= index < 2**24:
            raise DataError(
                f"a user or item index is {index:.0f}; it has to be from 0 to 16777215"
            )

    def take(rows: list[int]) -> list[np.ndarray]:
        # One transfer for the three is the better part of a mini-batch's loading.
        return list(np.array(columns[:, rows]))

    return _batches(columns.shape[1], take, batch_size, shuffle)


def row_batches(
    inter_mat: sp.csr_matrix, batch_size: int, shuffle: bool = False
) -> gluon.data.DataLoader:
    """Batch the rows of an interaction matrix, for AutoRec.

    Parameters
    ----------
    inter_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        Ratings; only one mini-batch at a time is dense.
    batch_size : int
        Rows a mini-batch, at most all of them.
    shuffle : bool
        Draw a new order each epoch; an incomplete batch waits for the next epoch.

    Returns
    -------
    mxnet.gluon.data.DataLoader
        Batches of shape (batch_size, num_users), each a float32 array.
    """
    inter_mat = checked(inter_mat)

    def take(rows: list[int]) -> np.ndarray:
        return dense(inter_mat[rows])

    return _batches(inter_mat.shape[0], take, batch_size, shuffle)


def checked(matrix: Any) -> Any:
    """Return a CSR matrix of real, finite values, each cell once; or refuse it.

    SciPy and compiled code follow any index without a check.
    """
    if not sp.issparse(matrix) or matrix.format != "csr":
        kind = getattr(matrix, "format", type(matrix).__name__)
        raise DataError(f"a sparse matrix in CSR format is needed, not {kind}")
    try:
        matrix.check_format(full_check=True)
    except ValueError as error:
        raise DataError(f"not a matrix of shape {matrix.shape}: {error}") from None
    if (onp.diff(matrix.indptr) < 0).any():  # SciPy looks only where values are
        raise DataError(f"not a matrix of shape {matrix.shape}: indptr decreases")
    if not matrix.shape[0]:
        raise DataError("a matrix has no rows")
    if matrix.dtype.kind not in "biuf" or not onp.isfinite(matrix.data).all():
        raise DataError(f"a value in {matrix.dtype} is no finite, real number")
    plain = _plain(matrix)
    if not plain.has_sorted_indices:
        plain = plain.sorted_indices()
    if not plain.has_canonical_format:
        raise DataError(
            "a cell is stored more than once; keep one rating of each, or add them up "
            "(matrix.sum_duplicates())"
        )
    return matrix


def check_ratings(
    name: str, matrix: Any, shape: tuple[int, int] | None = None
) -> sp.csr_matrix:
    """Return an interaction matrix in float32, sorted, of positive ratings only.

    It is not copied if it is all of this already; stored zeros are dropped.
    """
    try:
        checked(matrix)
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    if shape and matrix.shape != shape:
        raise DataError(f"{name}: is of shape {matrix.shape}, not of {shape}")
    is_sorted = _plain(matrix).has_sorted_indices
    if matrix.dtype != onp.float32 or not (is_sorted and matrix.data.all()):
        matrix = _plain(matrix).copy()
        matrix.eliminate_zeros()
        matrix.sort_indices()
        with onp.errstate(over="ignore"):
            matrix = matrix.astype(onp.float32)
    if not matrix.nnz:
        raise DataError(f"{name}: holds no rating")
    low, high = matrix.data.min(), matrix.data.max()
    # Smaller numbers lose digits in float32, and MXNet does not read them.
    if not onp.finfo(onp.float32).tiny <= low <= high < onp.inf:
        raise DataError(
            f"{name}: ratings from {low:g} to {high:g} are not positive float32 numbers"
        )
    return matrix


def _plain(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Return a matrix of the same arrays, without SciPy's note that it is sorted."""
    return sp.csr_matrix((matrix.data, matrix.indices, matrix.indptr), matrix.shape)


def dense(rows: sp.csr_matrix) -> np.ndarray:
    """Turn rows of an interaction matrix into a float32 array of the same shape."""
    return np.array(rows.toarray(), onp.float32)


def as_float32(batch: Any) -> Any:
    """Turn rows of any type into a float32 array of the same shape."""
    if sp.issparse(batch):
        return dense(checked(batch))
    return batch.astype(onp.float32, copy=False)


def _batches(
    size: int, take: Any, batch_size: int, shuffle: bool
) -> gluon.data.DataLoader:
    """Let Gluon's loader draw positions; `take` cuts a batch out of arrays at once.

    A batch larger than the data would leave epochs without a step, as it rolls over.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is a whole number from 1, not {batch_size}")
    if not size:
        raise DataError("there are no ratings to batch")
    return gluon.data.DataLoader(
        range(size),
        min(batch_size, size),
        shuffle=shuffle,
        last_batch="rollover" if shuffle else "keep",
        batchify_fn=take,
    )
