"""`Popularity`: the baseline that stands beside every figure."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import scipy.sparse as sp

from .model import OnEpoch, TopN, Users


@dataclass
class Popularity(TopN):
    """Score items by the number of their training pairs, for everybody alike."""

    name: ClassVar[str] = "popularity"

    def fit_rows(self, rows: sp.csr_matrix, seed: int, on_epoch: OnEpoch) -> None:
        """Count the pairs of each item."""
        self.arrays = {"counts": rows.getnnz(axis=0).astype(np.float32)}

    def scores(self, rows: sp.csr_matrix, users: Users = None) -> np.ndarray:
        """Give every row the counts."""
        return np.tile(self.arrays["counts"], (rows.shape[0], 1))
