"""Compare AutoRec with simpler models: ``python -m d2l_autorec.compare``."""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import cli

if TYPE_CHECKING:
    from ..study import Estimator, Score

# What --models calls them, and their classes.
MODELS = {
    "mean": "GlobalMean",
    "biases": "Biases",
    "mf": "BookMF",
    "autorec": "BookAutoRec",
    "autorec-early": "EarlyStoppedAutoRec",
    "autorec-best": "BestAutoRec",
}
# What is compared without --models: the last one takes ten times as long as the rest.
QUICK_MODELS = list(MODELS)[:-1]
BEGIN, END = "<!-- compare:begin -->", "<!-- compare:end -->"


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Parameters
    ----------
    argv : sequence of str, optional
        By default the process's own arguments.
    """
    args = _parser().parse_args(argv)
    seeds = args.seeds or ([0] if args.splits == "u1-u5" else list(range(5)))

    # Only now, so that --help and a bad flag need not wait for MXNet.
    from tqdm import tqdm

    from .. import study
    from .._mxnet import mx
    from ..loop import try_all_gpus
    from ..ratings import label
    from ..serving import save_figure, save_text

    ratings = cli.load_ratings(
        args.dataset, args.data_dir, args.markdown, args.plot, args.json
    )
    if not args.quiet:
        print(ratings.summary())
    devices = try_all_gpus()
    models: dict[str, Estimator] = {
        name: getattr(study, MODELS[name])(ratings, devices) for name in args.models
    }
    titles = {name: model.title for name, model in models.items()}

    scores: dict[str, list[Score]] = {name: [] for name in models}
    runs, cold, protocol = [], [], None
    mf = models.get("mf") if "timestamp" in ratings.data else None
    num_runs = len(seeds) * (5 if args.splits == "u1-u5" else 1)
    with tqdm(
        total=num_runs * len(models) + (mf is not None),
        unit="model",
        disable=args.quiet,
    ) as bar:
        for run in study.make_splits(ratings, args.splits, seeds, args.data_dir):
            runs.append(run.name)
            cold.append({**run.cold(), "ratings": run.num_cold_ratings()})
            for name, model in models.items():
                doing = f"{run.name}, {model.title}"
                bar.set_postfix_str(doing)

                def tick(epoch: int, doing: str = doing) -> None:
                    at = f"epoch {epoch}" if epoch else "preparing"
                    bar.set_postfix_str(f"{doing}, {at}")

                scores[name].append(study.score(model, run, tick))
                bar.update()
        if isinstance(mf, study.BookMF):
            bar.set_postfix_str("the book's own protocol for its MF")
            protocol = study.book_protocol(mf, ratings, seeds[0])
            bar.update()

    noun = "seeds" if len(seeds) > 1 else "seed"
    size = ratings.num_users, ratings.num_items, len(ratings.data)
    name = label(ratings.name, size)
    where = f"{name}, {args.splits} split, {noun} {study.span(seeds)}"
    report = "\n\n".join(
        [
            f"{where}:",
            study.results_table(scores, titles),
            _notes(scores, models, dict(zip(runs, cold))),
            *([_protocol_note(protocol, seeds[0])] if protocol else []),
            _provenance(ratings.name, args, seeds),
        ]
    )
    try:
        if args.json:
            found = {
                "dataset": ratings.name,
                "splits": args.splits,
                "seeds": seeds,
                "clipped": [name for name in models if name == "autorec-best"],
                "runs": [{"name": n, "cold": c} for n, c in zip(runs, cold)],
                "models": {
                    name: {
                        "title": model.title,
                        "cold": model.cold,
                        "scores": [s._asdict() for s in scores[name]],
                    }
                    for name, model in models.items()
                },
                "book_protocol": protocol,
                "versions": {
                    "python": platform.python_version(),
                    "mxnet": mx.__version__,
                },
            }
            save_text(json.dumps(found, indent=2, default=_plain) + "\n", args.json)
        if args.markdown:
            _write_between_markers(args.markdown, report)
        if args.plot:
            figure = study.comparison_chart(
                {
                    titles[name]: [s.rmse for s in found]
                    for name, found in scores.items()
                },
                {
                    titles[name]: [s.curve for s in found]
                    for name, found in scores.items()
                },
            )
            spreads = ", mean and standard deviation" if num_runs > 1 else ""
            figure.suptitle(f"{where}{spreads}")
            save_figure(figure, args.plot)
    finally:
        print(report)


def _notes(
    scores: dict[str, list[Score]],
    models: dict[str, Estimator],
    cold: dict[str, dict[str, Any]],
) -> str:
    """Say what the numbers stand for, and what happened to cold users and items."""
    lines = [
        "RMSE and MAE are pooled over all held-out ratings of a run, mean ± standard "
        f"deviation over the runs. No prediction is clipped to the rating scale"
        f"{', but for those of AutoRec (best)' if 'autorec-best' in scores else ''}. "
        "Seconds are of training alone."
    ]
    if "autorec-early" in scores:
        epochs = ", ".join(str(len(s.curve)) for s in scores["autorec-early"])
        line = (
            f"Stopped early: {epochs} epochs, chosen on a tenth of the training "
            "ratings and then trained again on all of them"
        )
        if "autorec" in scores:
            pairs = list(zip(scores["autorec-early"], scores["autorec"]))
            won = sum(early.rmse < book.rmse for early, book in pairs)
            line += f"; below the book's AutoRec in {won} of {len(pairs)} runs"
        lines.append(line + ".")
    lines.append("Cold in the test part (no training rating), and scored all the same:")
    for run, found in cold.items():
        counted = ", ".join(
            f"{len(found[noun])} {noun}{_named(found[noun])}"
            for noun in ("users", "items")
        )
        lines.append(f"- {run}: {counted}; {found['ratings']} ratings")
    lines.append("What the models predict there:")
    lines += [f"- {model.title}: {model.cold}" for model in models.values()]
    return "\n".join(lines)


def _named(ids: Sequence[Any]) -> str:
    if not ids:
        return ""
    return f" ({', '.join(map(str, ids[:5]))}{', ...' if len(ids) > 5 else ''})"


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

    flags = ["--dataset", dataset, "--splits", args.splits]
    flags += ["--seeds", span(seeds)]
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
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in MODELS]:
        raise argparse.ArgumentTypeError(
            f"{unknown[0]!r} is not one of {', '.join(MODELS)}"
        )
    return names


def _markdown_file(text: str) -> Path:
    file = cli.output_file(text)
    if file.is_file():
        _, begin, rest = file.read_bytes().decode(errors="replace").partition(BEGIN)
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
    group = parser.add_argument_group("comparison")
    group.add_argument(
        "--models",
        type=_models,
        default=",".join(QUICK_MODELS),
        metavar="LIST",
        help=f"some of {', '.join(MODELS)}",
    )
    group.add_argument(
        "--splits",
        choices=("random", "seq-aware", "u1-u5"),
        default="random",
        help="what is held out: a random tenth, anew for each seed; each user's newest "
        "rating; or the five folds that come with ml-100k, one after the other",
    )
    group.add_argument(
        "--seeds",
        type=cli.seeds,
        metavar="LIST",
        help="such as 0-4 or 0,3,7: of the random splits, and of the models (default: "
        "0-4; with u1-u5, where each seed goes through all folds, 0)",
    )
    output = cli.add_output_flags(
        parser,
        plot="draw the errors and the learning curves",
        json="write every score and every learning curve",
    )
    output.add_argument(
        "--markdown",
        type=_markdown_file,
        metavar="FILE",
        help="write the report; into an existing file, between its lines "
        f"{BEGIN} and {END}",
    )
    return parser
