"""Does the time of an epoch follow the ratings? ``python benchmarks/proportion.py``.

At a fixed number of users and items, it trains by the book's recipe on a quarter, a
half and all of generated ratings, and on a single one: what that takes is the cost of
the parameters, which every step reads and writes, and is taken off. The trainings take
turns. It prints a table and a verdict; ``--chart FILE`` draws it, ``--json FILE``
writes the measurements. Beside other programs, ``--clock cpu`` means more.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import matplotlib
import numpy as np
import scipy.sparse as sp
from scale import SHAPES, generate

from d2l_autorec import Recipe, seed_everything, try_all_gpus
from d2l_autorec.training import Parts, Training

TOLERANCE = 0.2
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def thinned(ratings: sp.csr_matrix, size: int) -> sp.csr_matrix:
    """Keep so many ratings, drawn at random."""
    cells = ratings.tocoo()
    kept = np.random.default_rng(0).permutation(cells.nnz)[:size]
    found = (cells.data[kept], (cells.row[kept], cells.col[kept]))
    return sp.csr_matrix(found, shape=ratings.shape)


def measure(shape: str, num_epochs: int, clock: str) -> dict[int, list[float]]:
    """Train on each number of ratings in turns; return seconds an epoch of each."""
    ratings, _ = generate(*SHAPES[shape])
    now = CLOCKS[clock]
    epochs, seconds = {}, {}
    for size in (1, ratings.nnz // 4, ratings.nnz // 2, ratings.nnz):
        seed_everything(0)
        recipe, parts = Recipe(num_epochs=10**9), Parts(thinned(ratings, size))
        epochs[size] = Training(recipe, parts, try_all_gpus(), seed=0).epochs()
        seconds[size] = []
    for turn in range(num_epochs + 2):
        for size, training in epochs.items():
            start = now()
            next(training)
            if turn > 1:  # the first ones warm up
                seconds[size].append(now() - start)
    return seconds


def ratios(seconds: dict[int, list[float]]) -> dict[int, float]:
    """Say what a rating takes in each, beside what one takes where all are there."""
    (_, own), *others = (
        (size, statistics.median(times)) for size, times in seconds.items()
    )
    each = {size: (median - own) / size for size, median in others}
    return {size: cost / each[max(each)] for size, cost in each.items()}


def report(shape: str, seconds: dict[int, list[float]]) -> None:
    """Print the table and the verdict."""
    found = ratios(seconds)
    own = statistics.median(seconds[1])
    print(f"{shape}: {SHAPES[shape][0]:,} users, {SHAPES[shape][1]:,} items")
    print("| ratings | epoch s | less the parameters' s | a rating's share of it |")
    print("|---|---|---|---|")
    for size, times in seconds.items():
        epoch = statistics.median(times)
        share = f"{found[size]:.2f}" if size in found else ""
        print(f"| {size:,} | {epoch:.3f} | {epoch - own:.3f} | {share} |")
    worst = max(abs(ratio - 1) for ratio in found.values())
    verdict = "proportional" if worst <= TOLERANCE else "NOT proportional"
    print(f"{verdict}: {worst:.0%} off at most, {TOLERANCE:.0%} allowed")


def draw(shape: str, seconds: dict[int, list[float]], file: Path) -> None:
    """Draw the medians, and the line that they should lie on."""
    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    sizes = np.array(list(seconds))
    medians = np.array([statistics.median(times) for times in seconds.values()])
    whole = medians[-1] - medians[0]
    line = medians[0] + whole * sizes / sizes[-1]
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot(sizes, line, color="tab:gray", label="proportional")
    slope = (line - medians[0]) * TOLERANCE
    grey = {"color": "tab:gray", "alpha": 0.2}
    axes.fill_between(sizes, line - slope, line + slope, label="± 20 %", **grey)
    axes.axhline(medians[0], color="tab:orange", ls=":", label="the parameters' own")
    axes.plot(sizes, medians, "o", color="tab:blue", label="measured (median)")
    axes.set(xlabel="ratings", ylabel="seconds an epoch", xlim=0, ylim=0)
    axes.set_title("{1:,} items x {0:,} users".format(*SHAPES[shape]))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend()
    figure.savefig(file, dpi=100)


def main() -> None:
    """Measure one shape."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="ml-1m")
    parser.add_argument("--epochs", type=int, default=9, metavar="N", help="of each")
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    args = parser.parse_args()
    seconds = measure(args.shape, args.epochs, args.clock)
    report(args.shape, seconds)
    if args.chart:
        draw(args.shape, seconds, args.chart)
    if args.json:
        args.json.write_text(json.dumps({args.shape: seconds}, indent=2) + "\n")


if __name__ == "__main__":
    main()
