"""Where the time of a training step goes: ``python benchmarks/step.py``.

Wraps the parts of `FusedStep`, trains by the book's recipe, and prints each part's
time and share of a step. ``D2L_AUTOREC_DATA`` says where the data are.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from d2l_autorec import (
    Recipe,
    load_dataset,
    seed_everything,
    split_data_ml100k,
    try_all_gpus,
)
from d2l_autorec.fast import FusedStep, fused
from d2l_autorec.training import Parts, Training

PARTS = {  # what is wrapped, and what it is in words
    "by_columns": "ratings of the batch, sorted by columns",
    "in_shares": "compiled loops: encoder, decoder and Adam, forward and backward",
    "deepen": "activation and dropout, by MXNet",
    "view": "memory of MXNet's arrays, seen by NumPy",
}


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
    originals = {name: getattr(fused, name) for name in PARTS}
    step = FusedStep.__call__
    try:
        for name, original in originals.items():
            setattr(fused, name, timed(original, times[name]))
        FusedStep.__call__ = timed(step, times["step"])  # type: ignore[method-assign]
        for epoch in training.epochs():
            if epoch.epoch == 1:  # it loads the loops
                for found in times.values():
                    found.clear()
    finally:
        FusedStep.__call__ = step  # type: ignore[method-assign]
        for name, original in originals.items():
            setattr(fused, name, original)
    num_steps = len(times["step"])
    whole = sum(times["step"]) / num_steps
    print(f"\n{dataset}: a step takes {1e3 * whole:.1f} ms (mean)")
    for name, words in PARTS.items():
        part = sum(times[name]) / num_steps
        print(f"| {words} | {1e3 * part:.2f} ms | {part / whole:.0%} |")


def main() -> None:
    """Measure both data sets."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--epochs", type=int, default=8, metavar="N")
    args = parser.parse_args()
    for dataset in ("ml-100k", "ml-1m"):
        measure(dataset, args.epochs)


if __name__ == "__main__":
    main()
