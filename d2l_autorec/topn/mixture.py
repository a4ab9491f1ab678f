"""`Mixture`: several models' scores, standardized and added up; `choose` makes one.

The scores of models have different scales, and those of one model differ from user to
user. Each is standardized over the items that the user does not have, to mean 0 and
standard deviation 1.

A random tenth of the training pairs chooses. Each kind of member is fitted to the rest
with each of its settings; the one with the highest ndcg@10 on the tenth stays, and a
network ends its training when that no longer rises. Weights are counts: again and again
the member is added whose addition raises the mixture's ndcg@10 most.

References
----------
R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble Selection from Libraries
of Models", ICML 2004.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import scipy.sparse as sp

from ..data import checked
from ..errors import DataError
from .autoencoder import Autoencoder
from .cdae import CDAE
from .ease import EASE, UserEASE
from .measures import measure, top_k
from .model import OnEpoch, Popularity, TopN, Users, ones
from .multinomial import MultDAE, MultVAE

_log = logging.getLogger(__name__)
VALID_RATIO, K = 0.1, 10
MAX_CELLS = 2**25  # scores of a model that validation holds; then some users will do
EVERY, PATIENCE = 5, 4  # epochs between two looks, and looks without a rise
DEPTH = 100  # places of each member's list that a mixture's list is made of
ROUNDS = 40  # of adding a member

# The models to choose from, for each member.
CANDIDATES: Sequence[Sequence[TopN]] = [
    [EASE(l2) for l2 in (250, 500, 1000)]
    + [EASE(l2, dropout=0.33, power=0.5) for l2 in (125, 250, 500)],
    [UserEASE(l2) for l2 in (1000, 2000, 4000)],
    [MultVAE(num_epochs=80)],
    [MultDAE(num_epochs=80)],
    [CDAE(num_epochs=80)],
    [Popularity()],
]


@dataclass
class Mixture(TopN):
    """A weighted sum of the standardized scores of some models.

    Parameters
    ----------
    members : list of TopN
    weights : list of float
        One for each member.
    """

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


def choose(
    inter_mat: sp.csr_matrix,
    seed: int = 0,
    candidates: Sequence[Sequence[TopN]] = CANDIDATES,
    on_epoch: OnEpoch = None,
) -> Mixture:
    """Choose a mixture's members, settings and weights.

    Parameters
    ----------
    inter_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
        The training pairs, of which a tenth is used for validation.
    seed : int
        Draws the validation part, the users if they are too many, and the networks.
    candidates : sequence of sequence of TopN
        For each member the models to choose from, not fitted yet.
    on_epoch : callable, optional
        Is called after each epoch of a network with its number.

    Returns
    -------
    Mixture
        To be fitted to all pairs; a weight may be 0.

    Raises
    ------
    DataError
        If there is no pair left to choose on, or no model fits into memory.
    """
    part = _Validation(inter_mat, seed, on_epoch)
    members, scores, refusals = [], [], []
    for options in candidates:
        try:
            value, model, found = max(map(part.fit, options), key=lambda one: one[0])
        except DataError as error:  # too large for this machine
            _log.warning("left out: %s", error)
            refusals.append(error)
            continue
        _log.info("%s: ndcg@%d %.4f on the validation part", model, K, value)
        members.append(model)
        scores.append(found)
    if not members:
        raise refusals[0]
    return Mixture(members, part.weigh(scores).tolist())


class _Validation:
    """A part of the pairs to choose on; the arguments are those of `choose`."""

    def __init__(self, inter_mat: sp.csr_matrix, seed: int, on_epoch: OnEpoch) -> None:
        self.seed, self.on_epoch = seed, on_epoch
        self.train_mat, valid_mat = split_pairs(inter_mat, VALID_RATIO, seed)
        self.users = np.flatnonzero(valid_mat.getnnz(axis=0))
        most = max(1, MAX_CELLS // inter_mat.shape[0])
        if len(self.users) > most:
            rng = np.random.default_rng(seed)
            self.users = np.sort(rng.choice(self.users, most, replace=False))
        self.given, self.held_out = (
            matrix.T.tocsr()[self.users] for matrix in (self.train_mat, valid_mat)
        )

    def fit(self, model: TopN) -> tuple[float, TopN, np.ndarray]:
        """Fit a copy: ndcg, the model to fit anew, and the standardized scores."""
        model = replace(model)
        best = -1.0, 0, np.empty(0)

        def look(epoch: int) -> None:
            nonlocal best
            scores = model.scores(self.given, self.users)
            value = _ndcg(scores, self.given, self.held_out)
            if value > best[0]:
                best = value, epoch, standardized(scores, self.given)

        def after(epoch: int) -> bool:
            if self.on_epoch:
                self.on_epoch(epoch)
            if epoch % EVERY or not isinstance(model, Autoencoder):
                return False
            look(epoch)
            return epoch >= best[1] + EVERY * PATIENCE

        model.fit(self.train_mat, self.seed, after)
        if not best[1]:  # no network, or one of few epochs
            look(0)
        value, epoch, scores = best
        # One that has not learned from a part alone.
        changed: dict[str, Any] = {"num_epochs": epoch} if epoch else {}
        return value, replace(model, **changed), scores

    def weigh(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Choose the weights of members by their standardized scores: they add to 1."""
        columns = self._shortlist(scores)

        def listed(array: np.ndarray) -> np.ndarray:
            return np.take_along_axis(array, columns, 1)

        values = [listed(one) for one in scores]
        given, held_out = (
            sp.csr_matrix(listed(one.toarray())) for one in (self.given, self.held_out)
        )
        counts, total = np.zeros(len(scores)), np.zeros_like(values[0])
        highest, chosen = -1.0, counts
        for _ in range(ROUNDS):
            found = [_ndcg(total + one, given, held_out) for one in values]
            number = int(np.argmax(found))
            total = total + values[number]
            counts = counts + (np.arange(len(scores)) == number)
            if found[number] > highest:
                highest, chosen = found[number], counts
        return np.asarray(chosen / chosen.sum())

    def _shortlist(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Pick high items of each member, and the held-out ones: (num_users, size)."""
        picked = self.held_out.toarray() > 0
        for one in scores:
            lists = top_k(one, self.given, min(DEPTH, one.shape[1]))
            row, place = np.nonzero(lists >= 0)
            picked[row, lists[row, place]] = True
        size = picked.sum(axis=1).max()
        # They are sorted; rows with fewer than others are filled up.
        return np.sort(np.argsort(~picked, axis=1, kind="stable")[:, :size], axis=1)


def _ndcg(scores: np.ndarray, given: sp.csr_matrix, held_out: sp.csr_matrix) -> float:
    """Measure the lists that some scores make."""
    return measure(top_k(scores, given, K), held_out, [K]).mean[f"ndcg@{K}"]


def split_pairs(
    inter_mat: sp.csr_matrix, ratio: float, seed: int
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Hold out a random part of the pairs.

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
