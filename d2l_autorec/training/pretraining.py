"""Greedy pretraining: weights for several hidden layers to start from.

References
----------
Y. Bengio, P. Lamblin, D. Popovici, H. Larochelle, "Greedy Layer-Wise Training of Deep
Networks", NIPS 2006.
"""

from collections.abc import Sequence

import numpy as np
import scipy.sparse as sp

from .._mxnet import gluon, mx
from ..loop import Step, train_epochs
from ..model import AutoRec
from .batches import SeededBatches
from .networks import DeepAutoRec

NUM_EPOCHS, BATCH_SIZE, LR = 200, 512, 0.003


def pretrain(
    net: DeepAutoRec,
    shallow: AutoRec,
    codes: np.ndarray,
    devices: Sequence[mx.Context],
    seed: Sequence[int],
) -> None:
    """Start a deep network where a shallow one ended, and between as an identity.

    The layers between the first and the last one are trained to pass the shallow
    network's hidden layer, the `codes` (num_rows, num_hidden), on unchanged.
    """
    batch_size = min(BATCH_SIZE, len(codes))
    num_steps = NUM_EPOCHS * len(codes) // batch_size
    schedule = mx.lr_scheduler.CosineScheduler(num_steps, LR)
    trainer = gluon.Trainer(
        net.deeper.collect_params(),
        "adam",
        {"learning_rate": LR, "lr_scheduler": schedule},
    )
    step = Step(net.deeper, gluon.loss.L2Loss(), trainer, devices)
    batches = SeededBatches(sp.csr_matrix(codes), batch_size, seed, step)
    for _ in train_epochs(batches, step, NUM_EPOCHS, lambda: None):
        pass
    for layer, trained in (
        (net.encoder, shallow.encoder),
        (net.decoder, shallow.decoder),
    ):
        layer.weight.set_data(trained.weight.list_data()[0])
        layer.bias.set_data(trained.bias.list_data()[0])
