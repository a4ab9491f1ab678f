"""A model of lists in its folder, and what it recommends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import scipy.sparse as sp

from ..topn import TopN, make
from ..training import Parts
from .folder import MODEL_FILE, ListsModel, make_folder, write_model
from .predictor import Predictor
from .storage import Arrays, blaming

_CELLS = 2**22  # scores that are computed at once


@dataclass(frozen=True)
class ListRun:
    """A training of a model of lists, which is done.

    Parameters
    ----------
    parts : Parts
        Pairs: every stored cell is 1.
    model : TopN
        Fitted to the training pairs.
    seed : int
        Of the split and of the model.
    measures : mapping of str to mapping of str to float
        By the names of the model and of popularity, how good the lists were on the test
        part; empty without one.
    """

    parts: Parts
    model: TopN
    seed: int
    measures: Mapping[str, Mapping[str, float]]

    def save(self, directory: str | Path, overwrite: bool = False) -> None:
        """Replace the model in a folder; a `ModelError` as for `make_folder`."""
        make_folder(directory, overwrite)
        model = ListsModel(
            seed=self.seed,
            model=self.model.name,
            settings=self.model.settings,
            measures={name: dict(one) for name, one in self.measures.items()},
        )
        write_model(Path(directory), model, self.parts, self.model.arrays)

    @classmethod
    def of(
        cls, directory: str | Path, model: ListsModel, parts: Parts, arrays: Arrays
    ) -> ListRun:
        """Make it of what `read_model` returns."""
        with blaming(Path(directory) / MODEL_FILE):
            fitted = make(model.model, model.settings).load(arrays)
            num_items = len(parts.item_ids)
            found = fitted.scores(sp.csr_matrix((1, num_items), dtype=np.float32))
            if found.shape != (1, num_items):
                raise ValueError(f"scores of shape {found.shape}")
            found[0, fitted.cold_items()]  # which are indices
        return cls(parts, fitted, model.seed, model.measures)


class Suggestion(NamedTuple):
    """An item, with a score that compares within one user's list alone."""

    item_id: Any
    score: float
    title: str | None


class ListPredictor(Predictor):
    """Recommends with a model of lists; the methods are those of `Predictor`.

    A user without a training pair gets the most popular items where `Predictor` gives
    item means.

    Parameters
    ----------
    run : ListRun

    Attributes
    ----------
    run : ListRun
    """

    recommendation: ClassVar[Any] = Suggestion

    def __init__(self, run: ListRun) -> None:
        self.run: Any = run
        self._model: Any = _Sets(run)

    def _new_row(self, ratings: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return the indices of a new user's items; that they have them is all."""
        found = self._new_items(list(dict.fromkeys(ratings)))
        rated = found[found >= 0]
        return rated, np.ones(len(rated), np.float32)

    @cached_property
    def _counts(self) -> dict[str, np.ndarray]:
        """Count the training pairs; words of a cold item are worth one."""
        counts = super()._counts
        counts["item"][self.run.model.cold_items()] = 1
        return counts

    @cached_property
    def _item_means(self) -> np.ndarray:
        return self._counts["item"].astype(np.float32)


class _Sets:
    """Scores of a model for users by the sets of items that they have."""

    def __init__(self, run: ListRun) -> None:
        self._model = run.model
        self._rows = run.parts.train_mat.T.tocsr()
        # Of users that were held out, the model knows nothing but their sets.
        self._fitted = fitted_users(run.parts)

    def of_users(self, users: np.ndarray) -> np.ndarray:
        """Score all items for users (num_users,): (num_users, num_items)."""
        known = np.where(self._fitted[users], users, -1)
        return self._model.scores(self._rows[users], known)

    def of_cells(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        """Score single cells (num_cells,)."""
        several, place = np.unique(users, return_inverse=True)
        found = np.empty(len(users), np.float32)
        size = max(1, _CELLS // self._rows.shape[1])
        for start in range(0, len(several), size):
            scores = self.of_users(several[start : start + size])
            cells = (place >= start) & (place < start + size)
            found[cells] = scores[place[cells] - start, items[cells]]
        return found

    def of_new_user(self, rated: np.ndarray, given: Any) -> np.ndarray:
        """Score all items (num_items,) for a set."""
        shape = 1, self._rows.shape[1]
        row = sp.csr_matrix((given, np.sort(rated), [0, len(rated)]), shape)
        return np.asarray(self._model.scores(row)[0])

    def clip(self, scores: np.ndarray) -> np.ndarray:
        """Leave scores as they are: they have no scale."""
        return scores

    @property
    def item_vectors(self) -> np.ndarray:
        """Return vectors of the items, or those of the users who have each of them."""
        found = self._model.item_vectors()
        return self._rows.T.toarray() if found is None else found


def pairs_to_fit(parts: Parts) -> sp.csr_matrix:
    """Return the training pairs of the users that a model of lists is fitted to."""
    matrix = parts.train_mat.multiply(fitted_users(parts).astype(np.float32)).tocsr()
    matrix.eliminate_zeros()
    return matrix


def fitted_users(parts: Parts) -> np.ndarray:
    """Tell which users a model of lists was fitted to: all, or all but those held out.

    Of the latter, the training part has what the model is given.
    """
    fitted = np.ones(len(parts.user_ids), bool)
    if parts.split.get("split_mode") == "users" and parts.test_mat is not None:
        fitted[np.unique(parts.test_mat.indices)] = False
    return fitted
