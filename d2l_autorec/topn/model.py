"""`TopN`, what all models of lists have in common, and `Popularity`, the baseline."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from ..data import checked
from ..errors import DataError
from .names import MODELS

# Is called after each epoch with its number, from 1, and may end the training by True.
OnEpoch = Callable[[int], Any] | None
Users = np.ndarray | None


@dataclass
class TopN(abc.ABC):
    """A model that scores all items for sets of items; its fields are its settings.

    Attributes
    ----------
    arrays : dict of str to numpy.ndarray
        What was learned, empty before `fit`.
    """

    arrays: dict[str, np.ndarray] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    @property
    def name(self) -> str:
        """The class's name in `MODELS`."""
        own = type(self).__name__
        return next((name for name, model in MODELS.items() if model == own), own)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings, as plain values by name."""
        return {one.name: getattr(self, one.name) for one in fields(self) if one.repr}

    def fit(
        self, inter_mat: sp.csr_matrix, seed: int = 0, on_epoch: OnEpoch = None
    ) -> Self:
        """Learn from pairs.

        Parameters
        ----------
        inter_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
            A stored cell is a pair; its value, such as a count, is not looked at.
        seed : int
            The same seed gives the same result; closed forms draw nothing.
        on_epoch : callable, optional
            Is called by networks with the number of each epoch that has been trained,
            from 1; they stop if it returns True.

        Returns
        -------
        TopN
            Itself.

        Raises
        ------
        DataError
            If there is no pair, or the model does not fit into memory.
        TrainingDiverged
            If a loss is not finite.
        """
        if not checked(inter_mat).nnz:
            raise DataError("there is no pair of user and item to learn from")
        self.fit_rows(ones(inter_mat).T.tocsr(), seed, on_epoch)
        return self

    @abc.abstractmethod
    def fit_rows(self, rows: sp.csr_matrix, seed: int, on_epoch: OnEpoch) -> None:
        """Learn from users' rows of ones, (num_users, num_items)."""

    @abc.abstractmethod
    def scores(self, rows: sp.csr_matrix, users: Users = None) -> np.ndarray:
        """Score all items for users, known or new, by what they have.

        Parameters
        ----------
        rows : scipy.sparse.csr_matrix, shape (num_rows, num_items)
            A row is a set of items: the stored cells.
        users : numpy.ndarray of int, shape (num_rows,), optional
            The user index of each row in `fit`, or -1 for a new user; by default all
            are new. It makes a difference to CDAE alone.

        Returns
        -------
        numpy.ndarray of float32, shape (num_rows, num_items)
            Higher is better; they compare within a row.
        """

    def load(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Take over the `arrays` of a model of the same settings."""
        self.arrays = dict(arrays)
        return self

    def item_vectors(self) -> np.ndarray | None:
        """Return vectors, (num_items, size), whose cosine is similarity, or None."""
        return None

    def cold_items(self) -> np.ndarray:
        """Return the indices of the items that are ranked though nobody has them."""
        return np.empty(0, int)


@dataclass
class Popularity(TopN):
    """Score items by the number of their training pairs, for everybody alike."""

    def fit_rows(self, rows: sp.csr_matrix, seed: int, on_epoch: OnEpoch) -> None:
        """Count the pairs of each item."""
        self.arrays = {"counts": rows.getnnz(axis=0).astype(np.float32)}

    def scores(self, rows: sp.csr_matrix, users: Users = None) -> np.ndarray:
        """Give every row the counts."""
        return np.tile(self.arrays["counts"], (rows.shape[0], 1))


def ones(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Replace what is stored by float32 ones."""
    values = np.ones(matrix.nnz, np.float32)
    return sp.csr_matrix((values, matrix.indices, matrix.indptr), matrix.shape)
