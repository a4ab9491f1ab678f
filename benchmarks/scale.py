"""Seconds an epoch and peak memory, on generated ratings of real data sets' shapes.

``python benchmarks/scale.py`` trains by the book's recipe on each shape, three epochs
in a process of its own, and prints a table; ``--json FILE`` writes it. The ratings are
drawn at random, so their number means something, the RMSE nothing. Netflix' shape takes
about 8 GB and several minutes for its one epoch, so it has to be asked for
(``--only netflix``).
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp

SHAPES = {  # users, items, ratings
    "ml-100k": (943, 1_682, 100_000),
    "ml-1m": (6_040, 3_706, 1_000_209),
    "ml-10m": (69_878, 10_677, 10_000_054),
    "netflix": (480_189, 17_770, 100_480_507),
}
TEST_RATIO = 0.1


def generate(
    num_users: int, num_items: int, num_ratings: int
) -> tuple[sp.csr_matrix, sp.csr_matrix]:
    """Draw ratings, item by item, with a long tail; a tenth of each item's is held out.

    Returns
    -------
    train, test : scipy.sparse.csr_matrix of float32, shape (num_items, num_users)
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
    parts = []
    held_out = [round(TEST_RATIO * len(row)) for row in rows]
    for cut in (
        [row[n:] for row, n in zip(rows, held_out)],
        [row[:n] for row, n in zip(rows, held_out)],
    ):
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in cut])])
        ratings = rng.integers(1, 6, indptr[-1], dtype=np.int8).astype(np.float32)
        parts.append(
            sp.csr_matrix(
                (ratings, np.concatenate(cut), indptr.astype(np.int32)),
                shape=(num_items, num_users),
            )
        )
    return parts[0], parts[1]


def measure(name: str, num_hidden: int) -> dict[str, float | int | str]:
    """Train in this process; time the last epoch, as the first one warms up."""
    from d2l_autorec import seed_everything, try_all_gpus
    from d2l_autorec.training import Parts, Recipe, Training

    train, test = generate(*SHAPES[name])
    seed_everything(0)
    recipe = Recipe(num_hidden=num_hidden, num_epochs=1 if name == "netflix" else 3)
    epochs = Training(recipe, Parts(train, test), try_all_gpus(), 0).epochs()
    for _ in range(recipe.num_epochs):
        start = time.perf_counter()
        epoch = next(epochs)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "shape": name,
        "num_users": train.shape[1],
        "num_items": train.shape[0],
        "num_ratings": train.nnz + test.nnz,
        "num_hidden": num_hidden,
        "train_seconds": epoch.seconds,
        "evaluate_seconds": seconds - epoch.seconds,
        "peak_gb": peak * 1024 / 1e9,  # Linux gives kibibytes
        "dense_gb": 2 * 4 * train.shape[0] * train.shape[1] / 1e9,
    }


def main() -> None:
    """Measure the shapes one after the other."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--only", choices=SHAPES, action="append", help="these shapes")
    parser.add_argument("--num-hidden", type=int, default=500, metavar="N")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers")
    parser.add_argument("--measure", choices=SHAPES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(args.measure, args.num_hidden)))
        return
    found = []
    print(
        "| shape | users x items | ratings | train s | evaluate s | peak GB | ", end=""
    )
    print("two dense matrices GB |\n|---|---|---|---|---|---|---|", flush=True)
    for name in args.only or ("ml-100k", "ml-1m", "ml-10m"):
        process = subprocess.run(
            [
                *(sys.executable, __file__, "--measure", name),
                *("--num-hidden", str(args.num_hidden)),
            ],
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        row = json.loads(process.stdout.splitlines()[-1])
        found.append(row)
        print(
            "| {shape} | {num_users:,} x {num_items:,} | {num_ratings:,} | "
            "{train_seconds:.2f} | {evaluate_seconds:.2f} | {peak_gb:.2f} | "
            "{dense_gb:.2f} |".format(**row),
            flush=True,
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
