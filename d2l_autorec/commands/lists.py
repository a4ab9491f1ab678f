"""Models of lists in `train` and `compare`: fitted, measured, and reported."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import cli
from .notes import against_note
from .process import interrupted_by
from .results import json_writer, publish

if TYPE_CHECKING:
    from ..serving import ListRun
    from ..study import ListModel
    from ..training import Parts

DEFAULT = "ease"
BASELINE = "popularity"
# What is compared without --models: each takes seconds.
QUICK_MODELS = [BASELINE, "ease", "user-ease"]
_K = 10
SHOWN = ("ndcg", "recall", "coverage")


def check_model(parser: cli.Parser, args: argparse.Namespace) -> None:
    """Refuse a model that there is not, before anything is read."""
    try:
        _model(args)
    except ValueError as error:
        parser.error(f"argument --preset: {error}")


def _model(args: argparse.Namespace) -> ListModel:
    """Return the model that --preset names, or the usual one."""
    from ..study import ListModel

    if "preset" not in args.given:
        args.preset = DEFAULT
    return ListModel.parse(args.preset)


def train(args: argparse.Namespace, parts: Parts) -> None:
    """Train a model of lists, measure it, and keep it."""
    from ..serving import ListRun, beside_popularity, pairs_to_fit, versions

    chosen = _model(args)
    if not args.quiet:
        print(_summary(args, parts))
    start = time.perf_counter()
    try:
        with progress(args.quiet) as tick:
            model = chosen.fit(parts, args.seed, args.refit, tick)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"{interrupted_by(interrupt)}; a model of lists is kept once it is trained"
        ) from None
    seconds = time.perf_counter() - start
    measures = {}
    if parts.test_mat is not None:
        both, known = (parts.train_mat, parts.test_mat), args.split_mode != "users"
        matrix = pairs_to_fit(parts)
        measures = beside_popularity(model.name, model, both, matrix, _K, known)
    run = ListRun(parts, model, args.seed, measures)
    if args.save:
        run.save(args.save, args.overwrite)
    result = {
        "dataset": parts.name,
        "feedback": "implicit",
        "num_users": len(parts.user_ids),
        "num_items": len(parts.item_ids),
        "num_train_pairs": parts.train_mat.nnz,
        "num_test_pairs": 0 if parts.test_mat is None else parts.test_mat.nnz,
        **parts.split,
        "seed": args.seed,
        "model": model.name,
        "settings": model.settings,
        "measures": measures,
        "seconds": seconds,
        "versions": versions(),
    }
    lines = [f"trained: {model} in {seconds:.1f} s", *verdict(run)]
    publish("\n".join(lines), (args.json, json_writer(result)))


def compare(
    args: argparse.Namespace,
    models: Mapping[str, ListModel],
    runs: tuple[list[int], Iterator[Any], int],
) -> None:
    """Train models of lists on the same splits, and measure them beside popularity."""
    from ..serving import save_tables, versions
    from ..study import ListModel, fingerprint, span
    from ..training import Parts

    seeds, splits, num_runs = runs
    wanted = {name: ListModel.parse(name) for name in QUICK_MODELS}
    models = {BASELINE: wanted[BASELINE], **(models or wanted)}
    rival = args.against if args.against in models else BASELINE
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in models}
    names, per_user, number = [], [], 0
    for split in splits:
        names.append(split.name)
        mode = {"split_mode": args.splits}
        held = Parts.of(split.ratings, split.train_rows, split.test_rows, split=mode)
        for name, model in models.items():
            number += 1
            doing = f"{number} of {num_runs * len(models)}: {split.name}, {name}"
            score, table = _score(args, held, model, split.seed, doing)
            found[name].append(score)
            labels = {"run": split.name, "seed": split.seed, "model": name}
            per_user.append(table.assign(**labels))
    data = split.ratings
    result = {
        "dataset": data.name,
        "data": fingerprint(data),
        "feedback": "implicit",
        "min_rating": args.min_rating,
        "splits": args.test_ratings or args.splits,
        "seeds": seeds,
        "runs": names,
        "against": rival,
        "models": found,
        "versions": versions(),
    }
    size = f"{data.num_users:,} users x {data.num_items:,} items"
    where = f"{data.name} ({size}, {data.num_ratings:,} pairs), {result['splits']}"
    publish(
        f"{where}, seeds {span(seeds)}:\n\n{_table(found, args.at, rival)}\n\n"
        "Measures rank all items that a user does not have, and are means over the "
        "users with a held-out pair; mean ± standard deviation over the runs.\n"
        + against_note(f"ndcg@{args.at[0]}", rival, len(names), "above"),
        (args.json, json_writer(result)),
        (args.predictions, lambda file: save_tables(per_user, file)),
    )


def _score(
    args: argparse.Namespace, parts: Parts, model: ListModel, seed: int, doing: str
) -> tuple[dict[str, Any], Any]:
    """Train and measure a model: what came of it, and a table with a row a user."""
    from ..topn import evaluate

    start = time.perf_counter()
    with progress(args.quiet, doing) as tick:
        fitted = model.fit(parts, seed, tick=tick)
    seconds = time.perf_counter() - start
    known = args.splits != "users"
    found = evaluate(fitted, parts.train_mat, parts.test_mat, args.at, known)
    table = found.per_user.reset_index(names="user_id")
    table["user_id"] = parts.user_ids[table["user_id"]]
    score = {"settings": fitted.settings, "measures": found.mean, "seconds": seconds}
    return score, table


def _table(
    found: Mapping[str, Sequence[Mapping[str, Any]]], at: Sequence[int], rival: str
) -> str:
    """Lay the measures out, the models below each other, beside a rival of them."""
    from ..study import against, markdown_table, spread

    columns = [f"{name}@{k}" for k in at for name in SHOWN]
    first = columns[0]
    rows = [("model", *columns, f"{first} against {rival}", "won", "seconds")]
    ranked = {n: [s["measures"][first] for s in runs] for n, runs in found.items()}
    for name, scores in found.items():
        versus = ("", "")
        if name != rival:
            versus = against(ranked[name], ranked[rival], "+.4f", False)
        values = (
            spread([one["measures"][column] for one in scores], ".4f")
            for column in columns
        )
        seconds = sum(one["seconds"] for one in scores) / len(scores)
        rows.append((name, *values, *versus, f"{seconds:.1f}"))
    return markdown_table(rows)


def verdict(run: ListRun) -> Iterator[str]:
    """Say how good lists are, and how good those of popularity."""
    from ..ratings import SYNTHETIC

    name, measures = run.model.name, run.measures
    if not measures:
        yield "no pairs are held out, so nothing says how good the lists are"
        return
    for one, found in measures.items():
        values = ", ".join(f"{n}@{_K} {found[f'{n}@{_K}']:.4f}" for n in SHOWN)
        yield f"{one}: {values}"
    ours, theirs = measures[name], measures.get(BASELINE, measures[name])
    worse = ours[f"ndcg@{_K}"] < theirs[f"ndcg@{_K}"]
    if worse and run.parts.name != SYNTHETIC:  # of which it says nothing
        yield f"the most popular items are better lists than those of {name}"


@contextmanager
def progress(quiet: bool, title: str = "") -> Iterator[Any]:
    """Show epochs, and how long the others will take, on the standard error."""
    from tqdm import tqdm

    with tqdm(unit="epoch", disable=quiet, delay=0.1) as bar:

        def tick(doing: str, epoch: int, num_epochs: int) -> None:
            if not epoch:
                bar.reset(num_epochs)
                bar.set_description(", ".join(filter(None, [title, doing])))
            bar.update(epoch - bar.n)

        yield tick


def _summary(args: argparse.Namespace, parts: Parts) -> str:
    """Say what is trained, and on how much."""
    split = parts.split["split_mode"]
    line = f"{args.preset}; {split} split, seed {args.seed}: "
    line += f"{parts.train_mat.nnz:,} pairs to train on"
    if split == "users":
        line += " or to be given"
    if parts.test_mat is not None:
        line += f", {parts.test_mat.nnz:,} to find"
    return line
