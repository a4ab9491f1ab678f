"""`choose`: a mixture whose members, settings and weights a validation part decides.

A random tenth of the training pairs is set aside. Each kind of member is fitted to the
rest with each of its settings; the one with the highest ndcg@10 on the tenth stays, and
a network ends its training when that no longer rises. Weights are counts: again and
again the member is added whose addition raises the mixture's ndcg@10 most. Then all
that remain are fitted to all training pairs.

References
----------
R. Caruana, A. Niculescu-Mizil, G. Crew, A. Ksikes, "Ensemble Selection from Libraries
of Models", ICML 2004.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import scipy.sparse as sp

from ..errors import DataError
from .autoencoder import Autoencoder
from .cdae import CDAE
from .cvae import CVAE
from .ease import EASE, UserEASE
from .measures import measure, top_k
from .mixture import Mixture, standardized
from .model import OnEpoch, TopN, ones
from .multinomial import MultDAE, MultVAE
from .popularity import Popularity
from .splits import split_pairs

_log = logging.getLogger(__name__)
VALID_RATIO, K = 0.1, 10
MAX_CELLS = 2**25  # scores of a model that validation holds; then some users will do
EVERY, PATIENCE = 5, 4  # epochs between two looks, and looks without a rise
DEPTH = 100  # places of each member's list that a mixture's list is made of
ROUNDS = 40  # of adding a member

MODELS: dict[str, type[TopN]] = {
    model.name: model
    for model in (Popularity, EASE, UserEASE, CDAE, MultDAE, MultVAE, CVAE, Mixture)
}
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


def make(name: str, settings: Mapping[str, Any]) -> TopN:
    """Make a model of `MODELS` by its name and settings; an unknown one: DataError."""
    if name not in MODELS:
        raise DataError(f"{name!r} is not one of {', '.join(MODELS)}")
    values = dict(settings)
    if name == Mixture.name:
        members = [dict(member) for member in values.get("members", [])]
        values["members"] = [make(one.pop("model"), one) for one in members]
    try:
        return MODELS[name](**values)
    except TypeError as error:
        raise DataError(f"{name}: {str(error).split(') ', 1)[-1]}") from None


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
    part = Validation(inter_mat, seed, on_epoch)
    chosen, refusals = [], []
    for options in candidates:
        try:
            chosen.append(part.choose(options))
        except DataError as error:  # too large for this machine
            _log.warning("left out: %s", error)
            refusals.append(error)
    if not chosen:
        raise refusals[0]
    weights = part.weigh([scores for _, scores in chosen])
    return Mixture([model for model, _ in chosen], weights.tolist())


class Validation:
    """A part of the pairs to choose on; the arguments are those of `choose`."""

    def __init__(
        self, inter_mat: sp.csr_matrix, seed: int, on_epoch: OnEpoch = None
    ) -> None:
        self.seed, self.on_epoch = seed, on_epoch
        self.train_mat, valid_mat = split_pairs(inter_mat, VALID_RATIO, seed)
        self.users = np.flatnonzero(valid_mat.getnnz(axis=0))
        most = max(1, MAX_CELLS // inter_mat.shape[0])
        if len(self.users) > most:
            rng = np.random.default_rng(seed)
            self.users = np.sort(rng.choice(self.users, most, replace=False))
        self.given, self.held_out = (
            ones(matrix.T.tocsr()[self.users]) for matrix in (self.train_mat, valid_mat)
        )

    def choose(self, options: Sequence[TopN]) -> tuple[TopN, np.ndarray]:
        """Choose among models; return one, and its standardized scores."""
        found = [self._try(model) for model in options]
        value, model, scores = max(found, key=lambda one: one[0])
        _log.info("%s: ndcg@%d %.4f on the validation part", model, K, value)
        return model, scores

    def _try(self, model: TopN) -> tuple[float, TopN, np.ndarray]:
        """Fit a model to the rest, a network up to its best epoch."""
        model = replace(model)
        found = -1.0, 0, np.empty(0)

        def look(epoch: int) -> bool:
            nonlocal found
            if epoch and self.on_epoch:
                self.on_epoch(epoch)
            if epoch % EVERY:
                return False
            scores = model.scores(self.given, self.users)
            value = ndcg(scores, self.given, self.held_out)
            if value > found[0]:
                found = value, epoch, standardized(scores, self.given)
            return epoch >= found[1] + EVERY * PATIENCE

        model.fit(self.train_mat, self.seed, look)
        epochs: dict[str, Any] = {}
        if isinstance(model, Autoencoder) and found[1]:
            epochs = {"num_epochs": found[1]}
        else:
            look(0)
        # A model of the same settings, which has not learned from a part alone.
        return found[0], replace(model, **epochs), found[2]

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
            found = [ndcg(total + one, given, held_out) for one in values]
            number = int(np.argmax(found))
            total = total + values[number]
            counts = counts + (np.arange(len(scores)) == number)
            if found[number] > highest:
                highest, chosen = found[number], counts
        return np.asarray(chosen / chosen.sum())

    def _shortlist(self, scores: Sequence[np.ndarray]) -> np.ndarray:
        """Pick items for lists, high ones of each member and the held-out ones.

        They are sorted; rows with fewer than others are filled up: (num_users, size).
        """
        picked = self.held_out.toarray() > 0
        for one in scores:
            lists = top_k(one, self.given, min(DEPTH, one.shape[1]))
            row, place = np.nonzero(lists >= 0)
            picked[row, lists[row, place]] = True
        size = picked.sum(axis=1).max()
        return np.sort(np.argsort(~picked, axis=1, kind="stable")[:, :size], axis=1)


def ndcg(scores: np.ndarray, given: sp.csr_matrix, held_out: sp.csr_matrix) -> float:
    """Measure the lists that some scores make."""
    return measure(top_k(scores, given, K), held_out, [K]).mean[f"ndcg@{K}"]
