"""`Autoencoder`: what the networks on users' rows have in common.

The first layer works on sparse rows, by the compiled loops of `fast`, which update all
weights, too. The other layers and the scores of the catalogue are MXNet's products.
"""

import abc
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import scipy.sparse as sp

from .._mxnet import autograd, gluon, mx, one_at_a_time
from ..errors import TrainingDiverged
from ..fast import Adam, SparseEncoder, on_device, view
from .model import OnEpoch, TopN, Users, ones

_ROWS = 1024  # that are scored at a time
_ENCODER = "encoder.weight"


class Batch(NamedTuple):
    """What an update learns from: `number` from 1, `order` the rows' numbers."""

    number: int
    order: np.ndarray
    rows: sp.csr_matrix
    inputs: sp.csr_matrix
    rng: np.random.Generator


@dataclass
class Autoencoder(TopN):
    """A network from a user's row to scores of all items, trained by Adam."""

    num_hidden: int = 600
    dropout: float = 0.5
    lr: float = 0.001
    wd: float = 0.0
    num_epochs: int = 40
    batch_size: int = 256

    @abc.abstractmethod
    def body(self, num_items: int) -> gluon.Block:
        """Make the layers from the first one's sums to the scores, `decoder` last."""

    @abc.abstractmethod
    def loss(self, scores: Any, rows: sp.csr_matrix) -> tuple[float, Any]:
        """Compute the loss, a sum over the rows, and its gradient at the scores."""

    def heads(self, body: Any, sums: Any, batch: Batch) -> list[Any]:
        """Compute, in training, the scores, and maybe a penalty to add to the loss."""
        return [body(sums)]

    def inputs(self, rows: sp.csr_matrix, users: Users) -> sp.csr_matrix:
        """Turn rows of ones into rows of length 1."""
        sizes = np.diff(rows.indptr)
        values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes).astype(np.float32)
        return sp.csr_matrix((values, rows.indices, rows.indptr), rows.shape)

    def fit_rows(self, rows: sp.csr_matrix, seed: int, on_epoch: OnEpoch) -> None:
        """Train in batches of rows, each epoch in another order."""
        num_users, num_items = rows.shape
        rng = np.random.default_rng(seed)
        inputs = self.inputs(rows, np.arange(num_users))
        body = self._build(inputs.shape[1], num_items, rng)
        values = {name: view(parameter.data()) for name, parameter in body.items()}
        self.arrays = {_ENCODER: self._encoder.weight, **values}
        adam, number = Adam([*values.values()], self.lr, self.wd, self._encoder), 0
        for epoch in range(1, self.num_epochs + 1):
            total, order = 0.0, rng.permutation(num_users)
            for start in range(0, num_users, self.batch_size):
                number, own = number + 1, order[start : start + self.batch_size]
                batch = Batch(number, own, rows[own], inputs[own], rng)
                total += self._train(batch, adam, [*body.values()])
            if not np.isfinite(total):
                raise TrainingDiverged(
                    f"the training loss of epoch {epoch} is {total}; a lower learning "
                    "rate (lr) may help"
                )
            if on_epoch and on_epoch(epoch):
                break

    def scores(self, rows: sp.csr_matrix, users: Users = None) -> np.ndarray:
        """Let the network reconstruct the rows; nothing is dropped or drawn."""
        inputs = self.inputs(ones(rows), users)
        # Users after the last one here have columns, too.
        inputs.resize(inputs.shape[0], len(self._encoder.weight))
        starts = range(0, max(inputs.shape[0], 1), _ROWS)
        return np.concatenate([self._score(inputs[i : i + _ROWS]) for i in starts])

    def load(self, arrays: Mapping[str, np.ndarray]) -> Self:
        """Make the network of some arrays."""
        sizes = len(arrays[_ENCODER]), len(arrays["decoder.bias"])
        body = self._build(*sizes, np.random.default_rng(0))
        self._encoder.weight[...] = arrays[_ENCODER]
        for name, parameter in body.items():
            parameter.set_data(mx.np.array(arrays[name]))
        return super().load(arrays)

    def item_vectors(self) -> np.ndarray:
        """Return the decoder's weight: items are alike that are scored alike."""
        return self.arrays["decoder.weight"]

    def _build(
        self, num_inputs: int, num_items: int, rng: np.random.Generator
    ) -> dict[str, Any]:
        """Make the network, its weights drawn; return the body's parameters by name."""
        self._encoder = SparseEncoder(_glorot((num_inputs, self.num_hidden), rng))
        self._body: Any = self.body(num_items)
        self._body.initialize()
        self._body(mx.np.zeros((1, self.num_hidden)))  # Gluon learns the shapes
        parameters: dict[str, Any] = self._body._collect_params_with_prefix()
        for name, parameter in parameters.items():
            if not name.endswith("bias"):
                parameter.set_data(mx.np.array(_glorot(parameter.shape, rng)))
        return parameters

    @one_at_a_time
    def _score(self, inputs: sp.csr_matrix) -> np.ndarray:
        return np.array(view(self._body(mx.np.array(self._encoder.forward(inputs)))))

    @one_at_a_time
    def _train(self, batch: Batch, adam: Adam, parameters: list[Any]) -> float:
        """Update the network by a batch; return its loss."""
        num_rows, num_items = batch.rows.shape
        inputs = batch.inputs
        kept = batch.rng.random(inputs.nnz, np.float32) >= self.dropout
        # A column behind the items' is no item, and stays.
        is_item = inputs.indices < num_items
        inputs.data *= np.where(is_item, kept / (1 - self.dropout), 1)
        inputs.eliminate_zeros()
        sums = on_device(self._encoder.forward(inputs), mx.cpu())
        sums.attach_grad()
        with autograd.record():
            scores, *penalty = self.heads(self._body, sums, batch)
        loss, d_scores = self.loss(scores, batch.rows)
        share = 1 / num_rows
        gradients = [d_scores * share, *(mx.np.full((), share) for _ in penalty)]
        autograd.backward([scores, *penalty], gradients)
        adam.step([view(one.grad()) for one in parameters], view(sums.grad))
        return loss + sum(float(one) for one in penalty)


def _glorot(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Draw a weight by Glorot and Bengio's rule."""
    limit = np.float32((6 / sum(shape)) ** 0.5)
    return (2 * rng.random(shape, np.float32) - 1) * limit
