r"""`CDAE`: the collaborative denoising autoencoder, with a vector for each user.

With :math:`\tilde x_u` a user's corrupted row and :math:`V_u` the user's own vector,
the hidden layer is :math:`h_u = \sigma(W^T \tilde x_u + V_u + b)`, and the scores are
linear in it. The loss is over the user's items and *all* others, logistic or squared,
where the paper draws some of the others.

A new user has no vector: zero stands for it, which the others are drawn around.

References
----------
Y. Wu, C. DuBois, A. X. Zheng, M. Ester, "Collaborative Denoising Auto-Encoders for
Top-N Recommender Systems", WSDM 2016.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx, npx
from ..fast import view
from .autoencoder import Autoencoder
from .model import Users

_TINY = np.finfo(np.float32).tiny


class _Body(gluon.nn.Block):
    def __init__(self, num_hidden: int, num_items: int) -> None:
        super().__init__()
        self.bias = self.params.get("bias", shape=(num_hidden,), init="zeros")
        self.decoder = gluon.nn.Dense(num_items)

    def forward(self, sums: Any) -> Any:
        """Compute the scores."""
        return self.decoder(npx.sigmoid(sums + self.bias.data()))


@dataclass
class CDAE(Autoencoder):
    """The collaborative denoising autoencoder.

    Parameters
    ----------
    num_hidden, dropout, lr, wd, num_epochs, batch_size
        As for `MultDAE`.
    objective : {'logistic', 'squared'}
        Loss over all items.
    """

    num_hidden: int = 200
    lr: float = 0.003
    objective: str = "logistic"

    def body(self, num_items: int) -> gluon.Block:
        """Make the layers."""
        return _Body(self.num_hidden, num_items)

    def inputs(self, rows: sp.csr_matrix, users: Users) -> sp.csr_matrix:
        """Put a one for each user that is known into a column behind the items'."""
        if users is None:
            return rows
        ends = np.cumsum(np.append(0, users >= 0))
        shape = len(users), int(users.max(initial=-1)) + 1
        values = np.ones(ends[-1], np.float32)
        vectors = sp.csr_matrix((values, users[users >= 0], ends), shape)
        return sp.hstack([rows, vectors], "csr", np.float32)

    def loss(self, scores: Any, rows: sp.csr_matrix) -> tuple[float, Any]:
        """Compute the loss over all items."""
        cells = rows.nonzero()
        if self.objective == "squared":
            errors = scores.copy()
            view(errors)[cells] -= 1
            return float(mx.np.square(errors).sum()) / 2, errors
        likely = npx.sigmoid(scores)
        total = float(mx.np.log(mx.np.maximum(1 - likely, _TINY)).sum())
        found = view(likely)[cells]
        own = np.log(np.maximum(found, _TINY)) - np.log(np.maximum(1 - found, _TINY))
        view(likely)[cells] -= 1
        return -total - float(own.sum(dtype=float)), likely
