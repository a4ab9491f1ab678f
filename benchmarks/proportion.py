"""Does the time of an epoch follow the ratings? ``python benchmarks/proportion.py``.

At a fixed number of users and items, it trains by the book's recipe on a quarter, a
half and all of generated ratings; the trainings take turns. What the parameters cost by
themselves, as every step reads and writes them, is where the straight line through the
three meets the axis; it is taken off. Beside it stands the time with a single rating,
whose steps read the parameters once less. A table and a verdict are printed; ``--chart
FILE`` draws them. Beside other programs, ``--clock cpu`` means more.
"""

import statistics
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scale import SHAPES, generate
from sides import parser, print_header, print_row, write

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


def line(seconds: dict[int, list[float]]) -> tuple[float, float]:
    """Fit a straight line to all but the first; return its start and its slope."""
    sizes = list(seconds)[1:]
    medians = [statistics.median(seconds[size]) for size in sizes]
    slope, start = np.polyfit(sizes, medians, 1)
    return float(start), float(slope)


def report(shape: str, seconds: dict[int, list[float]]) -> None:
    """Print the table and the verdict."""
    own, slope = line(seconds)
    print(f"{shape}: {SHAPES[shape][0]:,} users, {SHAPES[shape][1]:,} items")
    print(f"the parameters' own: {own:.3f} s an epoch")
    print_header("ratings", "epoch s", "less the parameters' s", "beside proportional")
    found = []
    for size, times in seconds.items():
        epoch = statistics.median(times)
        ratio = (epoch - own) / (slope * size)
        found.append(ratio)
        shown = [f"{epoch - own:.3f}", f"{ratio:.2f}"] if size > 1 else ["", ""]
        print_row([f"{size:,}", f"{epoch:.3f}", *shown])
    worst = max(abs(ratio - 1) for ratio in found[1:])
    verdict = "proportional" if worst <= TOLERANCE else "NOT proportional"
    print(f"{verdict}: {worst:.0%} off at most, {TOLERANCE:.0%} allowed")


def draw(shape: str, seconds: dict[int, list[float]], file: Path) -> None:
    """Draw the medians, and the line that they should lie on."""
    from matplotlib.figure import Figure

    sizes = np.array(list(seconds))
    medians = [statistics.median(times) for times in seconds.values()]
    own, slope = line(seconds)
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(sizes, own + slope * sizes, color="0.45", label="proportional")
    bounds = (own + slope * sizes * (1 + x * TOLERANCE) for x in (-1, 1))
    axes.fill_between(sizes, *bounds, color="0.9", label=f"± {TOLERANCE:.0%}")
    axes.axhline(own, color="#E69F00", ls=":", label="the parameters' own")
    axes.plot(sizes, medians, "o", color="#0072B2", label="measured (median)")
    axes.set(xlabel="ratings", ylabel="seconds an epoch", xlim=0, ylim=0)
    axes.set_title("{1:,} items x {0:,} users".format(*SHAPES[shape]))
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.legend()
    figure.savefig(file, dpi=100)


def main() -> None:
    """Measure one shape."""
    flags = parser(__doc__)
    flags.add_argument("--shape", choices=SHAPES, default="ml-1m")
    flags.add_argument("--epochs", type=int, default=9, metavar="N", help="of each")
    flags.add_argument("--clock", choices=CLOCKS, default="wall")
    flags.add_argument("--chart", type=Path, metavar="FILE", help="draw it")
    args = flags.parse_args()
    seconds = measure(args.shape, args.epochs, args.clock)
    report(args.shape, seconds)
    if args.chart:
        draw(args.shape, seconds, args.chart)
    write(args.json, {args.shape: seconds})


if __name__ == "__main__":
    main()
