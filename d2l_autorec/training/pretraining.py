"""Greedy pretraining: weights for several hidden layers to start from.

References
----------
Y. Bengio, P. Lamblin, D. Popovici, H. Larochelle, "Greedy Layer-Wise Training of Deep
Networks", NIPS 2006.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx
from ..data import row_batches
from ..fast import dense
from ..loop import Step, train_epochs
from ..model import AutoRec
from .batches import SeededBatches
from .family import DeepAutoRec

NUM_EPOCHS, BATCH_SIZE, LR = 200, 512, 0.003


def pretrain(
    net: DeepAutoRec,
    shallow: AutoRec,
    rows: sp.csr_matrix,
    devices: Sequence[mx.Context],
    seed: int | None = None,
    encode: Callable[[sp.csr_matrix], mx.np.ndarray] | None = None,
) -> None:
    """Start a deep network where a shallow one ended.

    The first and the last layer become the shallow network's. The layers between them
    are trained, all at once and on their own, to pass its hidden layer on unchanged.

    Parameters
    ----------
    net : DeepAutoRec
        Initialized on `devices`; its first and its last hidden layer have as many units
        as that of `shallow`.
    shallow : AutoRec
        Trained on `devices`, with one hidden layer.
    rows : scipy.sparse.csr_matrix, shape (num_items, num_users)
        What it was trained on.
    devices : sequence of mxnet.Context
        To train on.
    seed : int, optional
        Of the weights between, and of the order of the rows.
    encode : callable, optional
        Computes the hidden layer of `shallow`, where that takes other workers.
    """
    encode = encode or (lambda part: shallow.encoder(dense(part, devices[0])))
    parts = (rows[i : i + BATCH_SIZE] for i in range(0, rows.shape[0], BATCH_SIZE))
    codes = np.concatenate(
        [encode(part).asnumpy() for part in parts]
    )  # (num_items, num_hidden)
    batch_size = min(BATCH_SIZE, rows.shape[0])
    loader = row_batches(sp.csr_matrix(codes), batch_size, shuffle=True)
    num_steps = NUM_EPOCHS * rows.shape[0] // batch_size
    between = gluon.Trainer(
        net.deeper.collect_params(),
        "adam",
        {
            "learning_rate": LR,
            "lr_scheduler": mx.lr_scheduler.CosineScheduler(num_steps, LR),
        },
    )
    step = Step(net.deeper, gluon.loss.L2Loss(), between, devices)
    batches = SeededBatches(loader, seed)
    for _ in train_epochs(batches, step, NUM_EPOCHS, lambda: None):
        pass
    for layer, trained in (
        (net.encoder, shallow.encoder),
        (net.decoder, shallow.decoder),
    ):
        for parameter, found in (
            (layer.weight, trained.weight),
            (layer.bias, trained.bias),
        ):
            parameter.set_data(found.data(devices[0]))
