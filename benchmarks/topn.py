"""Lists of what users choose next: models by full ranking, on splits of MovieLens.

``D2L_AUTOREC_DATA=... python benchmarks/topn.py`` fits each model to each part in turn,
writes ``topn.json`` to the folder ``--out`` after each part, and prints the tables. What
is in the file is not done again, so a run that was interrupted goes on where it was;
``--only ml-1m/0,ml-1m/cold`` does some parts.

``ml-1m/0`` to ``ml-1m/4`` are the five published parts of the comparison by Anelli et al.
("Top-N Recommendation Algorithms: A Quest for the State-of-the-Art", UMAP 2022), which
``topn-ml-1m/`` in the data folder holds. ``/random`` and ``/seq-aware`` hold out pairs of
each user, ``/users`` a tenth of the users, of whose pairs a fifth is to be found.
``ml-1m/cold`` holds a tenth of the items out of training, which CVAE ranks by genres and
title words. Settings are chosen on validation parts of the training parts alone.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import scipy.sparse as sp

from d2l_autorec import load_dataset, seed_everything, split_data_ml100k
from d2l_autorec.ratings import locate
from d2l_autorec.serving import save_text
from d2l_autorec.study import machine, markdown_table
from d2l_autorec.topn import (
    CVAE,
    EASE,
    Popularity,
    TopN,
    bag_of_words,
    choose,
    core,
    evaluate,
    measure,
    split_pairs,
    split_users,
    top_k,
)

PUBLISHED = [f"ml-1m/{number}" for number in range(5)]
OTHERS = [
    f"{name}/{mode}"
    for name in ("ml-100k", "ml-latest-small")
    for mode in ("random", "seq-aware", "users")
]
SHOWN = ("ndcg@10", "recall@10", "recall@50", "coverage@10")
Parts = tuple[sp.csr_matrix, sp.csr_matrix, sp.csr_matrix, bool]


def published(number: str) -> Parts:
    """Read a published test part; the rest of the 10-core is the training part."""
    ratings = load_dataset("ml-1m")
    everything = ratings.matrix(ratings.data[ratings.data["rating"] >= 4])
    file = Path(os.environ["D2L_AUTOREC_DATA"], "topn-ml-1m", f"test-{number}.tsv")
    pairs = pd.read_csv(file, sep="\t", names=["user_id", "item_id"])
    test = ratings.matrix(pairs.assign(rating=1.0))
    items, users = core(everything, 10)
    test, everything = (one[items][:, users].sign() for one in (test, everything))
    train = everything - test
    train.eliminate_zeros()
    return train, train, test, True


def parts_of(name: str) -> Parts:
    """Cut a data set: what to train on, what users are given, what they hide."""
    dataset, mode = name.split("/")
    if mode.isdigit():
        return published(mode)
    ratings = load_dataset(dataset)
    data = ratings.data[ratings.data["rating"] >= 4]
    if mode == "users":
        train, others = split_users(ratings.matrix(data), 0.1, 0)
        return train, *split_pairs(others, 0.2, 0), False
    seed_everything(0)
    sizes = ratings.num_users, ratings.num_items
    train, test = map(ratings.matrix, split_data_ml100k(data, *sizes, mode))
    return train, train, test, True


def cold() -> Iterator[tuple[str, dict[str, Any]]]:
    """Hold a tenth of the items out altogether, and rank them by their words."""
    ratings = load_dataset("ml-1m")
    inter_mat = ratings.matrix(ratings.data[ratings.data["rating"] >= 4])
    lines = locate("ml-1m")[0]("movies.dat").decode("latin-1").splitlines()
    texts = {int(line.split("::")[0]): line.split("::", 1)[1] for line in lines}
    words, _ = bag_of_words([texts[item] for item in ratings.item_ids])
    rng = np.random.default_rng(0)
    items = np.sort(rng.choice(len(words.indptr) - 1, words.shape[0] // 10, False))
    held_out = np.isin(np.arange(words.shape[0]), items)
    train, test = (sp.diags(1.0 * its) @ inter_mat for its in (~held_out, held_out))
    for matrix in (train, test):
        matrix.eliminate_zeros()
    rows = test.T.tocsr()
    rows = rows[np.flatnonzero(np.diff(rows.indptr))]
    order = np.full(rows.shape, -np.inf)
    order[:, items] = rng.random((rows.shape[0], len(items)))
    yield "random order", dict(measure(top_k(order, rows[:, :0], 50), rows).mean)
    start = time.perf_counter()
    model = CVAE().fit(train, item_features=words)
    seconds = time.perf_counter() - start
    yield "CVAE", {"seconds": seconds, **evaluate(model, train, test, items=items).mean}


def lists(name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Fit the models to a part, `best` last, whose members are the ones before it."""
    train, given, test, known = parts_of(name)
    start = time.perf_counter()
    mixture = choose(train)
    chosen = time.perf_counter() - start
    named: list[tuple[str, TopN]] = [("popularity", Popularity())]
    named += [("EASE, lambda 238.56", EASE(238.56))]
    named += [(member.name, member) for member in mixture.members]
    total = chosen
    for number, (title, model) in enumerate(named):
        start = time.perf_counter()
        model.fit(train, max(0, number - 2))
        seconds = time.perf_counter() - start
        total += seconds if number > 1 else 0
        found = evaluate(model, given, test, known=known).mean
        yield title, {"seconds": seconds, "settings": model.settings, **found}
    found = evaluate(mixture, given, test, known=known).mean
    yield "best", {"seconds": total, "settings": mixture.settings, **found}


def table(parts: dict[str, dict[str, Any]]) -> str:
    """Lay the means over some parts out as Markdown."""
    rows: list[tuple[str, ...]] = [("model", *SHOWN, "seconds")]
    for title in next(iter(parts.values())):
        found = [part[title] for part in parts.values()]
        means = [f"{np.mean([one[name] for one in found]):.4f}" for name in SHOWN]
        seconds = f"{np.mean([one.get('seconds', 0) for one in found]):.0f}"
        rows.append((title, *means, seconds))
    return markdown_table(rows)


def main() -> None:
    """Do the parts that have not been done, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    known = [*PUBLISHED, *OTHERS, "ml-1m/cold"]
    parser.add_argument("--only", type=lambda text: text.split(","), default=known)
    parser.add_argument("--out", type=Path, default=Path("docs/results"), metavar="DIR")
    args = parser.parse_args()
    file = args.out / "topn.json"
    content = json.loads(file.read_text()) if file.exists() else {"parts": {}}
    parts = content["parts"]
    for name in args.only:
        if name not in parts:
            parts[name] = dict(cold() if name == "ml-1m/cold" else lists(name))
            content |= {"command": "python benchmarks/topn.py", "machine": machine()}
            save_text(json.dumps(content, indent=1) + "\n", file)
    whole = {name: parts[name] for name in PUBLISHED if name in parts}
    for title, group in {
        "ml-1m, published parts": whole,
        **{n: {n: p} for n, p in parts.items() if n not in whole},
    }.items():
        print(f"\n{title} ({len(group)})\n\n{table(group)}")


if __name__ == "__main__":
    main()
