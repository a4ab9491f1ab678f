"""Write MovieLens 1M as three files: yesterday's ratings, today's, and a test part.

``python benchmarks/warm.py DIR``. Yesterday lacks the last tenth of the users, by their
ids, with all of their ratings, and a random tenth of the others' ratings.
"""

import sys
from pathlib import Path

import numpy as np

from d2l_autorec import load_dataset, seed_everything, split_rows


def main(directory: str) -> None:
    """Write the files."""
    ratings = load_dataset("ml-1m")
    seed_everything(0)
    today, test = split_rows(ratings.user_index)
    old = np.random.default_rng(0).random(len(today)) < 0.9
    old &= ratings.user_index[today] < 0.9 * ratings.num_users
    for name, rows in {"yesterday": today[old], "today": today, "test": test}.items():
        table = ratings.frame(rows)
        table.to_csv(Path(directory) / f"{name}.csv", index=False)
        print(f"{name}: {len(table):,} ratings of {table['user_id'].nunique():,} users")


if __name__ == "__main__":
    main(sys.argv[1])
