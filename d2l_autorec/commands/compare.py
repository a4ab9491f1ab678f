"""Compare AutoRec with simpler models: ``python -m d2l_autorec.compare``."""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..study import ALIASES, MODELS
from . import cli

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ..ratings import Ratings
    from ..study import Estimator, Score, Split

# What is compared without --models: the rest takes ten times as long, or more.
QUICK_MODELS = ["mean", "biases", "mf", "book", "autorec-early"]
_LAYOUT = ("columns", "encoding", "duplicates", "rating_offset")
_READING = ("ratings", "test_ratings", *_LAYOUT)
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        By default the process's own arguments.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    cli.show_notes(args.quiet)
    _check_combination(parser, args)

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from tqdm import tqdm

    from .. import study
    from ..errors import TrainingDiverged
    from ..loop import try_all_gpus
    from ..ratings import label
    from ..serving import versions

    try:
        contenders = {one.name: one for one in map(study.Contender.parse, args.models)}
    except ValueError as error:
        parser.error(f"argument --models: {error}")
    ratings, parts = _load(args)
    ratings.check_varied(parts[0] if parts else None)
    if not args.quiet:
        print(ratings.summary())
    devices = try_all_gpus()
    models: dict[str, Estimator] = {
        name: contender.make(ratings, devices) for name, contender in contenders.items()
    }
    titles = {
        name: ", ".join(filter(None, [model.title, contenders[name].given]))
        for name, model in models.items()
    }

    settings = {name: model.settings for name, model in models.items()}
    scores: dict[str, list[Score]] = {name: [] for name in models}
    runs, cold, protocol = [], [], None
    predictions: list[pd.DataFrame] = []
    # Other data have no figures of the book to compare with, whatever their name.
    books = ratings.name == "ml-100k" and not args.ratings
    mf = models.get("mf") if books else None
    num_folds = _num_folds(args.splits)
    fixed = parts or num_folds > 1  # whatever the seed
    seeds = args.seeds or list(range(1 if fixed else 5))
    num_runs = len(seeds) * num_folds
    if parts:
        splits = iter([study.Split(f"seed {n}", n, ratings, *parts) for n in seeds])
    else:
        splits = study.make_splits(ratings, args.splits, seeds, args.data_dir)
    with tqdm(
        total=num_runs * len(models) + (mf is not None),
        unit="model",
        disable=args.quiet,
    ) as bar:
        for run in splits:
            runs.append(run.name)
            cold.append({**run.cold(), "ratings": run.num_cold_ratings()})
            table = _held_out(run)
            for name, model in models.items():
                doing = f"{run.name}, {titles[name]}"
                bar.set_postfix_str(doing)

                def tick(epoch: int, doing: str = doing) -> None:
                    at = f"epoch {epoch}" if epoch else "preparing"
                    bar.set_postfix_str(f"{doing}, {at}")

                try:
                    scores[name].append(study.score(model, run, tick, args.ranking))
                except TrainingDiverged as error:
                    raise TrainingDiverged(f"{doing}: {error}") from None
                if args.predictions:
                    predicted = model.predict(run.test_rows)
                    table[name] = predicted - ratings.rating_offset
                bar.update()
            if args.predictions:
                predictions.append(table)
        if isinstance(mf, study.BookMF):
            bar.set_postfix_str("the book's own protocol for its MF")
            protocol = study.book_protocol(mf, ratings, seeds[0])
            bar.update()

    noun = "seeds" if len(seeds) > 1 else "seed"
    split = f"tested on {args.test_ratings}" if parts else f"{args.splits} split"
    size = ratings.num_users, ratings.num_items, ratings.num_ratings
    name = label(ratings.name, size)
    where = f"{name}, {split}, {noun} {study.span(seeds)}"
    report = "\n\n".join(
        [
            f"{where}:",
            study.results_table(scores, titles),
            _notes(scores, models, titles, dict(zip(runs, cold))),
            *([_protocol_note(protocol, seeds[0])] if protocol else []),
            _provenance(ratings.name, args, seeds),
        ]
    )
    found = {
        "dataset": ratings.name,
        "data": study.fingerprint(ratings),
        "reading": {name: getattr(args, name) for name in _READING}
        if args.ratings
        else None,
        "splits": args.test_ratings or args.splits,
        "seeds": seeds,
        "clipped": [name for name, model in models.items() if model.clips],
        "runs": [{"name": n, "cold": c} for n, c in zip(runs, cold)],
        "models": {
            name: {
                "title": titles[name],
                "settings": settings[name],
                "scores": [s._asdict() for s in scores[name]],
            }
            for name, model in models.items()
        },
        "book_protocol": protocol,
        "devices": [str(device) for device in devices],
        "versions": versions(),
    }
    spreads = ", mean and standard deviation" if num_runs > 1 else ""
    curves = {titles[name]: scored for name, scored in scores.items()}
    try:
        _write_files(args, found, predictions, report, curves, f"{where}{spreads}")
    finally:
        print(report)


def _held_out(run: Split) -> pd.DataFrame:
    """List the held-out ratings of a run, in the unit of the file."""
    table = run.ratings.frame(run.test_rows)[["user_id", "item_id", "rating"]]
    table.insert(0, "run", run.name)
    table.insert(1, "seed", run.seed)
    return table


def _write_files(
    args: argparse.Namespace,
    found: dict[str, Any],
    predictions: list[pd.DataFrame],
    report: str,
    scores: dict[str, list[Score]],
    title: str,
) -> None:
    from ..serving import save_figure, save_tables, save_text
    from ..study import comparison_chart

    if args.json:
        text = json.dumps(found, indent=2, default=_plain, allow_nan=False)
        save_text(text + "\n", args.json)
    if args.predictions:
        save_tables(predictions, args.predictions)
    if args.markdown:
        _write_between_markers(args.markdown, report)
    if args.plot:
        figure = comparison_chart(
            {model: [s.rmse for s in scored] for model, scored in scores.items()},
            {model: [s.curve for s in scored] for model, scored in scores.items()},
        )
        figure.suptitle(title)
        save_figure(figure, args.plot)


def _check_combination(parser: cli.Parser, args: argparse.Namespace) -> None:
    if args.ratings and (args.dataset or args.data_dir):
        parser.error("--ratings excludes --dataset and --data-dir")
    for flag in ("test_ratings", *_LAYOUT):
        given = getattr(args, flag) != parser.get_default(flag)
        if given and not args.ratings:
            flag = flag.replace("_", "-")
            parser.error(f"--{flag} is for a file that --ratings names")
    if args.test_ratings and args.splits != parser.get_default("splits"):
        parser.error("--test-ratings is the test part: --splits cannot choose another")


def _load(
    args: argparse.Namespace,
) -> tuple[Ratings, tuple[np.ndarray, np.ndarray] | None]:
    """Load the ratings; and their parts, if the test part is a file of its own."""
    from ..ratings import read_parts, read_ratings

    if not args.ratings:
        files = args.markdown, args.plot, args.json, args.predictions
        return cli.load_ratings(args.dataset, args.data_dir, *files), None
    layout = {name: getattr(args, name) for name in _LAYOUT}
    if args.test_ratings:
        ratings, *parts = read_parts(args.ratings, args.test_ratings, **layout)
        return ratings, (parts[0], parts[1])
    return read_ratings(args.ratings, **layout), None


def _num_folds(splits: str) -> int:
    """Count the runs that each seed makes."""
    if splits.endswith("-fold"):
        return int(splits[: -len("-fold")])
    return 5 if splits == "u1-u5" else 1


def _notes(
    scores: Mapping[str, list[Score]],
    models: Mapping[str, Estimator],
    titles: Mapping[str, str],
    cold: Mapping[str, dict[str, Any]],
) -> str:
    """Say what the numbers stand for, and what happened to cold users and items."""
    clipped = [titles[name] for name, model in models.items() if model.clips]
    lines = [
        "RMSE and MAE are pooled over all held-out ratings of a run, mean ± standard "
        "deviation over the runs. No prediction is clipped to the rating scale"
        f"{', but for those of ' + _listed(clipped) if clipped else ''}. "
        "Seconds are of training alone."
    ]
    if "mf" in models:
        lines.append(
            "Won: the runs, of all, in which a model's RMSE is below that of "
            f"{titles['mf']}."
        )
    if any(s.ranking for found in scores.values() for s in found):
        lines.append(
            "NDCG, recall and precision rank the held-out items of each user (protocol "
            "TestRatings of Bellogín et al., 2011); relevant are those rated at least "
            "the mean of the training ratings, and counted are users who have some."
        )
    if "autorec-early" in scores:
        epochs = ", ".join(str(len(s.curve)) for s in scores["autorec-early"])
        line = (
            f"Stopped early: {epochs} epochs, chosen on a tenth of the training "
            "ratings and then trained again on all of them"
        )
        if "book" in scores:
            pairs = list(zip(scores["autorec-early"], scores["book"]))
            won = sum(early.rmse < book.rmse for early, book in pairs)
            line += f"; below the book's AutoRec in {won} of {len(pairs)} runs"
        lines.append(line + ".")
    lines += [
        f"{titles[name]}: {chosen}; chosen on a tenth of the training ratings, then "
        "trained again on all of them."
        for name, found in scores.items()
        if (chosen := " | ".join(s.chosen for s in found if s.chosen))
    ]
    affected = {run: found for run, found in cold.items() if found["ratings"]}
    if not affected:
        return "\n".join([*lines, "No user or item of a test part is cold."])
    lines.append(
        "Cold in the test part (no training rating; `--json` names them), and scored "
        "all the same:"
    )
    for run, found in affected.items():
        counted = ", ".join(
            f"{len(found[noun])} {noun}" for noun in ("users", "items") if found[noun]
        )
        lines.append(f"- {run}: {counted}; {found['ratings']} ratings")
    lines.append("What the models predict there, from the lowest to the highest:")
    lines += [
        f"- {titles[name]}: {_predicted(found)}" for name, found in scores.items()
    ]
    return "\n".join(lines)


def _predicted(scores: Sequence[Score]) -> str:
    """Say what a model has predicted for cold users and for cold items, in all runs."""
    said = []
    for noun in ("users", "items"):
        if ranges := [score.cold[noun] for score in scores if noun in score.cold]:
            low, high = min(map(min, ranges)), max(map(max, ranges))
            ends = dict.fromkeys(f"{round(end, 2) + 0.0:.2f}" for end in (low, high))
            said.append(f"{' to '.join(ends)} for {noun}")
    return ", ".join(said)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _protocol_note(protocol: dict[str, float], seed: int) -> str:
    return (
        "Not comparable with the table: the book trains its MF on the seq-aware split "
        "(each user's newest rating is held out) and prints an average of running "
        f"averages, about 1.05. That protocol gives {protocol['averaged']:.3f} here "
        f"(seed {seed}); the pooled RMSE of the same training is "
        f"{protocol['pooled']:.3f}."
    )


def _provenance(dataset: str, args: argparse.Namespace, seeds: Sequence[int]) -> str:
    from ..study import provenance, span

    flags = ["--dataset", dataset]
    if args.ratings:
        flags = ["--ratings", args.ratings]
    for name in _LAYOUT:
        value = getattr(args, name)
        if value != _parser().get_default(name):
            shown = ",".join(value) if name == "columns" else str(value)
            flags += [f"--{name.replace('_', '-')}", shown]
    if args.test_ratings:
        flags += ["--test-ratings", args.test_ratings]
    else:
        flags += ["--splits", args.splits]
    flags += ["--seeds", span(seeds)]
    if args.ranking:
        flags.append("--ranking")
    if args.models != QUICK_MODELS:
        flags += ["--models", ",".join(args.models)]
    return f"{provenance('compare', flags)}."


def _write_between_markers(file: Path, report: str) -> None:
    """Put the report between the file's markers; a new file gets them too."""
    from ..serving import save_text

    text = file.read_text(encoding="utf-8") if file.is_file() else f"{BEGIN}{END}\n"
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    save_text(f"{before}{BEGIN}\n\n{report}\n\n{END}{after}", file)


def _plain(value: Any) -> Any:
    """Turn a NumPy number into Python's, for JSON."""
    return value.item()


def _models(text: str) -> list[str]:
    return list(dict.fromkeys(text.split(",")))


def _splits(text: str) -> str:
    if not re.fullmatch(r"random|seq-aware|u1-u5|([2-9]|[1-9]\d+)-fold", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not random, seq-aware, u1-u5, or such as 5-fold"
        )
    return text


def _markdown_file(text: str) -> Path:
    file = cli.output_file(text)
    if file.is_file():
        try:
            _, begin, rest = file.read_text(encoding="utf-8").partition(BEGIN)
        except UnicodeDecodeError:
            raise argparse.ArgumentTypeError(f"{file} is not UTF-8") from None
        if not begin or END not in rest:
            raise argparse.ArgumentTypeError(
                f"{file} exists and has no lines {BEGIN} and {END} to write between"
            )
    return file


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m d2l_autorec.compare",
        description="Compare AutoRec with simpler models: each is trained on the same "
        "splits with the same seeds, and scored on the same held-out ratings. Without "
        "flags: five random splits of MovieLens 100K, about three minutes on 2 cores.",
    )
    cli.add_data_flags(parser)
    cli.add_ratings_flags(parser)
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--models",
        type=_models,
        default=",".join(QUICK_MODELS),
        metavar="LIST",
        help=f"some of {', '.join([*MODELS, *ALIASES])}; with settings as in "
        "book:num_hidden=200:lr=0.001; of several values, as in book:wd=1e-5/1e-4, a "
        "tenth of the training ratings chooses",
    )
    group.add_argument(
        "--splits",
        type=_splits,
        default="random",
        metavar="SPLITS",
        help="what is held out: a random tenth, anew for each seed (random); each "
        "user's newest rating (seq-aware); the five folds that come with ml-100k, one "
        "after the other (u1-u5); or each of N random parts in its turn (5-fold, ...)",
    )
    group.add_argument(
        "--test-ratings",
        metavar="FILE",
        help="hold this file out, which is like that of --ratings",
    )
    group.add_argument(
        "--ranking",
        action="store_true",
        help="also NDCG@10, recall@10 and precision@10 of each user's held-out items",
    )
    group.add_argument(
        "--seeds",
        type=cli.seeds,
        metavar="LIST",
        help="such as 0-4 or 0,3,7: of the random splits, and of the models (default: "
        "0-4; with folds, all of which each seed goes through, or --test-ratings, 0)",
    )
    output = cli.add_output_flags(
        parser,
        plot="draw the errors and the learning curves",
        json="write every score and every learning curve, with data, settings and "
        "versions",
    )
    output.add_argument(
        "--predictions",
        type=cli.output_file,
        metavar="FILE",
        help="write each held-out rating of each run and every model's prediction of "
        "it, as Parquet if FILE ends in .parquet, else as CSV",
    )
    output.add_argument(
        "--markdown",
        type=_markdown_file,
        metavar="FILE",
        help="write the report; into an existing file, between its lines "
        f"{BEGIN} and {END}",
    )
    return parser
