"""Repeat the AutoRec paper's experiments: ``python -m d2l_autorec.paper``."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from functools import partial

from ..study import NAMES, provenance
from ..training import FINITE
from . import cli
from .cli import flag
from .process import show_notes
from .results import as_flags


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command, by default with the process's own arguments."""
    args = make_parser().parse_flags(argv)
    show_notes(args.quiet)
    cli.check_drawing(".png")

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from tqdm import tqdm

    from ..ratings import label, load_dataset
    from ..serving import save_figure, save_text
    from ..study import Row, Study, experiments, report, study_chart

    dataset = args.dataset or ("ml-100k" if args.quick else "ml-1m")
    num_splits = args.splits or (1 if args.quick else 5)
    ratings = load_dataset(dataset, args.data_dir)
    if not args.quiet:
        print(ratings.summary())
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / f"{dataset}{'-quick' if args.quick else ''}.json"
    study = Study(ratings, file)
    chosen = {
        name: experiment
        for name, experiment in experiments(args.quick, args.cold).items()
        if not args.only or re.sub(r"-\d+$", "", name) in args.only
    }
    total = sum(one.num_trainings(num_splits) for one in chosen.values())
    rows = {}
    with tqdm(total=total, unit="training", disable=args.quiet) as bar:
        for name, experiment in chosen.items():

            def tick(epoch: int, title: str = experiment.title) -> None:
                bar.set_postfix_str(f"{title}, epoch {epoch}" if epoch else title)

            tick(0)
            rmse = []
            for wd, record in study.runs(experiment, num_splits, tick):  # noqa: B007
                bar.update()
                if record["part"] == "test":
                    rmse.append(record["rmse"])
            rows[name] = Row(experiment, wd, rmse)
    # Beside other data, published figures do not stand.
    name = label(dataset, (ratings.num_users, ratings.num_items, ratings.num_ratings))
    text = report(rows, name, _provenance(args, dataset, num_splits))
    try:
        save_text(text, file.with_suffix(".md"))
        save_figure(study_chart(rows, name), file.with_suffix(".png"))
    finally:
        print(text)


def _provenance(args: argparse.Namespace, dataset: str, num_splits: int) -> str:
    settings = {"quick": True} if args.quick else {"dataset": dataset}
    more = {
        name: getattr(args, name) for name in ("cold", "only") if name in args.given
    }
    flags = as_flags({**settings, "splits": num_splits, **more})
    seeds = f", seeds 0 to {num_splits - 1},"
    return f"{provenance('paper', flags, seeds)}, {date.today()}."


@partial(cli.Kind, "LIST")
def _names(text: str) -> list[str]:
    names = text.split(",")
    if unknown := [name for name in names if name not in NAMES]:
        raise ValueError(f"{unknown[0]!r} is not one of {', '.join(NAMES)}")
    return names


STUDY = {
    "--quick": flag(
        "a tour in less than 5 minutes: few epochs, one split, nothing tuned"
    ),
    "--only": flag(f"some of {', '.join(NAMES)} (default: all)", _names),
    "--splits": flag(
        "random splits, with the seeds 0, 1, ... (default: 5, and with --quick 1)",
        cli.positive_int,
    ),
    "--cold": flag(
        "prediction for a user or an item without a training rating: a number, or "
        "'mean' for that of the training ratings",
        cli.Kind("X", replace(FINITE, words={"mean": "mean"}).parse),
        3.0,
    ),
    "--out": flag(
        "folder for the table (.md), every training (.json) and the plot (.png)",
        cli.output_folder,
        "paper-results",
    ),
}


def make_parser() -> cli.Parser:
    """Make the parser of the flags."""
    return cli.Parser(
        prog="python -m d2l_autorec.paper",
        description="Repeat the experiments of the AutoRec paper on MovieLens 1M, in "
        "about two hours on 2 cores. Every training is saved as soon as it ends: "
        "the same command continues after an interruption.",
        groups={"data": cli.DATA, "study": STUDY, "output": cli.QUIET},
    )
