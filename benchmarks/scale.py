"""Seconds an epoch and peak memory, on generated ratings of real data sets' shapes.

``python benchmarks/scale.py`` trains by the book's recipe on each shape, three epochs
in a process of its own, and prints a table. The ratings are drawn at random, so their
number means something, the RMSE nothing. Netflix' shape takes about 8 GB and several
minutes for its one epoch, so it has to be asked for (``--only netflix``).
"""

import argparse
import sys
import time

import numpy as np
import scipy.sparse as sp
from sides import (
    Answer,
    Side,
    answer,
    parser,
    peak_memory,
    print_header,
    print_row,
    write,
)

SHAPES = {  # users, items, ratings
    "ml-100k": (943, 1_682, 100_000),
    "ml-1m": (6_040, 3_706, 1_000_209),
    "ml-1m/2": (6_040, 3_706, 500_104),
    "ml-1m/4": (6_040, 3_706, 250_052),
    "ml-10m": (69_878, 10_677, 10_000_054),
    "netflix": (480_189, 17_770, 100_480_507),
}
TEST_RATIO = 0.1


def generate(
    num_users: int, num_items: int, num_ratings: int
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Draw ratings, item by item, with a long tail; a tenth of each item's is held out.

    Both parts are in float32, of shape (num_items, num_users).
    """
    rng = np.random.default_rng(0)
    popularity = rng.permutation((np.arange(num_items) + num_items / 20) ** -1.0)
    counts = popularity / popularity.sum() * num_ratings
    for _ in range(10):  # nobody rates an item twice, so popularity has a ceiling
        counts = np.minimum(counts, num_users / 2)
        counts *= num_ratings / counts.sum()
    rows = []
    for count in counts.round().astype(int):
        row = rng.choice(num_users, count, replace=False, shuffle=False)
        rows.append(row.astype(np.int32))
    held_out = [round(TEST_RATIO * len(row)) for row in rows]
    train = [row[size:] for row, size in zip(rows, held_out)]
    test = [row[:size] for row, size in zip(rows, held_out)]
    parts = []
    for part in (train, test):
        indptr = np.cumsum([0, *map(len, part)]).astype(np.int32)
        ratings = rng.integers(1, 6, indptr[-1], dtype=np.int8).astype(np.float32)
        arrays = ratings, np.concatenate(part), indptr
        parts.append(sp.csr_matrix(arrays, (num_items, num_users)))
    return parts[0], parts[1]


def measure(name: str, num_hidden: int) -> Answer:
    """Train in this process; time the last epoch, as the first one warms up."""
    from d2l_autorec import seed_everything, try_all_gpus
    from d2l_autorec.training import Parts, Recipe, Run, Training

    train, test = generate(*SHAPES[name])
    seed_everything(0)
    recipe = Recipe(num_hidden=num_hidden, num_epochs=1 if name == "netflix" else 3)
    epochs = Training(Run(Parts(train, test), recipe, 0), try_all_gpus()).epochs()
    for _ in range(recipe.num_epochs):
        start = time.perf_counter()
        epoch = next(epochs)
        seconds = time.perf_counter() - start
    return {
        "shape": name,
        "num_users": train.shape[1],
        "num_items": train.shape[0],
        "num_ratings": train.nnz + test.nnz,
        "num_hidden": num_hidden,
        "train_seconds": epoch.seconds,
        "evaluate_seconds": seconds - epoch.seconds,
        "peak_gb": peak_memory() / 1e9,
        "dense_gb": 2 * 4 * train.shape[0] * train.shape[1] / 1e9,
    }


def main() -> None:
    """Measure the shapes one after the other."""
    flags = parser(__doc__)
    flags.add_argument("--only", choices=SHAPES, action="append", help="these shapes")
    flags.add_argument("--num-hidden", type=int, default=500, metavar="N")
    flags.add_argument("--answer", action="store_true", help=argparse.SUPPRESS)
    args = flags.parse_args()
    if args.answer:
        answer(lambda name: measure(name, args.num_hidden))
        return
    times = "train s", "evaluate s", "peak GB", "two dense matrices GB"
    print_header("shape", "users x items", "ratings", *times)
    found = []
    for name in args.only or ("ml-100k", "ml-1m", "ml-10m"):
        command = [sys.executable, __file__, "--answer"]
        side = Side([*command, "--num-hidden", str(args.num_hidden)])
        row = side.turn(name)
        side.close()
        found.append(row)
        keys = "train_seconds", "evaluate_seconds", "peak_gb", "dense_gb"
        size = f"{row['num_users']:,} x {row['num_items']:,}"
        numbers = [f"{row[key]:.2f}" for key in keys]
        print_row([name, size, f"{row['num_ratings']:,}", *numbers])
    write(args.json, found)


if __name__ == "__main__":
    main()
