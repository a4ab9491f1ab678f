"""At home on any ratings: models on the data sets at hand, and on copies of them.

``D2L_AUTOREC_DATA=... python benchmarks/anywhere.py`` trains each model with five seeds
on each set, writes every training to ``anywhere.json`` and the table to ``anywhere.md``
in the folder ``--out``, and prints the table. What is in the file is not trained again,
so a run that was interrupted goes on where it was. ``--only ml-100k,ml-1m:1/30 --models
biases,best --seeds 0`` does a part; the table has all that is in the file.

A set is a data set of MovieLens, or a copy of one: ``ml-100k:1/10`` has a random tenth
of its ratings, ``ml-100k:0-100`` has them on another scale, by an affine map, and
``ml-100k:200-users`` has those of 200 random users. Each seed draws a split of its own,
nine tenths to one; but ``ml-100k:u1-u5`` are the folds that come with it, and each is a
run with the first seed. Models are named as for ``d2l_autorec.compare``, and shown the
training part alone.
"""

import argparse
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from sides import parser
from tqdm import tqdm

from d2l_autorec import Ratings, load_dataset, ratings_from_frame, try_all_gpus
from d2l_autorec.commands import cli
from d2l_autorec.serving import save_text
from d2l_autorec.study import (
    Contender,
    Records,
    fingerprint,
    machine,
    make_splits,
    markdown_table,
    spread,
)

MODELS = ("biases", "mf", "biased-mf", "book", "best")
COMMAND = "python benchmarks/anywhere.py"
Runs = dict[str, dict[str, Any]]
TEXT = """{table}

Test RMSE in the unit of the ratings, mean ± standard deviation over the runs, and in \
brackets the mean time of a training, the choice of settings included. Predictions are \
those that the model makes, clipped where its settings say so. Won: the runs in which \
`best` has a lower RMSE than biases.

`{command}` on {machine}.
"""


def thin(part: int, ratings: Ratings) -> Ratings:
    """Keep one of so many ratings, at random; the same ones in every run."""
    kept = np.random.default_rng(0).permutation(ratings.num_ratings) % part == 0
    return ratings_from_frame(ratings.data[kept], name=ratings.name)


def scale(low: float, high: float, ratings: Ratings) -> Ratings:
    """Map the scale to another one."""
    rating = ratings.data["rating"]
    share = (rating - rating.min()) / (rating.max() - rating.min())
    data = ratings.data.assign(rating=low + (high - low) * share)
    return ratings_from_frame(data, name=ratings.name)


def of_users(number: int, ratings: Ratings) -> Ratings:
    """Keep what so many random users rated; the same ones in every run."""
    users = np.random.default_rng(0).choice(ratings.user_ids, number, replace=False)
    kept = ratings.data["user_id"].isin(users)
    return ratings_from_frame(ratings.data[kept], name=ratings.name)


COPIES: dict[str, Callable[[Ratings], Ratings]] = {
    "1/2": partial(thin, 2),
    "1/10": partial(thin, 10),
    "1/30": partial(thin, 30),
    "1-10": partial(scale, 1, 10),
    "0-100": partial(scale, 0, 100),
    "200-users": partial(of_users, 200),
}
SETS = [
    *("ml-100k", "ml-100k:u1-u5", *(f"ml-100k:{copy}" for copy in COPIES)),
    *("ml-latest-small", *(f"ml-latest-small:{copy}" for copy in COPIES)),
    *("ml-1m", *(f"ml-1m:{copy}" for copy in COPIES)),
]


def train(
    name: str, models: Sequence[str], seeds: Sequence[int], records: Records
) -> Iterator[str]:
    """Train models on a set, unless that has been done, and say what is next."""
    dataset, _, copy = name.partition(":")
    ratings = load_dataset(dataset)
    if copy in COPIES:
        ratings = COPIES[copy](ratings)
    about = {"dataset": name, "data": fingerprint(ratings), "part": "test"}
    splits = ("u1-u5", seeds[:1]) if copy == "u1-u5" else ("random", seeds)
    for split in make_splits(ratings, *splits):
        for title in models:
            yield f"{name}, {split.name}, {title}"
            model = Contender.parse(title).make(ratings, try_all_gpus())
            records.score(model, split, {**about, "title": title})


def runs_of(records: Records, name: str, title: str) -> Runs:
    """Find a model's trainings on a set, with the settings of today, by split."""
    settings = Contender.parse(title).make(None, []).settings
    found = records.find(dataset=name, settings=settings)
    return {record["split"]: record for record in found}


def verdict(best: Runs, biases: Runs) -> tuple[str, str]:
    """Count the runs that one model won against another, and say where it lost."""
    pairs = [(best[n]["rmse"], biases[n]["rmse"]) for n in best if n in biases]
    if not pairs:
        return "", ""
    means = [statistics.mean(values) for values in zip(*pairs)]
    won = sum(one < other for one, other in pairs)
    return f"{won}/{len(pairs)}", "" if means[0] < means[1] else "**not better**"


def table(records: Records) -> str:
    """Lay the trainings out as Markdown, a row a set."""
    header = "set", "users", "items", "ratings", *MODELS, "won", "best against biases"
    rows: list[tuple[str, ...]] = [header]
    for name in SETS:
        found = {title: runs_of(records, name, title) for title in MODELS}
        sizes = [record["data"] for runs in found.values() for record in runs.values()]
        if not sizes:
            continue
        size = [part.split()[0] for part in sizes[0].split(", ")[:3]]
        cells = [cell(list(runs.values())) for runs in found.values()]
        rows.append((name, *size, *cells, *verdict(found["best"], found["biases"])))
    return markdown_table(rows)


def cell(runs: Sequence[Mapping[str, Any]]) -> str:
    """Give the RMSE of some runs, and how long they took."""
    if not runs:
        return ""
    seconds = statistics.mean(run["seconds"] for run in runs)
    return f"{spread([run['rmse'] for run in runs])} ({seconds:.1f} s)"


def main(argv: Sequence[str] | None = None) -> None:
    """Do the trainings that have not been done, and print the table."""
    flags = parser(__doc__)
    flags.add_argument("--only", type=names(SETS), default=SETS, metavar="LIST")
    flags.add_argument("--models", type=names(MODELS), default=MODELS, metavar="LIST")
    flags.add_argument("--seeds", type=cli.seeds, default="0-4", metavar="LIST")
    flags.add_argument("--out", type=Path, default=Path("docs/results"), metavar="DIR")
    args = flags.parse_args(argv)
    records = Records(args.out / "anywhere.json", COMMAND)
    with tqdm(unit="training") as bar:
        for name in args.only:
            for doing in train(name, args.models, args.seeds, records):
                bar.set_postfix_str(doing)
                bar.update()
    text = TEXT.format(table=table(records), command=COMMAND, machine=machine())
    save_text(text, records.file.with_suffix(".md"))
    print(text)


def names(known: Sequence[str]) -> Callable[[str], list[str]]:
    """Make a reader of lists of some names."""

    def read(text: str) -> list[str]:
        if unknown := set(text.split(",")) - set(known):
            raise argparse.ArgumentTypeError(
                f"{min(unknown)!r} is not one of {', '.join(known)}"
            )
        return text.split(",")

    return read


if __name__ == "__main__":
    main()
