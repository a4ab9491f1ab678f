"""Lists of what users choose next: models by full ranking, on splits of MovieLens.

``D2L_AUTOREC_DATA=... python benchmarks/topn.py`` fits each model to each part, writes
``topn.json`` to the folder ``--out`` after each part, and prints the tables. A run that
was interrupted goes on where it was; ``--only ml-1m/0,ml-1m/cold`` does some parts.

``ml-1m/0`` to ``ml-1m/4`` are the five published parts of the comparison by Anelli et
al., "Top-N Recommendation Algorithms: A Quest for the State-of-the-Art", UMAP 2022
(``topn-ml-1m/`` in the data folder). ``/random`` and ``/seq-aware`` hold out pairs,
``/users`` a tenth of the users, a fifth of whose pairs is to be found. ``ml-1m/cold``
holds out a tenth of the items, which CVAE ranks by genres and title words. Settings are
chosen on validation parts of the training parts alone.
"""

import argparse
import json
import os
import time
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.sparse as sp

from d2l_autorec import load_dataset, topn
from d2l_autorec.serving import pairs_to_fit, save_text
from d2l_autorec.study import cut_users, machine, markdown_table
from d2l_autorec.training import Parts

PUBLISHED = [f"ml-1m/{number}" for number in range(5)]
SETS, MODES = ("ml-100k", "ml-latest-small"), ("random", "seq-aware", "users")
OTHERS = [f"{name}/{mode}" for name in SETS for mode in MODES]
SHOWN = ("ndcg@10", "recall@10", "recall@50", "coverage@10")


def published(ratings, inter_mat, number):
    """Read a published test part; the rest of the 10-core is the training part."""
    file = Path(os.environ["D2L_AUTOREC_DATA"], "topn-ml-1m", f"test-{number}.tsv")
    pairs = pd.read_csv(file, sep="\t", names=["user", "item"])
    row = np.searchsorted(ratings.item_ids, pairs["item"])
    cells = row, np.searchsorted(ratings.user_ids, pairs["user"])
    test = sp.csr_matrix((np.ones(len(pairs), np.float32), cells), inter_mat.shape)
    inter_mat = inter_mat.sign()
    while True:
        items, users = (inter_mat.getnnz(axis=axis) >= 10 for axis in (1, 0))
        if items.all() and users.all():
            train = inter_mat - test
            train.eliminate_zeros()
            return train, train, test
        inter_mat, test = (one[items][:, users] for one in (inter_mat, test))


def parts_of(name):
    """Cut a data set: what to train on, what users are given, and what they hide."""
    dataset, mode = name.split("/")
    ratings = load_dataset(dataset)
    rows = np.flatnonzero(ratings.rating >= 4)
    inter_mat = ratings.matrix(rows)
    if mode.isdigit():
        return published(ratings, inter_mat, mode)
    if mode == "users":
        given, hidden = cut_users(ratings.user_index[rows], 0.1, 0)
        split = {"split_mode": mode}
        parts = Parts.of(ratings, rows[given], rows[hidden], split=split)
        return pairs_to_fit(parts), parts.train_mat, parts.test_mat
    train, test = topn.split_pairs(inter_mat, 0.1, 0)
    if mode == "seq-aware":
        newest = ratings.frame(rows).groupby("user_id")["timestamp"].idxmax()
        train, test = map(ratings.matrix, (np.setdiff1d(rows, newest), newest))
    return train, train, test


def score(model, parts, seed=0, items=slice(None)):
    """Fit a model unless that has been done, and measure it."""
    train, given, test = parts
    start = time.perf_counter()
    if not model.arrays:
        model.fit(train, seed)
    seconds = time.perf_counter() - start
    among = Among(model, items)
    found = topn.evaluate(among, given, test, known=train is given).mean
    return {"seconds": seconds, "settings": model.settings, **found}


def lists(name):
    """Measure models on a part; the members of `best`, the last one, are among them."""
    parts = parts_of(name)
    fixed = {"popularity": topn.Popularity(), "ease, l2=238.56": topn.EASE(238.56)}
    found = {title: score(model, parts) for title, model in fixed.items()}
    start = time.perf_counter()
    mixture = topn.choose(parts[0])
    for number, member in enumerate(mixture.members):
        found[f"{member.name}, chosen"] = score(member, parts, number)
    mixture.arrays = {"": np.empty(0)}  # its members are fitted
    seconds = time.perf_counter() - start
    return found | {"best": score(mixture, parts) | {"seconds": seconds}}


class Among:
    """A model's lists of some of the items."""

    def __init__(self, model, items):
        self.model, self.items = model, items

    def scores(self, rows, users=None):
        """Score these, and no others."""
        found = np.full(rows.shape, -np.inf, np.float32)
        found[:, self.items] = self.model.scores(rows, users)[:, self.items]
        return found


class RandomOrder(topn.Popularity):
    """Another random order for each user."""

    def scores(self, rows, users=None):
        """Draw them."""
        return np.random.default_rng(rows.nnz).random(rows.shape)


def cold():
    """Hold a tenth of the items out altogether, and rank them by their words."""
    ratings = load_dataset("ml-1m", words=True)
    inter_mat = ratings.matrix(np.flatnonzero(ratings.rating >= 4))
    features = ratings.features
    words = topn.bag_of_words([features[item] for item in ratings.item_ids.tolist()])
    rng = np.random.default_rng(0)
    items = rng.permutation(ratings.num_items)[: ratings.num_items // 10]
    held_out = np.isin(np.arange(ratings.num_items), items) * 1.0
    train, test = (sp.diags(its) @ inter_mat for its in (1 - held_out, held_out))
    train.eliminate_zeros(), test.eliminate_zeros()
    models = {"random order": RandomOrder(), "cvae": topn.CVAE(words=words)}
    parts = train, train, test
    return {name: score(one, parts, items=items) for name, one in models.items()}


def table(parts):
    """Lay the means over some parts out as Markdown."""
    rows = [("model", *SHOWN, "seconds")]
    for model in parts[0]:
        means = (np.mean([part[model][name] for part in parts]) for name in rows[0][1:])
        rows.append((model, *(f"{mean:.4f}" for mean in means)))
    return markdown_table(rows)


def main():
    """Do the parts that have not been done, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    every = ",".join([*PUBLISHED, *OTHERS, "ml-1m/cold"])
    parser.add_argument("--only", default=every, metavar="LIST", help="these parts")
    parser.add_argument(
        "--out", type=Path, default=Path("docs/results/lists"), metavar="DIR"
    )
    args = parser.parse_args()
    file = args.out / "topn.json"
    parts = json.loads(file.read_text())["parts"] if file.exists() else {}
    for name in args.only.split(","):
        if name not in parts:
            parts[name] = cold() if name == "ml-1m/cold" else lists(name)
            content = {"command": "python benchmarks/topn.py", "machine": machine()}
            save_text(json.dumps({**content, "parts": parts}, indent=1) + "\n", file)
            print(f"{name}\n{table([parts[name]])}\n", flush=True)
    found = [parts[name] for name in PUBLISHED if name in parts]
    print(f"mean of {len(found)} published parts\n{table(found)}" if found else "")


if __name__ == "__main__":
    main()
