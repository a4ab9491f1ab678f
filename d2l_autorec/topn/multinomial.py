r"""`MultDAE` and `MultVAE`: autoencoders with a softmax over the catalogue.

A user's row, of length 1, goes through a hidden layer to a middle one and back; the
loss is the multinomial log-likelihood, :math:`-\sum_j x_j \log \mathrm{softmax}_j`. The
variational one draws the middle layer from a normal distribution, and adds
:math:`\beta` times its divergence from the standard one.

References
----------
D. Liang, R. G. Krishnan, M. D. Hoffman, T. Jebara, "Variational Autoencoders for
Collaborative Filtering", WWW 2018.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx, npx
from ..fast import view
from .autoencoder import Autoencoder, Batch


class _Body(gluon.nn.Block):
    """tanh, the middle layer, tanh, scores; a variational middle layer is two."""

    def __init__(self, model: MultDAE, num_items: int, variational: bool) -> None:
        super().__init__()
        self.variational, self.size = variational, model.num_factors
        hidden = model.num_hidden
        self.bias = self.params.get("bias", shape=(hidden,), init="zeros")
        self.middle = gluon.nn.Dense((1 + variational) * self.size)
        self.hidden = gluon.nn.Dense(hidden, activation="tanh")
        self.decoder = gluon.nn.Dense(num_items)

    def encode(self, sums: Any) -> tuple[Any, Any]:
        """Compute the middle layer, and the logarithms of its variances."""
        middle = self.middle(mx.np.tanh(sums + self.bias.data()))
        if self.variational:
            return middle[:, : self.size], middle[:, self.size :]
        return mx.np.tanh(middle), None

    def decode(self, middle: Any) -> Any:
        """Compute the scores."""
        return self.decoder(self.hidden(middle))

    def forward(self, sums: Any) -> Any:
        """Compute the scores, drawing nothing."""
        return self.decode(self.encode(sums)[0])


@dataclass
class MultDAE(Autoencoder):
    """The denoising autoencoder with a multinomial likelihood.

    Parameters
    ----------
    num_hidden, num_factors : int
        Units of the first layer and of the last but one, and of the middle layer.
    dropout : float
        Share of a row's items that training drops.
    lr, wd : float
        Of Adam.
    num_epochs, batch_size : int
        Passes over the users, and users an update.
    """

    num_factors: int = 200

    def body(self, num_items: int) -> gluon.Block:
        """Make the layers."""
        return _Body(self, num_items, variational=False)

    def loss(self, scores: Any, rows: sp.csr_matrix) -> tuple[float, Any]:
        """Compute the negative log-likelihood."""
        softmax = npx.softmax(scores)
        shares, values, cells = view(softmax), view(scores), rows.nonzero()
        # The logarithm of the highest share is never that of 0.
        highest = np.arange(len(shares)), shares.argmax(axis=1)
        offset = np.log(shares[highest]) - values[highest]
        total = (values[cells] + offset[cells[0]]).sum(dtype=float)
        shares *= np.diff(rows.indptr)[:, None].astype(np.float32)
        shares[cells] -= 1
        return -float(total), softmax


@dataclass
class MultVAE(MultDAE):
    """The variational autoencoder with a multinomial likelihood.

    Parameters
    ----------
    num_hidden, num_factors, dropout, lr, wd, num_epochs, batch_size
        As for `MultDAE`.
    beta : float
        Weight of the divergence in the end.
    num_annealing : int
        Updates in which the weight rises to `beta` from 0.
    """

    beta: float = 0.2
    num_annealing: int = 1500

    def body(self, num_items: int) -> gluon.Block:
        """Make the layers."""
        return _Body(self, num_items, variational=True)

    def heads(self, body: Any, sums: Any, batch: Batch) -> list[Any]:
        """Draw the middle layer; the penalty is its divergence, weighted."""
        mean, log_var = body.encode(sums)
        noise = mx.np.array(batch.rng.standard_normal(mean.shape, np.float32))
        scores = body.decode(mean + noise * mx.np.exp(log_var / 2))
        divergence = (mean**2 + mx.np.exp(log_var) - log_var - 1).sum() / 2
        beta = self.beta * min(1, batch.number / max(self.num_annealing, 1))
        return [scores, beta * divergence]
