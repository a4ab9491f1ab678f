"""A recipe: the settings of a training, and what it sets up.

References
----------
*Dive into Deep Learning*, "AutoRec: Rating Prediction with Autoencoders", whose
settings are the defaults. S. Sedhain, A. K. Menon, S. Sanner, L. Xie, "AutoRec:
Autoencoders Meet Collaborative Filtering", WWW 2015.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as onp
import scipy.sparse as sp

from ._mxnet import gluon, mx
from .data import row_batches
from .distributed import Team
from .evaluators import predict_cells, rmse
from .loop import Epoch, train_epochs
from .losses import MaskedRMSELoss
from .model import BOUNDED, Average, DeepAutoRec, members
from .optimizers import FASTER
from .pretraining import pretrain


class Training(NamedTuple):
    """A training that is set up.

    Attributes
    ----------
    net : DeepAutoRec or Average
        Initialized on the devices.
    trainer : mxnet.gluon.Trainer
        With the optimizer's state.
    epochs : iterator of Epoch
        Trains `net` as it is iterated.
    pretraining : iterator of Epoch
        What comes before, with one hidden layer; `epochs` does what is left of it.
    """

    net: DeepAutoRec | Average
    trainer: gluon.Trainer
    epochs: Iterator[Epoch]
    pretraining: Iterator[Epoch]


@dataclass(frozen=True)
class Recipe:
    r"""Settings of AutoRec's training; the defaults are the book's.

    Parameters
    ----------
    num_hidden : int or tuple of int
        Units of the hidden layer, or of each one.
    kind : {'item', 'user'}
        Whether a row of the autoencoder is an item's ratings or a user's.
    activation, output : str
        As for `DeepAutoRec`.
    dropout, input_dropout : float
        Share of the hidden units, and of the inputs, that training drops.
    members : int
        Networks, alike but for their initial weights, whose mean is the prediction.
    loss : {'book', 'paper', 'rmse'}
        ``book``: half the squared error, as a mean over all cells of a row, where
        unobserved ones count as 0. ``paper``: the objective

        .. math:: \sum_{observed} (r - \hat r)^2
                  + \frac{\lambda}{2} (\|W\|_F^2 + \|V\|_F^2)

        with `wd` as its :math:`\lambda`, which spares the biases. ``rmse``: the root
        of the mean squared error over the observed cells of a batch.
    optimizer : str
        Name of an MXNet optimizer, or ``rprop``.
    lr : float
        Its learning rate.
    schedule : {'constant', 'cosine'}
        What becomes of the learning rate: it stays, or falls to 0 at the last epoch.
    wd : float or None
        Weight decay. None leaves the paper's :math:`\lambda` to the size of the data:
        see `penalty`.
    num_epochs : int
        Passes over the training matrix.
    pretrain_epochs : int
        For several hidden layers, of which the first and the last have equally many
        units: passes that come before, which find the weights to start from with one
        hidden layer; see `pretrain`.
    batch_size : int or None
        Rows a mini-batch; None for all of them at once.
    clip : bool
        Hold predictions to the range of the training ratings.
    cold : float, 'mean' or None
        What is predicted for an item or a user without a training rating: this, the
        mean of the training ratings, or what the network makes of an empty row.

    Raises
    ------
    ValueError
        If the settings contradict each other.
    """

    num_hidden: int | tuple[int, ...] = 500
    kind: str = "item"
    activation: str = "sigmoid"
    output: str = "identity"
    dropout: float = 0.05
    input_dropout: float = 0.0
    members: int = 1
    loss: str = "book"
    optimizer: str = "adam"
    lr: float = 0.002
    schedule: str = "constant"
    wd: float | None = 1e-5
    num_epochs: int = 25
    pretrain_epochs: int = 0
    batch_size: int | None = 256
    clip: bool = False
    cold: float | str | None = None

    def __post_init__(self) -> None:
        """Check settings that depend on each other."""
        layers = self.num_hidden
        if self.pretrain_epochs and (
            isinstance(layers, int) or layers[0] != layers[-1]
        ):
            raise ValueError(
                f"pretrain_epochs={self.pretrain_epochs} needs several hidden layers, "
                "the first as large as the last, such as 500 250 500"
            )
        if self.wd is None and self.loss != "paper":
            raise ValueError(f"the {self.loss} loss needs a weight decay (--wd)")
        if self.optimizer.lower() == "rprop" and self.batch_size:
            raise ValueError("rprop needs all rows in one batch (--batch-size all)")

    def rows(self, inter_mat: sp.csr_matrix) -> sp.csr_matrix:
        """Turn a matrix of items x users so that its rows are the autoencoder's.

        Parameters
        ----------
        inter_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
            Ratings.

        Returns
        -------
        scipy.sparse.csr_matrix
            Items x users, or users x items if the recipe is user-based.
        """
        return inter_mat.T.tocsr() if self.kind == "user" else inter_mat

    def penalty(self, train_mat: sp.csr_matrix) -> float:
        r"""Return :math:`\lambda` of the paper's objective.

        Parameters
        ----------
        train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
            Ratings to learn from.

        Returns
        -------
        float
            `wd`; where that is None, 7.5 times the root of the ratings per item or per
            user, whichever are more. It grows so because the noise in the ratings, as a
            matrix, does; the factor is near the best one on the validation parts of
            MovieLens 100K and 1M alike.
        """
        if self.wd is not None:
            return self.wd
        return 7.5 * math.sqrt(train_mat.nnz / min(train_mat.shape))

    def network(self, train_mat: sp.csr_matrix) -> DeepAutoRec | Average:
        """Make the network, not yet initialized.

        Parameters
        ----------
        train_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
            Ratings to learn from, whose range is that of bounded predictions.

        Returns
        -------
        DeepAutoRec or Average
        """
        rating_range = None
        if self.clip or self.output in BOUNDED:
            rating_range = float(train_mat.data.min()), float(train_mat.data.max())
        nets = [
            DeepAutoRec(
                self.num_hidden,
                self.rows(train_mat).shape[1],
                self.dropout,
                self.activation,
                self.output,
                self.input_dropout,
                rating_range,
            )
            for _ in range(self.members)
        ]
        return nets[0] if self.members == 1 else Average(nets)

    def predict(
        self,
        net: DeepAutoRec | Average,
        train_mat: sp.csr_matrix,
        cells: sp.csr_matrix,
        devices: Sequence[mx.Context],
    ) -> tuple[onp.ndarray, onp.ndarray]:
        """Predict the ratings of cells, by the recipe's rule for cold ones.

        Parameters
        ----------
        net : DeepAutoRec or Average
            Trained on `train_mat`.
        train_mat, cells : scipy.sparse.csr_matrix, shape (num_items, num_users)
            What the predictions are made from, and what stores a value in each cell
            that is asked for.
        devices : sequence of mxnet.Context
            Where the network's parameters are.

        Returns
        -------
        predictions, values : numpy.ndarray, shape (num_cells,)
            The predictions, and what `cells` stores there, in the same order.
        """
        cold = self.cold
        if cold == "mean":
            cold = float(train_mat.data.mean())
        assert not isinstance(cold, str)
        cells = self.rows(cells)
        predictions = predict_cells(
            net, self.rows(train_mat), cells, devices, cold=cold
        )
        return predictions, cells.data

    def train(
        self,
        train_mat: sp.csr_matrix,
        test_mat: sp.csr_matrix | None,
        devices: Sequence[mx.Context],
        seed: int | None = None,
        valid_mat: sp.csr_matrix | None = None,
        trained: int = 0,
        team: Team | None = None,
    ) -> Training:
        """Make a network and get its training ready.

        Parameters
        ----------
        train_mat, test_mat : scipy.sparse.csr_matrix, shape (num_items, num_users)
            Ratings to learn from, and held-out ratings to score; without the latter,
            the test RMSE is NaN.
        devices : sequence of mxnet.Context
            To train on.
        seed : int, optional
            Of each epoch, as for `train_epochs`.
        valid_mat : scipy.sparse.csr_matrix, shape (num_items, num_users), optional
            Ratings held out of `train_mat` to choose something on.
        trained : int
            Epochs that lie behind the training, as for `train_epochs`.
        team : Team, optional
            Workers on other machines to train with.

        Returns
        -------
        Training
        """
        devices = list(devices)
        net = self.network(train_mat)
        # One layer as in the book; through several, weights that small pass nothing on.
        one_layer = isinstance(self.num_hidden, int)
        net.initialize(mx.init.Normal(0.01) if one_layer else mx.init.Xavier(), devices)
        rows = self.rows(train_mat)
        batch_size = min(self.batch_size or rows.shape[0], rows.shape[0])
        pretraining: Iterator[Epoch] = iter(())
        if self.pretrain_epochs and not trained:
            pretraining = self._pretrain(net, train_mat, devices, seed, team)
        settings: dict[str, Any] = {"learning_rate": self.lr, "wd": self.wd}
        if self.schedule == "cosine":
            # An incomplete batch waits for the next epoch.
            num_steps = self.num_epochs * rows.shape[0] // batch_size
            settings["lr_scheduler"] = mx.lr_scheduler.CosineScheduler(
                num_steps, self.lr
            )
        cells_per_row = None
        if self.loss != "book":
            cells_per_row = rows.nnz / rows.shape[0]
        if self.loss == "paper":
            # Twice the number of ratings is what the objective is divided by.
            settings["wd"] = self.penalty(train_mat) / (2 * rows.nnz)
            for parameter in net.collect_params(".*bias").values():
                parameter.wd_mult = 0.0
        trainer = gluon.Trainer(
            # In the network's order: a dict's is that of names counted up in a process.
            list(net.collect_params().values()),
            FASTER.get(self.optimizer.lower(), self.optimizer),
            settings,
            # A team adds up the gradients itself.
            kvstore=None if team else "device",
        )

        def score(held_out: sp.csr_matrix | None) -> float:
            if held_out is None:
                return math.nan
            return rmse(*self.predict(net, train_mat, held_out, devices))

        epochs = train_epochs(
            net,
            row_batches(rows, batch_size, shuffle=True, sparse=True),
            MaskedRMSELoss() if self.loss == "rmse" else gluon.loss.L2Loss(),
            trainer,
            self.num_epochs,
            devices,
            lambda: score(test_mat),
            None if valid_mat is None else lambda: score(valid_mat),
            seed,
            trained,
            team,
            cells_per_row,
        )
        return Training(net, trainer, _after(pretraining, epochs), pretraining)

    def _pretrain(
        self,
        net: DeepAutoRec | Average,
        train_mat: sp.csr_matrix,
        devices: Sequence[mx.Context],
        seed: int | None,
        team: Team | None,
    ) -> Iterator[Epoch]:
        assert not isinstance(self.num_hidden, int)
        shallow = replace(
            self,
            num_hidden=self.num_hidden[0],
            num_epochs=self.pretrain_epochs,
            pretrain_epochs=0,
        ).train(train_mat, None, devices, seed, team=team)
        yield from shallow.epochs
        for deep, trained in zip(members(net), members(shallow.net)):
            pretrain(deep, trained, self.rows(train_mat), devices, seed)


def _after(first: Iterator[Epoch], epochs: Iterator[Epoch]) -> Iterator[Epoch]:
    for _ in first:
        pass
    yield from epochs


PRESETS = {
    "book": Recipe(),
    "paper": Recipe(
        dropout=0.0,
        loss="paper",
        schedule="cosine",
        wd=200.0,
        num_epochs=60,
        batch_size=128,
        clip=True,
        cold=3.0,
    ),
    "best": Recipe(
        num_hidden=(500, 500, 500),
        dropout=0.0,
        members=5,
        loss="paper",
        schedule="cosine",
        wd=None,
        num_epochs=40,
        pretrain_epochs=40,
        batch_size=128,
        clip=True,
        cold="mean",
    ),
}
