"""Where the time of a training step goes: ``python benchmarks/step.py``.

Does the book's recipe, 500 hidden units and batches of 256, one part after the other,
and prints the median milliseconds of each part; and of the dense decoder with the
book's mask, which the sampled one takes the place of. ``D2L_AUTOREC_DATA=...`` says
where the data are.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from d2l_autorec import (
    AutoRec,
    Recipe,
    load_dataset,
    row_batches,
    seed_everything,
    split_data_ml100k,
)
from d2l_autorec._mxnet import autograd, gluon, mx, np
from d2l_autorec.fast import cells as product
from d2l_autorec.fast import dense, on_device
from d2l_autorec.training import Parts, Training

DEVICE = mx.cpu()
Milliseconds = dict[str, list[float]]


def timed(found: Milliseconds, part: str, function: Callable[[], Any]) -> Any:
    """Call a function, wait for what it computes, and note how long it took."""
    start = time.perf_counter()
    result = function()
    mx.nd.waitall()
    found[part].append(1e3 * (time.perf_counter() - start))
    return result


def step(net: AutoRec, trainer: gluon.Trainer, batch: Any, found: Milliseconds) -> None:
    """Do what the loop does with a batch, part by part, and time each."""
    loss = gluon.loss.L2Loss()
    inputs = timed(found, "rows to a dense batch", lambda: dense(batch, DEVICE))
    cells = timed(found, "rows to columns", batch.tocsc)
    ratings = on_device(cells.data, DEVICE)
    with autograd.record():
        coded = timed(found, "encoder", lambda: net.encoder(inputs))
        hidden = timed(found, "dropout", lambda: net.dropout(coded))
    outputs = timed(
        found, "decoder", lambda: product._decode(net.decoder, hidden, cells)
    )
    outputs.attach_grad()

    def lose() -> None:
        with autograd.record():
            losses = loss(outputs, ratings)
        losses.backward()

    timed(found, "loss, forward and backward", lose)
    grad = timed(
        *(found, "decoder, backward"),
        lambda: product._decode_backward(net.decoder, hidden, cells, outputs.grad),
    )
    timed(found, "dropout and encoder, backward", lambda: hidden.backward(grad))
    timed(found, "Adam", lambda: trainer.step(inputs.size))


def dense_decoder(net: AutoRec, batch: Any, found: Milliseconds) -> None:
    """Time the decoder, mask and loss over all cells, forward and backward."""
    inputs, loss = dense(batch, DEVICE), gluon.loss.L2Loss()
    hidden = net.encoder(inputs)
    hidden.attach_grad()

    def whole() -> None:
        with autograd.record():
            losses = loss(net.decoder(hidden) * np.sign(inputs), inputs)
        losses.backward()

    timed(found, "the same over all cells, with the mask", whole)


def main() -> None:
    """Measure the data sets that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--dataset", action="append", help="default: ml-100k and ml-1m")
    parser.add_argument("--epochs", type=int, default=12, metavar="N", help="to time")
    args = parser.parse_args()
    for dataset in args.dataset or ("ml-100k", "ml-1m"):
        seed_everything(0)
        ratings = load_dataset(dataset)
        train_data, _ = split_data_ml100k(
            ratings.data, ratings.num_users, ratings.num_items
        )
        train_mat = ratings.matrix(train_data)
        training = Training(Recipe(), Parts(train_mat), [DEVICE])
        batches = row_batches(train_mat, 256, shuffle=True, sparse=True)
        found: Milliseconds = defaultdict(list)
        for epoch in range(args.epochs + 2):
            if epoch == 2:  # what came before warmed up
                found.clear()
            for batch in batches:
                step(training.net, training.trainer, batch, found)
                dense_decoder(training.net, batch, found)
        print(f"\n{dataset}, median ms:")
        for part, times in found.items():
            print(f"{part:40} {statistics.median(times):6.2f}")


if __name__ == "__main__":
    main()
