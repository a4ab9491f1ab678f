"""Models of lists in `train` and `compare`: fitted, measured, and reported."""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from . import cli
from .results import json_writer, publish

if TYPE_CHECKING:
    from ..training import Parts

DEFAULT = "ease"
BASELINE = "popularity"
_K = 10
SHOWN = ("ndcg", "recall", "coverage")


def check_model(parser: cli.Parser, args: argparse.Namespace) -> None:
    """Refuse a model that there is not, before anything is read."""
    from ..study import ListModel

    if "preset" not in args.given:
        args.preset = DEFAULT
    try:
        ListModel.parse(args.preset)
    except ValueError as error:
        parser.error(f"argument --preset: {error}")


def train(args: argparse.Namespace, parts: Parts) -> None:
    """Train a model of lists, measure it, and keep it."""
    from ..serving import ListFolder, ListRun, pairs_to_fit, versions
    from ..study import ListModel

    if "preset" not in args.given:
        args.preset = DEFAULT
    chosen = ListModel.parse(args.preset)
    if not args.quiet:
        print(_summary(args, parts))
    matrix, start = pairs_to_fit(parts), time.perf_counter()
    try:
        with progress(args.quiet) as tick:
            model = chosen.fit(matrix, args.seed, args.refit, tick)
    except KeyboardInterrupt as interrupt:
        raise KeyboardInterrupt(
            f"{str(interrupt) or 'interrupted'}; a model of lists is kept once it is "
            "trained"
        ) from None
    seconds = time.perf_counter() - start
    measures = measured(model, parts, [_K])
    run = ListRun(parts, model, args.seed, measures)
    if args.save:
        ListFolder(args.save).save(run, args.overwrite)
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
    lines = [f"trained: {model} in {seconds:.1f} s", *verdict(model.name, measures)]
    publish("\n".join(lines), (args.json, json_writer(result)))


def measured(
    model: Any, parts: Parts, at: Sequence[int], beside: bool = True
) -> dict[str, dict[str, float]]:
    """Measure lists on the test part, if there is one, with popularity's beside."""
    from ..serving import pairs_to_fit
    from ..topn import Popularity, evaluate

    if parts.test_mat is None:
        return {}
    known = parts.split.get("split_mode") != "users"
    models = {model.name: model}
    if model.name != BASELINE:
        models[BASELINE] = Popularity().fit(pairs_to_fit(parts))
    return {
        name: evaluate(one, parts.train_mat, parts.test_mat, at, known).mean
        for name, one in models.items()
    }


def verdict(name: str, measures: Mapping[str, Mapping[str, float]]) -> Iterator[str]:
    """Say how good lists are, and how good those of popularity."""
    if not measures:
        yield "no pairs are held out, so nothing says how good the lists are"
        return
    for one, found in measures.items():
        values = ", ".join(f"{n}@{_K} {found[f'{n}@{_K}']:.4f}" for n in SHOWN)
        yield f"{one}: {values}"
    ours, theirs = measures[name], measures.get(BASELINE, measures[name])
    if ours[f"ndcg@{_K}"] < theirs[f"ndcg@{_K}"]:
        yield f"the most popular items are better lists than those of {name}"


@contextmanager
def progress(quiet: bool, **options: Any) -> Iterator[Any]:
    """Show epochs, and how long the others will take, on the standard error."""
    from tqdm import tqdm

    with tqdm(unit="epoch", disable=quiet, delay=0.1, **options) as bar:

        def tick(doing: str, epoch: int, num_epochs: int) -> None:
            if not epoch:
                bar.reset(num_epochs)
                bar.set_description(doing)
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
