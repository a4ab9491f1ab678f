"""`Mixture`: several models' scores, standardized and added up.

The scores of models have different scales, and those of one model differ from user to
user. Each is standardized over the items that the user does not have, to mean 0 and
standard deviation 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import numpy as np
import scipy.sparse as sp

from .model import OnEpoch, TopN, Users, ones


@dataclass
class Mixture(TopN):
    """A weighted sum of the standardized scores of some models.

    Parameters
    ----------
    members : list of TopN
    weights : list of float
        One for each member.
    """

    name: ClassVar[str] = "best"
    members: list[TopN] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """The members' names and settings, and the weights."""
        members = [{"model": one.name, **one.settings} for one in self.members]
        return {"members": members, "weights": list(self.weights)}

    def fit_rows(self, rows: sp.csr_matrix, seed: int, on_epoch: OnEpoch) -> None:
        """Fit each member, with a seed of its own."""
        for number, member in enumerate(self.members):
            member.fit_rows(rows, seed + number, on_epoch)
        self.arrays = {
            f"{number}.{name}": array
            for number, member in enumerate(self.members)
            for name, array in member.arrays.items()
        }

    def scores(self, rows: sp.csr_matrix, users: Users = None) -> np.ndarray:
        """Add up."""
        total = np.zeros(rows.shape, np.float32)
        for member, weight in zip(self.members, self.weights):
            total += np.float32(weight) * standardized(member.scores(rows, users), rows)
        return total

    def load(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Hand each member its arrays."""
        for number, member in enumerate(self.members):
            prefix = f"{number}."
            own = [name for name in arrays if name.startswith(prefix)]
            member.load({name.removeprefix(prefix): arrays[name] for name in own})
        return super().load(arrays)

    def item_vectors(self) -> np.ndarray | None:
        """Return those of the member with the largest weight that has any."""
        order = np.argsort([-weight for weight in self.weights], kind="stable")
        vectors = (self.members[number].item_vectors() for number in order)
        return next((found for found in vectors if found is not None), None)


def standardized(scores: np.ndarray, seen: sp.csr_matrix) -> np.ndarray:
    """Standardize each row over its unseen items: same shape, float32."""
    seen = ones(seen)
    num_unseen = np.maximum(scores.shape[1] - np.diff(seen.indptr), 1)[:, None]

    def mean(values: np.ndarray) -> np.ndarray:
        others = np.asarray(seen.multiply(values).sum(axis=1)).reshape(-1, 1)
        total = values.sum(axis=1, keepdims=True, dtype=float)
        return np.asarray((total - others) / num_unseen)

    centred = (scores - mean(scores)).astype(np.float32)
    deviation = np.sqrt(np.maximum(mean(np.square(centred)), 0))
    return np.asarray(
        centred / np.where(deviation > 0, deviation, 1).astype(np.float32)
    )
