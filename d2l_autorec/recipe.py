"""A recipe: the settings of a training, and what it sets up.

References
----------
*Dive into Deep Learning*, "AutoRec: Rating Prediction with Autoencoders", whose
settings are the defaults.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import scipy.sparse as sp

from ._mxnet import gluon, mx
from .data import row_batches
from .distributed import Team
from .evaluators import held_out_rmse
from .loop import Epoch, train_epochs
from .model import AutoRec


class Training(NamedTuple):
    """A training that is set up.

    Attributes
    ----------
    net : AutoRec
        Initialized on the devices.
    trainer : mxnet.gluon.Trainer
        With the optimizer's state.
    epochs : iterator of Epoch
        Trains `net` as it is iterated.
    """

    net: AutoRec
    trainer: gluon.Trainer
    epochs: Iterator[Epoch]


@dataclass(frozen=True)
class Recipe:
    """Settings of AutoRec's training; the defaults are the book's.

    Parameters
    ----------
    num_hidden : int
        Units of the hidden layer.
    dropout : float
        Share of the hidden units that training drops.
    optimizer : str
        Name of an MXNet optimizer.
    lr, wd : float
        Its learning rate and weight decay.
    num_epochs : int
        Passes over the training matrix.
    batch_size : int
        Rows (items) a mini-batch.
    """

    num_hidden: int = 500
    dropout: float = 0.05
    optimizer: str = "adam"
    lr: float = 0.002
    wd: float = 1e-5
    num_epochs: int = 25
    batch_size: int = 256

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
        net = AutoRec(self.num_hidden, train_mat.shape[1], self.dropout)
        net.initialize(mx.init.Normal(0.01), ctx=devices)
        trainer = gluon.Trainer(
            net.collect_params(),
            self.optimizer,
            {"learning_rate": self.lr, "wd": self.wd},
            # A team adds up the gradients itself.
            kvstore=None if team else "device",
        )

        def score(held_out: sp.csr_matrix | None) -> float:
            if held_out is None:
                return math.nan
            return held_out_rmse(net, train_mat, held_out, devices)

        epochs = train_epochs(
            net,
            row_batches(train_mat, self.batch_size, shuffle=True, sparse=True),
            gluon.loss.L2Loss(),
            trainer,
            self.num_epochs,
            devices,
            lambda: score(test_mat),
            None if valid_mat is None else lambda: score(valid_mat),
            seed,
            trained,
            team,
        )
        return Training(net, trainer, epochs)
