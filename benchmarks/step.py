"""Where the time of a training step goes: ``python benchmarks/step.py``.

Wraps the parts of `FusedStep`, trains by the book's recipe, and prints each part's
time and share of a step. ``D2L_AUTOREC_DATA`` says where the data are.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from d2l_autorec import (
    Recipe,
    load_dataset,
    seed_everything,
    split_data_ml100k,
    try_all_gpus,
)
from d2l_autorec._mxnet import gluon
from d2l_autorec.fast import FusedStep, between, fused, rows
from d2l_autorec.training import Parts, Training

LOOPS = "compiled loops: encoder, sigmoid, decoder and Adam, forward and backward"
PARTS = (  # what is wrapped, and what it is in words
    (FusedStep, "__call__", "the whole step"),
    (fused, "by_columns", "ratings of the batch, sorted by columns"),
    (rows, "in_shares", LOOPS),
    (between, "in_shares", LOOPS),
    (fused, "in_shares", LOOPS),
    (gluon.nn.Dropout, "__call__", "dropout, drawn by MXNet"),
)


def timed(function: Callable[..., Any], times: list[float]) -> Callable[..., Any]:
    """Return the function, with each call's time added to a list."""

    def run(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        found = function(*args, **kwargs)
        times.append(time.perf_counter() - start)
        return found

    return run


def measure(dataset: str, num_epochs: int) -> None:
    """Train, and print one data set's table."""
    seed_everything(0)
    ratings = load_dataset(dataset)
    train_data, _ = split_data_ml100k(
        ratings.data, ratings.num_users, ratings.num_items
    )
    parts = Parts(ratings.matrix(train_data))
    recipe = Recipe(num_epochs=num_epochs)
    training = Training(recipe, parts, try_all_gpus(), seed=0)
    times: dict[str, list[float]] = defaultdict(list)
    with ExitStack() as wrapped:
        for owner, name, words in PARTS:
            run = timed(getattr(owner, name), times[words])
            wrapped.enter_context(patch.object(owner, name, run))
        for epoch in training.epochs():
            if epoch.epoch == 1:  # it loads the loops
                for found in times.values():
                    found.clear()
    sums = {words: sum(found) for words, found in times.items()}
    whole, num_steps = sums["the whole step"], len(times["the whole step"])
    print(f"\n{dataset} (mean of {num_steps} steps)")
    for words, part in sums.items():
        print(f"| {words} | {1e3 * part / num_steps:.2f} ms | {part / whole:.0%} |")


def main() -> None:
    """Measure both data sets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=8, metavar="N")
    args = parser.parse_args()
    for dataset in ("ml-100k", "ml-1m"):
        measure(dataset, args.epochs)


if __name__ == "__main__":
    main()
